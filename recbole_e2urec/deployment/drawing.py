"""Relearning curves as SVG: the pages of plotly are megabytes of script, which nobody can file."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from recbole_e2urec.sheet import SHEETS

WIDTH, HEIGHT, LEFT, BOTTOM, MARGIN = 640, 320, 56, 40, 12
TICKS = 4
# Okabe and Ito, as in figures; who is told by colour is told by dash as well
LOOKS = (
    ("#0072B2", ""), ("#D55E00", "8 4"), ("#000000", "2 3"),
    ("#009E73", "10 3 2 3"), ("#CC79A7", "5 5"), ("#56B4E9", "1 4"),
)  # fmt: skip


class Curve(NamedTuple):
    """A line of the drawing."""

    title: str
    points: str  # as SVG writes them
    color: str
    dash: str
    y: float  # of its line in the legend


def drawing(curves: Mapping[str, Mapping[str, Any]]) -> str:
    """Draw ``loss`` over ``steps`` of each curve, by its title; an empty text if there are none."""
    if not curves:
        return ""
    losses = [loss for curve in curves.values() for loss in curve["loss"]]
    steps = next(iter(curves.values()))["steps"]
    low, high = min(losses), max(losses)
    span = (high - low) or 1.0
    right, floor = WIDTH - MARGIN, HEIGHT - BOTTOM

    def x(step: float) -> float:
        return LEFT + (right - LEFT) * step / (steps[-1] or 1)

    def y(loss: float) -> float:
        return floor - (floor - MARGIN) * (loss - low) / span

    lines = [
        Curve(
            title,
            " ".join(
                f"{x(step):.1f},{y(loss):.1f}"
                for step, loss in zip(curve["steps"], curve["loss"], strict=True)
            ),
            *LOOKS[place % len(LOOKS)],
            HEIGHT + 20 * place,
        )
        for place, (title, curve) in enumerate(curves.items())
    ]
    levels = [low + span * part / TICKS for part in range(TICKS + 1)]
    return _DRAWING.render(
        lines=lines,
        across=[(step, round(x(step), 1)) for step in steps],
        up=[(f"{level:.3f}", round(y(level), 1)) for level in levels],
        width=WIDTH,
        height=HEIGHT + 20 * len(lines),
        left=LEFT,
        right=right,
        floor=floor,
        middle=(LEFT + right) / 2,
    )


_DRAWING = SHEETS.from_string("""\
<svg viewBox="0 0 {{ width }} {{ height }}" style="max-width: {{ width }}px; width: 100%"
 font-size="13" role="img" aria-label="loss by steps of relearning; the JSON file has its numbers">
{% for told, y in up %}
<line x1="{{ left }}" x2="{{ right }}" y1="{{ y }}" y2="{{ y }}" stroke="#dddddd"/>
<text x="{{ left - 6 }}" y="{{ y + 4 }}" text-anchor="end">{{ told }}</text>
{% endfor %}
{% for step, x in across %}
<text x="{{ x }}" y="{{ floor + 16 }}" text-anchor="middle">{{ step }}</text>
{% endfor %}
<text x="{{ middle }}" y="{{ floor + 33 }}" text-anchor="middle">steps (loss in nats upwards)</text>
{% for line in lines %}
<polyline points="{{ line.points }}" fill="none" stroke="{{ line.color }}" stroke-width="2"
 stroke-dasharray="{{ line.dash }}"/>
<line x1="{{ left }}" x2="{{ left + 40 }}" y1="{{ line.y + 8 }}" y2="{{ line.y + 8 }}"
 stroke="{{ line.color }}" stroke-width="2" stroke-dasharray="{{ line.dash }}"/>
<text x="{{ left + 48 }}" y="{{ line.y + 12 }}">{{ line.title }}</text>
{% endfor %}
</svg>
""")
