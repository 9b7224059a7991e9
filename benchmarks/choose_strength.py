"""Choose E2URec's strength on a development request: ``python benchmarks/choose_strength.py``.

It needs the package installed. E2URec is that of ``tuned.yaml``. The request names as many users as
the reported one, none of whom is in it, and has an Original and a Retrain of its own for every
seed. Usefulness is read on validation rows; test rows are never scored. Wanted is: validation AUC
within 0.01 of Original's, between half and five quarters of Original's distance to Retrain in
forget AUC closed, residual below 1. The rule: the setting whose mean over the seeds keeps furthest
from these limits, counted in standard errors, at the limit to which it comes nearest; so it is the
most likely to hold them on another request. Each line is one setting under one seed; the chosen one
comes last. ``--beta 0.2 0.4`` and the like set the grid, ``--seeds 1 2`` the seeds, any
``--key=value`` what is common to all. Killed, the same command goes on.
"""

import argparse
import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recbole_e2urec import compat
from recbole_e2urec.cli import parse
from recbole_e2urec.config import Config
from recbole_e2urec.errors import InputError
from recbole_e2urec.matching import share_closed
from recbole_e2urec.tuning import AFFORDABLE, Development

TUNED = str(Path(__file__).with_name("tuned.yaml"))
GRID = {
    "teacher_divergence": (0.2, 0.24, 0.28),
    "beta": (0.4,),
}
SEEDS = (2020, 2021, 2022, 2023)


class Trial(NamedTuple):
    """What decides.

    Attributes:
        closed: share of Original's distance to Retrain in forget AUC.
        residual: as in the main table.
        lost: validation AUC, against Original.
    """

    closed: float
    residual: float
    lost: float


class Summary(NamedTuple):
    """One setting over several seeds; the error is the mean's standard error, 0 if unknown."""

    mean: Trial
    error: Trial


def closed(row: dict[str, Any], original: dict[str, Any], retrain: dict[str, Any]) -> float:
    """Share of Original's distance to Retrain in forget AUC that a model has closed."""
    share = share_closed(*(one["forget"]["auc"] for one in (row, original, retrain)))
    return math.nan if share is None else share


def line(row: dict[str, Any], share: float) -> str:
    """Show a row; what it calls ``test`` is the part held out, here validation."""
    return (
        f"valid AUC {row['test']['auc']:.4f} (forgotten users "
        f"{row['heldout_forget_users']['auc']:.4f}, others "
        f"{row['heldout_other_users']['auc']:.4f})  forget AUC {row['forget']['auc']:.4f} "
        f"LogLoss {row['forget']['logloss']:.4f}  closed {share:6.3f}  residual "
        f"{row['to_retrain']['residual']:.3f}  JSD {row['to_retrain']['jsd']:.5f}  MIA "
        f"{row['mia_auc']:.4f}  {row['cost']['seconds']:.0f} s"
    )


def tried(config: Config, grid: list[dict[str, float]]) -> Iterator[Trial]:
    """Train the development request's models, and measure every setting under one seed."""
    development = Development(config)
    original, retrain = development.original, development.retrain
    print("Original", line(original, 0.0), "Retrain ", line(retrain, 1.0), sep="\n", flush=True)
    for setting in grid:
        row = development.row(config, setting)
        share = closed(row, original, retrain)
        print(setting, line(row, share), flush=True)
        lost = original["test"]["auc"] - row["test"]["auc"]
        yield Trial(share, row["to_retrain"]["residual"], lost)


def summary_of(trials: Sequence[Trial]) -> Summary:
    """Mean and standard error over seeds; one seed tells no error."""
    count = len(trials)
    errors = (
        np.std(trials, axis=0, ddof=1) / count**0.5 if count > 1 else np.zeros(len(Trial._fields))
    )
    return Summary(Trial(*np.mean(trials, axis=0).tolist()), Trial(*errors.tolist()))


def margin(setting: Summary) -> float:
    """Least distance from a limit in standard errors, or in the limit's size where none is known.

    Negative where a limit is missed.
    """
    mean, error = setting
    distances = (
        (mean.closed - 0.5, error.closed, 0.5),
        (1.25 - mean.closed, error.closed, 1.25),
        (1.0 - mean.residual, error.residual, 1.0),
        (AFFORDABLE - mean.lost, error.lost, AFFORDABLE),
    )
    return min(distance / (unit or limit) for distance, unit, limit in distances)


def main() -> None:
    """Train the development request's models, try every setting, and name the chosen one."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    for name, values in GRID.items():
        parser.add_argument(f"--{name}", type=float, nargs="+", default=values)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    given, rest = parser.parse_known_args()
    arguments = parse(rest)
    compat.apply()
    combined = itertools.product(*(getattr(given, name) for name in GRID))
    grid = [dict(zip(GRID, chosen, strict=True)) for chosen in combined]
    by_seed = []
    for seed in given.seeds:
        print(f"seed {seed}")
        overrides = {**arguments.settings, "seed": str(seed)}
        fixed = {"show_progress": False}
        files = [TUNED, *arguments.config_files]
        config = Config("E2URec", arguments.dataset, files, fixed, overrides)
        by_seed.append(list(tried(config, grid)))
    settings = [summary_of(trials) for trials in zip(*by_seed, strict=True)]
    margins = [margin(setting) for setting in settings]
    for tested, setting, far in zip(grid, settings, margins, strict=True):
        told = (
            f"{name} {mean:.4f} ± {error:.4f}"
            for name, mean, error in zip(Trial._fields, *setting, strict=True)
        )
        print(tested, "mean:", *told, f"margin {far:.2f}")
    best = int(np.argmax(margins))
    print("chosen:", grid[best], "" if margins[best] >= 0 else "(misses a limit)")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
