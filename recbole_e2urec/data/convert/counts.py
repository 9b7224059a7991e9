"""How many rows of a file were read, beside how many its owners say there are."""

from dataclasses import dataclass, field
from pathlib import Path

from recbole_e2urec.errors import InputError


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
