"""The ``.item`` or the ``.user`` file: one row for each identifier."""

from collections.abc import Sequence
from pathlib import Path

from recbole_e2urec.data.convert.counts import Findings
from recbole_e2urec.data.convert.writing import AtomicFiles


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
