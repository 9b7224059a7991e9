"""A case study: what Original, Retrain and the unlearned models of a comparison answer one user.

``results.jsonl`` holds the settings of the models. Their stages are loaded, and nothing is trained.
Any user can be shown, including forgotten ones.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from recbole.utils import init_seed

from recbole_e2urec.config.config import RunSettings
from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.finished import (
    FinishedRun,
    FinishedStage,
    NotFinished,
    comparison_of,
    settings_of,
)
from recbole_e2urec.experiment.inspect_prompts import RowNames, ShownPrompt, shown_prompt
from recbole_e2urec.experiment.run import Rows
from recbole_e2urec.methods import METHODS, method_of
from recbole_e2urec.model.prompting import titles_of
from recbole_e2urec.model.scorers import Adapted, Scorer, Stored
from recbole_e2urec.report.tables import TextTable
from recbole_e2urec.utils import recbole_compat
from recbole_e2urec.utils.html import SHEETS, printable
from recbole_e2urec.utils.io import write_text

READING = (
    "Retrain never saw what is forgotten: an unlearned model should answer as Retrain does, not as "
    "Original."
)
HIT = "*"  # marks a recommended item that the user liked in the test part
ANSWERS = "P(yes) of the newest rows of each part"
RECOMMENDED = f"Recommended, with P(yes); {HIT} = liked in the test part"
PAGE = "case.html"  # inside the run's folder


class AnsweredRow(NamedTuple):
    """A row of data, and what each model answers to its prompt."""

    prompt: ShownPrompt
    label: str  # 1 = liked
    yes: dict[str, float]  # P(yes) by model


class Recommended(NamedTuple):
    """An item that a model recommends."""

    item: str  # its token
    title: str
    yes: float  # P(yes)
    hit: bool  # whether the user liked it in the test part


class Case(NamedTuple):
    """What the models answer one user.

    Attributes:
        user: the user's token in the data.
        standing: the user's status: forgotten, partly forgotten, stays, or kept out.
        dataset: name of the data set.
        rows: the newest rows of each part, with the models' answers.
        top: recommended items by model, the best first.
        notes: which models are missing, and why.
        text: the whole case for the terminal.
        page: file name of the page.
    """

    user: str
    standing: str
    dataset: str
    rows: list[AnsweredRow]
    top: dict[str, list[Recommended]]
    notes: list[str]
    text: str = ""
    page: str = ""


def case_text(case: Case) -> str:
    """Format the case for the terminal."""
    lines = [f"user {case.user} of {case.dataset}: {case.standing}", ""]
    lines += [ANSWERS, "", _answers(case).render(), "", READING, ""]
    if case.top:
        lines += [RECOMMENDED, "", _recommended(case).render(), ""]
    for row in case.rows:
        lines += [f"{row.prompt.part}, {row.prompt.title}: {row.prompt.length}", "-" * 60]
        lines += [row.prompt.text, "-" * 60]
    return printable("\n".join([*lines, *case.notes]))


def case_page(case: Case) -> str:
    """Render the case as an HTML page."""
    tables = [_answers(case), *([_recommended(case)] if case.top else [])]
    titles = ANSWERS, RECOMMENDED
    return _PAGE.render(case=case, tables=zip(titles, tables, strict=False), reading=READING)


def _answers(case: Case) -> TextTable:
    models = list(case.rows[0].yes) if case.rows else []
    lines = [
        [
            row.prompt.title,
            row.prompt.part,
            row.label,
            *(f"{row.yes[model]:.4f}" for model in models),
        ]
        for row in case.rows
    ]
    return TextTable(["item", "part", "label", *models], lines)


def _recommended(case: Case) -> TextTable:
    lists = list(case.top.values())
    lines = [
        [str(place + 1), *(_cell(column[place]) for column in lists)]
        for place in range(len(lists[0]))
    ]
    return TextTable(["", *case.top], lines)


def _cell(item: Recommended) -> str:
    return f"{item.title} {item.yes:.4f}{f' {HIT}' if item.hit else ''}"


_PAGE = SHEETS.from_string("""\
{% extends "sheet" %}
{% block of %}users{% endblock %}
{% block title %}User {{ case.user }} of {{ case.dataset }}{% endblock %}
{% block body %}
<h1>User {{ case.user }} of {{ case.dataset }}: {{ case.standing }}</h1>
<p>{{ reading }}</p>
{% for title, table in tables %}
<h2>{{ title }}</h2>
<div class="wide"><table><thead><tr>
{% for cell in table.header %}<th>{{ cell }}</th>{% endfor %}
</tr></thead><tbody>
{% for line in table.lines %}
<tr>{% for cell in line %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% endfor %}
{% for note in case.notes %}
<p class="note">{{ note }}</p>
{% endfor %}
<h2>Prompts</h2>
{% for row in case.rows %}
<h3>{{ row.prompt.part }}: {{ row.prompt.title }}</h3>
<p class="note">
{% for field, value in row.prompt.fields.items() %}
{{ field }} {{ value }},
{% endfor %}
{{ row.prompt.length }}
</p>
<pre>{{ row.prompt.text }}</pre>
{% endfor %}
{% endblock %}
""")


@option_class()
class CaseOptions:
    """Options of the command ``case``."""

    user: str = option("The user, as the data names the user.", default="", text=True)
    topk: int = option("How many items each model recommends.", ge=1, default=10)
    rows: int = option("How many rows of each part, the newest, are asked about.", ge=1, default=3)
    output_file: str | None = option(
        "Where the page goes; ~ = case.html in the run's folder.", default=None
    )

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        if not self.user:
            raise InputError("case: which user? write --user=TOKEN")


def inspect_user(options: CaseOptions, model: str | None, settings: RunSettings) -> Case:
    """Collect what the models answer one user, and write the page.

    Args:
        options: which user, and how much to show.
        model: the method to show; None: all methods of the comparison.
        settings: select the newest comparison in ``checkpoint_dir`` that agrees with them.

    Raises:
        InputError: there is no such comparison, Original or Retrain is no longer stored, or the
            user is unknown.
    """
    recbole_compat.apply()
    rows, folder = comparison_of(model, settings)
    config = settings_of(rows[-1], folder, settings)
    init_seed(config["seed"], config["reproducibility"])
    run = FinishedRun(config, load_dataset(config, examine=False))
    if options.user not in run.dataset.ids.users:
        raise InputError(
            f"user {options.user!r} is no user of {config['dataset']}; nothing is known about this "
            "user, whereas users whom the comparison's request names are shown as all others"
        )
    run.train()
    adapter = run.model.adapter
    scorers: dict[str, Scorer] = {"Original": Adapted(adapter)}
    notes = []
    for row in rows:
        if row["model"] in METHODS and row["model"] != "Retrain":
            try:
                measured = run.unlearn(method_of(settings_of(row, folder, settings)))
                scorers[row["model"]] = run.scorers[measured.stage]
            except NotFinished as error:
                notes.append(f"{row['model']} is left out: {error}")
    retrain = FinishedStage.of(run.stages, "Retrain", run.retrain.stage)
    scorers["Retrain"] = Stored(adapter, retrain.weights)
    case = _look(options, run, scorers, notes)
    page = Path(options.output_file or config.run_folder / PAGE)
    write_text(page, case_page(case))
    return case._replace(text=case_text(case), page=str(page))


class _Standing(NamedTuple):
    """A user's rows by part, each in order of time, and the user's status."""

    parts: dict[str, Rows]
    word: str


def _look(
    options: CaseOptions, run: FinishedRun, scorers: Mapping[str, Scorer], notes: list[str]
) -> Case:
    """Score the user's newest rows, and the items to recommend, by all models."""
    names = RowNames(run.config, run.dataset, titles_of(
        run.config, run.dataset, run.model.prompt_options
    ))  # fmt: skip
    standing = _standing(run, run.dataset.ids.users[options.user])
    words = run.model.language_model.answer_ids
    answered = []
    for part, rows in standing.parts.items():
        newest = rows[-options.rows :]
        history = run.before if part == "forget" else run.after
        with run.model.using_history(history):
            answers_of = {
                name: scorer.ask(run.model, newest).yes(words).tolist()
                for name, scorer in scorers.items()
            }
            answered += [
                AnsweredRow(
                    shown_prompt(row, part, run.model.table, names),
                    names.fields(row)[run.config["LABEL_FIELD"]],
                    {name: answers[place] for name, answers in answers_of.items()},
                )
                for place, row in enumerate(newest.tolist())
            ]
    top = _top(options, run, scorers, standing.parts, names)
    return Case(options.user, standing.word, str(run.config["dataset"]), answered, top, notes)


def _standing(run: FinishedRun, user: int) -> _Standing:
    """Return a user's rows by part, and the user's status."""
    rows, splits = run.dataset.rows, run.parts.whole
    kept_out = np.isin(user, rows.user[run.parts.control]).item()
    groups = {
        "forget": run.split.forget,
        "retain": run.split.retain,
        "control": run.parts.control,
        "valid": splits.valid,
        "test": splits.test,
    }
    parts = {}
    for name, group in groups.items():
        of_user = group[rows.user[group] == user]
        if len(of_user):
            parts[name] = of_user[np.lexsort((of_user, rows.time[of_user]))]
    if kept_out:
        return _Standing(parts, "kept out of all training (control user)")
    if "forget" not in parts:
        return _Standing(parts, "stays")
    return _Standing(parts, "partly forgotten" if "retain" in parts else "forgotten")


def _top(
    options: CaseOptions,
    run: FinishedRun,
    scorers: Mapping[str, Scorer],
    parts: Mapping[str, Rows],
    names: RowNames,
) -> dict[str, list[Recommended]]:
    """Return what each model recommends, by a full ranking at the user's first test row.

    Items of training and validation rows are left out. For a user without test rows, the ranking is
    at the newest row instead.
    """
    table = run.dataset.rows
    of_user = np.concatenate([np.empty(0, np.int64), *parts.values()])
    if len(of_user) == 0:
        return {}
    test = parts.get("test", of_user[:0])
    row = test[0] if len(test) else of_user[np.lexsort((of_user, table.time[of_user]))][-1]
    seen = np.concatenate([of_user[:0], *(rows for name, rows in parts.items() if name != "test")])
    items = np.setdiff1d(np.arange(1, run.dataset.item_num), table.item[seen])
    liked = set(table.item[test[table.label[test] == 1]].tolist())
    words, top = run.model.language_model.answer_ids, {}
    with run.model.using_history(run.after):
        for name, scorer in scorers.items():
            yes = scorer.ask(run.model, np.full(len(items), row), items).yes(words).cpu().numpy()
            best = np.argsort(-yes, kind="stable")[: options.topk]
            top[name] = [
                Recommended(names.item(item), names.titles[item], float(yes[place]), item in liked)
                for place, item in zip(best.tolist(), items[best].tolist(), strict=True)
            ]
    return top
