"""A certificate as one HTML page, without any script: to be read, printed and filed."""

from collections.abc import Mapping
from typing import Any

from recbole_e2urec.deployment.certificatelines import curves, distances, flat, measures
from recbole_e2urec.deployment.change import MOST, TESTED
from recbole_e2urec.deployment.drawing import drawing
from recbole_e2urec.deployment.plainwords import no_residual
from recbole_e2urec.evaluator.relearnsteps import BATCH
from recbole_e2urec.sheet import SHEETS

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
        batch=BATCH,
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
