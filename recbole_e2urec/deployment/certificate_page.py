"""A certificate as one HTML page, without any script: to be read, printed and filed."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from recbole_e2urec.deployment.certificate_words import NO_CONTROL, no_residual
from recbole_e2urec.deployment.evidence import MOST, TESTED
from recbole_e2urec.evaluator.attacks import CURVE_BATCH_SIZE
from recbole_e2urec.utils.html import SHEETS

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


class Line(NamedTuple):
    """A line of a table."""

    title: str
    cells: list[str]


def measures(whole: Mapping[str, Any]) -> list[Line]:
    """Every measure under every model."""
    told = [whole["measures"]["before"], whole["measures"]["after"]]
    told += [whole["retrain"]["measures"]] if whole["retrain"] else []
    lines = [
        Line(f"test {title}", [_number(one["test"][key]) for one in told])
        for title, key in (("AUC", "auc"), ("ACC", "acc"), ("LogLoss", "logloss"))
    ]
    for name, title, otherwise in (
        ("forget", "loss, forgotten rows", "-"),
        ("heldout", "loss, held-out rows of the same users", "-"),
        ("control", "loss, rows of control users", NO_CONTROL),
    ):
        lines.append(Line(title, [_number(one[name]["loss"], otherwise) for one in told]))
    lines += _attacks("control users", [one["mia"] for one in told], NO_CONTROL)
    lines += _attacks("held-out rows", [one["mia_same_users"] for one in told], "-")
    for name, title in (("test", "test"), ("heldout", "held-out"), ("control", "control users'")):
        lines.append(Line(f"{title} rows asked", [f"{one[name]['rows']:,}" for one in told]))
    return lines


def curves(whole: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Relearning curves by the words of the legend."""
    sides = {side: whole["measures"][side]["relearning"] for side in ("before", "after")}
    if whole["retrain"]:
        sides["Retrain"] = whole["retrain"]["measures"]["relearning"]
    found = {f"{side}, forgotten rows": one["forget"] for side, one in sides.items()}
    found |= {f"{side}, control users": one["control"] for side, one in sides.items()}
    return {title: curve for title, curve in found.items() if curve}


def distances(whole: Mapping[str, Any]) -> list[Line]:
    """JSD, L2 and, beside its floor alone, residual of each model, where there is a Retrain."""
    if not whole["retrain"]:
        return []
    keys = ("jsd", "l2") if no_residual(whole) else ("jsd", "l2", "residual")
    return [
        Line(name, [_number(one[key]) for key in keys])
        for name, one in whole["retrain"]["distances"].items()
    ]


def _number(value: Any, otherwise: str = "-") -> str:
    return otherwise if value is None else f"{value:.4f}"


def _attacks(against: str, found: Sequence[Mapping[str, Any] | None], otherwise: str) -> list[Line]:
    """Membership inference: AUC, and the interval below it."""
    whole = Line(
        f"MIA AUC, against {against}", [_number(one and one["auc"], otherwise) for one in found]
    )
    bounds = [one["interval"] for one in found if one and one["interval"]]
    if len(bounds) < len(found):
        return [whole]
    return [whole, Line("its 95 % interval", [f"{low:.3f} to {high:.3f}" for low, high in bounds])]


def flat(value: Mapping[str, Any], before: str = "") -> list[Line]:
    """A nested mapping as lines."""
    lines = []
    for key, one in value.items():
        if isinstance(one, Mapping):
            lines += flat(one, f"{before}{key}.")
        else:
            lines.append(
                Line(f"{before}{key}", [f"{one:g}" if isinstance(one, float) else f"{one}"])
            )
    return lines


LISTED = 20  # hashes of a kind on the page; the JSON file has them all
_TITLES = {
    "users": "users who left wholly",
    "items": "items that left wholly",
    "rows": "single rows (user and item)",
}


def certificate_page(whole: Mapping[str, Any]) -> str:
    """Write the page of a certificate; it holds nothing that the certificate does not."""
    return _PAGE.render(
        whole=whole,
        words=whole["in_words"],
        measures=measures(whole),
        sides=["before", "after", *(["Retrain"] if whole["retrain"] else [])],
        curves=drawing(curves(whole)),
        distances=distances(whole),
        no_residual=whole["retrain"] and no_residual(whole),
        hashes={
            title: (len(whole["identifiers"][kind]), whole["identifiers"][kind][:LISTED])
            for kind, title in _TITLES.items()
        },
        settings=flat({"method": whole["method"], "model": whole["model"]}),
        cost=flat(whole["cost"]),
        most=(TESTED, MOST),
        batch=CURVE_BATCH_SIZE,
    )


_PAGE = SHEETS.from_string("""\
{% extends "sheet" %}
{% macro table(lines, header=()) %}
<div class="wide"><table>
{% if header %}<thead><tr><th></th>{% for cell in header %}<th class="number">{{ cell }}</th>\
{% endfor %}</tr></thead>{% endif %}
<tbody>
{% for line in lines %}
<tr><td>{{ line.title }}</td>{% for cell in line.cells %}<td{% if header %} class="number"\
{% endif %}>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% endmacro %}
{% block title %}Request {{ whole.request.id }}: what was forgotten{% endblock %}
{% block body %}
<h1>Request {{ whole.request.id }}: what was forgotten, and what that shows</h1>
<p class="note">{{ whole.request.date }}; request {{ whole.request.number }} of its model, on \
{{ whole.data.dataset }}; content {{ whole.request.digest }}</p>
{% for sentence in words.first %}
<p><strong>{{ sentence }}</strong></p>
{% endfor %}
<ul>
{% for sentence in words.found %}
<li>{{ sentence }}</li>
{% endfor %}
</ul>

<h2>What it cannot show</h2>
<ul>
{% for sentence in words.cannot_show %}
<li>{{ sentence }}</li>
{% endfor %}
</ul>

<h2>What was asked for, and found</h2>
<p>{{ "{:,}".format(whole.asked.rows) }} rows of the data, \
{{ "{:,}".format(whole.asked.training_rows) }} of the \
{{ "{:,}".format(whole.asked.training_rows_before) }} training rows that there were \
({{ "{:.2%}".format(whole.asked.share_of_training) }}). These training rows are of \
{{ "{:,}".format(whole.asked["users"].some) }} users, of whom \
{{ "{:,}".format(whole.asked["users"].whole) }} keep no training row, and of \
{{ "{:,}".format(whole.asked["items"].some) }} items, of which \
{{ "{:,}".format(whole.asked["items"].whole) }} keep none.</p>

<h2>Measures</h2>
{{ table(measures, sides) }}
<p class="note">Losses are the mean cross-entropy of the true answer, in nats. Test rows are those \
of users who stay, asked as the model is used; all other rows are asked with the histories from \
before the request. At most {{ "{:,}".format(most[0]) }} test rows and \
{{ "{:,}".format(most[1]) }} of another kind are asked about, but all of the forgotten ones. \
MIA AUC: how well a small loss tells forgotten rows from others, with its 95 % interval \
over resampled users. It is to be compared with Retrain's, never with 0.5.</p>
{% if curves %}
<figure>
<h3>Relearning</h3>
{{ curves | safe }}
<figcaption>One half of the rows is shown to a copy of the model, {{ batch }} rows a step; the \
loss is that of the other half. What was only hidden comes back in a step or two. Rows of control \
users show how fast what was never known is learned.</figcaption>
</figure>
{% endif %}
{% if distances %}
<h3>Distance to Retrain, on the forgotten rows</h3>
{{ table(distances, ["JSD, nats", "L2"] + ([] if no_residual else ["residual"])) }}
<p class="note">{{ no_residual or "residual: 0 = Retrain, 1 = did nothing, above 1 = did harm." }} \
"Retrain, other seed" is the noise floor: what is nearer than that cannot be told from Retrain.</p>
{% endif %}

<h2>Method and cost</h2>
{{ table(settings) }}
{{ table(cost) }}

<h2>What was purged</h2>
{% if whole.purged is none %}
<p>Nothing.</p>
{% else %}
<div class="wide"><table><thead><tr><th>removed</th><th class="number">files</th>\
<th class="number">bytes</th></tr></thead><tbody>
{% for kind, one in whole.purged.removed.items() %}
<tr><td>{{ kind }}</td><td class="number">{{ "{:,}".format(one.files) }}</td>\
<td class="number">{{ "{:,}".format(one.bytes) }}</td></tr>
{% endfor %}
</tbody></table></div>
{% for one in whole.purged.kept %}
<p>Kept: {{ one.name }}, {{ one.why }}; SHA-256 {{ one.sha256 }}</p>
{% endfor %}
{% for name in whole.purged.unknown %}
<p>Not known to the purge, and left: {{ name }}</p>
{% endfor %}
{% endif %}

<h2>Hashes of the model</h2>
{% for side in ("before", "after") %}
{% if whole[side].model_json %}
<h3>{{ side }}: generation {{ whole[side].generation }}</h3>
<div class="wide"><table><tbody>
<tr><td>model.json</td><td>{{ whole[side].model_json }}</td></tr>
{% else %}
<h3>{{ side }}: the comparison's Original, which was in no folder</h3>
<div class="wide"><table><tbody>
{% endif %}
{% for name, digest in whole[side].files.items() %}
<tr><td>{{ name }}</td><td>{{ digest }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endfor %}

<h2>Whom it was about, as salted hashes</h2>
<p>{{ whole.identifiers.how }}. Salt: <code>{{ whole.identifiers.salt }}</code></p>
{% for title, (count, some) in hashes.items() if count %}
<h3>{{ title }}: {{ "{:,}".format(count) }}</h3>
<pre>{{ some | join("\n") }}{% if count > some | length %}

... the JSON file has all{% endif %}</pre>
{% endfor %}

<h2>Versions</h2>
<p>{% for name, version in whole.versions.items() %}{{ name }} {{ version }}\
{{ "" if loop.last else ", " }}{% endfor %}</p>
<p class="note">This page was made of the JSON file beside it, whose own hash is \
{{ whole.sha256 }}. <code>recbole-e2urec verify FILE.json</code> computes again what can be \
computed.</p>
{% endblock %}
""")
