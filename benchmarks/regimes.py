"""Methods in several regimes: ``python -m benchmarks.regimes --ml_1m=DIR``.

The regimes are MovieLens-100k with the paper's prompt on tiny-t5 (a) and on tiny-llama (a-llama),
with user and item numbers in the prompt (b), and MovieLens 1M with the paper's prompt and rows (c).
``--ml_1m`` is the ``data_path`` with the folder ``ml-1m``, see docs/datasets.md; ``--only a b``
leaves it out. Requests name a fifth and a hundredth of the users (``--sizes``).

By default they are fresh requests: nothing was chosen on their users, nor under these seeds, and
usefulness is measured on test rows. ``--development`` measures the settings of
``benchmarks/candidates.yaml`` on requests of other users, under other seeds, on validation rows,
and names the best of each method; no test row is scored.

Rows are kept in ``regimes.jsonl`` in ``checkpoint_dir``, so the same command goes on where it was
killed, and several commands may measure different seeds at the same time. ``--report`` prints the
tables of what is there. Any ``--key=value`` is common to all runs.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recbole.utils import init_seed

from benchmarks.given import SWITCH, arguments_of, common_settings, config_of, filled
from benchmarks.regime_plot import frontier
from benchmarks.regime_tables import Place, best_of, table_of
from recbole_e2urec import __version__
from recbole_e2urec.cli import Arguments
from recbole_e2urec.config.yaml import properties, read_switch, read_yaml
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.data.request.selection import ForgetOptions, read_request
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.base import parts_of
from recbole_e2urec.experiment.development import development_request
from recbole_e2urec.experiment.unlearning import Forgetting
from recbole_e2urec.report.results import load_rows, save_answers, save_rows
from recbole_e2urec.utils.io import write_text

MARK = "regimes"
ROWS = "regimes.jsonl"
KEY = ("regime", "part", "size", "seed", "row")
FORGET_SEED = 8200  # of the fresh requests
SIZES = (0.2, 0.01)
SEEDS = {"fresh": (3001, 3002, 3003), "development": (2020, 2021, 2022)}
LAST = {
    "last_rows": 100000,
    "min_history": 5,
    "eval_args": {"split": {"RS": [0.6, 0.2, 0.2]}, "group_by": "none", "order": "TO"},
}
REGIMES: dict[str, tuple[str, Mapping[str, Any]]] = {
    "a": ("ml-100k, the paper's prompt", {"dataset": "ml-100k"}),
    "a-llama": (
        "ml-100k, the paper's prompt, tiny-llama",
        {"dataset": "ml-100k", "backbone": "tiny-llama"},
    ),
    "b": (
        "ml-100k, user and item numbers in the prompt",
        {"dataset": "ml-100k", "prompt": "numbered"},
    ),
    "c": ("ml-1m, the paper's prompt and rows", {"dataset": "ml-1m", **LAST}),
}
REFERENCES = ("Original", "Retrain")
Row = dict[str, Any]


class Candidate(NamedTuple):
    """A line of the tables: a method and its settings."""

    model: str
    settings: Mapping[str, Any]


class Task(NamedTuple):
    """What the command line asks for."""

    own: argparse.Namespace
    arguments: Arguments
    given: Mapping[str, Any]
    candidates: Mapping[str, Candidate]

    @property
    def part(self) -> str:
        """Which requests and seeds."""
        return "development" if self.own.development else "fresh"

    @property
    def folder(self) -> Path:
        """Where stages, rows and answers are kept."""
        return Path(self.given.get("checkpoint_dir", "saved"))

    def settings(self, regime: str, seed: int) -> dict[str, Any]:
        """Settings of all runs of a regime under a seed."""
        own = dict(REGIMES[regime][1])
        if regime == "c" and self.own.ml_1m:
            own["data_path"] = str(self.own.ml_1m)
        if self.own.small:  # one made-up data set stands for all
            own = {key: own[key] for key in ("prompt", "backbone") if key in own}
        largest = max(self.own.sizes)
        return {
            "forget_seed": FORGET_SEED,
            "forget_ratio": largest,
            **own,
            **self.given,
            "seed": seed,
        }

    def digest(self, regime: str, row: str) -> str:
        """Names all that decides a row but its request and seed."""
        settings = self.settings(regime, 0)
        decided = {k: v for k, v in settings.items() if k not in ("data_path", "checkpoint_dir")}
        own = self.candidates.get(row, Candidate(row, {}))
        defaults = [properties("model", name) for name in ("LLMRec", own.model)]
        text = json.dumps([decided, own, defaults, __version__], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def main() -> None:
    """Measure what is missing, and print a table of each regime and size."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add_common(parser)
    parser.add_argument("--development", help="choose settings; no test row", **SWITCH)
    parser.add_argument("--report", help="measure nothing", **SWITCH)
    parser.add_argument("--rows", nargs="+", help="candidates by name; without it, all")
    parser.add_argument("--candidates", type=Path, help="a yaml file of them")
    parser.add_argument("--plot", type=Path, help="draw closed against its costs, as this SVG")
    own, arguments = arguments_of(parser, MARK)
    own.development = read_switch(own.development, "development")
    own.report = read_switch(own.report, "report")
    checked_ml_1m(own)
    with common_settings(own, arguments) as given:
        task = Task(own, arguments, given, _candidates(own))
        own.seeds = own.seeds or SEEDS[task.part]
        for regime in own.only if not own.report else ():
            for seed in own.seeds:
                _measure(task, regime, seed)
        rows = _known(task)
        tables = "\n\n".join(_tables(task, rows))
        if own.plot:
            names = (*REFERENCES, *task.candidates)
            write_text(own.plot, frontier(rows, names, task.folder))
    print(tables)
    if own.write:
        own.write.write_text(filled(own.write, MARK, tables), encoding="utf-8")


def add_common(parser: argparse.ArgumentParser) -> None:
    """Arguments that say which runs."""
    parser.add_argument("--only", nargs="+", choices=REGIMES, default=list(REGIMES))
    parser.add_argument("--sizes", nargs="+", type=float, default=SIZES, help="shares of the users")
    parser.add_argument("--seeds", nargs="+", type=int, help="of the models")
    parser.add_argument("--ml_1m", type=Path, help="data_path with the folder ml-1m")


def checked_ml_1m(own: argparse.Namespace) -> None:
    """Refuse to go on where regime (c) is wanted and its data are not there.

    Raises:
        InputError: says how to get them, or how to go on without.
    """
    if "c" in own.only and not own.small and not (own.ml_1m and (own.ml_1m / "ml-1m").is_dir()):
        raise InputError(
            f"--ml_1m: no folder ml-1m in {own.ml_1m}; make it as docs/datasets.md says and give "
            "its parent, or give --only a b"
        )


def _candidates(own: argparse.Namespace) -> dict[str, Candidate]:
    """The lines of the tables, from the file.

    Raises:
        InputError: ``--rows`` names one that is not there.
    """
    name = "candidates.yaml" if own.development else "methods.yaml"
    told = read_yaml(own.candidates or Path(__file__).with_name(name))
    found = {
        row: Candidate(settings["model"], {k: v for k, v in settings.items() if k != "model"})
        for row, settings in told.items()
    }
    unknown = [row for row in own.rows or () if row not in found]
    if unknown:
        raise InputError(f"--rows: {unknown[0]} is not there; choose from {', '.join(found)}")
    return {row: found[row] for row in own.rows or found}


def _measure(task: Task, regime: str, seed: int) -> None:
    """Measure what is missing of a regime under a seed; every size shares one Original."""
    settings = task.settings(regime, seed)
    path = task.folder / ROWS
    known = {tuple(row[name] for name in KEY): row["decided_by"] for row in load_rows(path)}
    missing = {
        size: [
            row
            for row in (*REFERENCES, *task.candidates)
            if known.get((regime, task.part, size, seed, row)) != task.digest(regime, row)
        ]
        for size in task.own.sizes
    }
    if not any(missing.values()):
        return
    for size, run in runs_of(task, settings, [size for size in missing if missing[size]]):
        for name in missing[size]:
            row = _row(run, task, name, settings)
            place = {"regime": regime, "part": task.part, "size": size, "row": name}
            digest = task.digest(regime, name)
            row |= {**place, "decided_by": digest, "dataset": run.config["dataset"], "seed": seed}
            save_answers(path.parent, row, run.forget_answers[name, row["stage"]])
            save_rows(path, [row], KEY)
            print(
                f"{regime}, {size:.0%}, seed {seed}, {name}: forget AUC "
                f"{row['forget']['auc']:.4f}, LogLoss {row['forget']['logloss']:.4f}, users who "
                f"stay {row['heldout_other_users']['auc']:.4f}; {row['cost']['seconds']:.1f} s",
                flush=True,
            )


def runs_of(
    task: Task, settings: Mapping[str, Any], sizes: Sequence[float]
) -> Iterator[tuple[float, Forgetting]]:
    """A run of each size, Original and Retrain trained; smaller requests lie in the larger."""
    config = config_of(settings, task.arguments)
    init_seed(config["seed"], config["reproducibility"])
    dataset = load_dataset(config)
    train = parts_of(config, dataset).splits.train
    largest = max(task.own.sizes)
    lines: list[tuple[str, ...]] = []
    if task.own.development:
        _, lines = development_request(config, dataset)

    def asked(size: float) -> Any:
        own = config.with_settings({"forget_ratio": size})
        if lines:
            folder = Path(config["checkpoint_dir"])
            path = folder / f"development-{config['dataset']}-{size:g}.csv"
            count = max(1, round(len(lines) * size / largest))
            write_text(path, "user_id\n" + "".join(f"{user}\n" for (user,) in lines[:count]))
            own = config.with_settings({"forget_file": str(path)})
        return read_request(own.options(ForgetOptions, "forget_"), train, dataset)

    validating = asked(largest).split.retain
    held_out = "valid" if task.own.development else "test"
    for size in sizes:
        init_seed(config["seed"], config["reproducibility"])
        run = Forgetting(config, dataset, held_out, asked(size), validating)
        run.groups = run.groups._replace(retain=run.split.forget[:0])  # no figure is of these
        run.train()
        yield size, run


def _row(run: Forgetting, task: Task, name: str, settings: Mapping[str, Any]) -> Row:
    if name in REFERENCES:
        return run.measured(name, run.original if name == "Original" else run.retrain)
    own = task.candidates[name]
    config = config_of({**settings, **own.settings}, task.arguments._replace(model=own.model))
    row = run.unlearned_row(config)
    run.forget_answers[name, row["stage"]] = run.forget_answers[own.model, row["stage"]]
    return row


def _known(task: Task) -> dict[Place, list[Row]]:
    """The rows that are there and were made by these settings, by regime and size."""
    names = (*REFERENCES, *task.candidates)
    order = [(regime, size) for regime in task.own.only for size in task.own.sizes]
    found: dict[Place, list[Row]] = {place: [] for place in order}
    for row in load_rows(task.folder / ROWS):
        regime, part, size, seed, name = (row[key] for key in KEY)
        if (
            part == task.part and (regime, size) in found and seed in task.own.seeds
            and name in names and row["decided_by"] == task.digest(regime, name)
        ):  # fmt: skip
            found[regime, size].append(row)
    return {place: rows for place, rows in found.items() if rows}


def _tables(task: Task, rows: Mapping[Place, list[Row]]) -> Iterator[str]:
    """A table of each regime and size, and what is best where settings are chosen."""
    for (regime, size), own in rows.items():
        title = f"({regime}) {REGIMES[regime][0]}; {size:.0%} of the users"
        yield f"**{title}**\n\n{table_of(own, (*REFERENCES, *task.candidates), task.folder)}"
    if task.own.development:
        models = {name: own.model for name, own in task.candidates.items()}
        yield best_of(rows, models, task.folder)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
