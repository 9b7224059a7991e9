"""Reads request files: CSV, tab-separated columns or JSON lines.

:func:`read_request_file` turns a file into clauses. A clause asks for the rows of a user, an item,
a pair or a time range. :func:`read_corrections` reads rows with what is right instead. Error
messages name lines, but never what is on them.

Times are numbers in the data's unit, or ISO 8601 dates and times.
"""

import csv
import difflib
import json
import math
import re
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from recbole_e2urec.errors import InputError
from recbole_e2urec.utils.io import read_lines

COLUMN_NAMES = {  # by meaning
    "user": ("user_id", "userid", "user", "uid"),
    "item": ("item_id", "itemid", "item", "iid"),
    "from": ("from", "since"),
    "until": ("until", "to"),
    "request_id": ("request_id",),
}
CORRECTED = ("new_rating", "new_label", "new_user_id")  # columns with what is right
CORRECTION = "correction"  # stands in the place of forget_by for a file of corrections
_MEANINGS = {name: meaning for meaning, names in COLUMN_NAMES.items() for name in names}
_CORRECTION_MEANINGS = {
    **{name: meaning for name, meaning in _MEANINGS.items() if meaning not in ("from", "until")},
    **dict.fromkeys(("timestamp", "time"), "time"),
    **{name: name for name in CORRECTED},
}
# Columns of files without a header, by forget_by and number of columns.
_HEADERLESS_COLUMNS = {
    ("user", 1): ("user",),
    ("user", 2): ("user", "item"),
    ("interaction", 2): ("user", "item"),
    ("item", 1): ("item",),
}
ADVICE = {  # by forget_by
    "user": "give one user token a line, or user_id,item_id pairs",
    "interaction": "give user_id,item_id pairs",
    "item": "give one item token a line",
    CORRECTION: f"give user_id, item_id and {', '.join(CORRECTED[:-1])} or {CORRECTED[-1]}",
}
_PLAIN = ("rating", "label")  # columns of the data that no request uses
_JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LONGEST_LINE = 100_000  # characters
_LONGEST_CELL = 100  # lines that one quoted cell may span
_LONGEST_NUMBER = 64  # characters
_LISTED_LINES = 10  # most line numbers in a message
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_ISO = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[T ]([0-9]{2}:[0-9]{2})(:[0-9]{2})?(?:\.([0-9]{1,6}))?(Z|[-+][0-9]{2}:[0-9]{2})?)?"
)
_DAY = 24 * 60 * 60
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# Seconds since 1970 reach this value in the year 5138; milliseconds reached it in 1973.
_NOT_SECONDS = 1e11


class Moment(NamedTuple):
    """The first and last instant that a text stands for; they differ only for a whole day."""

    first: float
    last: float
    is_iso: bool


class Clause(NamedTuple):
    """One entry of a request; it asks for the rows that match everything it names."""

    number: int  # line number
    user: str | None  # None = any user
    item: str | None  # None = any item
    first: float  # earliest time, -inf = open
    last: float  # latest time, inf = open
    is_dated: bool  # whether a time was written as a date

    @property
    def is_timed(self) -> bool:
        """Whether the clause asks for a limited time range."""
        return (self.first, self.last) != (-math.inf, math.inf)

    @property
    def content(self) -> tuple[str | None, str | None, float, float]:
        """What the clause asks for; equal for clauses on different lines that ask the same."""
        return self.user, self.item, self.first, self.last


class RequestFile(NamedTuple):
    """The content of a request file; it asks for the rows that match any clause."""

    clauses: list[Clause]
    request_id: str | None  # the id in the file, if it has one
    ignored_columns: int  # number of columns or keys without a meaning here


class Record(NamedTuple):
    """One entry of a request file as text."""

    number: int  # number of the line where the entry begins
    cells: dict[str, str]  # by meaning: user, item, from, until, request_id; see CORRECTED


class Records(NamedTuple):
    """All entries of a request file."""

    entries: list[Record]
    ignored_columns: int  # number of columns or keys without a meaning here


def read_request_file(
    path: Path | str, by: str, tokens: Mapping[str, Container[str]]
) -> RequestFile:
    """Read CSV, tab-separated columns or JSON lines; an empty file has no clauses.

    Args:
        path: the file. It is read as JSON lines if its suffix says so, or if its first non-blank
            line begins with an opening brace.
        by: ``forget_by``; decides the columns of a file without a header, and which columns a
            header may name.
        tokens: the ``user`` and ``item`` tokens of the data.

    Raises:
        InputError: the file cannot be used; names the line, but never what is on it.
    """
    records = _records_of(path, by, tokens)
    clauses = [_clause(path, record) for record in records.entries]
    return RequestFile(clauses, _request_id(path, records.entries), records.ignored_columns)


class CorrectionLine(NamedTuple):
    """One entry of a file of corrections: a row, and what is right; None: that stays."""

    number: int  # line number
    user: str
    item: str
    time: Moment | None
    rating: float | None
    label: int | None
    new_user: str | None


class CorrectionFile(NamedTuple):
    """The content of a file of corrections."""

    lines: list[CorrectionLine]
    request_id: str | None
    ignored_columns: int


def read_corrections(path: Path | str, tokens: Mapping[str, Container[str]]) -> CorrectionFile:
    """Read a file of corrections, in the formats of :func:`read_request_file`, with a header.

    Raises:
        InputError: the file cannot be used; names the line, but never what is on it.
    """
    records = _records_of(path, CORRECTION, tokens)
    lines = [_correction(path, record) for record in records.entries]
    if not lines:
        raise InputError(f"forget file {path} names nobody; {ADVICE[CORRECTION]}")
    return CorrectionFile(lines, _request_id(path, records.entries), records.ignored_columns)


def _correction(path: Path | str, record: Record) -> CorrectionLine:
    where = location(path, record.number)
    cells = {meaning: text for meaning, text in record.cells.items() if text.strip()}
    for meaning in ("user", "item"):
        if meaning not in cells:
            raise InputError(f"{where}: the {meaning} is empty; a correction names one row")
    rating, label = (_new_number(where, cells, name) for name in CORRECTED[:2])
    if label not in (None, 0, 1):
        raise InputError(f"{where}: new_label is neither 0 nor 1; correct the line")
    new_user = cells.get("new_user_id")
    if rating is None and label is None and new_user is None:
        raise InputError(f"{where}: nothing new; fill one of {', '.join(CORRECTED)}")
    time = _moment(path, record, "time")
    chosen = None if label is None else int(label)
    return CorrectionLine(
        record.number, cells["user"], cells["item"], time, rating, chosen, new_user
    )


def _new_number(where: str, cells: Mapping[str, str], name: str) -> float | None:
    """Return the number in a column of what is right; None: there is none."""
    text = cells.get(name, "").strip()
    if not text:
        return None
    if len(text) > _LONGEST_NUMBER or not _NUMBER.fullmatch(text) or math.isinf(float(text)):
        raise InputError(f"{where}: {name} is no number; correct the line")
    return float(text)


def _records_of(path: Path | str, by: str, tokens: Mapping[str, Container[str]]) -> Records:
    """Read the entries of a file; arguments are those of :func:`read_request_file`."""
    if Path(path).exists() and not Path(path).is_file():
        raise InputError(f"forget file {path} is no regular file; name a file")
    lines = read_lines(path)
    for number, text in enumerate(lines, start=1):
        if "\0" in text:
            raise InputError(f"{location(path, number)}: a NUL byte; is it UTF-8 text?")
        if len(text) > _LONGEST_LINE:
            raise InputError(
                f"{location(path, number)}: {len(text):,} characters where {_LONGEST_LINE:,} do; "
                "is it one entry a line?"
            )
    return _read_records(path, lines, by, tokens)


def check_id(request_id: str, where: str) -> str:
    """Refuse a request id that cannot be part of a file name or stand on a line.

    Args:
        request_id: the id.
        where: where it was read, for the message.

    Returns:
        The id.

    Raises:
        InputError: says which ids are allowed.
    """
    if not _REQUEST_ID.fullmatch(request_id):
        raise InputError(
            f"{where}: a request_id has 1 to 64 letters, digits, '.', '_' or '-' and begins with "
            "a letter or digit"
        )
    return request_id


def location(path: Path | str, number: int) -> str:
    """Name a line of a request file, for a message."""
    return f"forget file {path}, line {number}"


def lines_of(numbers: Iterable[int]) -> str:
    """List line numbers, for a message: ``lines 2, 5 and 9``."""
    listed = [str(number) for number in sorted(set(numbers))]
    if len(listed) == 1:
        return f"line {listed[0]}"
    if len(listed) > _LISTED_LINES:
        more = len(listed) - _LISTED_LINES
        return f"lines {', '.join(listed[:_LISTED_LINES])} and {more:,} more"
    return f"lines {', '.join(listed[:-1])} and {listed[-1]}"


def _read_records(
    path: Path | str, lines: list[str], by: str, tokens: Mapping[str, Container[str]]
) -> Records:
    first = next((line for line in lines if line.strip()), "")
    is_token = any(first in known for known in tokens.values())
    is_object = first.lstrip().startswith("{") and not is_token
    if is_object or Path(path).suffix.lower() in _JSON_SUFFIXES:
        return read_json_lines(path, lines, by)
    return read_table(path, lines, by, tokens)


def _clause(path: Path | str, record: Record) -> Clause:
    cells = record.cells
    for meaning in ("user", "item"):
        if cells.get(meaning) == "":
            raise InputError(
                f"{location(path, record.number)}: the {meaning} is empty; correct the line (lines "
                "that name different things: JSON lines, each with its own keys)"
            )
    start, end = (_moment(path, record, name) for name in ("from", "until"))
    first, last = (start.first if start else -math.inf), (end.last if end else math.inf)
    if first > last:
        raise InputError(
            f"{location(path, record.number)}: the time range is reversed; 'from' is after 'until'"
        )
    user, item = cells.get("user"), cells.get("item")
    if not (user or item or start or end):
        raise InputError(f"{location(path, record.number)} names nothing; correct or remove it")
    is_dated = any(bound is not None and bound.is_iso for bound in (start, end))
    return Clause(record.number, user, item, first, last, is_dated)


def _moment(path: Path | str, record: Record, name: str) -> Moment | None:
    text = record.cells.get(name, "").strip()
    if not text:
        return None
    try:
        return moment(text)
    except InputError as error:
        raise InputError(f"{location(path, record.number)}: {name!r} is {error}") from error


def _request_id(path: Path | str, entries: list[Record]) -> str | None:
    """Return the request id, which must be the same on every line that gives one."""
    line_of_id: dict[str, int] = {}
    for record in entries:
        text = record.cells.get("request_id", "").strip()
        if text:
            line_of_id.setdefault(check_id(text, location(path, record.number)), record.number)
    if len(line_of_id) > 1:
        raise InputError(
            f"forget file {path}, {lines_of(line_of_id.values())}: different request_ids; a file "
            "is one request"
        )
    return next(iter(line_of_id), None)


def meaning_of(name: str, by: str = "user") -> str | None:
    """Return the meaning of a column name; a RecBole type may follow it, as in ``user_id:token``.

    Returns:
        The meaning; None if the name has none here.
    """
    return _meanings(by).get(_normalized(name))


def _meanings(by: str) -> dict[str, str]:
    return _CORRECTION_MEANINGS if by == CORRECTION else _MEANINGS


def column_indices(
    path: Path | str, number: int, names: Iterable[str], by: str = "user"
) -> dict[str, int]:
    """Find the columns or keys that have a meaning.

    Args:
        path: the file, for messages.
        number: line number of the names, for messages.
        names: names of the columns or keys.
        by: ``forget_by``.

    Returns:
        Index of the column by meaning.

    Raises:
        InputError: two columns have the same meaning, a name looks like a misspelt known name, or a
            request to forget has a column of corrections.
    """
    indices: dict[str, int] = {}
    for index, name in enumerate(names):
        meaning, known = meaning_of(name, by), _normalized(name)
        if by != CORRECTION and known in CORRECTED:
            raise InputError(
                f"{location(path, number)}: column {known} corrects rows, and this would forget "
                "them; give the file to recbole-e2urec correct, or remove the column"
            )
        if meaning is None and known not in _PLAIN:
            similar = difflib.get_close_matches(known[:40], _meanings(by), n=1, cutoff=0.75)
            if similar:
                raise InputError(
                    f"{location(path, number)}, column {index + 1}: no such column; did you mean "
                    f"{similar[0]!r}? Rename it if it is something else"
                )
        elif meaning is None:
            continue
        elif meaning in indices:
            raise InputError(
                f"{location(path, number)}: columns {indices[meaning] + 1} and {index + 1} both "
                f"give the {meaning}; keep one"
            )
        else:
            indices[meaning] = index
    return indices


def check_columns(path: Path | str, number: int, meanings: Collection[str], by: str) -> None:
    """Refuse columns that do not fit ``forget_by``.

    The default, ``user``, accepts any columns with a meaning.

    Args:
        path: the file, for messages.
        number: line number of the columns, for messages.
        meanings: meanings of the columns.
        by: ``forget_by``.

    Raises:
        InputError: says which columns would fit.
    """
    conditions = set(meanings) - {"request_id"}
    entities = conditions & {"user", "item"}
    fits = {
        "user": bool(conditions),
        "interaction": entities == {"user", "item"},
        "item": entities == {"item"},
        CORRECTION: entities == {"user", "item"} and bool(conditions & {*CORRECTED}),
    }
    if not fits[by]:
        purpose = "a correction" if by == CORRECTION else f"forget_by {by!r}"
        raise InputError(
            f"{location(path, number)}: columns do not fit {purpose}; {ADVICE[by]} "
            "(other columns need a header)"
        )


def _normalized(name: str) -> str:
    return name.split(":")[0].strip().lower()


def read_json_lines(path: Path | str, lines: list[str], by: str) -> Records:
    """Read entries from JSON lines; numbers keep their spelling.

    Args:
        path: the file, for messages.
        lines: lines of the file.
        by: ``forget_by``.

    Raises:
        InputError: a line is no JSON object, a value is neither text nor a number, a key occurs
            twice, or keys do not fit ``forget_by``.
    """
    entries = []
    ignored: set[str] = set()
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        pairs = _parse_object(path, number, text)
        names = [name for name, _ in pairs]
        indices = column_indices(path, number, names, by)
        check_columns(path, number, indices, by)
        ignored.update(name for index, name in enumerate(names) if index not in indices.values())
        cells = {meaning: pairs[index][1] for meaning, index in indices.items()}
        entries.append(Record(number, _check_text(path, number, cells)))
    return Records(entries, len(ignored))


class _Object(list[tuple[str, Any]]):
    """Keys and values of a JSON object; its type tells it from a JSON list."""


def _parse_object(path: Path | str, number: int, text: str) -> _Object:
    """Return keys and values of one JSON object; a repeated key gives two pairs."""
    refuse = _refusing("NaN and Infinity are no values")
    try:
        value = json.loads(
            text,
            parse_int=str,
            parse_float=str,
            parse_constant=refuse,
            object_pairs_hook=lambda pairs: _Object(pairs),
        )
    except json.JSONDecodeError as error:
        raise InputError(
            f"{location(path, number)}: not valid JSON, {error.msg} at column {error.colno}; "
            'write one object a line, as {"user_id": "7"}'
        ) from error
    except (ValueError, RecursionError) as error:
        reason = "too deeply nested" if isinstance(error, RecursionError) else str(error)
        raise InputError(f"{location(path, number)}: {reason}; correct the line") from error
    if not isinstance(value, _Object):
        raise InputError(
            f'{location(path, number)}: no JSON object; write one a line, as {{"user_id": "7"}}'
        )
    return value


def _refusing(message: str) -> Callable[[str], NoReturn]:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(message)

    return refuse


def _check_text(path: Path | str, number: int, cells: dict[str, Any]) -> dict[str, str]:
    for meaning, value in cells.items():
        if not isinstance(value, str):
            raise InputError(
                f"{location(path, number)}: the {meaning} is neither text nor a number; correct "
                "the line or leave the key out"
            )
    return cells


class _Row(NamedTuple):
    number: int  # line number
    cells: list[str]


def read_table(
    path: Path | str, lines: list[str], by: str, tokens: Mapping[str, Container[str]]
) -> Records:
    """Read entries from a table with a header, or with exactly the columns of ``forget_by``.

    Args:
        path: the file, for messages.
        lines: lines of the file.
        by: ``forget_by``.
        tokens: the users and items of the data. A first line that is a token is no header, and a
            line that is a token is not split at its commas.

    Raises:
        InputError: columns do not fit, a line has the wrong number of cells, or a quote is not
            closed.
    """
    rows = list(_rows(path, lines, tokens["item" if by == "item" else "user"]))
    if not rows:
        return Records([], 0)
    first = rows[0]
    width = len(first.cells)
    if _is_header(first.cells, tokens, by):
        columns = column_indices(path, first.number, first.cells, by)
        rows, ignored = rows[1:], width - len(columns)
    else:
        names = _HEADERLESS_COLUMNS.get((by, width), ())
        columns = {name: index for index, name in enumerate(names)}
        ignored = 0
    check_columns(path, first.number, columns, by)
    known = {name: tokens.get(name, ()) for name in columns}
    entries = []
    for row in rows:
        _check_width(path, row, width)
        cells = {name: _trimmed(row.cells[index], known[name]) for name, index in columns.items()}
        entries.append(Record(row.number, cells))
    return Records(entries, ignored)


def _rows(path: Path | str, lines: list[str], known: Container[str]) -> Iterator[_Row]:
    """Split lines that are not blank into cells; a quoted cell may span several lines."""
    index = 0
    while index < len(lines):
        text, number = lines[index], index + 1
        index += 1
        if not text.strip(" \t"):
            continue
        cells = [text]
        if text not in known and "\t" in text:
            cells = text.split("\t")
        elif text not in known:
            end = min(index - 1 + _LONGEST_CELL, len(lines))
            rest = (lines[line] + "\n" for line in range(number - 1, end))
            reader = csv.reader(rest, strict=True)
            try:
                cells = next(reader)
            except csv.Error as error:
                raise InputError(
                    f"{location(path, number)}: {error}; is it text, and is each quote closed?"
                ) from error
            index = number - 1 + reader.line_num
        yield _Row(number, cells)


def _is_header(cells: list[str], tokens: Mapping[str, Container[str]], by: str) -> bool:
    """Whether a cell is a known column name, and not a token of the kind that it names."""
    for cell in cells:
        meaning = meaning_of(cell, by)
        if meaning is None:
            continue
        kinds = [meaning] if meaning in tokens else list(tokens)
        if not any(cell in tokens[kind] for kind in kinds):
            return True
    return False


def _check_width(path: Path | str, row: _Row, width: int) -> None:
    if len(row.cells) != width:
        raise InputError(
            f"{location(path, row.number)}: {len(row.cells)} columns where {width} were expected; "
            "correct the line"
        )


def _trimmed(cell: str, known: Container[str]) -> str:
    """Remove spaces around a cell, unless they are part of a token of the data."""
    return cell if cell in known else cell.strip()


def moment(text: str) -> Moment:
    """Read a number in the data's unit, a date, or a date with a time.

    A time without an offset is in UTC. A date stands for the whole day, in seconds since 1970 from
    its first instant to its last.

    Raises:
        InputError: the text is none of these, or the number is not finite; says which forms are
            valid, but not what the text was.
    """
    if len(text) <= _LONGEST_NUMBER and _NUMBER.fullmatch(text) and math.isfinite(float(text)):
        return Moment(float(text), float(text), is_iso=False)
    match = _ISO.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        seconds = _seconds(*match.groups())
    except ValueError as error:
        raise InputError(
            "no moment; a number of the data, 1998-04-20 or 1998-04-20T10:30:00+02:00 does"
        ) from error
    if match[2] is None:
        return Moment(seconds, math.nextafter(seconds + _DAY, -math.inf), is_iso=True)
    return Moment(seconds, seconds, is_iso=True)


def check_seconds(latest: float, what: str) -> None:
    """Refuse a date if the times of the data cannot be seconds since 1970.

    Args:
        latest: the latest time in the data.
        what: where the date was given, for the message.

    Raises:
        InputError: the times are too large.
    """
    if latest > _NOT_SECONDS:
        raise InputError(
            f"{what}: dates need times in seconds since 1970; these reach {latest:.0f}; give "
            "numbers in the unit of the data"
        )


def _seconds(
    day: str, time: str | None, second: str | None, fraction: str | None, offset: str | None
) -> float:
    if fraction is not None and second is None:
        raise ValueError("a fraction of a minute")
    zone = "+00:00" if offset in (None, "Z") else offset
    text = f"{day}T{time or '00:00'}{second or ':00'}.{(fraction or '').ljust(6, '0')}{zone}"
    return (datetime.fromisoformat(text) - _EPOCH).total_seconds()
