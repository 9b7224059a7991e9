"""``--show_prompts=N``: show the prompts of N training rows as models read them, without training.

The rows are drawn from those that stay after the request, with the histories that prompts show
after it. So nothing that is to be forgotten is shown, unless ``prompt_users`` names its users.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from recbole.utils import init_seed

from recbole_e2urec.config.config import Config
from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.data.prompt_table import PromptTable
from recbole_e2urec.data.templates import rating_text
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.run import Experiment, Rows
from recbole_e2urec.experiment.unlearning import Measuring
from recbole_e2urec.model.prompting import titles_of
from recbole_e2urec.utils import distributed
from recbole_e2urec.utils.html import SHEETS, printable
from recbole_e2urec.utils.io import write_text


class ShownPrompt(NamedTuple):
    """One row and its prompt.

    Attributes:
        fields: the row by RecBole's names of the fields.
        title: of the item in question.
        part: ``retain``, ``forget`` or ``control``.
        history: earlier rows that the prompt shows, oldest first: fields, and ``title``.
        cut: number of further rows that were cut to keep to ``max_prompt_tokens``.
        user_is_cut: whether the words about the user were cut as well.
        tokens: length of the prompt, special tokens included.
        text: the prompt before it became tokens.
    """

    fields: dict[str, str]
    title: str
    part: str
    history: list[dict[str, str]]
    cut: int
    user_is_cut: bool
    tokens: int
    text: str

    @property
    def length(self) -> str:
        """The length in tokens, and what was cut."""
        lost = [f"the {self.cut} oldest earlier rows"] if self.cut else []
        lost += ["the words about the user"] if self.user_is_cut else []
        return f"{self.tokens} tokens; cut: {' and '.join(lost) or 'nothing'}"


class RowNames:
    """The rows of a data set in readable form."""

    def __init__(self, config: Config, dataset: Any, titles: list[str]) -> None:
        self._config, self._dataset, self.titles = config, dataset, titles
        self._users, self._items = (
            {inner: token for token, inner in ids.items()}
            for ids in (dataset.ids.users, dataset.ids.items)
        )

    def fields(self, row: int) -> dict[str, str]:
        """Return the row's values by RecBole's field names, without fields that the data lack."""
        rows, name = self._dataset.rows, self._config
        values = {
            name["USER_ID_FIELD"]: self._users[int(rows.user[row])],
            name["ITEM_ID_FIELD"]: self._items[int(rows.item[row])],
            name["RATING_FIELD"]: rows.rating,
            name["LABEL_FIELD"]: rows.label,
            name["TIME_FIELD"]: rows.time if rows.has_time else None,
        }
        return {
            field: value if isinstance(value, str) else str(rating_text(value[row]))
            for field, value in values.items()
            if value is not None
        }

    def item(self, inner: int) -> str:
        """Token of an item."""
        return self._items[inner]

    def title(self, row: int) -> str:
        """Title of the row's item."""
        return self.titles[int(self._dataset.rows.item[row])]

    def seen(self, row: int) -> dict[str, str]:
        """Return the row as an entry of a user's history."""
        fields = self.fields(row)
        fields.pop(self._config["USER_ID_FIELD"])
        return {"title": self.title(row), **fields}


def shown_prompt(row: int, part: str, table: PromptTable, names: RowNames) -> ShownPrompt:
    """The prompt of a row in a table of prompts; ``part`` is the row's."""
    seen = table.seen(row)
    return ShownPrompt(
        names.fields(row),
        names.title(row),
        part,
        [names.seen(earlier) for earlier in seen.shown.tolist()],
        len(seen.cut),
        seen.user_is_cut,
        int(table.lengths(np.array([row]))[0]),
        table.text(row),
    )


PAGE = "prompts.html"  # inside the run's folder


@option_class()
class ShowOptions:
    """Which prompts are shown."""

    show_prompts: int = option(
        "Show the prompts of so many training rows, in the terminal and as a page, and end "
        "without training; 0 = train.",
        ge=0,
    )
    prompt_users: list[str | int] | str | int | None = option(
        "Users whose rows show_prompts shows, as the data names them, forgotten users too; ~ = "
        "rows drawn among those that stay."
    )

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        if self.prompt_users is not None and self.show_prompts == 0:
            raise InputError("prompt_users says whose prompts show_prompts shows; give both")

    @property
    def users(self) -> list[str]:
        """The tokens; text is taken apart at its commas."""
        tokens = self.prompt_users
        return [
            str(user) for user in (tokens if isinstance(tokens, list) else str(tokens).split(","))
        ]


def shown_prompts(config: Config) -> dict[str, Any]:
    """Load the data set of a run, and render prompts; nothing is trained.

    Raises:
        InputError: the model reads no prompts, or there are several processes.
    """
    if not config.is_language_model:
        raise InputError(f"show_prompts: {config.model} reads no prompts; name E2URec or LLMRec")
    if distributed.count() > 1:
        raise InputError("show_prompts: nothing is trained, by one process; leave nproc out")
    init_seed(config["seed"], config["reproducibility"])
    return show_prompts(config, load_dataset(config))


def show_prompts(config: Config, dataset: Any) -> dict[str, Any]:
    """Fill the template for some training rows, and write the page.

    Returns:
        ``prompts``, a :class:`ShownPrompt` a row; ``text``, the same for the terminal; ``page``,
        the file's name; and ``rows`` and ``groups``, empty, as nothing was trained.

    Raises:
        InputError: a user is unknown or has no training row.
    """
    options = config.options(ShowOptions)
    run = Measuring(config, dataset)
    rows = run.split.retain
    if options.prompt_users is not None:
        rows = _rows_of(options.users, run)
    generator = np.random.default_rng(config["seed"])
    rows = np.sort(generator.choice(rows, min(options.show_prompts, len(rows)), replace=False))
    before, after = map(run.model.table.with_history, (run.before, run.after))
    names = RowNames(config, dataset, titles_of(config, dataset, run.model.prompt_options))
    parts = {"forget": run.split.forget, "retain": run.split.retain, "control": run.parts.control}
    prompts = []
    for row in rows.tolist():
        part = next(name for name, members in parts.items() if row in members)
        prompts.append(shown_prompt(row, part, before if part == "forget" else after, names))
    head = _head(config, run)
    page = config.run_folder / PAGE
    write_text(page, _PAGE.render(head=head, prompts=prompts, name=config["dataset"]))
    text = _text(head, prompts)
    return {"prompts": prompts, "text": text, "page": str(page), "rows": [], "groups": {}}


def _rows_of(users: list[str], run: Experiment) -> Rows:
    """Training rows of these users, control users among them."""
    known, rows = run.dataset.ids.users, run.parts.whole.train
    for token in users:
        if token not in known:
            raise InputError(f"prompt_users: {token!r} is no user of {run.config['dataset']}")
    chosen: Rows = rows[np.isin(run.dataset.rows.user[rows], [known[token] for token in users])]
    if len(chosen) == 0:
        raise InputError("prompt_users: they have no training rows")
    return chosen


def _head(config: Config, run: Experiment) -> dict[str, str]:
    """Return the facts that apply to all prompts."""
    codec = run.model.language_model.codec
    answers = zip((config["answer_no"], config["answer_yes"]), codec.answer_ids, strict=True)
    head = {
        "prompt": str(config["prompt"]),
        "backbone": str(config["backbone"]),
        "history_length": str(config["history_length"]),
        "max_prompt_tokens": str(run.model.language_model.max_tokens),
        "answers": ", ".join(f"{word} (token {token})" for word, token in [*answers][::-1]),
    }
    around = {"before each prompt": codec.prefix_ids, "after each prompt": codec.suffix_ids}
    return {**head, **{name: codec.text(ids) for name, ids in around.items() if ids}}


def _text(head: Mapping[str, str], prompts: list[ShownPrompt]) -> str:
    lines = [f"{name}: {value}" for name, value in head.items()]
    for place, prompt in enumerate(prompts, start=1):
        lines += ["", f"row {place} of {len(prompts)}, {prompt.part}: {prompt.title}"]
        lines.append(_joined(prompt.fields))
        lines += [f"  seen: {_joined(earlier)}" for earlier in prompt.history]
        lines += [prompt.length, "-" * 60, prompt.text, "-" * 60]
    return printable("\n".join(lines))


def _joined(fields: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in fields.items())


_PAGE = SHEETS.from_string("""\
{% extends "sheet" %}
{% block of %}users{% endblock %}
{% block title %}Prompts: {{ name }}{% endblock %}
{% block body %}
<h1>Prompts of {{ name }}</h1>
<div class="wide"><table><tbody>
{% for key, value in head.items() %}
<tr><td>{{ key }}</td><td>{{ value }}</td></tr>
{% endfor %}
</tbody></table></div>
{% for prompt in prompts %}
<section>
<h2>{{ prompt.title }}</h2>
<div class="wide"><table><tbody>
{% for field, value in prompt.fields.items() %}
<tr><td>{{ field }}</td><td>{{ value }}</td></tr>
{% endfor %}
<tr><td>part</td><td>{{ prompt.part }}</td></tr>
<tr><td>length</td><td>{{ prompt.length }}</td></tr>
</tbody></table></div>
<h3>The history it shows, oldest first</h3>
{% if prompt.history %}
<div class="wide"><table><thead><tr>
{% for field in prompt.history[0] %}<th>{{ field }}</th>{% endfor %}
</tr></thead><tbody>
{% for earlier in prompt.history %}
<tr>{% for value in earlier.values() %}<td>{{ value }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% else %}
<p>none</p>
{% endif %}
<h3>The prompt, before it becomes tokens</h3>
<pre>{{ prompt.text }}</pre>
</section>
{% endfor %}
{% endblock %}
""")
