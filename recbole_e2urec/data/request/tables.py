"""A request as a table: CSV as spreadsheets write it, or tabs between the columns."""

import csv
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from recbole_e2urec.data.request.columns import (
    Record,
    Records,
    check_meanings,
    meaning_of,
    meanings,
    place,
)
from recbole_e2urec.errors import InputError

# Column names by forget_by and number of columns, for files without a header.
_PLAIN = {
    ("user", 1): ("user",),
    ("user", 2): ("user", "item"),
    ("interaction", 2): ("user", "item"),
    ("item", 1): ("item",),
}
_LONGEST_CELL = 100  # lines that one quoted cell may hold


class _Line(NamedTuple):
    number: int
    cells: list[str]


def read_table(
    path: Path | str, lines: list[str], by: str, tokens: Mapping[str, Container[str]]
) -> Records:
    """Entries of a table with a header, or with exactly the columns that ``forget_by`` names.

    Args:
        path: for messages.
        lines: of the file.
        by: ``forget_by``.
        tokens: the users and items of the data. A first line that is one of them is no header, and
            a line that is one of them is not cut at its commas.

    Raises:
        InputError: columns that do not fit, a line of another width, quotes that do not close.
    """
    rows = list(_lines(path, lines, tokens["item" if by == "item" else "user"]))
    if not rows:
        return Records([], 0)
    first = rows[0]
    width = len(first.cells)
    if _is_header(first.cells, tokens):
        columns = meanings(path, first.number, first.cells)
        rows, passed_over = rows[1:], width - len(columns)
    else:
        columns = {name: at for at, name in enumerate(_PLAIN.get((by, width), ()))}
        passed_over = 0
    check_meanings(path, first.number, columns, by)
    known = {name: tokens.get(name, ()) for name in columns}
    entries = []
    for row in rows:
        _check_width(path, row, width)
        cells = {name: _trimmed(row.cells[at], known[name]) for name, at in columns.items()}
        entries.append(Record(row.number, cells))
    return Records(entries, passed_over)


def _lines(path: Path | str, lines: list[str], known: Container[str]) -> Iterator[_Line]:
    """Lines with something on them, cut into cells; a quoted cell may go on over line ends."""
    at = 0
    while at < len(lines):
        text, number = lines[at], at + 1
        at += 1
        if not text.strip(" \t"):
            continue
        cells = [text]
        if text not in known and "\t" in text:
            cells = text.split("\t")
        elif text not in known:
            ends = min(at - 1 + _LONGEST_CELL, len(lines))
            reader = csv.reader((lines[one] + "\n" for one in range(number - 1, ends)), strict=True)
            try:
                cells = next(reader)
            except csv.Error as error:
                raise InputError(
                    f"{place(path, number)}: {error}; is it text, and is each quote closed?"
                ) from error
            at = number - 1 + reader.line_num
        yield _Line(number, cells)


def _is_header(cells: list[str], tokens: Mapping[str, Container[str]]) -> bool:
    """Whether a cell names a column and is not itself a token of that kind."""
    for cell in cells:
        meaning = meaning_of(cell)
        if meaning is None:
            continue
        kinds = [meaning] if meaning in tokens else list(tokens)
        if not any(cell in tokens[kind] for kind in kinds):
            return True
    return False


def _check_width(path: Path | str, row: _Line, width: int) -> None:
    if len(row.cells) != width:
        raise InputError(
            f"{place(path, row.number)}: {len(row.cells)} columns where {width} were expected; "
            "correct the line"
        )


def _trimmed(cell: str, known: Container[str]) -> str:
    """A cell without the spaces around it, unless they belong to a token of the data."""
    return cell if cell in known else cell.strip()
