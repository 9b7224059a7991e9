"""Checks of the data before a run: table layout, numbers, labels, scale of ratings, times.

What cannot be used is refused. What is only odd, and what was chosen because no setting says it,
is kept in :class:`Findings`, and logged elsewhere.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from recbole.utils import ModelType

from recbole_e2urec.config.schema import AUTO
from recbole_e2urec.errors import InputError, nearest
from recbole_e2urec.utils.io import ends_in_line_end, iter_lines, read_lines
from recbole_e2urec.utils.recbole_compat import MISSING_NUMBERS

TYPES = ("token", "token_seq", "float", "float_seq")  # of the columns of atomic files
_NUMBERS = ("rating", "label", "timestamp", "time")  # columns that usually hold numbers
LABEL_NAMES = ("label", "labels", "click", "clicks", "clicked", "like", "liked", "is_click")
_DATE = re.compile(r"\d{1,4}[-./]\d{1,2}[-./]\d{1,4}")
_SEPARATORS = ("\t", ",", ";", "|", " ")
_UPPER = 0.8  # liked = this share of the way up the scale: 4 of 5
_FEW, _MOST = 0.1, 0.9  # usual shares of liked rows
_OFTEN = 0.1  # share of rows with equal times that is worth a line
_FAR = 10  # times outside are so many spans of the other times away, or so many times as large
_EPOCH = 1e8  # times above are seconds (or less) since 1970


@dataclass
class Findings:
    """What a data set holds, as far as a person should know it before a run.

    Attributes:
        rows: interactions.
        users: users.
        items: items.
        scale: lowest and highest rating; None: no ratings.
        liked: share of rows with label 1; None: no labels.
        ties: share of rows whose user has another row of the same time; None: no times.
        titled: share of items with a title; None: items are named by id.
        described: share of users with features; None: prompts say nothing about users.
        title_field: column with the titles; None: items are named by id.
        user_fields: columns that prompts may mention.
        taken: what was chosen because no setting says it, one sentence each.
        warnings: what is odd, one sentence each.
    """

    rows: int = 0
    users: int = 0
    items: int = 0
    scale: tuple[float, float] | None = None
    liked: float | None = None
    ties: float | None = None
    titled: float | None = None
    described: float | None = None
    title_field: str | None = None
    user_fields: tuple[str, ...] = ()
    taken: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read_header(path: Path, separator: str, encoding: str) -> dict[str, str]:
    """Return the type of each column of an atomic file, by name.

    Raises:
        InputError: the file is empty, or a cell of its first line is not ``name:type``.
    """
    first = next(iter_lines(path, encoding), None)
    if first is None:
        raise InputError(f"{path} is empty; its first line names the columns as name:type")
    return _header(path, first, separator)


def _header(path: Path, line: str, separator: str) -> dict[str, str]:
    place = f"{path}, line 1"
    cells = line.split(separator)
    if len(cells) == 1:
        _refuse_other_separator(place, line, separator)
    for number, cell in enumerate(cells, start=1):
        if not cell.strip() or cell.startswith("Unnamed:"):
            raise InputError(
                f"{place}: column {number} has no name ({cell!r}): pandas wrote its index; write "
                "the file with to_csv(..., index=False)"
            )
        _refuse_quotes(place, cell)
        if ":" not in cell:
            kind = "float" if cell in _NUMBERS else "token"
            raise InputError(
                f"{place}: {cell!r} has no type; the first line names the columns, as in "
                f"{cell if cell.isidentifier() else 'user_id'}:{kind}"
            )
        name, _, kind = cell.rpartition(":")
        if kind not in TYPES or name != name.strip():
            wanted = nearest(kind.strip(), TYPES)
            raise InputError(f"{place}: {cell!r} is not name:type without spaces; {wanted}")
    parts = [cell.rpartition(":") for cell in cells]
    for name, count in Counter(name for name, _, _ in parts).items():
        if count > 1:
            raise InputError(f"{place}: {count} columns are called {name!r}; rename or remove one")
    return {name: kind for name, _, kind in parts}


def _refuse_quotes(place: str, text: str) -> None:
    if '"' in text:
        raise InputError(
            f"{place}: {text!r} has quotes, and an atomic file has none; recbole-e2urec init makes "
            "a data set of CSV files"
        )


def _refuse_other_separator(place: str, line: str, separator: str) -> None:
    """Refuse a header that the separator leaves whole, although another one would cut it."""
    cuts = {other: line.count(other) for other in _SEPARATORS}
    other = max(cuts, key=lambda one: cuts[one])
    if cuts[other]:
        _refuse_quotes(place, line)
        shown = {"\t": "\\t"}.get(other, other)
        raise InputError(
            f"{place}: {line!r} is one column, because field_separator is {separator!r}; to cut "
            f"at {other!r}, write --field_separator='{shown}'"
        )


def check_ids(path: Path, header: dict[str, str], names: Iterable[str | None]) -> None:
    """Refuse ids that are declared as numbers, or as several tokens.

    Raises:
        InputError: names the column and what to write.
    """
    for name in names:
        if name is not None and header.get(name, "token") != "token":
            raise InputError(
                f"{path}, line 1: {name}:{header[name]} is not possible; write {name}:token, since "
                "ids are names even where they look like numbers"
            )


def check_number_columns(path: Path, header: dict[str, str], names: Iterable[str]) -> list[str]:
    """Refuse columns of numbers that are declared as something else; return their names.

    Raises:
        InputError: names the column and what to write.
    """
    names = [*names]
    for name in names:
        if header[name] != "float":
            raise InputError(f"{path}, line 1: write {name}:float; it holds numbers")
    return names


def warn_of_labels(path: Path, header: Iterable[str], label_field: str) -> list[str]:
    """Warn of a column that looks like labels but is not read as such."""
    names = [name for name in header if name.lower() in LABEL_NAMES]
    if not names or label_field in header:
        return []
    return [
        f"{path.name}: labels are not read from column {names[0]}, since LABEL_FIELD is "
        f"{label_field}; to take them, write --LABEL_FIELD={names[0]}"
    ]


def check_end(path: Path) -> list[str]:
    """Warn if the last line of a file has no line end, which may mean that it was cut off."""
    if ends_in_line_end(path):
        return []
    with path.open("rb") as file:
        number = sum(1 for _ in file)
    return [
        f"{path}, line {number}: the last line has no line end; if the file was cut off, its last "
        "cell is wrong"
    ]


def check_cells(path: Path, separator: str, encoding: str) -> None:
    """Refuse a table with a bad header, a line of too many cells or a stray carriage return.

    If a line has more cells than the header, pandas either uses the first column as the index,
    which shifts all others, or cuts the line. Pandas also ends lines at carriage returns.

    Raises:
        InputError: names the line, but never its content.
    """
    separators = len(read_header(path, separator, encoding)) - 1
    for number, line in enumerate(iter_lines(path, encoding), start=1):
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
                advice = "; recbole-e2urec init reads dates" if _DATE.match(cell) else ""
                return f"line {number}, column {column}: {cell!r} is not a number{advice}"
    return None


def _is_finite(cell: str) -> bool:
    number = _number(cell)
    return number is not None and math.isfinite(number)


def _is_number_or_missing(cell: str) -> bool:
    return _number(cell) is not None or cell in MISSING_NUMBERS


def _number(cell: str) -> float | None:
    """Return the number that pandas reads; it is stricter than Python."""
    try:
        number = float(cell)
    except ValueError:
        return None
    is_too_large = math.isinf(number) and "n" not in cell.lower()
    return None if is_too_large or "_" in cell or not cell.isascii() else number


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


def check_times(path: Path, encoding: str, times: NDArray[np.float64]) -> list[str]:
    """Warn about times far outside of all others, such as the year 1970 among this year's.

    Args:
        path: the file.
        encoding: its encoding.
        times: time of each row, in file order.
    """
    far = np.flatnonzero(far_times(times))
    if not len(far):
        return []
    numbers = [n for n, line in enumerate(read_lines(path, encoding), start=1) if line][1:]
    rest = np.delete(times, far)
    more = f" and {len(far) - 1} more" if len(far) > 1 else ""
    return [
        f"{path}, line {numbers[far[0]]}{more}: time {times[far[0]]:.15g} is far outside of all "
        f"others ({rest.min():.15g} to {rest.max():.15g}); correct or remove it"
    ]


def far_times(times: NDArray[np.float64]) -> NDArray[np.bool_]:  # [n] -> [n]
    """Find the times that are far outside of all others.

    They are 10 spans of the other times away from them. Times since 1970 are also far outside if
    they are ten times as large or small as the median, as milliseconds among seconds are.
    """
    if len(times) < 3:
        return np.zeros(len(times), dtype=bool)
    ordered = np.sort(times)
    aside = max(1, len(times) // 100)
    low, high, median = ordered[aside], ordered[-1 - aside], float(np.median(ordered))
    span = _FAR * (high - low)
    far: NDArray[np.bool_] = (times < low - span) | (times > high + span)
    far &= span > 0
    if median > _EPOCH:
        far |= (times < median / _FAR) | (times > median * _FAR)
    return far


def tied_rows(user: NDArray[np.int64], time: NDArray[np.float64]) -> float:
    """Return the share of rows whose user has another row of the same time."""
    order = np.lexsort((time, user))
    user, time = user[order], time[order]
    same = (user[1:] == user[:-1]) & (time[1:] == time[:-1])
    return float((np.append(same, False) | np.insert(same, 0, False)).mean())


def describe_times(time: NDArray[np.float64]) -> str:
    """Say from when to when the times are: as dates, if they are seconds since 1970."""
    ends = (float(time.min()), float(time.max()))
    if ends[0] > _EPOCH and ends[1] < 1e11:
        days = (f"{datetime.fromtimestamp(end, timezone.utc):%Y-%m-%d}" for end in ends)
        return "times: {} to {}".format(*days)
    return "times: {:.15g} to {:.15g}".format(*ends)


def describe_ties(share: float) -> list[str]:
    """Say how rows of equal time are ordered, if there are many."""
    if share <= _OFTEN:
        return []
    return [
        f"{share:.0%} of the rows have the same time as another row of their user; such rows are "
        "ordered by their place in the file, and do not show each other as history"
    ]


def choose_threshold(
    given: Any,
    is_typed: bool,
    rating_field: str,
    rating: NDArray[np.float64] | None,
    label: NDArray[np.float64] | None,
    findings: Findings,
) -> dict[str, float] | None:
    """Choose from which rating on an item counts as liked, and add to the findings.

    Labels of the data win over a threshold that nobody typed. Without a setting, liked is four
    fifths of the way up the scale, as 4 of 5: from 0, or from the lowest rating if it is negative,
    to the highest.

    Args:
        given: the setting; ``auto``: follows from the data.
        is_typed: whether the user typed it, rather than a data set's defaults.
        rating_field: name of the rating column.
        rating: ratings, None: no such column.
        label: labels, None: no such column.
        findings: gets what was taken.

    Returns:
        The threshold; None: labels are those of the data, if any.
    """
    if rating is not None and len(rating):
        findings.scale = (float(rating.min()), float(rating.max()))
    if label is not None and not is_typed:
        findings.taken.append("labels are those of the data, and no threshold is used")
        return None
    if given != AUTO:
        return dict(given) if given else None
    if findings.scale is None:
        return None
    lowest, highest = min(0.0, findings.scale[0]), findings.scale[1]
    chosen = round(lowest + _UPPER * (highest - lowest), 6)
    findings.taken.append(
        f"liked = {rating_field} {chosen:g} and above, four fifths of the way up the scale, as 4 "
        "of 5; threshold says otherwise"
    )
    return {rating_field: int(chosen) if chosen == int(chosen) else chosen}


def describe_labels(
    threshold: dict[str, float] | None,
    label: NDArray[Any],
    own: NDArray[Any] | None,
    findings: Findings,
) -> None:
    """Add scale and share of liked rows to the findings, and warn about odd ones.

    Odd is that most rows are liked, or hardly any, or that a threshold replaces labels of the data.

    Args:
        threshold: the threshold, None: labels are those of the data.
        label: label of every row.
        own: labels of the data, None: it has none.
        findings: has the scale.
    """
    rule = ", ".join(f"{name} >= {value:g}" for name, value in (threshold or {}).items())
    share = findings.liked = float((label == 1).mean())
    scale = "ratings are from {:g} to {:g}; ".format(*findings.scale) if findings.scale else ""
    liked = f"{share:.1%} of the rows are liked ({rule or 'labels of the data'})"
    findings.taken.append(f"{scale}{liked}")
    if not _FEW <= share <= _MOST:
        findings.warnings.append(f"{scale}{liked}; another threshold may tell more")
    if threshold and own is not None:
        findings.warnings.append(
            f"labels are made by the threshold {rule}, and {int((label != own).sum())} of "
            f"{len(own)} labels of the data differ from that; leave threshold out to use them"
        )


def needs_labels(config: Any) -> bool:
    """Whether the run needs labels, for evaluation or for training without sampled negatives."""
    if "labeled" in config["eval_args"]["mode"].values():
        return True
    samples_negatives = config["train_neg_sample_args"]["distribution"] != "none"
    return config["MODEL_TYPE"] == ModelType.CONTEXT and not samples_negatives


def check_labels(
    label: NDArray[Any] | None, config: Any, rating: NDArray[np.float64] | None = None
) -> None:
    """Refuse labels that do not tell likes from dislikes, if the run needs labels.

    Args:
        label: label of every row; None if the data has none.
        config: the run's settings.
        rating: rating of every row; None if the data has none.

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
            f"threshold ({rule or config['RATING_FIELD']}); set threshold, or eval_mode to uni100 "
            "or full"
        )
    values = np.unique(label)
    invalid = values[~np.isin(values, (0, 1))]
    if len(invalid):
        raise InputError(f"{dataset}: column {name!r} holds {invalid[0]:g}; labels are 0 and 1")
    if len(values) < 2 and rule and rating is not None and len(np.unique(rating)) == 1:
        raise InputError(
            f"{dataset}: every rating is {rating[0]:g}, so nothing tells liked rows from others; "
            "give ratings that differ, or a column of labels"
        )
    if len(values) < 2:
        raise InputError(
            f"{dataset}: every label is {values[0]:g} ({rule or f'column {name!r}'}); "
            "both classes are needed, so set another threshold"
        )
