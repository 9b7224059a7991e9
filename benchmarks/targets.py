"""Targets of forgetting, compared on the development request: ``python -m benchmarks.targets``.

E2URec, with ``tuned.yaml`` and with ``economy.yaml``, beside methods whose target is the answer of
a model that never saw the user. Request, models and the part held out are those of
``benchmarks/choose_strength.py``: other users than the reported ones, validation rows, and no test
row. Defaults are chosen by the rule of ``--tune``: of a method's settings that cost at most 0.01 of
validation AUC in the mean over seeds, the one with the least sum of the residual and of what is
left of the gap in forget AUC, in size. The first table has a line for each setting and seed, the
second their means; the chosen ones have a star. ``--seeds 1 2`` sets the seeds, ``--only CrossFit``
the methods, any ``--key=value`` what is common to all. Killed, the same command goes on.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.choose_strength import TUNED, closed
from recbole_e2urec import compat
from recbole_e2urec.cli import Arguments, parse
from recbole_e2urec.config import Config
from recbole_e2urec.errors import InputError
from recbole_e2urec.tuning import Development, Trial, badness
from recbole_e2urec.yamlfiles import read_yaml

SEEDS = (2020, 2021, 2022, 2023)
ECONOMY = read_yaml(Path(__file__).with_name("economy.yaml"))
# How CrossFit's student learns: from all rows as E2URec's does, or quickly from a fifth of them.
ALL_ROWS = {
    "unlearn_share": 1.0, "unlearn_batch_size": 128, "unlearn_learning_rate": 0.004,
    "warmup_epochs": 1, "joint_epochs": 2,
}  # fmt: skip
FEW_ROWS = {
    "unlearn_share": 0.2, "unlearn_batch_size": 64, "unlearn_learning_rate": 0.013,
    "warmup_epochs": 0, "joint_epochs": 4,
}  # fmt: skip
PLAIN = {
    "crossfit_weight": 1.0, "calibrated": False, "renewed": False, "overshoot": 0.0, "beta": 0.7,
}  # fmt: skip
HALF = {"crossfit_weight": 0.5, "renewed": True}
# Method and settings by the name of a line; what is left out is the method's default.
CANDIDATES: dict[str, tuple[str, Mapping[str, Any]]] = {
    "CrossFit, few rows": ("CrossFit", {**PLAIN, **FEW_ROWS}),
    "CrossFit, few rows, c .1": ("CrossFit", {**PLAIN, **FEW_ROWS, "overshoot": 0.1}),
    "CrossFit, few rows, c .2": ("CrossFit", {**PLAIN, **FEW_ROWS, "overshoot": 0.2}),
    "CrossFit, few rows, w .5": ("CrossFit", {**PLAIN, **FEW_ROWS, "crossfit_weight": 0.5}),
    "CrossFit, few rows, calibrated": ("CrossFit", {**PLAIN, **FEW_ROWS, "calibrated": True}),
    "CrossFit, few rows, w .5, renewed": ("CrossFit", {**PLAIN, **FEW_ROWS, **HALF}),
    "CrossFit, 4 parts": ("CrossFit", {"parts": 4}),
    "CrossFit, 4 parts, c .3": ("CrossFit", {"parts": 4, "overshoot": 0.3}),
    "CrossFit, 4 parts, c .4": ("CrossFit", {"parts": 4, "overshoot": 0.4}),
    "CrossFit, all rows": ("CrossFit", {**PLAIN, **ALL_ROWS}),
    "CrossFit, all rows, c .2": ("CrossFit", {**PLAIN, **ALL_ROWS, "overshoot": 0.2}),
    "E2URec, economy": ("E2URec", ECONOMY),
    "E2URecRef": ("E2URecRef", {}),
    "E2URec": ("E2URec", {}),
}


class Figures(NamedTuple):
    """What is told of a setting; ``closed`` and what follows as in choose_strength.py."""

    closed: float
    residual: float
    lost: float
    others_lost: float  # validation AUC of users who stay, against Original
    left_known: float  # validation AUC of forgotten users, above Retrain's
    seconds: float  # as shares of Retrain's
    prior: float
    of_10: float  # a request, if ten of them share what came before


HEAD = (
    "closed", "residual", "valid AUC lost", "others' lost", "forgotten users' above Retrain",
    "seconds / Retrain's", "before / Retrain's", "of 10 requests / Retrain's",
)  # fmt: skip


def figures(row: Mapping[str, Any], development: Development) -> Figures:
    """The figures of one row; what rows call ``test`` is the part held out, here validation."""
    original, retrain = development.original, development.retrain
    cost, whole = row["cost"], retrain["cost"]["seconds"]
    prior = cost.get("prior_seconds", 0.0)
    return Figures(
        closed(dict(row), original, retrain),
        row["to_retrain"]["residual"],
        original["test"]["auc"] - row["test"]["auc"],
        original["heldout_other_users"]["auc"] - row["heldout_other_users"]["auc"],
        row["heldout_forget_users"]["auc"] - retrain["heldout_forget_users"]["auc"],
        cost["seconds"] / whole,
        prior / whole,
        (cost["seconds"] + prior / 10) / whole,
    )


def line(name: str, seed: object, found: Sequence[float]) -> str:
    """A line of a table in Markdown."""
    return f"| {name} | {seed} | " + " | ".join(f"{value:.3f}" for value in found) + " |"


def measured(
    arguments: Arguments, seed: int, candidates: Mapping[str, tuple[str, Mapping[str, Any]]]
) -> Iterator[Figures]:
    """Every candidate under one seed, after the Retrain's own line."""

    def config(method: str) -> Config:
        overrides = {**arguments.settings, "seed": str(seed)}
        fixed = {"show_progress": False}
        files = [*([TUNED] if method == "E2URec" else []), *arguments.config_files]
        return Config(method, arguments.dataset, files, fixed, overrides)

    development = Development(config("E2URec"))
    print(line("Retrain", seed, figures(development.retrain, development)), flush=True)
    for name, (method, settings) in candidates.items():
        found = figures(development.row(config(method), settings), development)
        print(line(name, seed, found), flush=True)
        yield found


def chosen(
    means: Mapping[str, Figures], candidates: Mapping[str, tuple[str, Mapping[str, Any]]]
) -> set[str]:
    """The best setting of each method, by the rule of ``--tune``."""

    def bad(name: str) -> float:
        mean = means[name]
        return badness(Trial({}, 0.0, abs(1 - mean.closed), mean.lost, mean.residual))

    methods = {method for method, _ in candidates.values()}
    return {
        min((name for name in means if candidates[name][0] == method), key=bad)
        for method in methods
    }


def main() -> None:
    """Measure every candidate under every seed, and name the best setting of each method."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--only", nargs="+", help="methods; without it, all")
    given, rest = parser.parse_known_args()
    arguments = parse(rest)
    compat.apply()
    candidates = {
        name: what
        for name, what in CANDIDATES.items()
        if given.only is None or what[0] in given.only
    }
    if not candidates:
        known = dict.fromkeys(method for method, _ in CANDIDATES.values())
        raise InputError(f"--only: {' '.join(given.only)}; choose from {', '.join(known)}")
    head = f"| | seed | {' | '.join(HEAD)} |\n|{'---|' * (len(HEAD) + 2)}"
    print(head, flush=True)
    found = [list(measured(arguments, seed, candidates)) for seed in given.seeds]
    means = {
        name: Figures(*np.mean(each, axis=0).tolist())
        for name, each in zip(candidates, zip(*found, strict=True), strict=True)
    }
    best = chosen(means, candidates)
    print(f"\n{head}")
    for name, mean in means.items():
        print(line(f"{name} *" if name in best else name, "mean", mean))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
