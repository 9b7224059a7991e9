"""Line plots in panels, as one SVG file; needs no plotting package, readable without colours."""

from collections.abc import Sequence
from html import escape
from math import ceil, floor, log10
from typing import NamedTuple

from recbole_e2urec.report.plots import COLORS

WIDTH, HEIGHT, ACROSS = 440, 260, 2  # of a panel, in pixels; panels side by side
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 30, 40  # margins of a panel
LEGEND, ENTRIES = 10, 20  # height of the legend: margin, and a line of entries
LETTER = 7  # width of a digit, in pixels
DASHES = ("", "6 3", "2 3", "8 3 2 3", "12 4")


class Line(NamedTuple):
    """Points in order of x; the same style draws the same name in every panel."""

    name: str
    points: Sequence[tuple[float, float]]
    style: int
    marked: bool = False  # points without a line, such as Retrains


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


def svg(panels: Sequence[Panel], x_title: str, across: int = ACROSS) -> str:
    """Draw the panels in rows of ``across`` panels, with one legend above."""
    rows = ceil(len(panels) / across)
    legend, below = _legend(panels, WIDTH * across)
    size = f'width="{WIDTH * across}" height="{HEIGHT * rows + below}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        legend,
    ]
    for place, panel in enumerate(panels):
        x, y = WIDTH * (place % across), below + HEIGHT * (place // across)
        parts.append(f'<g transform="translate({x},{y})">{_panel(panel, x_title)}</g>')
    return "\n".join([*parts, "</svg>\n"])


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round values between two others: multiples of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** floor(log10((high - low) / most))
    step = next(power * k for k in (1, 2, 5, 10) if (high - low) / (power * k) <= most)
    multiples = range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)
    return [multiple * step for multiple in multiples]


def _labels(across: _Scale, most: int) -> list[tuple[float, str]]:
    """Round values and their texts, as many as have room side by side."""
    labels = [(value, f"{value:.5g}") for value in ticks(across.low, across.high, most)]
    width = sum((len(text) + 2) * LETTER for _, text in labels)
    return labels if most == 1 or width <= across.end - across.start else _labels(across, most - 1)


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
    for value, text in _labels(across, 11):
        x = f'x="{across(value):.1f}" y="{HEIGHT - BOTTOM + 16}"'
        parts.append(f'<text {x} text-anchor="middle">{text}</text>')
    middle = f'x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}"'
    parts.append(f'<text {middle} text-anchor="middle">{escape(x_title)}</text>')
    return "".join([*parts, *(_line(line, across, up) for line in panel.lines)])


def _scale(values: Sequence[float], start: float, end: float, margin: float) -> _Scale:
    low, high = min(values), max(values)
    space = (high - low) * margin or abs(low) * margin or 1.0
    return _Scale(low - space, high + space, start, end)


def _line(line: Line, across: _Scale, up: _Scale) -> str:
    placed = [(across(x), up(y)) for x, y in line.points]
    drawn = "".join(_dot(line, x, y) for x, y in placed)
    if line.marked:
        return drawn
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    return f'<polyline points="{path}" {_stroke(line)}/>{drawn}'


def _legend(panels: Sequence[Panel], room: int) -> tuple[str, int]:
    """Draw the legend, with an entry for each name; return it and its height in pixels."""
    named = {line.name: line for panel in panels for line in panel.lines}
    parts, x, y = [], LEFT, 16
    for name, line in named.items():
        width = 50 + 8 * len(name)
        if x > LEFT and x + width > room:
            x, y = LEFT, y + ENTRIES
        sample = f'<path d="M{x},{y}h26" {_stroke(line)}/>'
        dot, text = _dot(line, x + 13, y), f'<text x="{x + 32}" y="{y + 4}">{escape(name)}</text>'
        parts.append((dot if line.marked else sample + dot) + text)
        x += width
    return "".join(parts), y - 16 + ENTRIES + LEGEND


def _dot(line: Line, x: float, y: float) -> str:
    """Draw a circle, or a square once all colours have been used."""
    radius, colour = _radius(line), _colour(line)
    if line.style < len(COLORS):
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}"/>'
    corner = f'x="{x - radius:.1f}" y="{y - radius:.1f}"'
    return f'<rect {corner} width="{2 * radius}" height="{2 * radius}" fill="{colour}"/>'


def _stroke(line: Line) -> str:
    dash = DASHES[line.style % len(DASHES)]
    return f'fill="none" stroke="{_colour(line)}" stroke-width="1.6" stroke-dasharray="{dash}"'


def _colour(line: Line) -> str:
    return COLORS[line.style % len(COLORS)]


def _radius(line: Line) -> float:
    return 4.5 if line.marked else 2.2
