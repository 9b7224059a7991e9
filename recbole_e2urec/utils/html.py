"""What our HTML pages share: one file each, which needs no server, no network and no other file."""

import json
from typing import Any

from jinja2 import DictLoader, Environment

# How a page says, to a purge, whose it is: measures alone, or users, titles and prompts as well.
OF_RESULTS, OF_USERS = (f'content="recbole_e2urec: {of}"'.encode() for of in ("results", "users"))

# Values are escaped wherever they stand, titles and identifiers of the data among them.
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
h1 { font-size: 1.6rem; } h2 { font-size: 1.3rem; margin-top: 2.5rem; } h3 { font-size: 1.1rem; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; white-space: nowrap; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ccc; text-align: left; }
td.number, th.number { text-align: right; }
tbody td:first-child, thead th:first-child { position: sticky; left: 0; background: #fff; }
pre { background: #f3f3f3; padding: .75rem; white-space: pre-wrap; overflow-wrap: anywhere; }
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
    """The text for a terminal: control characters, which could steer it, are spelled out."""
    return "".join(
        sign if sign.isprintable() or sign == "\n" else repr(sign)[1:-1] for sign in text
    )


def shortened(text: str, most: int = 200) -> str:
    """The text for a cell of a line: printable, and cut where it is longer than a line may be."""
    text = printable(text[: most + 1])
    return text if len(text) <= most else f"{text[: most - 1]}…"


def json_line(value: Any) -> str:
    """One line of JSON, readable, in which what could steer a terminal is escaped."""
    text = json.dumps(value, ensure_ascii=False)
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else json.dumps(sign)[1:-1] for sign in text)
