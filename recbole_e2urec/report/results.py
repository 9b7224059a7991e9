"""``results.jsonl``: one JSON object a row of the table, complete or not there.

Beside it, in ``answers/``, lies what the model of a row says of the forget rows: numbers without
any identifier, which only a comparison over seeds needs. A purge removes them.
"""

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from recbole_e2urec import __version__
from recbole_e2urec.config.config import Config
from recbole_e2urec.errors import InputError
from recbole_e2urec.utils.io import file_lock, read_tensors, remove_parts, write_tensors, write_text

RESULTS = "results.jsonl"
KEY = ("model", "dataset", "backbone", "seed", "stage", "request", "request_digest")
ANSWERS = "answers"  # the folder
PACKAGES = ("recbole", "torch", "transformers", "peft", "numpy", "pandas")


def save_rows(path: Path, rows: Iterable[Mapping[str, Any]], key: Sequence[str] = KEY) -> None:
    """Add rows to the file; a row of the same place, see :func:`place_of`, is replaced.

    Runs that end at the same time wait for each other. Other values that tell rows apart are named
    by ``key``.

    Raises:
        InputError: the disk is full, or the file holds something else.
    """
    with file_lock(path.with_name(f".{path.name}.lock")):
        kept = {place_of(row, key): row for row in [*load_rows(path), *rows]}
        write_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in kept.values()))
        remove_parts(path.parent, path.name)


def place_of(row: Mapping[str, Any], key: Sequence[str] = KEY) -> tuple[Any, ...]:
    """What a later row replaces: one of the same stage, request, model and seed.

    A classic model has no stage, and is known by its settings.
    """
    own = None if "stage" in row else json.dumps(row.get("settings"), sort_keys=True)
    return *(row.get(name) for name in key), own


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


class ForgetAnswers(NamedTuple):
    """What a model says of the forget rows.

    Attributes:
        yes: P(yes), [n].
        alike: the same for models that may be compared row by row.
    """

    yes: NDArray[np.float64]
    alike: str


def save_answers(folder: Path, row: Mapping[str, Any], said: ForgetAnswers) -> None:
    """Keep the answers of a row beside the results that lie in a folder.

    Raises:
        InputError: the disk is full.
    """
    path = _said_of(folder, row)
    write_tensors(path, {"yes": torch.from_numpy(said.yes)}, {"alike": said.alike})
    remove_parts(path.parent, path.name)


def load_answers(folder: Path, row: Mapping[str, Any]) -> ForgetAnswers | None:
    """Read the answers of a row; None where they are gone, were never kept, or are damaged."""
    try:
        tensors, told = read_tensors(_said_of(folder, row))
        return ForgetAnswers(tensors["yes"].numpy(), told["alike"])
    except (OSError, KeyError, ValueError):
        return None


def _said_of(folder: Path, row: Mapping[str, Any]) -> Path:
    name = json.dumps([row.get(name) for name in KEY])
    return folder / ANSWERS / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.safetensors"


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a number."""
    own = {"python": platform.python_version(), "recbole_e2urec": __version__}
    return {**own, **{name: version(name) for name in PACKAGES}}


def completed(rows: list[dict[str, Any]], config: Config) -> list[dict[str, Any]]:
    """Say in each row what is common to a run: data set, seed and versions."""
    common = {"dataset": config["dataset"], "seed": config["seed"], "versions": versions()}
    return [{"model": row["model"], **common, **row} for row in rows]


def save_measured(
    path: Path, rows: Sequence[dict[str, Any]], said: Mapping[tuple[str, str], ForgetAnswers]
) -> None:
    """Add rows to the results' file, after their answers: by the name and the stage of the row.

    Raises:
        InputError: the disk is full, or the file holds something else.
    """
    for row in rows:
        if (row["model"], row.get("stage")) in said:
            save_answers(path.parent, row, said[row["model"], row["stage"]])
    save_rows(path, rows)
