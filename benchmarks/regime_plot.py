"""The frontier of ``benchmarks.regimes``: what it costs to close so much of the gap."""

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path

from benchmarks.lineplots import Line, Panel, svg
from benchmarks.regime_tables import Figures, Place, Row, means

COSTS = {
    "seconds": "seconds / Retrain's",
    "stay_lost": "AUC that users who stay lose",
    "bias": "bias, floors",
}


def frontier(rows: Mapping[Place, Sequence[Row]], names: Sequence[str], folder: Path) -> str:
    """An SVG: a row of panels for each regime and size, one for each cost.

    The share of the gap in forget AUC that is closed goes to the right, the cost goes up. Rows
    whose names differ only after a comma are one method under several settings: a line.

    Args:
        rows: by regime and size.
        names: of the rows that are drawn, in their order.
        folder: with the answers of the rows.
    """
    styles = {name: place for place, name in enumerate(dict.fromkeys(map(_method, names)))}
    panels = [
        panel
        for place, own in rows.items()
        for panel in _panels(place, _figures(own, names, folder), styles)
    ]
    return svg(panels, "closed, forget AUC", len(COSTS))


def _figures(rows: Sequence[Row], names: Sequence[str], folder: Path) -> dict[str, Figures]:
    there = {row["row"] for row in rows}
    return {name: means(rows, name, folder) for name in names if name in there}


def _panels(
    place: Place, figures: Mapping[str, Figures], styles: Mapping[str, int]
) -> Iterator[Panel]:
    for cost, title in COSTS.items():
        lines = []
        for method, style in styles.items():
            points = sorted(
                (own.closed_auc, getattr(own, cost))
                for name, own in figures.items()
                if _method(name) == method and isfinite(getattr(own, cost))
            )
            if points:
                lines.append(Line(method, points, style, marked=len(points) == 1))
        compared = len(lines) > 1  # under one seed Retrain alone has a bias
        yield Panel(f"({place[0]}), {place[1]:.0%}: {title}", lines if compared else [])


def _method(name: str) -> str:
    return name.partition(",")[0]
