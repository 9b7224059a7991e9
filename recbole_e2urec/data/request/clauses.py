"""A request file as clauses: each asks for the rows of a user, an item, a pair, or a time."""

import math
import re
from collections.abc import Container, Mapping
from pathlib import Path
from typing import NamedTuple

from recbole_e2urec.data.request.columns import Record, Records, lines_of, place
from recbole_e2urec.data.request.jsonlines import read_json_lines
from recbole_e2urec.data.request.moments import Moment, moment
from recbole_e2urec.data.request.tables import read_table
from recbole_e2urec.data.textfile import read_lines
from recbole_e2urec.errors import InputError

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
