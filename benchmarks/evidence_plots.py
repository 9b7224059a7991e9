"""Plots of the evidence."""

from collections.abc import Callable, Iterable, Sequence
from statistics import mean
from typing import Any

from benchmarks.evidence_figures import OTHER
from benchmarks.evidence_rows import RETRAIN, SETUPS, WAYS
from benchmarks.evidence_summary import Summary
from benchmarks.lineplots import Bars, Line, Panel, svg
from recbole_e2urec.trainer.cost import REQUESTS


def plots(summaries: Sequence[Summary]) -> dict[str, str]:
    """SVG texts by name; none without a method's row."""
    shown = [one for one in summaries if any(name in WAYS for name in one.rows)]
    if not shown:
        return {}
    by_setup: dict[str, list[Summary]] = {}
    for one in shown:
        by_setup.setdefault(one.setup, []).append(one)
    forgetting = [_tradeoff(one) for one in shown]
    distances = [_distances(setup, found) for setup, found in by_setup.items()]
    costs = [_costs(found) for found in by_setup.values()]
    return {
        "closed": svg(forgetting, "test AUC lost"),
        "residual": svg(distances, "users of the request, of all (log. scale)"),
        "cost": svg(costs, "requests that share what came before (log. scale)"),
    }


def _tradeoff(summary: Summary) -> Panel:
    """What is closed of the AUC gap over the test AUC lost, with intervals; Retrain is at 1."""
    drawn = []
    for name in (RETRAIN, *WAYS):
        x, y = (_mean(summary, name, key) for key in ("lost", "closed_auc"))
        intervals = summary.rows[name].intervals if name in summary.rows else None
        if x is None or y is None or intervals is None:
            continue
        across, up = intervals.lost or [x, x], intervals.closed or [y, y]
        bars = [Bars(across[0], across[1], up[0], up[1])]
        drawn.append(Line(name, [(x, y)], _style(name), True, bars))
    return Panel(f"AUC gap closed: {summary.short}", drawn)


def _distances(setup: str, found: Sequence[Summary]) -> Panel:
    """Residual by size, beside that of another seed's Retrain."""

    def along(name: str) -> list[tuple[float, float]]:
        return _points((one.size, _mean(one, name, "residual")) for one in found)

    return Panel(f"residual: {SETUPS[setup].title}", _drawn((OTHER, *WAYS), along), "x")


def _costs(found: Sequence[Summary]) -> Panel:
    """Cost of a request of the middle size, of Retrain's."""
    middle = found[len(found) // 2]

    def along(name: str) -> list[tuple[float, float]]:
        return _points((count, _mean(middle, name, f"of_{count}")) for count in REQUESTS)

    return Panel(f"cost / Retrain's: {middle.short}", _drawn(WAYS, along), "xy")


def _drawn(names: Iterable[str], along: Callable[[str], list[tuple[float, float]]]) -> list[Line]:
    """A line for each name that has points."""
    return [Line(name, points, _style(name)) for name in names if (points := along(name))]


def _mean(summary: Summary, name: str, key: str) -> float | None:
    lines = summary.rows[name].lines if name in summary.rows else []
    values = [line[key] for line in lines if line.get(key) is not None]
    return mean(values) if values else None


def _points(found: Any) -> list[tuple[float, float]]:
    return [(float(x), y) for x, y in found if y]


def _style(name: str) -> int:
    """One for each row in all plots; references have the first."""
    return 1 + list(WAYS).index(name) if name in WAYS else 0
