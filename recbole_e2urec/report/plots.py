"""Plots of a comparison and the HTML page that shows them, made from the rows of results alone.

Models differ in colour, marker and dash, so that no information is in the colour alone. The palette
is by Okabe and Ito; colour-blind people can tell its colours apart.
"""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any, NamedTuple

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from recbole_e2urec.report.tables import TextTable, value_of
from recbole_e2urec.utils.html import SHEETS

Row = Mapping[str, Any]
# Okabe and Ito, "Color Universal Design", 2008, without yellow, which is faint on white.
COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("circle", "square", "diamond", "cross", "triangle-up", "x", "star", "triangle-down")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
GROUPS = {"forget": "forget rows", "control": "rows no model saw"}


class Figure(NamedTuple):
    """A picture with its title and caption."""

    title: str
    picture: go.Figure
    caption: str


def figures(rows: Sequence[Row]) -> list[Figure]:
    """Draw the figures of a comparison; figures without data are left out."""
    names = list(dict.fromkeys(row["model"] for row in rows))
    models = {name: [row for row in rows if row["model"] == name] for name in names}
    drawn = [_tradeoff(models), _cost(models), _relearning(models), _roc(models), _losses(models)]
    return [figure for figure in drawn if figure is not None]


def _tradeoff(models: Mapping[str, Sequence[Row]]) -> Figure | None:
    """Draw test AUC over forget AUC, each with its interval."""
    picture = go.Figure()
    for index, (name, rows) in enumerate(models.items()):
        x, y = _mean(rows, "forget.auc"), _mean(rows, "test.auc")
        if x is None or y is None:
            continue
        picture.add_trace(
            go.Scatter(
                x=[x],
                y=[y],
                error_x=_error_bars(rows, "intervals.forget_auc", x),
                error_y=_error_bars(rows, "intervals.test_auc", y),
                mode="markers",
                name=name,
                marker={"size": 12, **_marker(index)},
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
    """Draw the seconds of each model for the request, and next to them those before it."""
    for_request, before = (
        {name: _mean(rows, path) for name, rows in models.items()}
        for path in ("cost.seconds", "cost.prior_seconds")
    )
    names = [name for name, value in for_request.items() if value is not None][::-1]
    if not names:
        return None
    picture = go.Figure()
    for title, seconds, color, pattern in (
        ("for the request", for_request, COLORS[1], ""),
        ("before any request", before, COLORS[6], "/"),
    ):
        values = [seconds[name] or 0 for name in names]
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
    """Draw AUC on forget rows that are not shown again, by training steps on those that are."""
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
    """Draw the ROC curve of the loss attack."""
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
    """Draw histograms of losses of forget rows and of rows no model saw, one panel a model."""
    names = [name for name, rows in models.items() if any("loss_shares" in row for row in rows)]
    if not names:
        return None
    picture = make_subplots(
        rows=len(names),
        cols=1,
        shared_xaxes=True,
        subplot_titles=names,
        vertical_spacing=0.4 / (len(names) + 1),
    )
    for panel, name in enumerate(names, start=1):
        for index, (group, title) in enumerate(GROUPS.items(), start=1):
            x, y = _curve(models[name], "loss_shares", "edges", group)
            line = {"color": COLORS[index], "dash": DASHES[index - 1], "shape": "hv"}
            trace = go.Scatter(x=x, y=y, mode="lines", name=title, line=line, showlegend=panel == 1)
            picture.add_trace(trace, row=panel, col=1)
    _lay_out(picture, "", "", height=200 + 150 * len(names))
    picture.update_xaxes(title_text="loss of the true answer, nats", row=len(names), col=1)
    caption = (
        "Share of rows by loss, in parts of 0.1 nats; the last holds all above. Where forget rows "
        "lie further left than under Retrain, the model still knows them."
    )
    return Figure("Losses of forgotten and of unseen rows", picture, caption)


def _lines(models: Mapping[str, Sequence[Row]], path: str, x_name: str, y_name: str) -> go.Figure:
    """Draw a line for each model that has this curve; arguments as in :func:`_curve`."""
    picture = go.Figure()
    for index, (name, rows) in enumerate(models.items()):
        x, y = _curve(rows, path, x_name, y_name)
        if x:
            line = {"color": _marker(index)["color"], "dash": DASHES[index % len(DASHES)]}
            marker = {"size": 8, **_marker(index)}
            picture.add_trace(
                go.Scatter(x=x, y=y, mode="lines+markers", name=name, line=line, marker=marker)
            )
    return picture


def _lay_out(picture: go.Figure, x: str, y: str, height: int = 480) -> None:
    """Apply the common layout: readable on a phone, with the legend below the plot."""
    picture.update_layout(
        template="plotly_white",
        height=height,
        font={"size": 14},
        margin={"l": 10, "r": 10, "t": 30, "b": 10},
        legend={"orientation": "h", "yanchor": "top", "y": -0.2 * 480 / height},
    )
    picture.update_xaxes(title_text=x, automargin=True)
    picture.update_yaxes(title_text=y, automargin=True)


def _marker(index: int) -> dict[str, str]:
    return {"color": COLORS[index % len(COLORS)], "symbol": MARKERS[index % len(MARKERS)]}


def _mean(rows: Sequence[Row], path: str) -> float | None:
    values = [value for row in rows if (value := value_of(row, path)) is not None]
    return mean(values) if values else None


def _error_bars(rows: Sequence[Row], path: str, middle: float) -> dict[str, Any] | None:
    """Return error bars from the middle to the mean bounds of the intervals."""
    intervals = [value for row in rows if (value := value_of(row, path)) is not None]
    if not intervals:
        return None
    low, high = (mean(bounds) for bounds in zip(*intervals, strict=True))
    return {"type": "data", "array": [high - middle], "arrayminus": [middle - low], "thickness": 1}


def _curve(
    rows: Sequence[Row], path: str, x_name: str, y_name: str
) -> tuple[list[float], list[float]]:
    """Compute the mean curve over the rows.

    Rows whose x values differ from those of the first complete curve are left out.

    Args:
        rows: rows of one model.
        path: path of the curve in a row.
        x_name: name of the x values there.
        y_name: name of the y values there.

    Returns:
        The x values and the mean y values; empty if no row has a complete curve.
    """
    curves = [
        (value_of(row, f"{path}.{x_name}"), value_of(row, f"{path}.{y_name}")) for row in rows
    ]
    complete = [(x, y) for x, y in curves if x and y and None not in y]
    if not complete:
        return [], []
    first_x = complete[0][0]
    matching = [y for x, y in complete if x == first_x]
    return list(first_x), [mean(values) for values in zip(*matching, strict=True)]


_PAGE = SHEETS.from_string("""\
{% extends "sheet" %}
{% block title %}Unlearning: {{ groups | map(attribute="title") | join("; ") }}{% endblock %}
{% block body %}
<h1>Unlearning results</h1>
{% for group in groups %}
<section>
<h2>{{ group.title }}</h2>
{% if group.caution %}<p class="caution">{{ group.caution }}</p>
{% endif %}
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
    cautions: Sequence[str | None],
) -> str:
    """Write the HTML page.

    Args:
        groups: title and rows of each comparison.
        tables: tables of each comparison.
        notes: notes below the tables of each comparison.
        cautions: what a reader of each comparison must know first; None: nothing.
    """
    sections = []
    include_script = True  # the page contains the plotting library once
    parts = zip(groups, tables, notes, cautions, strict=True)
    for (title, rows), group_tables, group_notes, caution in parts:
        pictures = []
        for figure in figures(rows):
            picture = figure.picture.to_html(
                full_html=False,
                include_plotlyjs=include_script,
                config={"responsive": True, "displayModeBar": False},
            )
            pictures.append({**figure._asdict(), "picture": picture})
            include_script = False
        sections.append(
            {
                "title": title,
                "caution": caution,
                "tables": [table.render("html") for table in group_tables],
                "notes": group_notes,
                "figures": pictures,
                "tuned": _tuning_lines(rows),
            }
        )
    return _PAGE.render(groups=sections)


def _tuning_lines(rows: Sequence[Row]) -> list[str]:
    """Return the settings that --tune chose, one line for each model."""
    results = {row["model"]: row["tuning"] for row in rows if "tuning" in row}
    return [
        f"{name}, {len(tuning['trials'])} trials: "
        + (", ".join(f"{key} {value}" for key, value in tuning["chosen"].items()) or "defaults")
        for name, tuning in results.items()
    ]
