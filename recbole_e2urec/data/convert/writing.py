"""Atomic files that appear together, whole, or not at all."""

import html
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from recbole_e2urec.errors import InputError

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
