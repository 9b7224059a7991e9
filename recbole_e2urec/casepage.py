"""A case study for a person: in the terminal, and as one HTML page."""

from typing import NamedTuple

from recbole_e2urec.sheet import SHEETS, printable
from recbole_e2urec.shown import ShownPrompt
from recbole_e2urec.tables import Cells

READING = (
    "Retrain never saw what is forgotten: an unlearned model should answer as Retrain does, not as "
    "Original."
)
HIT = "*"  # marks a recommended item that the user liked in the test part
ANSWERS = "P(yes) of the newest rows of each part"
RECOMMENDED = f"Recommended, with P(yes); {HIT} = liked in the test part"


class Asked(NamedTuple):
    """A row that was asked about."""

    prompt: ShownPrompt
    label: str  # 1 = liked
    yes: dict[str, float]  # P(yes) by model


class Recommended(NamedTuple):
    """An item that a model recommends."""

    item: str  # its token
    title: str
    yes: float  # P(yes)
    hit: bool  # whether the user liked it in the test part


class Case(NamedTuple):
    """What models answer one user.

    Attributes:
        user: as the data names the user.
        standing: what became of the user: forgotten, partly forgotten, stays, or kept out.
        dataset: its name.
        rows: what was asked, the newest rows of each part.
        top: recommended items by model, the best first.
        notes: what is missing, and why.
        text: all of it for the terminal.
        page: the name of the page's file.
    """

    user: str
    standing: str
    dataset: str
    rows: list[Asked]
    top: dict[str, list[Recommended]]
    notes: list[str]
    text: str = ""
    page: str = ""


def case_text(case: Case) -> str:
    """The case for a terminal."""
    lines = [f"user {case.user} of {case.dataset}: {case.standing}", ""]
    lines += [ANSWERS, "", _answers(case).drawn(), "", READING, ""]
    if case.top:
        lines += [RECOMMENDED, "", _recommended(case).drawn(), ""]
    for asked in case.rows:
        lines += [f"{asked.prompt.part}, {asked.prompt.title}: {asked.prompt.length}", "-" * 60]
        lines += [asked.prompt.text, "-" * 60]
    return printable("\n".join([*lines, *case.notes]))


def case_page(case: Case) -> str:
    """The case as a page."""
    tables = [_answers(case), *([_recommended(case)] if case.top else [])]
    titles = ANSWERS, RECOMMENDED
    return _PAGE.render(case=case, tables=zip(titles, tables, strict=False), reading=READING)


def _answers(case: Case) -> Cells:
    models = list(case.rows[0].yes) if case.rows else []
    lines = [
        [
            asked.prompt.title,
            asked.prompt.part,
            asked.label,
            *(f"{asked.yes[model]:.4f}" for model in models),
        ]
        for asked in case.rows
    ]
    return Cells(["item", "part", "label", *models], lines)


def _recommended(case: Case) -> Cells:
    lists = list(case.top.values())
    lines = [
        [str(place + 1), *(_told(one[place]) for one in lists)] for place in range(len(lists[0]))
    ]
    return Cells(["", *case.top], lines)


def _told(item: Recommended) -> str:
    return f"{item.title} {item.yes:.4f}{f' {HIT}' if item.hit else ''}"


_PAGE = SHEETS.from_string("""\
{% extends "sheet" %}
{% block of %}users{% endblock %}
{% block title %}User {{ case.user }} of {{ case.dataset }}{% endblock %}
{% block body %}
<h1>User {{ case.user }} of {{ case.dataset }}: {{ case.standing }}</h1>
<p>{{ reading }}</p>
{% for title, table in tables %}
<h2>{{ title }}</h2>
<div class="wide"><table><thead><tr>
{% for cell in table.header %}<th>{{ cell }}</th>{% endfor %}
</tr></thead><tbody>
{% for line in table.lines %}
<tr>{% for cell in line %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% endfor %}
{% for note in case.notes %}
<p class="note">{{ note }}</p>
{% endfor %}
<h2>Prompts</h2>
{% for asked in case.rows %}
<h3>{{ asked.prompt.part }}: {{ asked.prompt.title }}</h3>
<p class="note">
{% for field, value in asked.prompt.fields.items() %}
{{ field }} {{ value }},
{% endfor %}
{{ asked.prompt.length }}
</p>
<pre>{{ asked.prompt.text }}</pre>
{% endfor %}
{% endblock %}
""")
