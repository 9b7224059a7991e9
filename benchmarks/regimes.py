"""Comparison of methods in several regimes: ``python -m benchmarks.regimes --ml_1m=DIR``.

The regimes are MovieLens-100k with the paper's prompt on tiny-t5 (a) and on tiny-llama (a-llama),
with user and item numbers in the prompt (b), and MovieLens 1M with the paper's prompt and rows (c).
``--ml_1m`` is the ``data_path`` that contains the folder ``ml-1m``; see docs/how-to/own-data.md.
``--only a b`` leaves this regime out. Requests name a fifth and a hundredth of the users
(``--sizes``).

By default the requests are fresh: no setting was chosen on their users or with these seeds. Utility
is measured on test rows. ``--development`` measures more settings, also of
``benchmarks/methods.yaml``, on requests of other users, with other seeds, on validation rows. It
then marks the best settings of each method. No test row is scored.

Rows are saved in ``regimes.jsonl`` in ``checkpoint_dir``. If the benchmark is killed, the same
command continues it, and several commands can measure different seeds at the same time.
``--report`` only prints the tables of the saved rows. ``--who_pays`` prints instead what users who
stay lose, in fifths by activity, and items in fifths by popularity. ``--three_sample`` prints which
rows are nearer to Retrain than to Original, and how often this test says so of models of which it
is known; rows of other versions count, too. Any ``--key=value`` applies to all runs.

Without a GPU, seconds are CPU seconds of this process, so other work on the machine does not count.
"""

import argparse
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from recbole.utils import init_seed

from benchmarks.common import (
    SWITCH,
    common_settings,
    config_of,
    cpu_clock,
    parse_options,
    publish,
    run_main,
)
from benchmarks.regime_report import (
    Cell,
    Users,
    best_of,
    frontier,
    payers_of,
    table_of,
    truth_table,
    verdict_table,
)
from recbole_e2urec import __version__
from recbole_e2urec.cli import Arguments
from recbole_e2urec.config.config import Config
from recbole_e2urec.config.yaml import properties, read_switch, read_yaml
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.data.request.selection import ForgetOptions, ForgetRequest, read_request
from recbole_e2urec.errors import InputError
from recbole_e2urec.evaluator.over_seeds import LEAST_SEEDS
from recbole_e2urec.experiment.run import parts_of
from recbole_e2urec.experiment.tuning import development_request
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
    """The task that the command line describes.

    Attributes:
        options: options of the benchmark.
        arguments: settings of the runs, as typed.
        common: settings common to all runs.
        candidates: the lines of the tables besides Original and Retrain.
    """

    options: argparse.Namespace
    arguments: Arguments
    common: Mapping[str, Any]
    candidates: Mapping[str, Candidate]

    @property
    def part(self) -> str:
        """The kind of requests and seeds: ``development`` or ``fresh``."""
        return "development" if self.options.development else "fresh"

    @property
    def folder(self) -> Path:
        """The folder of stages, rows and answers."""
        return Path(self.common.get("checkpoint_dir", "saved"))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all lines of the tables."""
        return (*REFERENCES, *self.candidates)

    def settings(self, regime: str, seed: int) -> dict[str, Any]:
        """Return the settings of all runs of a regime with a seed."""
        _, settings = REGIMES[regime]
        if self.options.small:  # the same synthetic data in all regimes
            settings = {key: settings[key] for key in ("prompt", "backbone") if key in settings}
        elif regime == "c" and self.options.ml_1m:
            settings = {**settings, "data_path": str(self.options.ml_1m)}
        request = {"forget_seed": FORGET_SEED, "forget_ratio": max(self.options.sizes)}
        return {**request, **settings, **self.common, "seed": seed}

    def digest(self, regime: str, name: str) -> str:
        """Return a digest of all that determines a row except its request and seed."""
        settings = self.settings(regime, 0)
        decided = {k: v for k, v in settings.items() if k not in ("data_path", "checkpoint_dir")}
        candidate = self.candidates.get(name, Candidate(name, {}))
        defaults = [properties("model", model) for model in ("LLMRec", candidate.model)]
        text = json.dumps([decided, candidate, defaults, __version__], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def main() -> None:
    """Measure the missing rows, and print a table of each regime and size."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add_common(parser)
    parser.add_argument("--development", help="choose settings; no test row", **SWITCH)
    parser.add_argument("--report", help="measure nothing", **SWITCH)
    parser.add_argument("--who_pays", help="print who loses AUC", **SWITCH)
    parser.add_argument("--three_sample", help="print who is nearer to Retrain", **SWITCH)
    parser.add_argument("--rows", nargs="+", help="candidates by name; without it, all")
    parser.add_argument("--candidates", type=Path, help="a yaml file of them")
    parser.add_argument("--plot", type=Path, help="draw closed against its costs, as this SVG")
    options, arguments = parse_options(parser, MARK)
    for name in ("development", "report", "who_pays", "three_sample"):
        setattr(options, name, read_switch(getattr(options, name), name))
    options.report |= options.who_pays or options.three_sample
    require_ml_1m(options)
    with cpu_clock(), common_settings(options, arguments) as common:
        task = Task(options, arguments, common, _candidates(options))
        options.seeds = options.seeds or SEEDS[task.part]
        for regime in options.only if not options.report else ():
            for seed in options.seeds:
                _measure(task, regime, seed)
        rows = _known(task)
        tables = "\n\n".join((_three_sample if options.three_sample else _tables)(task, rows))
        if options.plot:
            write_text(options.plot, frontier(rows, task.names, task.folder))
    publish(tables, options, MARK)


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add the options that select the runs."""
    parser.add_argument("--only", nargs="+", choices=REGIMES, default=list(REGIMES))
    parser.add_argument("--sizes", nargs="+", type=float, default=SIZES, help="shares of the users")
    parser.add_argument("--seeds", nargs="+", type=int, help="of the models")
    parser.add_argument("--ml_1m", type=Path, help="data_path with the folder ml-1m")


def require_ml_1m(options: argparse.Namespace) -> None:
    """Refuse to run regime (c) without its data.

    Raises:
        InputError: the message says how to get the data, or how to run without them.
    """
    folder = options.ml_1m
    if "c" in options.only and not options.small and not (folder and (folder / "ml-1m").is_dir()):
        raise InputError(
            f"--ml_1m: no folder ml-1m in {folder}; make it as docs/how-to/own-data.md "
            "says and give its parent, or give --only a b"
        )


def _candidates(options: argparse.Namespace) -> dict[str, Candidate]:
    """Read the lines of the tables from the file.

    Raises:
        InputError: ``--rows`` names a line that the file lacks.
    """
    part = "development" if options.development else "fresh"
    named = options.candidates and read_yaml(options.candidates)
    lines = named or read_yaml(Path(__file__).with_name("methods.yaml"))[part]
    unknown = [name for name in options.rows or () if name not in lines]
    if unknown:
        raise InputError(f"--rows: {unknown[0]} is not there; choose from {', '.join(lines)}")
    return {
        name: Candidate(
            lines[name]["model"], {k: v for k, v in lines[name].items() if k != "model"}
        )
        for name in options.rows or lines
    }


def _measure(task: Task, regime: str, seed: int) -> None:
    """Measure the missing rows of a regime with a seed; all sizes share one Original."""
    path = task.folder / ROWS
    known = {tuple(row[key] for key in KEY): row["decided_by"] for row in load_rows(path)}
    digests = {name: task.digest(regime, name) for name in task.names}
    missing = {
        size: [
            name
            for name, digest in digests.items()
            if known.get((regime, task.part, size, seed, name)) != digest
        ]
        for size in task.options.sizes
    }
    sizes = [size for size in missing if missing[size]]
    if not sizes:
        return
    settings = task.settings(regime, seed)
    for size, run in runs_of(task, settings, sizes):
        for name in missing[size]:
            row = _row(run, task, name, settings)
            place = {"regime": regime, "part": task.part, "size": size, "row": name}
            dataset = run.config["dataset"]
            row |= {**place, "decided_by": digests[name], "dataset": dataset, "seed": seed}
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
    """Yield a trained run for each size; a larger request contains the smaller ones."""
    config, dataset, request = _requests(task, settings)
    validating = request(max(task.options.sizes)).split.retain
    held_out = "valid" if task.options.development else "test"
    for size in sizes:
        init_seed(config["seed"], config["reproducibility"])
        run = Forgetting(config, dataset, held_out, request(size), validating)
        run.groups = run.groups._replace(retain=run.split.forget[:0])  # no figure needs retain rows
        run.train()
        yield size, run


def _requests(
    task: Task, settings: Mapping[str, Any]
) -> tuple[Config, Any, Callable[[float], ForgetRequest]]:
    """Return the configuration, the data, and what gives the request of a size."""
    config = config_of(settings, task.arguments)
    init_seed(config["seed"], config["reproducibility"])
    dataset = load_dataset(config)
    train = parts_of(config, dataset).splits.train
    largest = max(task.options.sizes)
    lines: list[tuple[str, ...]] = []
    if task.options.development:
        _, lines = development_request(config, dataset)

    def request(size: float) -> ForgetRequest:
        forget: dict[str, Any] = {"forget_ratio": size}
        if lines:
            folder = Path(config["checkpoint_dir"])
            path = folder / f"development-{config['dataset']}-{size:g}.csv"
            count = max(1, round(len(lines) * size / largest))
            write_text(path, "user_id\n" + "".join(f"{user}\n" for (user,) in lines[:count]))
            forget = {"forget_file": str(path)}
        options = config.with_settings(forget).options(ForgetOptions)
        return read_request(options, train, dataset)

    return config, dataset, request


def _row(run: Forgetting, task: Task, name: str, settings: Mapping[str, Any]) -> Row:
    if name in REFERENCES:
        return run.measured(name, run.original if name == "Original" else run.retrain)
    model, more = task.candidates[name]
    config = config_of({**settings, **more}, task.arguments._replace(model=model))
    row = run.unlearned_row(config)
    run.forget_answers[name, row["stage"]] = run.forget_answers[model, row["stage"]]
    return row


def _known(task: Task) -> dict[Cell, list[Row]]:
    """Return the saved rows that were measured with these settings, by regime and size.

    With ``--three_sample``, they may have been measured with others.
    """
    options = task.options
    cells: dict[Cell, list[Row]] = {
        (regime, size): [] for regime in options.only for size in options.sizes
    }
    for row in load_rows(task.folder / ROWS):
        regime, part, size, seed, name = (row[key] for key in KEY)
        if (
            part == task.part and (regime, size) in cells and seed in options.seeds
            and name in task.names
            and (options.three_sample or row["decided_by"] == task.digest(regime, name))
        ):  # fmt: skip
            cells[regime, size].append(row)
    return {cell: rows for cell, rows in cells.items() if rows}


def _tables(task: Task, rows: Mapping[Cell, list[Row]]) -> Iterator[str]:
    """Yield a table of each regime and size, and with ``--development`` the best settings."""
    for (regime, size), measured in rows.items():
        title = f"({regime}) {REGIMES[regime][0]}; {size:.0%} of the users"
        who = task.options.who_pays
        names, folder = task.names, task.folder
        table = payers_of(measured, names) if who else table_of(measured, names, folder)
        yield f"**{title}**\n\n{table}"
    if task.options.development:
        models = {name: candidate.model for name, candidate in task.candidates.items()}
        yield best_of(rows, models, task.folder)


def _three_sample(task: Task, rows: Mapping[Cell, list[Row]]) -> Iterator[str]:
    """Yield the verdicts of all methods, and the verdicts on models of which the truth is known.

    Raises:
        InputError: no regime has rows under three seeds.
    """
    rows = {
        cell: of for cell, of in rows.items() if len({row["seed"] for row in of}) >= LEAST_SEEDS
    }
    if not rows:
        raise InputError(
            f"--three_sample: no rows under {LEAST_SEEDS} seeds in {task.folder / ROWS}"
        )
    users = {cell: _users(task, cell, rows[cell]) for cell in rows}
    yield f"**Is it nearer to Retrain?**\n\n{verdict_table(rows, task.names, users, task.folder)}"
    yield f"**Share of yes / no, one test**\n\n{truth_table(rows, users, task.folder)}"


def _users(task: Task, cell: Cell, rows: Sequence[Row]) -> Users:
    """Return the user of each forget row.

    Raises:
        InputError: the rows were measured on another request.
    """
    regime, size = cell
    _, dataset, request = _requests(task, task.settings(regime, rows[0]["seed"]))
    asked = request(size)
    if any(row["request_digest"] != asked.digest for row in rows):
        raise InputError(f"{ROWS}: rows of ({regime}), {size:.0%} are of another request")
    return np.asarray(dataset.rows.user[asked.split.forget])


if __name__ == "__main__":
    run_main(main)
