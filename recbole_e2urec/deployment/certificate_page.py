"""A certificate as one HTML page without scripts, to be read, printed and filed."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from recbole_e2urec.deployment.certificate_words import NO_CONTROL, no_residual, things
from recbole_e2urec.deployment.evidence import MAX_OTHER_ROWS, MAX_TEST_ROWS, ROWS_OF_USER
from recbole_e2urec.evaluator.attacks import CURVE_BATCH_SIZE, ROUNDED_BITS
from recbole_e2urec.utils.html import SHEETS

MAX_LISTED = 20  # hashes of a kind on the page; the JSON file has them all
_TITLES = {
    "users": "users who left as a whole",
    "items": "items that left as a whole",
    "rows": "single rows (user and item)",
}

WIDTH, HEIGHT, LEFT, BOTTOM, MARGIN = 640, 320, 56, 40, 12  # of the drawing
TICKS = 4
# Colours of Okabe and Ito, as in figures. Each curve has its own dash as well as its own colour.
CURVE_STYLES = (
    ("#0072B2", ""), ("#D55E00", "8 4"), ("#000000", "2 3"),
    ("#009E73", "10 3 2 3"), ("#CC79A7", "5 5"), ("#56B4E9", "1 4"),
)  # fmt: skip


class TableLine(NamedTuple):
    """A line of a table."""

    title: str
    cells: list[str]


class Curve(NamedTuple):
    """A curve of the drawing."""

    title: str
    points: str  # as SVG writes them
    color: str
    dash: str
    y: float  # of its line in the legend


def certificate_page(certificate: Mapping[str, Any]) -> str:
    """Render the page of a certificate; it holds nothing that the certificate does not."""
    identifiers = certificate["identifiers"]
    hashes = {
        title: (len(identifiers[kind]), identifiers[kind][:MAX_LISTED])
        for kind, title in _TITLES.items()
    }
    return _PAGE.render(
        certificate=certificate,
        done="corrected" if "corrected" in certificate["asked"] else "forgotten",
        words=certificate["in_words"],
        measures=_measures(certificate),
        sides=["before", "after", *(["Retrain"] if certificate["retrain"] else [])],
        curves=_drawing(_relearning_curves(certificate)),
        attacks=_attack_lines(certificate),
        distances=_distances(certificate),
        no_residual=certificate["retrain"] and no_residual(certificate),
        hashes=hashes,
        settings=_flat({"method": certificate["method"], "model": certificate["model"]}),
        cost=_flat(certificate["cost"]),
        max_test_rows=MAX_TEST_ROWS,
        max_other_rows=MAX_OTHER_ROWS,
        batch=CURVE_BATCH_SIZE,
        max_listed=MAX_LISTED,
        rows_of_user=ROWS_OF_USER,
        things=things,
    )


def _measures(certificate: Mapping[str, Any]) -> list[TableLine]:
    """Return a line for each measure, with a cell for each model."""
    models = [certificate["measures"]["before"], certificate["measures"]["after"]]
    models += [certificate["retrain"]["measures"]] if certificate["retrain"] else []
    lines = [
        TableLine(f"test {title}", [_number(model["test"][key]) for model in models])
        for title, key in (("AUC", "auc"), ("ACC", "acc"), ("LogLoss", "logloss"))
    ]
    for name, title, otherwise in (
        ("forget", "loss, forgotten rows", "-"),
        ("learned", "loss, corrected answers", "-"),
        ("heldout", "loss, held-out rows of the same users", "-"),
        ("control", "loss, rows of control users", NO_CONTROL),
    ):
        if not all(name in model for model in models):
            continue
        cells = [_number(model[name]["loss"], otherwise) for model in models]
        lines.append(TableLine(title, cells))
    for part, title in (("forget", "forgotten rows"), ("control", "control users")):
        for bits in ROUNDED_BITS if "rounding" in models[0] else ():
            cells = [_number(_at(model, "rounding", part, f"loss_{bits}_bits")) for model in models]
            lines.append(TableLine(f"loss at {bits} bits, {title}", cells))
    lines += _attacks("control users", [model["mia"] for model in models], NO_CONTROL)
    lines += _attacks("held-out rows", [model["mia_same_users"] for model in models], "-")
    for name, title in (("test", "test"), ("heldout", "held-out"), ("control", "control users'")):
        cells = [f"{model[name]['rows']:,}" for model in models]
        lines.append(TableLine(f"{title} rows asked", cells))
    return lines


def _attacks(
    against: str, attacks: Sequence[Mapping[str, Any] | None], otherwise: str
) -> list[TableLine]:
    """Return the AUC of membership inference, and its interval in the line below."""
    cells = [_number(attack and attack["auc"], otherwise) for attack in attacks]
    auc = TableLine(f"MIA AUC, against {against}", cells)
    bounds = [attack["interval"] for attack in attacks if attack and attack["interval"]]
    if len(bounds) < len(attacks):
        return [auc]
    intervals = [f"{low:.3f} to {high:.3f}" for low, high in bounds]
    return [auc, TableLine("its 95 % interval", intervals)]


def _attack_lines(certificate: Mapping[str, Any]) -> list[TableLine]:
    """Return what rounding and both models tell, for this model and for Retrain."""
    found = [certificate.get("attacks")]
    if found[0] is None:  # of 0.9.0 or before, or nothing was forgotten
        return []
    found += [certificate["retrain"].get("attacks")] if certificate["retrain"] else []
    lines = []
    for bits in found[0]["rounding"]:
        shares = [_at(one, "rounding", bits) for one in found]
        lines.append(_with_interval(f"way back at {bits} bits", shares, "back"))
    both = [one and one["both_models"] for one in found]
    for group, against in (("stay", "users who stay"), ("control", "control users")):
        for score, by in (("change", "change"), ("rise", "rise of the loss")):
            title = f"forgotten users from {against}, by the {by}"
            places = [_at(one, f"forgotten_from_{group}", score) for one in both]
            lines.append(_with_interval(title, places))
    for name, by in (("after", "the model after alone"), ("both", "both models")):
        title = f"rows of users who stay from control users', by {by}"
        lines.append(_with_interval(title, [_at(one, "staying", name) for one in both]))
    return lines


def _with_interval(
    title: str, found: Sequence[Mapping[str, Any] | None], key: str = "auc"
) -> TableLine:
    """Return a value of each model with its 95 % interval."""
    cells = []
    for one in found:
        bounds = one and one["interval"]
        text = "-" if one is None else f"{one[key]:.2f}"
        cells.append(f"{text} ({bounds[0]:.2f} to {bounds[1]:.2f})" if bounds else text)
    return TableLine(title, cells)


def _at(value: Any, *path: str) -> Any:
    """Return what is at a path; None where a part of it is missing."""
    for name in path:
        value = None if value is None else value.get(name)
    return value


def _distances(certificate: Mapping[str, Any]) -> list[TableLine]:
    """Return JSD and L2 of each model to Retrain, and the residual if its floor is known."""
    if not certificate["retrain"]:
        return []
    keys = ("jsd", "l2") if no_residual(certificate) else ("jsd", "l2", "residual")
    return [
        TableLine(name, [_number(distance[key]) for key in keys])
        for name, distance in certificate["retrain"]["distances"].items()
    ]


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[TableLine]:
    """Return a nested mapping as lines."""
    lines = []
    for key, item in value.items():
        if isinstance(item, Mapping):
            lines += _flat(item, f"{prefix}{key}.")
        else:
            text = f"{item:g}" if isinstance(item, float) else f"{item}"
            lines.append(TableLine(f"{prefix}{key}", [text]))
    return lines


def _number(value: Any, otherwise: str = "-") -> str:
    return otherwise if value is None else f"{value:.4f}"


def _relearning_curves(certificate: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return relearning curves by their titles in the legend."""
    sides = {side: certificate["measures"][side]["relearning"] for side in ("before", "after")}
    if certificate["retrain"]:
        sides["Retrain"] = certificate["retrain"]["measures"]["relearning"]
    curves = {f"{side}, forgotten rows": pair["forget"] for side, pair in sides.items()}
    curves |= {f"{side}, control users": pair["control"] for side, pair in sides.items()}
    return {title: curve for title, curve in curves.items() if curve}


def _drawing(curves: Mapping[str, Mapping[str, Any]]) -> str:
    """Draw ``loss`` over ``steps`` of each curve; return an empty text if there are no curves."""
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

    drawn = [
        Curve(
            title,
            " ".join(
                f"{x(step):.1f},{y(loss):.1f}"
                for step, loss in zip(curve["steps"], curve["loss"], strict=True)
            ),
            *CURVE_STYLES[place % len(CURVE_STYLES)],
            HEIGHT + 20 * place,
        )
        for place, (title, curve) in enumerate(curves.items())
    ]
    levels = [low + span * part / TICKS for part in range(TICKS + 1)]
    return _DRAWING.render(
        curves=drawn,
        steps=[(step, round(x(step), 1)) for step in steps],
        levels=[(f"{level:.3f}", round(y(level), 1)) for level in levels],
        width=WIDTH,
        height=HEIGHT + 20 * len(drawn),
        left=LEFT,
        right=right,
        floor=floor,
        middle=(LEFT + right) / 2,
    )


_DRAWING = SHEETS.from_string("""\
<svg viewBox="0 0 {{ width }} {{ height }}" style="max-width: {{ width }}px; width: 100%"
 font-size="13" role="img" aria-label="loss by steps of relearning; the JSON file has its numbers">
{% for label, y in levels %}
<line x1="{{ left }}" x2="{{ right }}" y1="{{ y }}" y2="{{ y }}" stroke="#dddddd"/>
<text x="{{ left - 6 }}" y="{{ y + 4 }}" text-anchor="end">{{ label }}</text>
{% endfor %}
{% for step, x in steps %}
<text x="{{ x }}" y="{{ floor + 16 }}" text-anchor="middle">{{ step }}</text>
{% endfor %}
<text x="{{ middle }}" y="{{ floor + 33 }}" text-anchor="middle">steps (loss in nats upwards)</text>
{% for curve in curves %}
<polyline points="{{ curve.points }}" fill="none" stroke="{{ curve.color }}" stroke-width="2"
 stroke-dasharray="{{ curve.dash }}"/>
<line x1="{{ left }}" x2="{{ left + 40 }}" y1="{{ curve.y + 8 }}" y2="{{ curve.y + 8 }}"
 stroke="{{ curve.color }}" stroke-width="2" stroke-dasharray="{{ curve.dash }}"/>
<text x="{{ left + 48 }}" y="{{ curve.y + 12 }}">{{ curve.title }}</text>
{% endfor %}
</svg>
""")

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
{% block title %}Request {{ certificate.request.id }}: what was {{ done }}{% endblock %}
{% block body %}
<h1>What the model was asked to {{ "correct" if done == "corrected" else "forget" }}, and what \
came of it</h1>
<p class="note">Request {{ certificate.request.id }}, carried out on \
{{ certificate.request.date[:10] }}; the {{ certificate.request.number }}. request of this model, \
on the data set {{ certificate.data.dataset }}</p>
{% if words.first %}
<div class="caution">
{% for sentence in words.first %}
<p><strong>{{ sentence }}</strong></p>
{% endfor %}
</div>
{% endif %}
<div class="brief" id="brief">
{% for title, part in (("What was asked", "asked"), ("What was done", "done"), \
("How sure this is", "sure"), ("What is left", "left")) if words[part] %}
<section>
<h2>{{ title }}</h2>
{% for sentence in words[part] %}
<p>{{ sentence }}</p>
{% endfor %}
</section>
{% endfor %}
</div>

<h2>Findings, with their numbers</h2>
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
{% set asked = certificate.asked %}
<p>{{ things(asked.rows, "row") }} of the data, {{ "{:,}".format(asked.training_rows) }} of the \
{{ things(asked.training_rows_before, "training row") }} that there were \
({{ "{:.2%}".format(asked.share_of_training) }}). The request's hash is \
{{ certificate.request.digest }}, and it was carried out at {{ certificate.request.date }}.
{% if asked.training_rows %}
The training rows belong to {{ things(asked["users"].some, "user") }}, of whom \
{{ "{:,}".format(asked["users"].whole) }} without a training row left, and to \
{{ things(asked["items"].some, "item") }}, {{ "{:,}".format(asked["items"].whole) }} of which \
without one left.
{% endif %}
</p>

<h2>Measures</h2>
{{ table(measures, sides) }}
<p class="note">Losses are the mean cross-entropy of the true answer, in nats. Test rows are those \
of users who stay, asked with the histories that the served model uses. All other rows are asked \
with the histories from before the request. At most {{ "{:,}".format(max_test_rows) }} test rows \
and {{ "{:,}".format(max_other_rows) }} rows of another kind are asked about, but all forgotten \
rows. MIA AUC: how well a small loss tells forgotten rows from others, with its 95 % interval over \
resampled users. Compare it with Retrain's, never with 0.5.</p>
{% if curves %}
<figure>
<h3>Relearning</h3>
{{ curves | safe }}
<figcaption>A copy of the model is trained on one half of the rows, {{ batch }} rows a step. The \
loss is that of the other half. What was only hidden comes back in a step or two. Rows of control \
users show how fast the model learns what it never knew.</figcaption>
</figure>
{% endif %}
{% if attacks %}
<h3>Rounding, and seeing the models before and after</h3>
{{ table(attacks, sides[1:]) }}
<p class="note">Way back: how far rounding every weight takes the model back to the model before, \
rounded likewise; 0 = all stays forgotten, 1 = it is known as before. What is compared is the loss \
of forgotten rows above that of control users' rows, so that damage to all rows counts as nothing; \
- = this gap is within noise. The other lines are the AUC of an attacker who sees the answers of \
the models before and after (0.5 = a coin toss), to at most {{ rows_of_user }} rows of each user. \
An exact Retrain changes answers as well, and so tells as much as its column says.</p>
{% endif %}
{% if distances %}
<h3>Distance to Retrain, on the forgotten rows</h3>
{{ table(distances, ["JSD, nats", "L2"] + ([] if no_residual else ["residual"])) }}
<p class="note">{{ no_residual or "residual: 0 = Retrain, 1 = did nothing, above 1 = did harm." }} \
"Retrain, other seed" is the noise floor: what is nearer cannot be told from Retrain.</p>
{% endif %}

<h2>Method and cost</h2>
{{ table(settings) }}
{{ table(cost) }}

<h2>What was purged</h2>
{% if certificate.purged is none %}
<p>Nothing.</p>
{% else %}
<div class="wide"><table><thead><tr><th>removed</th><th class="number">files</th>\
<th class="number">bytes</th></tr></thead><tbody>
{% for kind, counts in certificate.purged.removed.items() %}
<tr><td>{{ kind }}</td><td class="number">{{ "{:,}".format(counts.files) }}</td>\
<td class="number">{{ "{:,}".format(counts.bytes) }}</td></tr>
{% endfor %}
</tbody></table></div>
{% for file in certificate.purged.kept %}
<p>Kept: {{ file.name }}, {{ file.why }}; SHA-256 {{ file.sha256 }}</p>
{% endfor %}
{% for name in certificate.purged.unknown %}
<p>Left, because the purge does not know it: {{ name }}</p>
{% endfor %}
{% endif %}

{% if certificate.erased %}
{% set corrected_lines = certificate.erased.files.values() \
| selectattr("corrected", "defined") | list %}
<h2>What was erased from the data files{{ ", or corrected there" if corrected_lines }}</h2>
<div class="wide"><table><thead><tr><th>file</th><th class="number">lines</th>\
{% if corrected_lines %}<th class="number">corrected</th>{% endif %}\
<th>SHA-256 of what is left</th></tr></thead><tbody>
{% for name, file in certificate.erased.files.items() %}
<tr><td>{{ name }}</td><td class="number">{{ "{:,}".format(file.lines) }}</td>\
{% if corrected_lines %}\
<td class="number">{{ "{:,}".format(file.get("corrected", 0)) }}</td>\
{% endif %}\
<td>{{ file.sha256 }}</td></tr>
{% endfor %}
</tbody></table></div>
<p>On {{ certificate.erased.date }}, for {{ things(certificate.erased.requests, "request") }}\
{{ " together" if certificate.erased.requests > 1 }}. Whom it was about \
stands below, as salted hashes.</p>
{% if certificate.erased["items"] %}
<h3>items without a row left: {{ "{:,}".format(certificate.erased["items"] | length) }}</h3>
<pre>{{ certificate.erased["items"][:max_listed] | join("\n") }}\
{% if certificate.erased["items"] | length > max_listed %}

... the JSON file has all{% endif %}</pre>
{% endif %}
{% endif %}

<h2>Hashes of the model</h2>
{% for side in ("before", "after") %}
{% if certificate[side].model_json %}
<h3>{{ side }}: generation {{ certificate[side].generation }}</h3>
<div class="wide"><table><tbody>
<tr><td>model.json</td><td>{{ certificate[side].model_json }}</td></tr>
{% else %}
<h3>{{ side }}: the comparison's Original, which was in no folder</h3>
<div class="wide"><table><tbody>
{% endif %}
{% for name, digest in certificate[side].files.items() %}
<tr><td>{{ name }}</td><td>{{ digest }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endfor %}

<h2>Whom it was about, as salted hashes</h2>
<p>{{ certificate.identifiers.how }}. Salt: <code>{{ certificate.identifiers.salt }}</code></p>
{% for title, (count, listed) in hashes.items() if count %}
<h3>{{ title }}: {{ "{:,}".format(count) }}</h3>
<pre>{{ listed | join("\n") }}{% if count > listed | length %}

... the JSON file has all{% endif %}</pre>
{% endfor %}

<h2>Versions</h2>
<p>{% for name, version in certificate.versions.items() %}{{ name }} {{ version }}\
{{ "" if loop.last else ", " }}{% endfor %}</p>
<p class="note">This page was made from the JSON file beside it, whose own hash is \
{{ certificate.sha256 }}. <code>recbole-e2urec verify FILE.json</code> computes again what can be \
computed.</p>
{% endblock %}
""")
