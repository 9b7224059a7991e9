"""Comparison of methods in several regimes: ``python -m benchmarks.regimes --ml_1m=DIR``.

The regimes are MovieLens-100k with the paper's prompt on tiny-t5 (a) and on tiny-llama (a-llama),
with user and item numbers in the prompt (b), and MovieLens 1M with the paper's prompt and rows (c).
``--ml_1m`` is the ``data_path`` that contains the folder ``ml-1m``; see docs/how-to/own-data.md.
``--only a b`` leaves this regime out. ``--requests`` name a share of the users, the most active
users (``heavy``) or some items (``items``). What is measured where stands in
``benchmarks/methods.yaml``.

By default the requests are fresh: no setting was chosen on their users or with these seeds. Utility
is measured on test rows. ``--development`` measures more settings, also of
``benchmarks/methods.yaml``, on requests of other users, with other seeds, on validation rows. It
then marks the best settings of each method. No test row is scored.

Rows are saved in ``regimes.jsonl`` in ``checkpoint_dir``. If the benchmark is killed, the same
command continues it. It says first how long it will take. ``--processes 2`` measures two regimes
or seeds at the same time.
``--report`` only prints the tables of the saved rows. ``--who_pays`` prints instead what users who
stay lose, in fifths by activity, and items in fifths by popularity. ``--three_sample`` prints which
rows are nearer to Retrain than to Original, and how often this test says so of models of which it
is known; rows of other versions count, too. Any ``--key=value`` applies to all runs.

Without a GPU, seconds are CPU seconds of this process, so other work on the machine does not count.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
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
    data_of,
    frontier,
    payers_of,
    table_of,
    truth_table,
    verdict_table,
)
from recbole_e2urec import __version__
from recbole_e2urec.cli import Arguments
from recbole_e2urec.config.yaml import properties, read_switch, read_yaml
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.data.request.selection import ForgetOptions, ForgetRequest, read_request
from recbole_e2urec.errors import InputError
from recbole_e2urec.evaluator.over_seeds import LEAST_SEEDS, ORIGINAL, RETRAIN
from recbole_e2urec.experiment.recbole_models import ClassicForgetting
from recbole_e2urec.experiment.run import opened, parts_of
from recbole_e2urec.experiment.tuning import development_request
from recbole_e2urec.experiment.unlearning import Forgetting
from recbole_e2urec.methods import METHODS
from recbole_e2urec.report.results import load_rows, save_answers, save_rows
from recbole_e2urec.utils.io import write_text

MARK = "regimes"
ROWS = "regimes.jsonl"
KEY = ("regime", "part", "forgets", "seed", "row")
FORGET_SEED = 8200  # of the fresh requests
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
REFERENCES = (ORIGINAL, RETRAIN)
REQUESTS = ("20%", "5%", "1%", "heavy", "items")
LARGEST = 0.2  # share of the users who leave at most; others validate all models of a seed
HEAVY = 0.01  # share of the users in the request "heavy"
ITEMS = 0.05  # share of the items in the request "items"
KINDS = {"heavy": f"the most active {HEAVY:.0%} of the users", "items": f"{ITEMS:.0%} of the items"}
# For the estimate of a run: seconds of a training on a core, of another row, and how many trainings
# a method takes that trains models of its own.
SECONDS = {"a": 220, "a-llama": 310, "b": 210, "c": 200}
ROW_SECONDS = 30
TRAININGS = {"CrossFit": 2.0, "SISA": 1.3, "RecEraser": 3.0, "APA": 3.0}
Row = dict[str, Any]


class Candidate(NamedTuple):
    """A line of the tables: a method and its settings.

    Attributes:
        model: the method, or a classic recommender such as ``DeepFM-Retrain``.
        settings: those that are not its defaults.
        regimes: where it is measured; empty: everywhere.
        requests: the requests for which it is measured; empty: for all of them.
    """

    model: str
    settings: Mapping[str, Any]
    regimes: tuple[str, ...] = ()
    requests: tuple[str, ...] = ()

    def applies(self, regime: str, forgets: str) -> bool:
        """Tell whether the line is measured in a regime and for a request."""
        return (not self.regimes or regime in self.regimes) and (
            not self.requests or forgets in self.requests
        )


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
        request = {"forget_seed": FORGET_SEED, "forget_ratio": largest_of(self.options.requests)}
        return {**request, **settings, **self.common, "seed": seed}

    def digest(self, regime: str, name: str) -> str:
        """Return a digest of all that determines a row except its request and seed."""
        settings = self.settings(regime, 0)
        decided = {k: v for k, v in settings.items() if k not in ("data_path", "checkpoint_dir")}
        candidate = self.candidates.get(name, Candidate(name, {}))
        defaults = [properties("model", model) for model in ("LLMRec", candidate.model)]
        line = candidate.model, candidate.settings
        text = json.dumps([decided, line, defaults, __version__], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def main() -> None:
    """Measure the missing rows, and print a table of each regime and request."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add_common(parser)
    parser.add_argument("--development", help="choose settings; no test row", **SWITCH)
    parser.add_argument("--report", help="measure nothing", **SWITCH)
    parser.add_argument("--who_pays", help="print who loses AUC", **SWITCH)
    parser.add_argument("--three_sample", help="print who is nearer to Retrain", **SWITCH)
    parser.add_argument("--rows", nargs="+", help="candidates by name; without it, all")
    parser.add_argument("--candidates", type=Path, help="a yaml file of them")
    parser.add_argument("--plot", type=Path, help="draw closed against its costs, as this SVG")
    parser.add_argument("--data", type=Path, help="write the figures of all rows, as this CSV")
    parser.add_argument("--processes", type=int, default=1, help="measure so much at the same time")
    options, arguments = parse_options(parser, MARK)
    for name in ("development", "report", "who_pays", "three_sample"):
        setattr(options, name, read_switch(getattr(options, name), name))
    options.report |= options.who_pays or options.three_sample
    require_ml_1m(options)
    with cpu_clock(), common_settings(options, arguments) as common:
        task = Task(options, arguments, common, _candidates(options))
        options.seeds = options.seeds or SEEDS[task.part]
        if not options.report:
            _measure_all(task)
        rows = _known(task)
        tables = "\n\n".join((_three_sample if options.three_sample else _tables)(task, rows))
        if options.plot:
            write_text(options.plot, frontier(rows, task.names, task.folder))
        if options.data:
            text = data_of(rows, task.names).to_csv(index=False, float_format="%.5g")
            write_text(options.data, text)
    publish(tables, options, MARK)


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add the options that select the runs."""
    parser.add_argument("--only", nargs="+", choices=REGIMES, default=list(REGIMES))
    parser.add_argument(
        "--requests", nargs="+", type=_request_name, default=REQUESTS,
        help="who is forgotten: a share of the users such as 5%%, heavy, items",
    )  # fmt: skip
    parser.add_argument("--seeds", nargs="+", type=int, help="of the models")
    parser.add_argument("--ml_1m", type=Path, help="data_path with the folder ml-1m")


def _request_name(text: str) -> str:
    """Read the name of a request."""
    is_share = re.fullmatch(r"\d{1,2}(\.\d+)?%", text) and share_of(text) > 0
    if not is_share and text not in KINDS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no share of the users such as 5%, nor heavy or items"
        )
    return text


def share_of(forgets: str) -> float:
    """Return the share of the users that a request such as 5% names."""
    return float(forgets.removesuffix("%")) / 100


def largest_of(requests: Sequence[str]) -> float:
    """Return the share of the users who are left out where models are validated."""
    return max(LARGEST, *(share_of(name) for name in requests if name not in KINDS), 0.0)


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
    return {name: _candidate(lines[name]) for name in options.rows or lines}


def _candidate(line: Mapping[str, Any]) -> Candidate:
    where = tuple(line.get("regimes", ())), tuple(line.get("requests", ()))
    known = {"model", "regimes", "requests"}
    return Candidate(line["model"], {k: v for k, v in line.items() if k not in known}, *where)


def _measure_all(task: Task) -> None:
    """Measure the missing rows, regime by regime, or several at the same time."""
    options = task.options
    places = [(regime, seed) for seed in options.seeds for regime in options.only]
    rows = load_rows(task.folder / ROWS)
    known = {tuple(row[key] for key in KEY): row["decided_by"] for row in rows}
    missing = {place: found for place in places if (found := _missing(task, *place, known))}
    hours = sum(_seconds(regime, found) for (regime, _), found in missing.items()) / 3600
    if missing and not options.small:
        per = f", on {options.processes} cores {hours / options.processes:.1f}"
        print(
            f"about {hours:.1f} hours of one core{per if options.processes > 1 else ''}", flush=True
        )
    if options.processes == 1 or len(missing) < 2:
        for (regime, seed), found in missing.items():
            _measure(task, regime, seed, found)
        return
    with ThreadPoolExecutor(options.processes) as pool:
        if any(pool.map(_measure_apart, missing)):
            raise InputError("--processes: not all rows were measured, see above")


def _measure_apart(place: tuple[str, int]) -> int:
    """Measure a regime with a seed by the same command in a process of its own.

    Returns:
        Its exit code.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for option in ("--only", "--seeds", "--processes", "--write", "--plot", "--data"):
        parser.add_argument(option, nargs="+")
    _, words = parser.parse_known_args()
    words += ["--only", place[0], "--seeds", str(place[1])]
    paths = str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.regimes", *words], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    ) as process:  # fmt: skip
        for line in process.stdout or ():
            if line.startswith(f"{place[0]}, "):  # a measured row
                print(line, end="", flush=True)
    return process.returncode


def _missing(
    task: Task, regime: str, seed: int, known: Mapping[tuple[Any, ...], str]
) -> dict[str, list[str]]:
    """Return the rows that are still to be measured, by request; ``known`` has digests by key."""
    digests = {name: task.digest(regime, name) for name in task.names}
    missing = {
        forgets: [
            name
            for name, digest in digests.items()
            if (name in REFERENCES or task.candidates[name].applies(regime, forgets))
            and known.get((regime, task.part, forgets, seed, name)) != digest
        ]
        for forgets in task.options.requests
    }
    return {forgets: names for forgets, names in missing.items() if names}


def _seconds(regime: str, missing: Mapping[str, Sequence[str]]) -> float:
    """Estimate the seconds that rows take; all requests share one Original."""
    names = [name for of_request in missing.values() for name in of_request if name != ORIGINAL]
    trainings = any(ORIGINAL in of_request for of_request in missing.values())
    others = sum(1.0 if name == RETRAIN else TRAININGS.get(name, 0.0) for name in names)
    return (trainings + others) * SECONDS[regime] + len(names) * ROW_SECONDS


def _measure(task: Task, regime: str, seed: int, missing: Mapping[str, Sequence[str]]) -> None:
    """Measure rows of a regime with a seed; all requests share one Original."""
    requests = Requests(task, task.settings(regime, seed))
    for forgets, run in requests.runs(missing):
        for name in missing[forgets]:
            row = _row(requests, run, forgets, name)
            row |= {"regime": regime, "part": task.part, "forgets": forgets, "row": name}
            row |= {"dataset": run.config["dataset"], "seed": seed}
            row["decided_by"] = task.digest(regime, name)
            answers = run.forget_answers.get((name, row.get("stage", "")))
            if answers is not None:
                save_answers(task.folder, row, answers)
            save_rows(task.folder / ROWS, [row], KEY)
            print(
                f"{regime}, {forgets}, seed {seed}, {name}: forget AUC "
                f"{row['forget']['auc']:.4f}, users who stay "
                f"{row['heldout_other_users']['auc']:.4f}; {row['cost']['seconds']:.1f} s",
                flush=True,
            )


class Requests:
    """The requests of a task in a regime, and their runs.

    Args:
        task: the task.
        settings: settings of the regime's runs, with their seed.
    """

    def __init__(self, task: Task, settings: Mapping[str, Any]) -> None:
        self.task, self.settings = task, settings
        self.config = config_of(settings, task.arguments)
        init_seed(self.config["seed"], self.config["reproducibility"])
        self.dataset = load_dataset(self.config)
        self._train = parts_of(self.config, self.dataset).splits.train
        self._largest = largest_of(task.options.requests)
        self._lines: list[tuple[str, ...]] = []
        if task.options.development:
            _, self._lines = development_request(self.config, self.dataset)

    def asking(self, forgets: str) -> dict[str, Any]:
        """Return the settings that make a request; a larger share contains the smaller ones."""
        if forgets == "items":
            return {"forget_by": "item", "forget_ratio": ITEMS}
        if forgets == "heavy":
            return self._naming("heavy", self._most_active())
        share = share_of(forgets)
        if self._lines:
            count = max(1, round(len(self._lines) * share / self._largest))
            users = [user for (user,) in self._lines[:count]]
            return self._naming(f"development-{share:g}", users)
        return {"forget_ratio": share}

    def read(self, forgets: str) -> ForgetRequest:
        """Return a request."""
        options = self.config.with_settings(self.asking(forgets)).options(ForgetOptions)
        return read_request(options, self._train, self.dataset)

    def runs(self, requests: Iterable[str]) -> Iterator[tuple[str, Forgetting]]:
        """Yield a trained run for each request."""
        validating = self.read(f"{self._largest:%}").split.retain
        held_out = "valid" if self.task.options.development else "test"
        for forgets in requests:
            init_seed(self.config["seed"], self.config["reproducibility"])
            run = Forgetting(self.config, self.dataset, held_out, self.read(forgets), validating)
            # No figure needs retain rows.
            run.groups = run.groups._replace(retain=run.split.forget[:0])
            run.train()
            yield forgets, run

    def _most_active(self) -> list[str]:
        """Return the users with the most training rows, of equal ones the first in the data."""
        user = self.dataset.rows.user[self._train]
        users, rows = np.unique(user, return_counts=True)
        most = users[np.argsort(-rows, kind="stable")[: max(1, round(HEAVY * len(users)))]]
        tokens = {inner: token for token, inner in self.dataset.ids.users.items()}
        return [tokens[int(inner)] for inner in most]

    def _naming(self, name: str, users: Sequence[str]) -> dict[str, Any]:
        """Write a request that names these users."""
        folder = Path(self.config["checkpoint_dir"])
        path = folder / f"{name}-{self.config['dataset']}.csv"
        write_text(path, "user_id\n" + "".join(f"{user}\n" for user in users))
        return {"forget_file": str(path)}


def _row(requests: Requests, run: Forgetting, forgets: str, name: str) -> Row:
    if name in REFERENCES:
        return run.measured(name, run.original if name == ORIGINAL else run.retrain)
    task, candidate = requests.task, requests.task.candidates[name]
    arguments = task.arguments._replace(model=candidate.model)
    settings = {**requests.settings, **candidate.settings}
    if candidate.model not in METHODS:  # a classic recommender, on the same rows
        config = config_of({**settings, **requests.asking(forgets)}, arguments)
        return opened(config, ClassicForgetting).row(config.forget_method)
    row = run.unlearned_row(config_of(settings, arguments))
    run.forget_answers[name, row["stage"]] = run.forget_answers[candidate.model, row["stage"]]
    return row


def _known(task: Task) -> dict[Cell, list[Row]]:
    """Return the saved rows that were measured with these settings, by regime and request.

    With ``--three_sample``, they may have been measured with others.
    """
    options = task.options
    cells: dict[Cell, list[Row]] = {
        (regime, forgets): [] for regime in options.only for forgets in options.requests
    }
    for row in load_rows(task.folder / ROWS):
        regime, part, forgets, seed, name = (row[key] for key in KEY)
        if (
            part == task.part and (regime, forgets) in cells and seed in options.seeds
            and name in task.names
            and (options.three_sample or row["decided_by"] == task.digest(regime, name))
        ):  # fmt: skip
            cells[regime, forgets].append(row)
    return {cell: rows for cell, rows in cells.items() if rows}


def _tables(task: Task, rows: Mapping[Cell, list[Row]]) -> Iterator[str]:
    """Yield a table of each regime and request, and with ``--development`` the best settings."""
    for (regime, forgets), measured in rows.items():
        title = title_of(regime, forgets)
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
    regime, forgets = cell
    requests = Requests(task, task.settings(regime, rows[0]["seed"]))
    request = requests.read(forgets)
    if any(row["request_digest"] != request.digest for row in rows):
        raise InputError(f"{ROWS}: rows of ({regime}), {forgets} are of another request")
    return np.asarray(requests.dataset.rows.user[request.split.forget])


def title_of(regime: str, forgets: str) -> str:
    """Return the title of a table."""
    return f"({regime}) {REGIMES[regime][0]}; {KINDS.get(forgets, f'{forgets} of the users')}"


if __name__ == "__main__":
    run_main(main)
