"""``results.jsonl``: one JSON object a row of the table, complete or not there."""

import json
import platform
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from recbole_e2urec import __version__
from recbole_e2urec.storage import remove_parts, write_text

KEY = ("model", "dataset", "backbone", "seed", "stage", "request")
PACKAGES = ("recbole", "torch", "transformers", "peft", "numpy", "pandas")


def save_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add rows to the file; a row of the same stage, request, model and seed is replaced."""
    kept = {_key(row): row for row in [*load_rows(path), *rows]}
    write_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in kept.values()))
    remove_parts(path.parent, path.name)


def load_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows; an absent file has none."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a number."""
    own = {"python": platform.python_version(), "recbole_e2urec": __version__}
    return {**own, **{name: version(name) for name in PACKAGES}}


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in KEY)
