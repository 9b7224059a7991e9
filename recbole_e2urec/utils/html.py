"""The common base of HTML pages; a page is one file and needs no server, network or other file."""

import json
from typing import Any

from jinja2 import DictLoader, Environment

# By these bytes a purge tells pages of measures alone from pages of users, titles and prompts.
OF_RESULTS, OF_USERS = (f'content="recbole_e2urec: {of}"'.encode() for of in ("results", "users"))

# All values in a page are escaped, including titles and identifiers from the data.
SHEETS = Environment(
    autoescape=True,
    trim_blocks=True,
    loader=DictLoader(
        {
            "sheet": """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="recbole_e2urec: {% block of %}results{% endblock %}">
<title>{% block title %}{% endblock %}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 0 1rem 3rem;
  color: #111; background: #fff; }
p, li { overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.3rem; margin-top: 2.5rem; } h3 { font-size: 1.1rem; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .875rem; }
td:first-child { white-space: nowrap; }
@media (max-width: 60rem) { table { white-space: nowrap; } }
@media (min-width: 60rem) { .wide { width: max-content; min-width: 100%;
  max-width: calc(100vw - 3rem); position: relative; left: 50%; transform: translateX(-50%); } }
th, td { padding: .25rem .4rem; border-bottom: 1px solid #ccc; text-align: left; }
td.number, th.number { text-align: right; }
tbody td:first-child, thead th:first-child { position: sticky; left: 0; background: #fff; }
pre { background: #f3f3f3; padding: .75rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.brief { display: grid; gap: 0 2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); }
.brief h2 { font-size: 1.15rem; margin: 1rem 0 .25rem; } .brief p { margin: .35rem 0; }
.caution { border-left: .3rem solid #D55E00; padding-left: .75rem; }
figure { margin: 1.5rem 0; } figcaption, .note { color: #444; font-size: .95rem; }
</style>
</head>
<body>
{% block body %}{% endblock %}
</body>
</html>
"""
        }
    ),
)


def printable(text: str) -> str:
    """Escape control characters, which could control a terminal; line ends stay."""
    return "".join(
        character if character.isprintable() or character == "\n" else repr(character)[1:-1]
        for character in text
    )


def shortened(text: str, most: int = 200) -> str:
    """Make a text printable and cut it to at most ``most`` characters."""
    text = printable(text[: most + 1])
    return text if len(text) <= most else f"{text[: most - 1]}…"


def json_line(value: Any) -> str:
    """Write a value as one readable line of JSON; characters that are not printable are escaped."""
    text = json.dumps(value, ensure_ascii=False)
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else json.dumps(character)[1:-1] for character in text
    )
