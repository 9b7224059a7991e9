"""Panels of lines as one SVG file: nothing to install, and readable without colours."""

from collections.abc import Sequence
from html import escape
from math import ceil, floor, log10
from typing import NamedTuple

from recbole_e2urec.figures import COLORS

WIDTH, HEIGHT, ACROSS = 440, 260, 2  # of a panel, in pixels; panels side by side
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 30, 40  # margins of a panel
LEGEND = 30
DASHES = ("", "6 3", "2 3", "8 3 2 3", "12 4")


class Line(NamedTuple):
    """Points in order of x; the same style draws the same name in every panel."""

    name: str
    points: Sequence[tuple[float, float]]
    style: int
    marked: bool = False  # points alone, such as Retrains


class Panel(NamedTuple):
    """A plot with its own scale."""

    title: str
    lines: Sequence[Line]


class _Scale(NamedTuple):
    """From values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def svg(panels: Sequence[Panel], x_title: str) -> str:
    """Draw the panels in rows, with one legend above."""
    rows = ceil(len(panels) / ACROSS)
    size = f'width="{WIDTH * ACROSS}" height="{HEIGHT * rows + LEGEND}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        _legend(panels),
    ]
    for place, panel in enumerate(panels):
        x, y = WIDTH * (place % ACROSS), LEGEND + HEIGHT * (place // ACROSS)
        parts.append(f'<g transform="translate({x},{y})">{_panel(panel, x_title)}</g>')
    return "\n".join([*parts, "</svg>\n"])


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round values between two others: multiples of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** floor(log10((high - low) / most))
    step = next(power * one for one in (1, 2, 5, 10) if (high - low) / (power * one) <= most)
    return [
        number * step for number in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)
    ]


def _panel(panel: Panel, x_title: str) -> str:
    points = [point for line in panel.lines for point in line.points]
    if not points:
        return ""
    across = _scale([x for x, _ in points], LEFT, WIDTH - RIGHT, 0.02)
    up = _scale([y for _, y in points], HEIGHT - BOTTOM, TOP, 0.06)
    parts = [f'<text x="{LEFT}" y="18" font-weight="bold">{escape(panel.title)}</text>']
    for value in ticks(up.low, up.high):
        y = f"{up(value):.1f}"
        parts.append(f'<path d="M{LEFT},{y}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y}" dy="4" text-anchor="end">{value:.5g}</text>')
    for value in ticks(across.low, across.high, 11):
        x = f'x="{across(value):.1f}" y="{HEIGHT - BOTTOM + 16}"'
        parts.append(f'<text {x} text-anchor="middle">{value:.5g}</text>')
    middle = f'x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}"'
    parts.append(f'<text {middle} text-anchor="middle">{escape(x_title)}</text>')
    return "".join([*parts, *(_line(line, across, up) for line in panel.lines)])


def _scale(values: Sequence[float], start: float, end: float, margin: float) -> _Scale:
    low, high = min(values), max(values)
    space = (high - low) * margin or abs(low) * margin or 1.0
    return _Scale(low - space, high + space, start, end)


def _line(line: Line, across: _Scale, up: _Scale) -> str:
    placed = [(across(x), up(y)) for x, y in line.points]
    drawn = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{_radius(line)}" '
                    f'fill="{_colour(line)}"/>' for x, y in placed)  # fmt: skip
    if line.marked:
        return drawn
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    return f'<polyline points="{path}" {_stroke(line)}/>{drawn}'


def _legend(panels: Sequence[Panel]) -> str:
    named = {line.name: line for panel in panels for line in panel.lines}
    parts, x = [], LEFT
    for name, line in named.items():
        sample = f'<path d="M{x},16h26" {_stroke(line)}/>'
        dot = f'<circle cx="{x + 13}" cy="16" r="{_radius(line)}" fill="{_colour(line)}"/>'
        text = f'<text x="{x + 32}" y="20">{escape(name)}</text>'
        parts.append((dot if line.marked else sample + dot) + text)
        x += 50 + 8 * len(name)
    return "".join(parts)


def _stroke(line: Line) -> str:
    dash = DASHES[line.style % len(DASHES)]
    return f'fill="none" stroke="{_colour(line)}" stroke-width="1.6" stroke-dasharray="{dash}"'


def _colour(line: Line) -> str:
    return COLORS[line.style % len(COLORS)]


def _radius(line: Line) -> float:
    return 4.5 if line.marked else 2.2
