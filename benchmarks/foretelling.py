"""How well control users foretell Retrain's loss: ``python -m benchmarks.foretelling --only a b``.

For the fresh requests of ``benchmarks.regimes``, whose models it takes from the same
``checkpoint_dir`` or trains, it compares what forget rows are to lose, by all control users, by few
of them, drawn anew five times, and without any, with what they lose under Retrain. A line tells the
share of the gap in forget LogLoss that was foretold, 1 = right, as a mean over seeds and draws, the
standard deviation of a single one, and the standard error that the rule itself gives, in the same
unit. ``--forget_by=item`` and any other ``--key=value`` change the requests.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any

import numpy as np
from tabulate import tabulate

from benchmarks.given import arguments_of, common_settings
from benchmarks.regimes import SEEDS, Task, add_common, checked_ml_1m, runs_of
from recbole_e2urec.errors import InputError
from recbole_e2urec.evaluator.attacks import answer_losses
from recbole_e2urec.experiment.base import unseen_of
from recbole_e2urec.experiment.unlearning import Forgetting
from recbole_e2urec.trainer.strength import target_loss

COUNTS = (20, 10, 5)  # control users
DRAWS = 5
HEAD = ("", "users forgotten", "control users", "foretold, mean", "sd of one", "its own error")
Share = tuple[float, float]  # of the gap: foretold, and its standard error


def main() -> None:
    """Measure, and print a line for each regime, size and number of control users."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add_common(parser)
    own, arguments = arguments_of(parser, "foretelling")
    own.development, own.seeds = False, own.seeds or SEEDS["fresh"]
    checked_ml_1m(own)
    lines = []
    with common_settings(own, arguments) as given:
        task = Task(own, arguments, given, {})
        for regime in own.only:
            found: dict[tuple[float, str], list[Share]] = {}
            for seed in own.seeds:
                settings = task.settings(regime, seed)
                for size, run in runs_of(task, settings, own.sizes):
                    for count, share in _shares(run):
                        found.setdefault((size, count), []).append(share)
            lines += _lines(regime, found)
    print(tabulate(lines, HEAD, tablefmt="pipe", disable_numparse=True))


def _lines(regime: str, found: Mapping[tuple[float, str], list[Share]]) -> list[list[str]]:
    lines = []
    for (size, count), shares in found.items():
        told = [share for share, _ in shares]
        spread = f"{stdev(told):.2f}" if len(told) > 1 else "-"
        error = fmean(error for _, error in shares)
        lines.append([regime, f"{size:.0%}", count, f"{fmean(told):.2f}", spread, f"{error:.2f}"])
    return lines


def _shares(run: Forgetting) -> Iterator[tuple[str, Share]]:
    """What is foretold of a run's gap, by how many control users."""
    user, control = run.dataset.rows.user, run.parts.control
    users, gap = np.unique(user[control]), _gap(run)
    yield f"all {len(users)}", _share(run, control, gap)
    generator = np.random.default_rng(0)
    for count in COUNTS:
        for _ in range(DRAWS if count < len(users) else 0):
            drawn = generator.choice(users, count, replace=False)
            yield str(count), _share(run, control[np.isin(user[control], drawn)], gap)
    without = run.parts._replace(control=control[:0])
    yield "none", _share(run, unseen_of(without, user, run.split.retain), gap)


def _share(run: Forgetting, unseen: Any, gap: float) -> Share:
    with run.model.using_history(run.after):
        target = target_loss(run.model, replace(run.request, unseen=np.sort(unseen)))
    return (target.loss - target.original) / gap, target.error / abs(gap)


def _gap(run: Forgetting) -> float:
    """How much more Retrain loses on forget rows than Original."""
    labels = run.dataset.rows.label
    assert labels is not None  # Original was trained on them
    original, retrain = (
        float(answer_losses(made.answers.yes, labels)[run.split.forget].mean())
        for made in (run.original, run.retrain)
    )
    return retrain - original


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
