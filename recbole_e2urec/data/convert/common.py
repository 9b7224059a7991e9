"""What the converters share: reading published files row by row, and writing atomic files.

The atomic files of a data set appear all together or not at all.

Published files are read here rather than by pandas, since an error names the line. pandas fills a
row that is too short with NaN, and says neither which JSON line is damaged nor where a gzip file
was cut off. Pairs are counted on disk (:class:`PairCounter`), as Goodreads has 228 million rows.
Your own CSV files (``init``) are read by pandas.
"""

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
from recbole_e2urec.utils.io import umask

LATIN = "iso-8859-1"  # an encoding
HEADER = ("user_id:token", "item_id:token", "rating:float", "timestamp:float")  # of .inter files
PARTS = 256  # temporary files that a PairCounter spreads hashes over; each is counted separately
IN_MEMORY = 1 << 20  # hashes that a PairCounter holds before it writes them to the files: 8 MB
_ADVICE = "download it again"
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]+")  # some reader takes these for a line end
_ENTITY = re.compile(r"&(?:#\d+|#[xX][0-9a-fA-F]+|[A-Za-z]\w*);")


class Place(NamedTuple):
    """A line of a published file, for error messages."""

    path: Path
    line: int

    def bad(self, problem: str) -> InputError:
        """Return an error that says where the problem is and what it is."""
        return InputError(f"{self.path}, line {self.line}: {problem}")


def find(folder: Path, patterns: Sequence[str], wanted: str) -> Path:
    """Find the one file in a folder whose name matches one of the patterns.

    Args:
        folder: folder with the published files.
        patterns: glob patterns such as ``*.json``; a file with ``.gz`` appended matches too.
        wanted: what error messages call the file.

    Raises:
        InputError: the folder does not exist, or it has no such file or several.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the one with the published files")
    names = [f"{pattern}{suffix}" for pattern in patterns for suffix in ("", ".gz")]
    paths = sorted({path for name in names for path in folder.glob(name) if path.is_file()})
    if not paths:
        raise InputError(f"{folder} has no {wanted}; put it there as published, unzipped or .gz")
    if len(paths) > 1:
        listed = ", ".join(path.name for path in paths)
        raise InputError(f"{folder} has several files that could be {wanted}: {listed}; keep one")
    return paths[0]


def text_lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[Place, str]]:
    r"""Yield the lines that are not blank, without their ends; only \n ends a line.

    Raises:
        InputError: the file cannot be read, is not in the encoding or is empty, or a gzip file is
            damaged or cut off.
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
        raise place.bad(f"not {encoding} text; {_ADVICE}") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"{path}, after line {place.line}: the gzip file is damaged or cut off; {_ADVICE}"
        ) from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check the file") from error
    if not place.line:
        raise InputError(f"{path} is empty; {_ADVICE}")


def cells(
    path: Path, separator: str, width: int, encoding: str
) -> Iterator[tuple[Place, list[str]]]:
    """Yield the cells of each line; a separator cannot be quoted.

    Raises:
        InputError: as in :func:`text_lines`, or a line does not have ``width`` cells.
    """
    for place, text in text_lines(path, encoding):
        row = text.split(separator)
        if len(row) != width:
            raise place.bad(
                f"{len(row)} cells between {separator!r} where {width} are published; {_ADVICE}"
            )
        yield place, row


def quoted_cells(
    path: Path, header: Sequence[str], encoding: str
) -> Iterator[tuple[Place, list[str]]]:
    r"""Yield the rows of a ``;`` file with quoted cells.

    Inside a quoted cell, \\" is a quote and a line may end.

    Args:
        path: the file.
        header: names that the first line must begin with.
        encoding: encoding of the file.

    Raises:
        InputError: as in :func:`text_lines`, the header differs, or a row does not have as many
            cells as the header.
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
                    raise place.bad(f"the header must begin with {';'.join(header)}; {_ADVICE}")
            elif len(row) != width:
                raise place.bad(f"{len(row)} cells where the header has {width}; {_ADVICE}")
            else:
                yield place, row
    except csv.Error as error:
        raise place.bad(f"{error}; {_ADVICE}") from error


def records(path: Path, keys: Sequence[str]) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Yield the objects of a file with one JSON object a line.

    Args:
        path: the file.
        keys: keys that each object must have.

    Raises:
        InputError: as in :func:`text_lines`, or a line is no such object.
    """
    for place, text in text_lines(path):
        try:
            record = json.loads(text)
        except ValueError as error:
            raise place.bad(
                f"not JSON; if it is the last line, the file is cut off: {_ADVICE}"
            ) from error
        missing = [key for key in keys if not isinstance(record, dict) or key not in record]
        if missing:
            raise place.bad(f"no {missing[0]!r}; an object with {', '.join(keys)} is needed")
        yield place, record


def identifier(value: Any, place: Place, name: str) -> str:
    """Return an identifier as text.

    Raises:
        InputError: the identifier is blank, or neither text nor a whole number.
    """
    text = str(value).strip() if isinstance(value, str | int) else ""
    if not text:
        raise place.bad(f"{name} is {value!r}; {_ADVICE}")
    return text


def number(value: Any, place: Place, name: str, most: float = math.inf) -> float:
    """Return a finite number from 0 to ``most``.

    Raises:
        InputError: the value is anything else.
    """
    try:
        parsed = float(value)
    except (TypeError, ValueError):
        parsed = math.nan
    if not 0 <= parsed <= most or math.isinf(parsed):
        limit = "from 0 on" if math.isinf(most) else f"from 0 to {most:g}"
        raise place.bad(f"{name} is {value!r}; a number {limit} is needed: {_ADVICE}")
    return parsed


class Table:
    """One atomic file while it is being written."""

    def __init__(self, file: IO[str], columns: Sequence[str]) -> None:
        self._file = file
        self._file.write("\t".join(columns) + "\n")

    def write(self, *cells: str) -> None:
        """Add a row."""
        self._file.write("\t".join(map(cell, cells)) + "\n")


class AtomicFiles:
    """The atomic files of a data set while they are being written; see :func:`atomic_files`.

    Attributes:
        folder: folder of the finished files.
    """

    def __init__(self, folder: Path, name: str, stack: ExitStack) -> None:
        self.folder, self._name, self._stack = folder, name, stack
        self._parts: dict[Path, IO[str]] = {}

    def table(self, suffix: str, columns: Sequence[str]) -> Table:
        """Begin a file.

        Args:
            suffix: ``inter``, ``item`` or ``user``.
            columns: ``name:type`` of each column.
        """
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
        """Move the files to their final names, the interactions last; returns their paths."""
        mask = umask()
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
    """Open the atomic files of a data set under temporary names, which ``finish`` makes final.

    Args:
        folder: folder of the finished files; created if needed, and removed again if it was created
            and stays empty.
        name: name of the data set.

    Raises:
        InputError: the folder cannot be written to, or the disk is full.
    """
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for part in folder.glob(f".{name}.*.part"):  # left over from a killed conversion
            part.unlink(missing_ok=True)
        with ExitStack() as stack:
            yield AtomicFiles(folder, name, stack)
    except OSError as error:
        raise InputError(
            f"cannot write to {folder}: {error.strerror}; free some space or name another --output"
        ) from error
    finally:
        if is_new:  # an empty folder of that name would be taken for the data set
            with suppress(OSError):
                folder.rmdir()


def cell(text: str) -> str:
    """Return a cell that RecBole's reader and ours read alike.

    Tabs, line ends and other control characters become spaces. A cell that begins with a quote gets
    a space before it, because RecBole's reader would start a quotation there.
    """
    text = _CONTROL.sub(" ", text).strip()
    return f" {text}" if text.startswith('"') else text


def title(text: object) -> str:
    """Return a title with entities such as ``&amp;`` decoded; a missing title is ''."""
    return _ENTITY.sub(lambda match: html.unescape(match.group()), str(text or ""))


@dataclass
class Findings:
    """What a conversion has to report.

    Attributes:
        lines: what was read and noticed, for people.
        warnings: row counts that differ from the published ones.
    """

    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def count(self, path: Path, rows: int, published: int | str | None) -> None:
        """Report the rows of a file, and compare them with the published count.

        Args:
            path: the file.
            rows: number of rows read.
            published: number of rows that its owners state, either exactly or rounded as in
                ``701.5K``; None if they state none.
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
        """Refuse row counts that differ from the published ones.

        Raises:
            InputError: the first warning.
        """
        if self.warnings:
            raise InputError(self.warnings[0])


def rounded(rows: int) -> str:
    """Write a count in thousands or millions with one decimal, as in ``701.5K`` and ``2.1M``."""
    for unit, name in ((1_000_000, "M"), (1_000, "K")):
        if rows >= unit:
            return f"{rows / unit:.1f}{name}"
    return str(rows)


class PairCounter:
    """Counts the rows that repeat the user and item of an earlier row.

    Pairs are compared by 64-bit hashes, so the count can be one too low: in about one of 700 data
    sets with 228 million rows. Memory: 8 MB; at the end, 1/256 of 8 bytes for each row.

    Args:
        folder: folder for unnamed temporary files; nothing is left there.
        limit: most hashes held in memory.
    """

    def __init__(self, folder: Path, limit: int = IN_MEMORY) -> None:
        self._folder, self._limit = folder, limit
        self._hashes = array("q")
        self._files: list[IO[bytes]] = []

    def __enter__(self) -> "PairCounter":
        """Return the counter."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the temporary files, which removes them."""
        for file in self._files:
            file.close()

    def add(self, user: str, item: str) -> None:
        """Add a row."""
        self._hashes.append(hash((user, item)))
        if len(self._hashes) >= self._limit:
            self._write_to_files()

    def repeated(self) -> int:
        """Return how many rows so far repeat the pair of an earlier row."""
        if not self._files:
            return _count_repeats(np.array(self._hashes, dtype=np.int64))
        self._write_to_files()
        repeats = 0
        for file in self._files:
            file.seek(0)
            repeats += _count_repeats(np.frombuffer(file.read(), dtype=np.int64))
        return repeats

    def _write_to_files(self) -> None:
        if not self._files:
            for _ in range(PARTS):
                self._files.append(tempfile.TemporaryFile(dir=self._folder))  # noqa: SIM115
        hashes = np.array(self._hashes, dtype=np.int64)
        part = hashes & (PARTS - 1)
        order = np.argsort(part, kind="stable")
        bounds = np.searchsorted(part[order], np.arange(PARTS + 1))
        for index, file in enumerate(self._files):
            file.write(hashes[order[bounds[index] : bounds[index + 1]]].tobytes())
        self._hashes = array("q")


def _count_repeats(hashes: NDArray[np.int64]) -> int:
    return len(hashes) - len(np.unique(hashes))


class Catalogue:
    """Writes the ``.item`` or ``.user`` file, with the first row of each identifier.

    RecBole joins this file to its own list of identifiers. A second row of one identifier would
    shift all that follow.

    Args:
        files: the atomic files of the data set.
        suffix: ``item`` or ``user``.
        columns: ``name:type`` of each column, the identifier first.

    Attributes:
        known: identifiers so far.
    """

    def __init__(self, files: AtomicFiles, suffix: str, columns: Sequence[str]) -> None:
        self._table = files.table(suffix, columns)
        self._rows = 0
        self.known: set[str] = set()

    def add(self, identifier: str, *cells: str) -> None:
        """Write a row, unless the identifier already has one."""
        self._rows += 1
        if identifier not in self.known:
            self.known.add(identifier)
            self._table.write(identifier, *cells)

    def report(self, findings: Findings, path: Path, published: int | None) -> set[str]:
        """Report how many rows of ``path`` were read and repeated; returns the identifiers."""
        findings.count(path, self._rows, published)
        repeated = self._rows - len(self.known)
        if repeated:
            findings.lines.append(
                f"{path.name}: {repeated:,} rows repeat an identifier; the first row counts"
            )
        return self.known


class Interactions:
    """Writes the ``.inter`` file and counts unusual rows; see :func:`interactions`."""

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
        """Write a row; ``time`` is in seconds, or None if the data has no times."""
        row = (user, item, f"{rating:g}")
        self._table.write(*row, *(() if time is None else (time,)))
        self._pairs.add(user, item)
        self._rows += 1
        self.unrated += rating == 0
        self._no_user += self._users is not None and user not in self._users
        self._no_item += self._items is not None and item not in self._items

    def notes(self) -> list[str]:
        """Return one line for each thing that was counted."""
        counts = {
            "rows repeat the user and item of an earlier row; all are written, rm_dup_inter "
            "decides which a run keeps": self._pairs.repeated(),
            "rows have rating 0, which means not rated; val_interval leaves them out": self.unrated,
            "rows name a user without a row in the .user file": self._no_user,
            "rows name an item without a row in the .item file; prompts call it by its id": (
                self._no_item
            ),
        }
        total = f"{self._rows:,} interactions"
        return [total, *(f"{count:,} {text}" for text, count in counts.items() if count)]


@contextmanager
def interactions(
    files: AtomicFiles,
    users: Collection[str] | None = None,
    items: Collection[str] | None = None,
    timed: bool = True,
) -> Iterator[Interactions]:
    """Begin the ``.inter`` file.

    Args:
        files: the atomic files of the data set.
        users: ids in the ``.user`` file; None if the data set has no such file.
        items: ids in the ``.item`` file; None if the data set has no such file.
        timed: whether rows have times.
    """
    table = files.table("inter", HEADER if timed else HEADER[:3])
    with PairCounter(files.folder) as pairs:
        yield Interactions(table, pairs, users, items)
