"""Reading published files row by row, and writing atomic files that appear whole or not at all."""

import csv
import gzip
import html
import json
import math
import os
import re
import tempfile
import zlib
from array import array
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

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


_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]+")  # what some reader takes for a line end
_ENTITY = re.compile(r"&(?:#\d+|#[xX][0-9a-fA-F]+|[A-Za-z]\w*);")


class Table:
    """One atomic file that is being written."""

    def __init__(self, file: IO[str], columns: Sequence[str]) -> None:
        self._file = file
        self._file.write("\t".join(columns) + "\n")

    def write(self, *cells: str) -> None:
        """Add a row."""
        self._file.write("\t".join(map(cell, cells)) + "\n")


class AtomicFiles:
    """The atomic files of a data set; made by :func:`atomic_files`.

    Attributes:
        folder: where they will be.
    """

    def __init__(self, folder: Path, name: str, stack: ExitStack) -> None:
        self.folder, self._name, self._stack = folder, name, stack
        self._parts: dict[Path, IO[str]] = {}

    def table(self, suffix: str, columns: Sequence[str]) -> Table:
        """Begin a file: ``inter``, ``item`` or ``user``; columns are ``name:type``."""
        path = self.folder / f"{self._name}.{suffix}"
        file = tempfile.NamedTemporaryFile(  # noqa: SIM115 - the stack closes it
            "w", encoding="utf-8", errors="replace", newline="\n",
            prefix=f".{path.name}.", suffix=".part", dir=self.folder, delete=False,
        )  # fmt: skip
        self._stack.callback(Path(file.name).unlink, missing_ok=True)
        self._stack.callback(file.close)
        self._parts[path] = file
        return Table(file, columns)

    def finish(self) -> list[Path]:
        """Put the files into their places, the interactions last."""
        mask = os.umask(0o077)
        os.umask(mask)
        for file in self._parts.values():
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o666 & ~mask)
        paths = sorted(self._parts, key=lambda path: path.suffix == ".inter")
        for path in paths:
            os.replace(self._parts[path].name, path)
        return paths


@contextmanager
def atomic_files(folder: Path, name: str) -> Iterator[AtomicFiles]:
    """Files under temporary names, which ``finish`` puts into their places.

    Raises:
        InputError: the folder cannot be written to, or the disk is full.
    """
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for part in folder.glob(f".{name}.*.part"):  # of a conversion that was killed
            part.unlink(missing_ok=True)
        with ExitStack() as stack:
            yield AtomicFiles(folder, name, stack)
    except OSError as error:
        raise InputError(
            f"cannot write to {folder}: {error.strerror}; free some space or name another --output"
        ) from error
    finally:
        if is_new:  # a data set's folder without files would be taken for the data set
            with suppress(OSError):
                folder.rmdir()


def cell(text: str) -> str:
    """A cell of an atomic file that RecBole's reader and ours read alike.

    Tabs, line ends and other control characters become spaces. RecBole's reader takes a quote at
    the start of a cell for the start of a quotation, so such a cell begins with a space.
    """
    text = _CONTROL.sub(" ", text).strip()
    return f" {text}" if text.startswith('"') else text


def title(text: object) -> str:
    """A title with entities such as ``&amp;`` as the characters they stand for; no text is ''."""
    return _ENTITY.sub(lambda match: html.unescape(match.group()), str(text or ""))


@dataclass
class Findings:
    """What a conversion found.

    Attributes:
        lines: what was read and noticed, for people.
        warnings: counts that are not the published ones.
    """

    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def count(self, path: Path, rows: int, published: int | str | None) -> None:
        """Note the rows of a file.

        Args:
            path: the file.
            rows: that were read.
            published: rows as its owners count them, exactly, or rounded as in ``701.5K``; None
                where they give no number.
        """
        if published is None:
            self.lines.append(f"{path.name}: {rows:,} rows (no published count to compare with)")
        elif published in (rows, rounded(rows)):
            self.lines.append(f"{path.name}: {rows:,} rows, as published")
        else:
            stated = f"{published:,}" if isinstance(published, int) else published
            self.warnings.append(
                f"{path}: {rows:,} rows where {stated} were published; if this is not meant to be "
                "a part or another version, download it again"
            )

    def check(self) -> None:
        """Refuse counts that are not the published ones.

        Raises:
            InputError: the first of them.
        """
        if self.warnings:
            raise InputError(self.warnings[0])


def rounded(rows: int) -> str:
    """A count in thousands or millions with one decimal place, as in ``701.5K`` and ``2.1M``."""
    for unit, name in ((1_000_000, "M"), (1_000, "K")):
        if rows >= unit:
            return f"{rows / unit:.1f}{name}"
    return str(rows)


PARTS = 256  # files that hashes are spread over; each is counted alone
IN_MEMORY = 1 << 20  # hashes held before they go to the files: 8 MB


class PairCounter:
    """How many rows name a user and an item that an earlier row named.

    Pairs are told apart by 64-bit hashes, so the count can be one too low about once in 700 data
    sets of 228 million rows. Memory: 8 MB, and at the end a 256th of 8 bytes a row.

    Args:
        folder: where temporary files without a name may be; nothing is left there.
        limit: hashes held in memory.
    """

    def __init__(self, folder: Path, limit: int = IN_MEMORY) -> None:
        self._folder, self._limit = folder, limit
        self._held = array("q")
        self._files: list[IO[bytes]] = []

    def __enter__(self) -> "PairCounter":
        """Give itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close, and so remove, the temporary files."""
        for file in self._files:
            file.close()

    def add(self, user: str, item: str) -> None:
        """Note a row."""
        self._held.append(hash((user, item)))
        if len(self._held) >= self._limit:
            self._spill()

    def repeated(self) -> int:
        """Rows so far whose pair an earlier row had."""
        if not self._files:
            return _repeats(np.array(self._held, dtype=np.int64))
        self._spill()
        found = 0
        for file in self._files:
            file.seek(0)
            found += _repeats(np.frombuffer(file.read(), dtype=np.int64))
        return found

    def _spill(self) -> None:
        if not self._files:
            for _ in range(PARTS):
                self._files.append(tempfile.TemporaryFile(dir=self._folder))  # noqa: SIM115
        held = np.array(self._held, dtype=np.int64)
        part = held & (PARTS - 1)
        order = np.argsort(part, kind="stable")
        bounds = np.searchsorted(part[order], np.arange(PARTS + 1))
        for place, file in enumerate(self._files):
            file.write(held[order[bounds[place] : bounds[place + 1]]].tobytes())
        self._held = array("q")


def _repeats(hashes: NDArray[np.int64]) -> int:
    return len(hashes) - len(np.unique(hashes))


class Catalogue:
    """Writes what is known about items or users, the first row of each.

    RecBole joins this file to its own list of identifiers; a second row of one would shift all
    that follow.

    Args:
        files: where the file belongs.
        suffix: ``item`` or ``user``.
        columns: ``name:type``, the identifier first.

    Attributes:
        known: identifiers so far.
    """

    def __init__(self, files: AtomicFiles, suffix: str, columns: Sequence[str]) -> None:
        self._table = files.table(suffix, columns)
        self._rows = 0
        self.known: set[str] = set()

    def add(self, identifier: str, *cells: str) -> None:
        """Write a row, unless the identifier has one."""
        self._rows += 1
        if identifier not in self.known:
            self.known.add(identifier)
            self._table.write(identifier, *cells)

    def report(self, findings: Findings, path: Path, published: int | None) -> set[str]:
        """Note how many rows of ``path`` were read and repeated; gives the identifiers."""
        findings.count(path, self._rows, published)
        repeated = self._rows - len(self.known)
        if repeated:
            findings.lines.append(
                f"{path.name}: {repeated:,} rows repeat an identifier; the first row counts"
            )
        return self.known


HEADER = ("user_id:token", "item_id:token", "rating:float", "timestamp:float")


class Interactions:
    """Writes interactions and counts rows that users of the data should know about.

    Made by :func:`interactions`.
    """

    def __init__(
        self,
        table: Table,
        pairs: PairCounter,
        users: Collection[str] | None,
        items: Collection[str] | None,
    ) -> None:
        self._table, self._pairs, self._users, self._items = table, pairs, users, items
        self._rows = self._no_user = self._no_item = 0
        self.unrated = 0  # rows with rating 0, which these data sets use for "not rated"

    def add(self, user: str, item: str, rating: float, time: str | None = None) -> None:
        """Write a row; ``time`` is in seconds, or None in data without times."""
        written = (user, item, f"{rating:g}")
        self._table.write(*written, *(() if time is None else (time,)))
        self._pairs.add(user, item)
        self._rows += 1
        self.unrated += rating == 0
        self._no_user += self._users is not None and user not in self._users
        self._no_item += self._items is not None and item not in self._items

    def notes(self) -> list[str]:
        """What was noticed, a line each."""
        counted = {
            "rows repeat the user and item of an earlier row; all are written, rm_dup_inter "
            "decides which a run keeps": self._pairs.repeated(),
            "rows have rating 0, which means not rated; val_interval leaves them out": self.unrated,
            "rows name a user without a row in the .user file": self._no_user,
            "rows name an item without a row in the .item file; prompts call it by its id": (
                self._no_item
            ),
        }
        written = f"{self._rows:,} interactions"
        return [written, *(f"{count:,} {text}" for text, count in counted.items() if count)]


@contextmanager
def interactions(
    files: AtomicFiles,
    users: Collection[str] | None = None,
    items: Collection[str] | None = None,
    timed: bool = True,
) -> Iterator[Interactions]:
    """Begin the ``.inter`` file.

    Args:
        files: where it belongs.
        users: ids that the ``.user`` file has; None where the data set has none.
        items: ids that the ``.item`` file has; None where it has none.
        timed: whether rows have times.
    """
    table = files.table("inter", HEADER if timed else HEADER[:3])
    with PairCounter(files.folder) as pairs:
        yield Interactions(table, pairs, users, items)
