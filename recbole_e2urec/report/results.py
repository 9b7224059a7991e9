"""Reads and writes ``results.jsonl``, which has one JSON object for each row of the table.

A row is in the file either completely or not at all. The folder ``answers/`` in the run's folder
holds the answers of a row's model on the forget rows: numbers without identifiers, which only a
comparison over seeds needs. A purge removes them.
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
from pydantic import BaseModel, FiniteFloat, ValidationError

from recbole_e2urec import __version__
from recbole_e2urec.config.config import Config
from recbole_e2urec.errors import InputError
from recbole_e2urec.utils.io import (
    file_lock,
    outside_run_folder,
    read_lines,
    read_tensors,
    remove_parts,
    run_folder,
    write_tensors,
    write_text,
)

RESULTS = "results.jsonl"
KEY = ("model", "dataset", "backbone", "seed", "stage", "request", "request_digest")
ANSWERS = "answers"  # name of the folder
PACKAGES = ("recbole", "torch", "transformers", "peft", "numpy", "pandas")


class ForgetAnswers(NamedTuple):
    """A model's answers on the forget rows.

    Attributes:
        yes: P(yes), [n].
        comparison_key: equal for models that may be compared row by row.
        users: number of each row's user within the request, from 0, [n]; None in older files.
    """

    yes: NDArray[np.float64]
    comparison_key: str
    users: NDArray[np.int32] | None = None


Measures = dict[str, FiniteFloat | dict[str, FiniteFloat | None] | None]


class _Row(BaseModel, strict=True):
    """The values of a row that its readers rely on; a row may have more."""

    model: str
    dataset: str
    seed: int
    settings: dict[str, Any] = {}
    test: Measures = {}
    forget: Measures = {}
    to_retrain: Measures = {}
    ranking: Measures = {}
    found: Measures = {}
    cost: Measures = {}


def save_rows(path: Path, rows: Iterable[Mapping[str, Any]], key: Sequence[str] = KEY) -> None:
    """Add rows to the file; a new row replaces the row with the same :func:`row_key`.

    Runs that end at the same time wait for each other.

    Args:
        path: the file.
        rows: rows to add.
        key: names of the values that identify a row.

    Raises:
        InputError: the disk is full, or the file holds something else.
    """
    with file_lock(path.with_name(f".{path.name}.lock")):
        latest: dict[tuple[Any, ...], Mapping[str, Any]] = {}
        for row in [*load_rows(path), *rows]:
            latest.pop(row_key(row, key), None)  # a row that is replaced is the newest again
            latest[row_key(row, key)] = row
        lines = (json.dumps(row, allow_nan=False) + "\n" for row in latest.values())
        write_text(path, "".join(lines))
        remove_parts(path.parent, path.name)


def row_key(row: Mapping[str, Any], key: Sequence[str] = KEY) -> tuple[Any, ...]:
    """Return the values that identify a row; a later row with the same values replaces it.

    A classic model has no stage; its settings identify it instead.
    """
    settings = None if "stage" in row else json.dumps(row.get("settings"), sort_keys=True)
    return *(row.get(name) for name in key), settings


def load_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows, whatever their values are; an absent file has no rows.

    Raises:
        InputError: a line is no JSON object; names the line.
    """
    rows = []
    for number, line in enumerate(read_lines(path) if path.is_file() else [], start=1):
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputError(f"{path}, line {number}: no JSON; mend or move the file") from error
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: no row of results; mend or move the file")
        rows.append(row)
    return rows


def load_results(path: Path) -> list[dict[str, Any]]:
    """Read rows of results, which tables and other commands rely on.

    Raises:
        InputError: a line is no row of results; names the line and what is wrong.
    """
    rows = load_rows(path)
    for number, row in enumerate(rows, start=1):
        try:
            _Row.model_validate(row)
        except ValidationError as error:
            first = error.errors()[0]
            wrong = f"{'.'.join(map(str, first['loc'][:2]))}: {first['msg']}"
            raise InputError(
                f"{path}, line {number}: no row of results ({wrong}); mend or move the file"
            ) from error
    return rows


def save_measured(
    path: Path, rows: Sequence[dict[str, Any]], answers: Mapping[tuple[str, str], ForgetAnswers]
) -> None:
    """Save the answers of rows, and then add the rows to the results file.

    Args:
        path: the results file.
        rows: rows to add.
        answers: answers on the forget rows, by model and stage of a row.

    Raises:
        InputError: the disk is full, or the file holds something else.
    """
    for row in rows:
        if (row["model"], row.get("stage")) in answers:
            save_answers(path.parent, row, answers[row["model"], row["stage"]])
    save_rows(path, rows)


def save_answers(folder: Path, row: Mapping[str, Any], answers: ForgetAnswers) -> None:
    """Save the answers of a row.

    Args:
        folder: folder of the results file.
        row: the row.
        answers: its model's answers.

    Raises:
        InputError: the disk is full.
    """
    path = _answers_path(folder, row)
    arrays = {"yes": answers.yes, "users": answers.users}
    tensors = {name: torch.from_numpy(each) for name, each in arrays.items() if each is not None}
    write_tensors(path, tensors, {"alike": answers.comparison_key})
    remove_parts(path.parent, path.name)


def load_answers(folder: Path, row: Mapping[str, Any]) -> ForgetAnswers | None:
    """Read the answers of a row; None if they were removed, never saved, or are damaged."""
    try:
        path = _answers_path(folder, row)
        tensors, metadata = read_tensors(path if path.exists() else outside_run_folder(path))
        users = tensors["users"].numpy() if "users" in tensors else None
        return ForgetAnswers(tensors["yes"].numpy(), metadata["alike"], users)
    except (OSError, KeyError, ValueError):
        return None


def _answers_path(folder: Path, row: Mapping[str, Any]) -> Path:
    key = json.dumps([row.get(name) for name in KEY])
    name = f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.safetensors"
    return run_folder(folder, str(row.get("dataset"))) / ANSWERS / name


def completed(rows: list[dict[str, Any]], config: Config) -> list[dict[str, Any]]:
    """Complete each row with what all rows of a run share: data set, seed and versions.

    A caution comes first in the row, since it says how to read the rest.
    """
    common = {"dataset": config["dataset"], "seed": config["seed"], "versions": versions()}
    first = ("caution", "model")
    return [{**{key: row[key] for key in first if key in row}, **common, **row} for row in rows]


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect the measures."""
    ours = {"python": platform.python_version(), "recbole_e2urec": __version__}
    return {**ours, **{name: version(name) for name in PACKAGES}}
