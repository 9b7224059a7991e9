"""``results.jsonl``: one JSON object a row of the table, complete or not there."""

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from recbole_e2urec import __version__
from recbole_e2urec.errors import InputError
from recbole_e2urec.storage import alone, remove_parts, write_text

KEY = ("model", "dataset", "backbone", "seed", "stage", "request", "request_digest")
PACKAGES = ("recbole", "torch", "transformers", "peft", "numpy", "pandas")


def save_rows(path: Path, rows: Iterable[Mapping[str, Any]], key: Sequence[str] = KEY) -> None:
    """Add rows to the file; a row of the same stage, request, model and seed is replaced.

    Runs that end at the same time wait for each other. Other values that tell rows apart are named
    by ``key``.

    Raises:
        InputError: the disk is full, or the file holds something else.
    """
    with alone(path.with_name(f".{path.name}.lock")):
        kept = {tuple(row.get(name) for name in key): row for row in [*load_rows(path), *rows]}
        write_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in kept.values()))
        remove_parts(path.parent, path.name)


def load_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows; an absent file has none.

    Raises:
        InputError: a line that is no row; names it.
    """
    rows = []
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {number}: no JSON; mend or move the file") from error
    return rows


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a number."""
    own = {"python": platform.python_version(), "recbole_e2urec": __version__}
    return {**own, **{name: version(name) for name in PACKAGES}}
