"""A case study: what Original, Retrain and unlearned models of a comparison answer one user.

``results.jsonl`` says under which settings the models were made; their stages are loaded, and
nothing is trained. Whoever is asked for is shown, forgotten users as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from recbole.utils import init_seed

from recbole_e2urec import compat
from recbole_e2urec.casepage import Asked, Case, Recommended, case_page, case_text
from recbole_e2urec.data.loading import load_dataset
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment import Rows
from recbole_e2urec.jobs import Given
from recbole_e2urec.kept import Kept, KeptStage, NotKept, comparison_of, settings_of
from recbole_e2urec.methods import METHODS, method_of
from recbole_e2urec.model.prompting import titles_of
from recbole_e2urec.model.scorers import Adapted, Scorer, Stored
from recbole_e2urec.shown import RowNames, shown_prompt
from recbole_e2urec.storage import write_text

PAGE = "case.html"  # inside checkpoint_dir


@dataclass(frozen=True)
class CaseOptions:
    """Who is looked at, and how closely.

    Attributes:
        user: as the data names the user.
        topk: how many items each model recommends.
        rows: how many rows of each part, the newest ones, are asked about.
        output_file: where the page goes; None = ``case.html`` in ``checkpoint_dir``.
    """

    user: str = field(default="", metadata={"text": True})
    topk: int = 10
    rows: int = 3
    output_file: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        if not self.user:
            raise InputError("case: which user? write --user=TOKEN")
        for name in ("topk", "rows"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; give 1 or more")


def study(options: CaseOptions, model: str | None, given: Given) -> Case:
    """Look at one user, and write the page.

    Args:
        options: who.
        model: the method to show; None = all of the comparison.
        given: settings. The newest comparison in ``checkpoint_dir`` that agrees with them is taken.

    Raises:
        InputError: there is no such comparison, a model of it is not kept, or the user is unknown.
    """
    compat.apply()
    rows, folder = comparison_of(model, given)
    config = settings_of(rows[-1], folder, given)
    init_seed(config["seed"], config["reproducibility"])
    run = Kept(config, load_dataset(config))
    if options.user not in run.dataset.ids.users:
        raise InputError(f"user {options.user!r} is no user of {config['dataset']}")
    run.train()
    adapter = run.model.adapter
    scorers: dict[str, Scorer] = {"Original": Adapted(adapter)}
    notes = []
    for row in rows:
        if row["model"] in METHODS and row["model"] != "Retrain":
            try:
                made = run.unlearn(method_of(settings_of(row, folder, given)))
                scorers[row["model"]] = run.scorers[made.stage]
            except NotKept as error:
                notes.append(f"{row['model']} is left out: {error}")
    retrain = KeptStage.of(run.stages, "Retrain", run.retrain.stage)
    scorers["Retrain"] = Stored(adapter, retrain.weights)
    case = _look(options, run, scorers, notes)
    page = Path(options.output_file or folder / PAGE)
    write_text(page, case_page(case))
    return case._replace(text=case_text(case), page=str(page))


class _Standing(NamedTuple):
    """A user's rows by part, each in order of time, and what became of the user."""

    parts: dict[str, Rows]
    word: str


def _look(options: CaseOptions, run: Kept, scorers: Mapping[str, Scorer], notes: list[str]) -> Case:
    """Ask all models about the user."""
    names = RowNames(run.config, run.dataset, titles_of(
        run.config, run.dataset, run.model.prompt_options
    ))  # fmt: skip
    standing = _standing(run, run.dataset.ids.users[options.user])
    words = run.model.language_model.answer_ids
    asked = []
    for part, rows in standing.parts.items():
        newest = rows[-options.rows :]
        history = run.before if part == "forget" else run.after
        with run.model.shown(history):
            said = {
                name: scorer.ask(run.model, newest).yes(words).tolist()
                for name, scorer in scorers.items()
            }
            asked += [
                Asked(
                    shown_prompt(row, part, run.model.table, names),
                    names.fields(row)[run.config["LABEL_FIELD"]],
                    {name: answers[place] for name, answers in said.items()},
                )
                for place, row in enumerate(newest.tolist())
            ]
    top = _top(options, run, scorers, standing.parts, names)
    return Case(options.user, standing.word, str(run.config["dataset"]), asked, top, notes)


def _standing(run: Kept, user: int) -> _Standing:
    """Rows of a user by part."""
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
        own = group[rows.user[group] == user]
        if len(own):
            parts[name] = own[np.lexsort((own, rows.time[own]))]
    if kept_out:
        return _Standing(parts, "kept out of all training (control user)")
    if "forget" not in parts:
        return _Standing(parts, "stays")
    return _Standing(parts, "partly forgotten" if "retain" in parts else "forgotten")


def _top(
    options: CaseOptions,
    run: Kept,
    scorers: Mapping[str, Scorer],
    parts: Mapping[str, Rows],
    names: RowNames,
) -> dict[str, list[Recommended]]:
    """What each model recommends, as a full ranking would at the user's first test row.

    Items of training and validation rows are left out. A user without test rows is asked as at the
    newest row there is.
    """
    table = run.dataset.rows
    own = np.concatenate([np.empty(0, np.int64), *parts.values()])
    if len(own) == 0:
        return {}
    test = parts.get("test", own[:0])
    row = test[0] if len(test) else own[np.lexsort((own, table.time[own]))][-1]
    seen = np.concatenate([own[:0], *(rows for name, rows in parts.items() if name != "test")])
    items = np.setdiff1d(np.arange(1, run.dataset.item_num), table.item[seen])
    liked = set(table.item[test[table.label[test] == 1]].tolist())
    words, top = run.model.language_model.answer_ids, {}
    with run.model.shown(run.after):
        for name, scorer in scorers.items():
            yes = scorer.ask(run.model, np.full(len(items), row), items).yes(words).cpu().numpy()
            best = np.argsort(-yes, kind="stable")[: options.topk]
            top[name] = [
                Recommended(names.item(item), names.titles[item], float(yes[place]), item in liked)
                for place, item in zip(best.tolist(), items[best].tolist(), strict=True)
            ]
    return top
