"""Two ways of doing the same work, timed in turns."""

import time
from collections.abc import Callable
from multiprocessing import get_context
from statistics import median
from typing import Any, NamedTuple

from recbole_e2urec.trainer.training_log import peak_memory_mb, restart_peak


class Ratio(NamedTuple):
    """Median over the rounds, and the least and the greatest."""

    median: float
    low: float
    high: float


def seconds(work: Callable[[], Any]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def race(theirs: Callable[[], Any], ours: Callable[[], Any], rounds: int) -> Ratio:
    """Time of theirs / time of ours; who begins changes with every round."""
    ratios = []
    for turn in range(rounds):
        if turn % 2:
            mine = seconds(ours)
            ratios.append(seconds(theirs) / mine)
        else:
            other = seconds(theirs)
            ratios.append(other / seconds(ours))
    return ratio_of(ratios)


def ratio_of(ratios: list[float]) -> Ratio:
    """Their median and spread."""
    return Ratio(median(ratios), min(ratios), max(ratios))


def peak_mb(work: Callable[..., Any], *given: Any) -> float:
    """Largest resident memory of the work in a process of its own, above what it began with, MB.

    Args:
        work: a function of a module, so that another process finds it.
        given: its arguments.
    """
    with get_context("spawn").Pool(1) as pool:
        return float(pool.apply(_measured, (work, given)))


def _measured(work: Callable[..., Any], given: tuple[Any, ...]) -> float:
    import recbole_e2urec.experiment.unlearning  # noqa: F401  # what both sides import

    restart_peak()
    before = peak_memory_mb()
    work(*given)
    return peak_memory_mb() - before
