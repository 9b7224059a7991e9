"""Plots of a comparison, and the HTML page that shows them, made from the rows of results alone.

Models differ in colour (Okabe and Ito's palette, which colour-blind people can tell apart), in
marker and in dash; nothing is told by colour alone.
"""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any, NamedTuple

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from recbole_e2urec.report.tables import TextTable, value_of
from recbole_e2urec.utils.html import SHEETS

Row = Mapping[str, Any]
# Okabe and Ito, "Color Universal Design", 2008; without yellow, which is faint on white.
COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("circle", "square", "diamond", "cross", "triangle-up", "x", "star", "triangle-down")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
GROUPS = {"forget": "forget rows", "control": "rows no model saw"}


class Figure(NamedTuple):
    """A picture and the words below it."""

    title: str
    picture: go.Figure
    caption: str


def figures(rows: Sequence[Row]) -> list[Figure]:
    """Draw what the rows of a comparison hold; a picture without data is left out."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    by_model = {name: [row for row in rows if row["model"] == name] for name in models}
    drawn = [_tradeoff(by_model), _cost(by_model), _relearning(by_model), _roc(by_model)]
    return [figure for figure in [*drawn, _losses(by_model)] if figure is not None]


def _tradeoff(models: Mapping[str, Sequence[Row]]) -> Figure | None:
    """Test AUC over forget AUC, each with its interval."""
    picture = go.Figure()
    for place, (name, rows) in enumerate(models.items()):
        x, y = _mean(rows, "forget.auc"), _mean(rows, "test.auc")
        if x is None or y is None:
            continue
        picture.add_trace(
            go.Scatter(
                x=[x],
                y=[y],
                error_x=_bars(rows, "intervals.forget_auc", x),
                error_y=_bars(rows, "intervals.test_auc", y),
                mode="markers",
                name=name,
                marker={"size": 12, **_marker(place)},
            )
        )
    if not picture.data:
        return None
    retrained = _mean(models.get("Retrain", ()), "forget.auc")
    if retrained is not None:
        picture.add_vline(x=retrained, line={"dash": "dash", "color": "#555555", "width": 1})
    _lay_out(picture, "forget AUC", "test AUC")
    caption = (
        "Wanted: on the dashed line, Retrain's forget AUC, and as high as Original. Left of it too "
        "much was forgotten, right of it too little. Bars: 95 % user-bootstrap intervals, means "
        "over seeds; they overlap between models more than paired differences do."
    )
    return Figure("Usefulness against forgetting", picture, caption)


def _cost(models: Mapping[str, Sequence[Row]]) -> Figure | None:
    """Seconds of each model, those before the request beside them."""
    after, before = (
        {name: _mean(rows, path) for name, rows in models.items()}
        for path in ("cost.seconds", "cost.prior_seconds")
    )
    names = [name for name, value in after.items() if value is not None][::-1]
    if not names:
        return None
    picture = go.Figure()
    for title, found, color, pattern in (
        ("for the request", after, COLORS[1], ""),
        ("before any request", before, COLORS[6], "/"),
    ):
        values = [found[name] or 0 for name in names]
        if any(values):
            marker = {"color": color, "pattern": {"shape": pattern}}
            picture.add_trace(go.Bar(y=names, x=values, name=title, orientation="h", marker=marker))
    _lay_out(picture, "seconds, mean over seeds", "", height=180 + 32 * len(names))
    picture.update_layout(barmode="group")
    caption = (
        "Wall time of all that was trained and computed. Original and Retrain: the whole training. "
        "Methods that shard need a training of their own before any request comes."
    )
    return Figure("Cost", picture, caption)


def _relearning(models: Mapping[str, Sequence[Row]]) -> Figure | None:
    """AUC on forget rows that are not shown again, by steps on those that are."""
    picture = _lines(models, "relearning", "steps", "auc")
    if not picture.data:
        return None
    _lay_out(picture, "steps on one half of the forget rows", "AUC on the other half")
    caption = (
        "One half of the forget rows is shown again. What was only hidden comes back at once: a "
        "curve that climbs faster than Retrain's has kept something."
    )
    return Figure("Relearning", picture, caption)


def _roc(models: Mapping[str, Sequence[Row]]) -> Figure | None:
    """ROC of the loss attack."""
    picture = _lines(models, "mia_roc", "fpr", "tpr")
    if not picture.data:
        return None
    chance = picture.data[0].x
    line = {"dash": "dot", "color": "#999999", "width": 1}
    picture.add_trace(go.Scatter(x=chance, y=chance, mode="lines", name="chance", line=line))
    _lay_out(picture, "share of strangers accused", "share of forget rows found")
    picture.update_xaxes(type="log")
    picture.update_yaxes(type="log")
    caption = (
        "Membership inference by the loss of the true answer: forget rows against rows of users "
        "that no model saw. Retrain's curve is the target, not chance: it shows how the two differ "
        "in difficulty. Mean over seeds."
    )
    return Figure("Membership inference", picture, caption)


def _losses(models: Mapping[str, Sequence[Row]]) -> Figure | None:
    """Spread of losses of forget rows and of rows that no model saw, a panel a model."""
    shown = [name for name, rows in models.items() if any("loss_shares" in row for row in rows)]
    if not shown:
        return None
    picture = make_subplots(
        rows=len(shown),
        cols=1,
        shared_xaxes=True,
        subplot_titles=shown,
        vertical_spacing=0.4 / (len(shown) + 1),
    )
    for panel, name in enumerate(shown, start=1):
        for place, (group, title) in enumerate(GROUPS.items(), start=1):
            x, y = _curve(models[name], "loss_shares", "edges", group)
            line = {"color": COLORS[place], "dash": DASHES[place - 1], "shape": "hv"}
            trace = go.Scatter(x=x, y=y, mode="lines", name=title, line=line, showlegend=panel == 1)
            picture.add_trace(trace, row=panel, col=1)
    _lay_out(picture, "", "", height=200 + 150 * len(shown))
    picture.update_xaxes(title_text="loss of the true answer, nats", row=len(shown), col=1)
    caption = (
        "Share of rows by loss, in parts of 0.1 nats; the last holds all above. Where forget rows "
        "lie further left than under Retrain, the model still knows them."
    )
    return Figure("Losses of forgotten and of unseen rows", picture, caption)


def _lines(models: Mapping[str, Sequence[Row]], path: str, along: str, up: str) -> go.Figure:
    """A line a model that has this curve (see :func:`_curve`)."""
    picture = go.Figure()
    for place, (name, rows) in enumerate(models.items()):
        x, y = _curve(rows, path, along, up)
        if x:
            line = {"color": _marker(place)["color"], "dash": DASHES[place % len(DASHES)]}
            marker = {"size": 8, **_marker(place)}
            picture.add_trace(
                go.Scatter(x=x, y=y, mode="lines+markers", name=name, line=line, marker=marker)
            )
    return picture


def _lay_out(picture: go.Figure, x: str, y: str, height: int = 480) -> None:
    """One look for all: readable on a phone, the legend below."""
    picture.update_layout(
        template="plotly_white",
        height=height,
        font={"size": 14},
        margin={"l": 10, "r": 10, "t": 30, "b": 10},
        legend={"orientation": "h", "yanchor": "top", "y": -0.2 * 480 / height},
    )
    picture.update_xaxes(title_text=x, automargin=True)
    picture.update_yaxes(title_text=y, automargin=True)


def _marker(place: int) -> dict[str, str]:
    return {"color": COLORS[place % len(COLORS)], "symbol": MARKERS[place % len(MARKERS)]}


def _mean(rows: Sequence[Row], path: str) -> float | None:
    values = [value for row in rows if (value := value_of(row, path)) is not None]
    return mean(values) if values else None


def _bars(rows: Sequence[Row], path: str, middle: float) -> dict[str, Any] | None:
    """Error bars from the middle to the mean bounds of the intervals."""
    bounds = [value for row in rows if (value := value_of(row, path)) is not None]
    if not bounds:
        return None
    low, high = (mean(values) for values in zip(*bounds, strict=True))
    return {"type": "data", "array": [high - middle], "arrayminus": [middle - low], "thickness": 1}


def _curve(rows: Sequence[Row], path: str, x: str, y: str) -> tuple[list[float], list[float]]:
    """Mean over the rows of a curve; empty where no row has it. Other lengths are left out."""
    found = [(value_of(row, f"{path}.{x}"), value_of(row, f"{path}.{y}")) for row in rows]
    whole = [(place, value) for place, value in found if place and value and None not in value]
    if not whole:
        return [], []
    places = whole[0][0]
    values = [value for place, value in whole if place == places]
    return list(places), [mean(column) for column in zip(*values, strict=True)]


_PAGE = SHEETS.from_string("""\
{% extends "sheet" %}
{% block title %}Unlearning: {{ groups | map(attribute="title") | join("; ") }}{% endblock %}
{% block body %}
<h1>Unlearning results</h1>
{% for group in groups %}
<section>
<h2>{{ group.title }}</h2>
{% for table in group.tables %}<div class="wide">{{ table | safe }}</div>
{% endfor %}
{% for note in group.notes %}<p class="note">{{ note }}</p>
{% endfor %}
{% for figure in group.figures %}
<figure>
<h3>{{ figure.title }}</h3>
{{ figure.picture | safe }}
<figcaption>{{ figure.caption }}</figcaption>
</figure>
{% endfor %}
{% if group.tuned %}
<h3>Settings chosen on other users' request</h3>
<ul>
{% for line in group.tuned %}<li>{{ line }}</li>
{% endfor %}</ul>
{% endif %}
</section>
{% endfor %}
{% endblock %}
""")


def page(
    groups: Sequence[tuple[str, Sequence[Row]]],
    tables: Sequence[Sequence[TextTable]],
    notes: Sequence[Sequence[str]],
) -> str:
    """Write the page.

    Args:
        groups: title and rows of each comparison.
        tables: of each.
        notes: words below the tables of each.
    """
    sections = []
    script = True  # the plotting library goes into the page once
    for (title, rows), cells, words in zip(groups, tables, notes, strict=True):
        pictures = []
        for figure in figures(rows):
            picture = figure.picture.to_html(
                full_html=False,
                include_plotlyjs=script,
                config={"responsive": True, "displayModeBar": False},
            )
            pictures.append({**figure._asdict(), "picture": picture})
            script = False
        sections.append(
            {
                "title": title,
                "tables": [table.drawn("html") for table in cells],
                "notes": words,
                "figures": pictures,
                "tuned": _tuned(rows),
            }
        )
    return _PAGE.render(groups=sections)


def _tuned(rows: Sequence[Row]) -> list[str]:
    """What --tune chose, a line a model."""
    chosen = {row["model"]: row["tuning"] for row in rows if "tuning" in row}
    return [
        f"{name}, {len(tuning['trials'])} trials: "
        + (", ".join(f"{key} {value}" for key, value in tuning["chosen"].items()) or "defaults")
        for name, tuning in chosen.items()
    ]
