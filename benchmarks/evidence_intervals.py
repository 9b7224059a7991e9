"""Intervals of the evidence: what other users of the same number might have shown."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from benchmarks.evidence_cells import Cell
from benchmarks.evidence_rows import ORIGINAL, RETRAIN
from benchmarks.evidence_store import Values
from recbole_e2urec.evaluator.bootstrap import UserBootstrap, interval
from recbole_e2urec.evaluator.measure import RESAMPLING_SEED
from recbole_e2urec.evaluator.over_seeds import left_out

Interval = list[float] | None


class Intervals(NamedTuple):
    """95 % intervals of means over seeds, users being drawn anew with all their rows."""

    closed: Interval  # of the gap in forget AUC, to the own Retrain
    residual: Interval
    residual_mean: Interval  # to the mean of the other seeds' Retrains
    lost: Interval  # test AUC, against Original


def intervals_of(cell: Cell, resamples: int) -> dict[str, Intervals]:
    """Intervals of every row but Original; the same users are drawn for all rows and seeds."""
    labelled = cell.labelled
    forget = UserBootstrap(labelled.forget_user, labelled.forget_label, RESAMPLING_SEED, resamples)
    test = UserBootstrap(labelled.test_user, labelled.test_label, RESAMPLING_SEED, resamples)
    retrains = {seed: said.forget for seed, said in cell.said[RETRAIN].items()}
    means = left_out(retrains)

    @cache
    def on_forget(name: str, seed: int) -> Values:
        return forget.auc(cell.said[name][seed].forget)

    @cache
    def on_test(name: str, seed: int) -> Values:
        return test.auc(cell.said[name][seed].test)

    def closed(name: str, seed: int) -> Values:
        gap = on_forget(ORIGINAL, seed) - on_forget(RETRAIN, seed)
        return shares(on_forget(ORIGINAL, seed) - on_forget(name, seed), gap)

    def lost(name: str, seed: int) -> Values:
        return on_test(ORIGINAL, seed) - on_test(name, seed)

    def residual(references: dict[int, Values]) -> Callable[[str, int], Values]:
        def found(name: str, seed: int) -> Values:
            ours, original = (cell.said[one][seed].forget for one in (name, ORIGINAL))
            far, gap = (forget.mean(np.abs(one - references[seed])) for one in (ours, original))
            return shares(far, gap)

        return found

    def over(name: str, measure: Callable[[str, int], Values]) -> Interval:
        return interval(np.mean([measure(name, seed) for seed in cell.said[name]], axis=0))

    return {
        name: Intervals(
            over(name, closed),
            over(name, residual(retrains)),
            over(name, residual(means)) if means else None,
            over(name, lost),
        )
        for name in cell.said
        if name != ORIGINAL
    }


def shares(parts: Values, whole: Values) -> Values:  # [n], [n] -> [n]
    """Parts of the whole; NaN where that is nothing."""
    return np.divide(parts, whole, out=np.full(len(whole), np.nan), where=whole != 0)
