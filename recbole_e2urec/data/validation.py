"""Checks of the data before a run: table layout, cells that are not numbers, missing labels."""

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
    """Refuse a table that has no header, a line with too many cells or a stray carriage return.

    If a line has more cells than the header, pandas either uses the first column as the index,
    which shifts all others, or cuts the line. Pandas also ends lines at carriage returns.

    Raises:
        InputError: names the line, but never its content.
    """
    lines = read_lines(path, encoding)
    if not lines:
        raise InputError(f"{path} is empty; its first line names the columns as name:type")
    separators = lines[0].count(separator)
    for number, line in enumerate(lines, start=1):
        if "\r" in line:
            raise InputError(f"{path}, line {number}: a carriage return inside; remove it")
        if line.count(separator) > separators:
            raise InputError(
                f"{path}, line {number}: {line.count(separator) + 1} cells where the header has "
                f"{separators + 1}; correct the line or the field separator (now {separator!r})"
            )


def find_bad_number(
    path: Path,
    separator: str,
    encoding: str,
    columns: Iterable[str],
    missing_is_bad: bool,
) -> str | None:
    """Describe the first cell that is not a number.

    Args:
        path: an atomic file; its header has ``name:type`` for each column.
        separator: what separates the columns.
        encoding: encoding of the file.
        columns: names of the columns to check; columns that the file lacks are ignored.
        missing_is_bad: whether an empty cell, ``NA``, ``nan`` or an infinity is refused too.

    Returns:
        Text such as ``line 7, column rating: 'abc' is not a number``; None if all cells are
        numbers.
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
    """Refuse a table with a missing or infinite value in a numeric column.

    RecBole would fill in the column's mean and so invent a rating or a time.

    Raises:
        InputError: names file, line, column and value.
    """
    incomplete = [name for name in columns if not np.isfinite(frame[name].to_numpy()).all()]
    if incomplete:
        cell = find_bad_number(path, separator, encoding, incomplete, missing_is_bad=True)
        raise InputError(f"{path}, {cell}")


def needs_labels(config: Any) -> bool:
    """Whether the run needs labels, for evaluation or for training without sampled negatives."""
    if "labeled" in config["eval_args"]["mode"].values():
        return True
    samples_negatives = config["train_neg_sample_args"]["distribution"] != "none"
    return config["MODEL_TYPE"] == ModelType.CONTEXT and not samples_negatives


def check_labels(label: NDArray[Any] | None, config: Any) -> None:
    """Refuse labels that do not tell likes from dislikes, if the run needs labels.

    Args:
        label: label of every row; None if the data has none.
        config: the run's settings.

    Raises:
        InputError: there are no labels, values other than 0 and 1, or only one class.
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
    invalid = values[~np.isin(values, (0, 1))]
    if len(invalid):
        raise InputError(f"{dataset}: column {name!r} holds {invalid[0]:g}; labels are 0 and 1")
    if len(values) < 2:
        raise InputError(
            f"{dataset}: every label is {values[0]:g} ({rule or f'column {name!r}'}); "
            "both classes are needed, so set another threshold"
        )
