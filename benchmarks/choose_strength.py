"""Choose E2URec's strength on a development request: ``python benchmarks/choose_strength.py``.

It needs the package installed. The request names as many users as the reported one, none of whom
is in it, and has an Original and a Retrain of its own for every seed. Usefulness is read on
validation rows; test rows are never scored. The rule, by means over the seeds: among settings that
keep validation AUC within 0.01 of Original's and close between half and five quarters of Original's
distance to Retrain in forget AUC, the smallest residual; where no setting closes half, the one that
closes most. Because another request and other seeds will show other numbers, the half must be
closed by the mean less one standard error. Each line is one setting under one seed; the chosen one
comes last. ``--beta 0.2 0.4`` and the like set the grid, ``--seeds 1 2`` the seeds, any
``--key=value`` what is common to all. Killed, the same command goes on.
"""

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from recbole_e2urec import compat
from recbole_e2urec.cli import parse
from recbole_e2urec.config import Config
from recbole_e2urec.errors import InputError
from recbole_e2urec.tuning import Development

GRID = {
    "teacher_divergence": (0.2, 0.24, 0.28),
    "beta": (0.4,),
}
SEEDS = (2020, 2021, 2022, 2023)


class Trial(NamedTuple):
    """What decides, by means over seeds.

    Attributes:
        closed: share of Original's distance to Retrain in forget AUC.
        residual: as in the main table.
        lost: validation AUC, against Original.
        error: standard error of ``closed``.
    """

    closed: float
    residual: float
    lost: float
    error: float = 0.0


def closed(row: dict[str, Any], original: dict[str, Any], retrain: dict[str, Any]) -> float:
    """Share of Original's distance to Retrain in forget AUC that a model has closed."""
    auc = [one["forget"]["auc"] for one in (original, row, retrain)]
    return float((auc[0] - auc[1]) / (auc[0] - auc[2]))


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


def mean_of(trials: Sequence[Trial]) -> Trial:
    """One setting's mean over seeds; a single seed has no error that is known."""
    closed, residual, lost, _ = np.mean(trials, axis=0).tolist()
    spread = [trial.closed for trial in trials]
    error = np.std(spread, ddof=1) / len(spread) ** 0.5 if len(spread) > 1 else 0.0
    return Trial(closed, residual, lost, float(error))


def choose(trials: list[Trial]) -> int | None:
    """Place of the setting that the rule chooses; None when each costs too much or crosses."""
    admitted = [n for n, trial in enumerate(trials) if trial.lost <= 0.01 and trial.closed <= 1.25]
    strong = [n for n in admitted if trials[n].closed - trials[n].error >= 0.5]
    if strong:
        return min(strong, key=lambda n: trials[n].residual)
    return max(admitted, key=lambda n: trials[n].closed, default=None)


def main() -> None:
    """Train the development request's models, try every setting, and name the chosen one."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    for name, values in GRID.items():
        parser.add_argument(f"--{name}", type=float, nargs="+", default=values)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    given, rest = parser.parse_known_args()
    arguments = parse(rest)
    compat.apply()
    settings = itertools.product(*(getattr(given, name) for name in GRID))
    grid = [dict(zip(GRID, setting, strict=True)) for setting in settings]
    by_seed = []
    for seed in given.seeds:
        print(f"seed {seed}")
        overrides = {**arguments.settings, "seed": str(seed)}
        fixed = {"show_progress": False}
        config = Config("E2URec", arguments.dataset, arguments.config_files, fixed, overrides)
        by_seed.append(list(tried(config, grid)))
    means = [mean_of(trials) for trials in zip(*by_seed, strict=True)]
    for tested, mean in zip(grid, means, strict=True):
        print(tested, "mean:", *(f"{name} {value:.4f}" for name, value in mean._asdict().items()))
    chosen = choose(means)
    if chosen is None:
        sys.exit("every setting costs too much validation AUC, or crosses past Retrain")
    sure = means[chosen].closed - means[chosen].error >= 0.5
    note = "" if sure else "(closes less than half, or may do so)"
    print("chosen:", grid[chosen], note)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
