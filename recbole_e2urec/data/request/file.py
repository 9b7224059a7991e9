"""Request files: CSV, tab-separated or JSON lines, read as clauses."""

import csv
import difflib
import json
import math
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from recbole_e2urec.data.request.dates import Moment, moment
from recbole_e2urec.errors import InputError
from recbole_e2urec.utils.io import read_lines

NAMES = {
    "user": ("user_id", "userid", "user", "uid"),
    "item": ("item_id", "itemid", "item", "iid"),
    "from": ("from", "since"),
    "until": ("until", "to"),
    "request_id": ("request_id",),
}
_MEANINGS = {name: meaning for meaning, names in NAMES.items() for name in names}
_SHOWN = 10  # line numbers in a message
ADVICE = {
    "user": "give one user token a line, or user_id,item_id pairs",
    "interaction": "give user_id,item_id pairs",
    "item": "give one item token a line",
}


class Record(NamedTuple):
    """One entry of a request, as text."""

    number: int  # of the line where it begins
    cells: dict[str, str]  # by meaning: user, item, from, until, request_id


class Records(NamedTuple):
    """All entries of a request, and how many columns or keys of it mean nothing here."""

    entries: list[Record]
    passed_over: int


def place(path: Path | str, number: int) -> str:
    """Where something is, for a message."""
    return f"forget file {path}, line {number}"


def lines_of(numbers: Iterable[int]) -> str:
    """Name lines without what is on them: ``lines 2, 5 and 9``."""
    found = [str(number) for number in sorted(set(numbers))]
    if len(found) == 1:
        return f"line {found[0]}"
    if len(found) > _SHOWN:
        return f"lines {', '.join(found[:_SHOWN])} and {len(found) - _SHOWN:,} more"
    return f"lines {', '.join(found[:-1])} and {found[-1]}"


def meaning_of(name: str) -> str | None:
    """What a column of this name means; RecBole's type may follow, as in ``user_id:token``."""
    return _MEANINGS.get(_plain(name))


def meanings(path: Path | str, number: int, names: Iterable[str]) -> dict[str, int]:
    """Place of each meaning among the columns or keys.

    Raises:
        InputError: two of them mean the same, or one is a known name with a slip in it.
    """
    found: dict[str, int] = {}
    for at, name in enumerate(names):
        meaning = meaning_of(name)
        if meaning is None:
            close = difflib.get_close_matches(_plain(name)[:40], _MEANINGS, n=1, cutoff=0.75)
            if close:
                raise InputError(
                    f"{place(path, number)}, column {at + 1}: no such column; did you mean "
                    f"{close[0]!r}? Rename it if it is something else"
                )
        elif meaning in found:
            raise InputError(
                f"{place(path, number)}: columns {found[meaning] + 1} and {at + 1} both give the "
                f"{meaning}; keep one"
            )
        else:
            found[meaning] = at
    return found


def check_meanings(path: Path | str, number: int, found: Mapping[str, object], by: str) -> None:
    """Refuse columns that ask for something else than ``forget_by`` says.

    ``user``, the default, takes whatever the columns name.

    Raises:
        InputError: says what would do.
    """
    asked = set(found) - {"request_id"}
    named = asked & {"user", "item"}
    fits = {
        "user": bool(asked),
        "interaction": named == {"user", "item"},
        "item": named == {"item"},
    }
    if not fits[by]:
        raise InputError(
            f"{place(path, number)}: columns do not fit forget_by {by!r}; {ADVICE[by]} "
            "(other columns need a header)"
        )


def _plain(name: str) -> str:
    return name.split(":")[0].strip().lower()


def read_json_lines(path: Path | str, lines: list[str], by: str) -> Records:
    """Entries of the objects; numbers are taken as they are written.

    Raises:
        InputError: a line that is no JSON object, a value that is neither text nor a number, a key
            that comes twice, or keys that do not fit ``forget_by``.
    """
    entries = []
    passed_over: set[str] = set()
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        pairs = _pairs(path, number, text)
        names = [name for name, _ in pairs]
        found = meanings(path, number, names)
        check_meanings(path, number, found, by)
        passed_over.update(name for at, name in enumerate(names) if at not in found.values())
        cells = {meaning: pairs[at][1] for meaning, at in found.items()}
        entries.append(Record(number, _as_text(path, number, cells)))
    return Records(entries, len(passed_over))


def _pairs(path: Path | str, number: int, text: str) -> list[tuple[str, Any]]:
    """Keys and values of one object, a key that comes twice as two pairs."""
    refuse = _refusing("NaN and Infinity are no values")
    try:
        found = json.loads(
            text,
            parse_int=str,
            parse_float=str,
            parse_constant=refuse,
            object_pairs_hook=lambda pairs: _Object(pairs),
        )
    except json.JSONDecodeError as error:
        raise InputError(
            f"{place(path, number)}: not valid JSON, {error.msg} at column {error.colno}; "
            'write one object a line, as {"user_id": "7"}'
        ) from error
    except (ValueError, RecursionError) as error:
        reason = "too deeply nested" if isinstance(error, RecursionError) else str(error)
        raise InputError(f"{place(path, number)}: {reason}; correct the line") from error
    if not isinstance(found, _Object):
        raise InputError(
            f'{place(path, number)}: no JSON object; write one a line, as {{"user_id": "7"}}'
        )
    return found


class _Object(list[tuple[str, Any]]):
    """Keys and values of a JSON object, apart from a JSON list."""


def _refusing(message: str) -> Callable[[str], NoReturn]:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(message)

    return refuse


def _as_text(path: Path | str, number: int, cells: dict[str, Any]) -> dict[str, str]:
    for meaning, value in cells.items():
        if not isinstance(value, str):
            raise InputError(
                f"{place(path, number)}: the {meaning} is neither text nor a number; correct the "
                "line or leave the key out"
            )
    return cells


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


_JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
_LONGEST_LINE = 100_000
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Clause(NamedTuple):
    """What one entry asks for: rows that fit all that it names."""

    number: int  # of its line
    user: str | None  # None = of any user
    item: str | None
    first: float  # earliest time, -inf = open
    last: float
    is_dated: bool  # whether a time was written as a date

    @property
    def is_timed(self) -> bool:
        """Whether it asks for a part of the time only."""
        return (self.first, self.last) != (-math.inf, math.inf)

    @property
    def content(self) -> tuple[str | None, str | None, float, float]:
        """What tells it from other clauses, wherever it is."""
        return self.user, self.item, self.first, self.last


class Written(NamedTuple):
    """A request file; rows that fit any clause are asked for."""

    clauses: list[Clause]
    request_id: str | None  # of its own
    passed_over: int  # columns or keys that mean nothing here


def read_request_file(path: Path | str, by: str, tokens: Mapping[str, Container[str]]) -> Written:
    """Read CSV, tab-separated columns or JSON lines; an empty file has no clauses.

    Args:
        path: JSON lines are told by their suffix, or by an opening brace on the first line.
        by: ``forget_by``: what columns without a header are, and what a header may name.
        tokens: the ``user`` and ``item`` tokens of the data.

    Raises:
        InputError: a file that cannot be used; names the line, never what is on it.
    """
    if Path(path).exists() and not Path(path).is_file():
        raise InputError(f"forget file {path} is no regular file; name a file")
    lines = read_lines(path)
    for number, text in enumerate(lines, start=1):
        if "\0" in text:
            raise InputError(f"{place(path, number)}: a NUL byte; is it UTF-8 text?")
        if len(text) > _LONGEST_LINE:
            raise InputError(
                f"{place(path, number)}: {len(text):,} characters where {_LONGEST_LINE:,} do; "
                "is it one entry a line?"
            )
    records = _records(path, lines, by, tokens)
    clauses = [_clause(path, record) for record in records.entries]
    return Written(clauses, _own_id(path, records.entries), records.passed_over)


def check_id(request_id: str, where: str) -> str:
    """Refuse a name that could not stand in a file's name or on a line.

    Raises:
        InputError: says what would do.
    """
    if not _ID.fullmatch(request_id):
        raise InputError(
            f"{where}: a request_id has 1 to 64 letters, digits, '.', '_' or '-' and begins with "
            "a letter or digit"
        )
    return request_id


def _records(
    path: Path | str, lines: list[str], by: str, tokens: Mapping[str, Container[str]]
) -> Records:
    first = next((line for line in lines if line.strip()), "")
    opens = first.lstrip().startswith("{") and not any(first in known for known in tokens.values())
    if opens or Path(path).suffix.lower() in _JSON_SUFFIXES:
        return read_json_lines(path, lines, by)
    return read_table(path, lines, by, tokens)


def _clause(path: Path | str, record: Record) -> Clause:
    cells = record.cells
    for meaning in ("user", "item"):
        if cells.get(meaning) == "":
            raise InputError(
                f"{place(path, record.number)}: the {meaning} is empty; correct the line (lines "
                "that name different things: JSON lines, each with its own keys)"
            )
    start, end = (_moment(path, record, name) for name in ("from", "until"))
    first, last = (start.first if start else -math.inf), (end.last if end else math.inf)
    if first > last:
        raise InputError(
            f"{place(path, record.number)}: the time range is reversed; 'from' is after 'until'"
        )
    user, item = cells.get("user"), cells.get("item")
    if not (user or item or start or end):
        raise InputError(f"{place(path, record.number)} names nothing; correct or remove it")
    dated = any(one is not None and one.is_iso for one in (start, end))
    return Clause(record.number, user, item, first, last, dated)


def _moment(path: Path | str, record: Record, name: str) -> Moment | None:
    text = record.cells.get(name, "").strip()
    if not text:
        return None
    try:
        return moment(text)
    except InputError as error:
        raise InputError(f"{place(path, record.number)}: {name!r} is {error}") from error


def _own_id(path: Path | str, entries: list[Record]) -> str | None:
    """The request's own id, the same on every line that gives one."""
    found: dict[str, int] = {}
    for record in entries:
        text = record.cells.get("request_id", "").strip()
        if text:
            found.setdefault(check_id(text, place(path, record.number)), record.number)
    if len(found) > 1:
        raise InputError(
            f"forget file {path}, {lines_of(found.values())}: different request_ids; a file is "
            "one request"
        )
    return next(iter(found), None)
