"""Checks of the data before a run: cells that are not numbers, and labels that are missing."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from recbole.utils import ModelType

from recbole_e2urec.errors import InputError
from recbole_e2urec.utils.io import read_lines
from recbole_e2urec.utils.recbole_compat import MISSING_NUMBERS


def check_cells(path: Path, separator: str, encoding: str) -> None:
    """Refuse a table without a header, or with a line longer than that or of two.

    Pandas would take the first column for an index, which moves all others, or cut the line; and it
    ends lines at carriage returns.

    Raises:
        InputError: names the line, and nothing that is on it.
    """
    lines = read_lines(path, encoding)
    if not lines:
        raise InputError(f"{path} is empty; its first line names the columns as name:type")
    most = lines[0].count(separator)
    for number, line in enumerate(lines, start=1):
        if "\r" in line:
            raise InputError(f"{path}, line {number}: a carriage return inside; remove it")
        if line.count(separator) > most:
            raise InputError(
                f"{path}, line {number}: {line.count(separator) + 1} cells where the header has "
                f"{most + 1}; correct the line or the field separator (now {separator!r})"
            )


def find_bad_number(
    path: Path,
    separator: str,
    encoding: str,
    columns: Iterable[str],
    missing_is_bad: bool,
) -> str | None:
    """Describe the first cell that is not a number, or None when all are.

    Args:
        path: an atomic file; its header is ``name:type`` per column.
        separator: between the columns.
        encoding: of the file.
        columns: names of the columns to look at; those that the file lacks are passed over.
        missing_is_bad: whether an empty cell, ``NA``, ``nan`` or an infinity counts too.

    Returns:
        Text such as ``line 7, column rating: 'abc' is not a number``.
    """
    lines = read_lines(path, encoding)
    names = [cell.split(":")[0] for cell in lines[0].split(separator)]
    positions = [(names.index(column), column) for column in columns if column in names]
    is_fine: Callable[[str], bool] = _is_finite if missing_is_bad else _is_number_or_missing
    for number, line in enumerate(lines[1:], start=2):
        if not line:
            continue
        cells = line.split(separator)
        for position, column in positions:
            cell = cells[position] if position < len(cells) else ""
            if not is_fine(cell):
                return f"line {number}, column {column}: {cell!r} is not a number"
    return None


def _is_finite(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def _is_number_or_missing(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell in MISSING_NUMBERS
    return True


def check_finite(frame: Any, path: Path, separator: str, encoding: str, columns: list[str]) -> None:
    """Refuse a table whose numeric columns have a missing or infinite value.

    RecBole would put the column's mean there: a rating or a time out of thin air.

    Raises:
        InputError: names file, line, column and value.
    """
    holes = [name for name in columns if not np.isfinite(frame[name].to_numpy()).all()]
    if holes:
        cell = find_bad_number(path, separator, encoding, holes, missing_is_bad=True)
        raise InputError(f"{path}, {cell}")


def needs_labels(config: Any) -> bool:
    """Whether the run reads labels: to evaluate, or to train without sampled negatives."""
    if "labeled" in config["eval_args"]["mode"].values():
        return True
    samples = config["train_neg_sample_args"]["distribution"] != "none"
    return config["MODEL_TYPE"] == ModelType.CONTEXT and not samples


def check_labels(label: NDArray[Any] | None, config: Any) -> None:
    """Refuse data from which nobody can learn or tell likes from dislikes.

    Args:
        label: of every row, or None when the data has none.
        config: the run's settings.

    Raises:
        InputError: no labels, values other than 0 and 1, or one class only.
    """
    if not needs_labels(config):
        return
    name, dataset = config["LABEL_FIELD"], config["dataset"]
    rule = ", ".join(f"{key} >= {value}" for key, value in (config["threshold"] or {}).items())
    if label is None:
        raise InputError(
            f"{dataset}: no labels: the .inter file has neither a column {name!r} nor that of "
            f"threshold ({rule or 'none set'}); set threshold, or eval_mode to uni100 or full"
        )
    values = np.unique(label)
    strange = values[~np.isin(values, (0, 1))]
    if len(strange):
        raise InputError(f"{dataset}: column {name!r} holds {strange[0]:g}; labels are 0 and 1")
    if len(values) < 2:
        raise InputError(
            f"{dataset}: every label is {values[0]:g} ({rule or f'column {name!r}'}); "
            "both classes are needed, so set another threshold"
        )
