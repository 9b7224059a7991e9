"""A deletion request as a file: user tokens, item tokens, or user-item pairs."""

import csv
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path

from recbole_e2urec.data.rows import IdMap
from recbole_e2urec.data.textfile import read_lines
from recbole_e2urec.errors import InputError

HEADERS = {
    "user": frozenset({"user_id", "userid", "user", "uid"}),
    "item": frozenset({"item_id", "itemid", "item", "iid"}),
}
# Column names by `by` and number of columns, for files without a header.
PLAIN_COLUMNS = {
    ("user", 1): ["user"],
    ("user", 2): ["user", "item"],
    ("interaction", 2): ["user", "item"],
    ("item", 1): ["item"],
}
# Which columns a file with a header may name: exactly one of these sets.
MEANINGS = {
    "user": [{"user"}, {"user", "item"}],
    "interaction": [{"user", "item"}],
    "item": [{"item"}],
}
ADVICE = {
    "user": "give one user token a line, or user_id,item_id pairs",
    "interaction": "give user_id,item_id pairs",
    "item": "give one item token a line",
}


@dataclass(frozen=True)
class _Line:
    """One line of the file that is not blank."""

    number: int
    cells: list[str]


def read_forget_file(path: Path | str, by: str, ids: IdMap) -> dict[str, list[int]]:
    """Inner ids that a request names: `user`, `item`, or both in step for pairs.

    Formats: one token a line (a header such as `user_id` is optional), or commas or tabs between
    columns, with a header or with exactly user, item. Further columns need a header and are
    ignored. Header cells may carry RecBole's type (`user_id:token`). Duplicates are harmless.

    Raises:
        InputError: missing, empty or unreadable file, columns that do not fit `by`, or tokens
            that the data does not have (says how many and where the first is).
    """
    tokens = {"user": ids.users, "item": ids.items}
    lines = _lines(path, tokens["item" if by == "item" else "user"])
    columns = _header(lines[0].cells, tokens) if lines else None
    if columns is not None:
        width, lines = len(lines[0].cells), lines[1:]
    if not lines:
        raise InputError(f"forget file {path} names nobody; {ADVICE[by]}")
    if columns is None:
        width = len(lines[0].cells)
        columns = dict(zip(PLAIN_COLUMNS.get((by, width), []), range(width), strict=False))
    if set(columns) not in MEANINGS[by]:
        raise InputError(
            f"forget file {path}, line {lines[0].number}: columns do not fit forget_by {by!r}; "
            f"{ADVICE[by]} (other columns need a header)"
        )
    _check_width(path, lines, width)
    return {name: _inner(path, name, lines, at, tokens[name]) for name, at in columns.items()}


def _lines(path: Path | str, known: Container[str]) -> list[_Line]:
    """Lines with something on them, cut into cells."""
    found = []
    for number, text in enumerate(read_lines(path), start=1):
        if not text.strip():
            continue
        try:
            found.append(_Line(number, _cells(text, known)))
        except csv.Error as error:
            raise InputError(f"forget file {path}, line {number}: {error}; is it text?") from error
    return found


def _cells(text: str, known: Container[str]) -> list[str]:
    """Cut at tabs, else at commas as spreadsheets write them; a token of the data stays whole."""
    if text in known:
        return [text]
    cells = text.split("\t") if "\t" in text else next(csv.reader([text]))
    return [cell.strip() for cell in cells]


def _header(cells: list[str], tokens: Mapping[str, Mapping[str, int]]) -> dict[str, int] | None:
    """Place of each known column, or None when the line is data."""
    columns: dict[str, int] = {}
    for place, cell in enumerate(cells):
        name = cell.split(":")[0].strip().lower()
        for meaning, names in HEADERS.items():
            if name in names and cell not in tokens[meaning]:
                columns.setdefault(meaning, place)
    return columns or None


def _check_width(path: Path | str, lines: list[_Line], width: int) -> None:
    for line in lines:
        if len(line.cells) != width:
            raise InputError(
                f"forget file {path}, line {line.number}: {len(line.cells)} columns where "
                f"{width} were expected; correct the line"
            )


def _inner(
    path: Path | str, name: str, lines: list[_Line], column: int, known: Mapping[str, int]
) -> list[int]:
    """Inner ids of one column."""
    unknown = [line for line in lines if line.cells[column] not in known]
    if unknown:
        first = unknown[0]
        raise InputError(
            f"forget file {path}: {len(unknown)} of {len(lines)} lines name {name}s that the data "
            f"does not have, the first is {first.cells[column]!r} on line {first.number}; remove "
            "them or check the filters of the dataset"
        )
    return [known[line.cells[column]] for line in lines]
