"""Aims of the evidence, and how far each row is from them."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any, NamedTuple

from benchmarks.evidence_figures import OTHER
from benchmarks.evidence_rows import ORIGINAL, PAPER, REHEARSED, RETRAIN

LEAST_CLOSED, MOST_FLOORS, MOST_LOST, MOST_COST = 0.75, 1.2, 0.005, 0.05


Lines = Sequence[Mapping[str, Any]]  # figures, one for each row and seed


class Standing(NamedTuple):
    """Where a row stands: means over seeds, then over sizes; None = unknown.

    Attributes:
        closed: share of the gap in forget AUC, to the own Retrain.
        closed_mean: the same to the other seeds' Retrains.
        over: how far closed may exceed 1: what another Retrain misses 1 by.
        residual, residual_mean: as shares of what a second Retrain has, of either kind.
        lost: test AUC, against Original.
        share: cost of a request, without what came before, of Retrain's.
    """

    closed: float | None
    closed_mean: float | None
    over: float | None
    residual: float | None
    residual_mean: float | None
    lost: float | None
    share: float | None


class Aim(NamedTuple):
    """One aim for one row; ``missed_by`` is 0 where it is met."""

    found: float | None
    missed_by: float | None


def standings(sizes: Iterable[Lines]) -> dict[str, Standing]:
    """Where the rows of one setup stand, by figures at each size.

    A row counts at the sizes where it was measured.
    """
    by_size = [_standings(lines) for lines in sizes]
    names = dict.fromkeys(name for one in by_size for name in one)
    return {
        name: Standing(
            *(
                _mean(values)
                for values in zip(*(one[name] for one in by_size if name in one), strict=True)
            )
        )
        for name in names
    }


def _standings(lines: Lines) -> dict[str, Standing]:
    """Where rows stand at one size."""

    def of(name: str, key: str) -> float | None:
        return _mean([line.get(key) for line in lines if line["model"] == name])

    others = _known([line["closed_auc"] for line in lines if line["model"] == OTHER])
    over = _mean([abs(one - 1) for one in others])
    floors = of(OTHER, "residual"), of(RETRAIN, "residual_mean")
    names = dict.fromkeys(line["model"] for line in lines)
    return {
        name: Standing(
            of(name, "closed_auc"),
            of(name, "closed_auc_mean"),
            over,
            _ratio(of(name, "residual"), floors[0]),
            _ratio(of(name, "residual_mean"), floors[1]),
            of(name, "lost"),
            of(name, "share"),
        )
        for name in names
        if name not in (ORIGINAL, RETRAIN, OTHER)
    }


def aims(stands: Standing) -> dict[str, Aim]:
    """Every aim, by its words."""
    most = 1 + (stands.over or 0.0)
    return {
        "closed": between(stands.closed, LEAST_CLOSED, most),
        "closed, other seeds": between(stands.closed_mean, LEAST_CLOSED, most),
        "residual / floor": between(stands.residual, 0.0, MOST_FLOORS),
        "residual / floor, other seeds": between(stands.residual_mean, 0.0, MOST_FLOORS),
        "test AUC lost": between(stands.lost, float("-inf"), MOST_LOST),
        "cost / Retrain's": between(stands.share, 0.0, MOST_COST),
    }


def between(found: float | None, least: float, most: float) -> Aim:
    """How far a value is outside of its limits."""
    return Aim(found, None if found is None else max(0.0, least - found, found - most))


class Compared(NamedTuple):
    """The paper's E2URec and the rehearsed one by one aim."""

    paper: float | None
    rehearsed: float | None
    better: bool | None  # the latter is


def better(stands: Mapping[str, Standing]) -> dict[str, Compared]:
    """Whether E2URec is better rehearsed than with the paper's alpha, by aim.

    Better is what is nearer to 1 of what is closed, and less of all else.
    """
    if PAPER not in stands or REHEARSED not in stands:
        return {}
    paper, rehearsed = (aims(stands[name]) for name in (PAPER, REHEARSED))
    found = {}
    for name, (old, _) in paper.items():
        new = rehearsed[name].found
        target = 1.0 if name.startswith("closed") else None
        wins = None
        if old is not None and new is not None:
            wins = abs(new - target) < abs(old - target) if target else new < old
        found[name] = Compared(old, new, wins)
    return found


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _mean(values: Sequence[float | None]) -> float | None:
    known = _known(values)
    return mean(known) if known else None


def _ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None
