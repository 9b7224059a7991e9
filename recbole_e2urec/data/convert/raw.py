"""Reading published files row by row: plain or gzip, every complaint with file and line number."""

import csv
import gzip
import json
import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recbole_e2urec.errors import InputError

LATIN = "iso-8859-1"
_AGAIN = "download it again"


class Place(NamedTuple):
    """A line of a published file, for error messages."""

    path: Path
    line: int

    def bad(self, problem: str) -> InputError:
        """The error that says what is wrong there, and what would do."""
        return InputError(f"{self.path}, line {self.line}: {problem}")


def find(folder: Path, patterns: Sequence[str], wanted: str) -> Path:
    """The one file of a folder whose name matches one of the patterns.

    Args:
        folder: of the published files.
        patterns: as in ``*.json``; a gzip file has ``.gz`` behind it.
        wanted: what to say when there is none.

    Raises:
        InputError: no folder, no such file, or several.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the one with the published files")
    names = [f"{pattern}{end}" for pattern in patterns for end in ("", ".gz")]
    found = sorted({path for name in names for path in folder.glob(name) if path.is_file()})
    if not found:
        raise InputError(f"{folder} has no {wanted}; put it there as published, unzipped or .gz")
    if len(found) > 1:
        listed = ", ".join(path.name for path in found)
        raise InputError(f"{folder} has several files that could be {wanted}: {listed}; keep one")
    return found[0]


def text_lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[Place, str]]:
    r"""Lines that are not blank, without their ends; only \n ends a line.

    Raises:
        InputError: unreadable, not in the encoding, a gzip file that is cut off, or nothing in it.
    """
    place = Place(path, 0)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                place = Place(path, number)
                text = line.decode(encoding).rstrip("\r\n")
                if text.strip():
                    yield place, text.removeprefix("\ufeff") if number == 1 else text
    except UnicodeDecodeError as error:
        raise place.bad(f"not {encoding} text; {_AGAIN}") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"{path}, after line {place.line}: the gzip file is damaged or cut off; {_AGAIN}"
        ) from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check the file") from error
    if not place.line:
        raise InputError(f"{path} is empty; {_AGAIN}")


def cells(
    path: Path, separator: str, width: int, encoding: str
) -> Iterator[tuple[Place, list[str]]]:
    """Lines cut at a separator that nothing can quote.

    Raises:
        InputError: as :func:`text_lines`, or a line with another number of cells.
    """
    for place, text in text_lines(path, encoding):
        found = text.split(separator)
        if len(found) != width:
            raise place.bad(
                f"{len(found)} cells between {separator!r} where {width} are published; {_AGAIN}"
            )
        yield place, found


def quoted_cells(
    path: Path, header: Sequence[str], encoding: str
) -> Iterator[tuple[Place, list[str]]]:
    r"""Rows of a ``;`` file with quoted cells, inside which \\" is a quote and a line may end.

    Args:
        path: the file.
        header: the names that its first line must begin with.
        encoding: of the file.

    Raises:
        InputError: as :func:`text_lines`, another header, or a row with another number of cells.
    """
    place, width = Place(path, 0), None

    def lines() -> Iterator[str]:
        nonlocal place
        for place, line in text_lines(path, encoding):  # noqa: B007 - read below
            yield f"{line}\n"

    try:
        for row in csv.reader(lines(), delimiter=";", quotechar='"', escapechar="\\"):
            if width is None:
                width = len(row)
                if row[: len(header)] != list(header):
                    raise place.bad(f"the header must begin with {';'.join(header)}; {_AGAIN}")
            elif len(row) != width:
                raise place.bad(f"{len(row)} cells where the header has {width}; {_AGAIN}")
            else:
                yield place, row
    except csv.Error as error:
        raise place.bad(f"{error}; {_AGAIN}") from error


def records(path: Path, keys: Sequence[str]) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Objects of a file with one JSON object a line, each with at least these keys.

    Raises:
        InputError: as :func:`text_lines`, or a line that is no such object.
    """
    for place, text in text_lines(path):
        try:
            record = json.loads(text)
        except ValueError as error:
            raise place.bad(
                f"not JSON; if it is the last line, the file is cut off: {_AGAIN}"
            ) from error
        lacking = [key for key in keys if not isinstance(record, dict) or key not in record]
        if lacking:
            raise place.bad(f"no {lacking[0]!r}; an object with {', '.join(keys)} is needed")
        yield place, record


def identifier(value: Any, place: Place, name: str) -> str:
    """An identifier as text; refuses a blank one."""
    text = str(value).strip() if isinstance(value, str | int) else ""
    if not text:
        raise place.bad(f"{name} is {value!r}; {_AGAIN}")
    return text


def number(value: Any, place: Place, name: str, most: float = math.inf) -> float:
    """A number from 0 to ``most``; refuses anything else."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not 0 <= found <= most or math.isinf(found):
        limit = "from 0 on" if math.isinf(most) else f"from 0 to {most:g}"
        raise place.bad(f"{name} is {value!r}; a number {limit} is needed: {_AGAIN}")
    return found
