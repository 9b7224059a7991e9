"""One HTML page of results that needs nothing else: no server, no network, no other file."""

from collections.abc import Mapping, Sequence
from typing import Any

from recbole_e2urec.figures import figures
from recbole_e2urec.sheet import SHEETS
from recbole_e2urec.tables import Cells

Row = Mapping[str, Any]
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
    tables: Sequence[Sequence[Cells]],
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
