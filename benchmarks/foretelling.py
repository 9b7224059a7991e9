"""How well control users predict Retrain's loss: ``python -m benchmarks.foretelling --only a b``.

The runs are those of the fresh requests of ``benchmarks.regimes``. Models are loaded from the same
``checkpoint_dir``, or trained. The target loss of the forget rows is predicted from all control
users, from a few of them (five random draws), and without any. It is compared with the loss of the
forget rows under Retrain. Each line shows the share of the gap in forget LogLoss that was
predicted, where 1 is exact: the mean over seeds and draws, the standard deviation of a single
prediction, and the standard error that the prediction itself reports, in the same unit.
``--forget_by=item`` and any other ``--key=value`` change the requests.
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import replace
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from benchmarks.common import common_settings, parse_options, publish, run_main
from benchmarks.regimes import SEEDS, Requests, Task, add_common, require_ml_1m
from recbole_e2urec.experiment.run import unseen_of
from recbole_e2urec.experiment.unlearning import Forgetting
from recbole_e2urec.model.losses import log_losses
from recbole_e2urec.trainer.strength import target_loss

MARK = "foretelling"
COUNTS = (20, 10, 5)  # control users
DRAWS = 5
HEAD = ("", "forgotten", "control users", "predicted, mean", "sd of one", "its own error")
Share = tuple[float, float]  # of the gap: predicted, and its standard error


def main() -> None:
    """Measure, and print a line for each regime, request and number of control users."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add_common(parser)
    options, arguments = parse_options(parser, MARK)
    options.development = False
    require_ml_1m(options)
    lines: list[list[str]] = []
    with common_settings(options, arguments) as common:
        task = Task(options, arguments, common, {})
        for regime in options.only:
            shares: dict[tuple[str, str], list[Share]] = {}
            for seed in options.seeds or SEEDS["fresh"]:
                requests = Requests(task, task.settings(regime, seed))
                for forgets, run in requests.runs(options.requests):
                    for count, share in _shares(run):
                        shares.setdefault((forgets, count), []).append(share)
            lines += _lines(regime, shares)
    publish(tabulate(lines, HEAD, tablefmt="pipe", disable_numparse=True), options, MARK)


def _lines(regime: str, by_count: Mapping[tuple[str, str], list[Share]]) -> Iterator[list[str]]:
    for (forgets, count), shares in by_count.items():
        predicted, errors = zip(*shares, strict=True)
        spread = f"{stdev(predicted):.2f}" if len(predicted) > 1 else "-"
        means = fmean(predicted), fmean(errors)
        yield [regime, forgets, count, f"{means[0]:.2f}", spread, f"{means[1]:.2f}"]


def _shares(run: Forgetting) -> Iterator[tuple[str, Share]]:
    """Yield the predicted share of a run's gap, with the number of control users."""
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


def _share(run: Forgetting, unseen: NDArray[np.int64], gap: float) -> Share:
    with run.model.using_history(run.after):
        target = target_loss(run.model, replace(run.request, unseen=np.sort(unseen)))
    return (target.loss - target.original) / gap, target.error / abs(gap)


def _gap(run: Forgetting) -> float:
    """Return Retrain's mean loss on forget rows minus Original's."""
    labels = run.dataset.rows.label
    assert labels is not None  # Original was trained on them
    original, retrain = (
        float(log_losses(model.answers.yes, labels)[run.split.forget].mean())
        for model in (run.original, run.retrain)
    )
    return retrain - original


if __name__ == "__main__":
    run_main(main)
