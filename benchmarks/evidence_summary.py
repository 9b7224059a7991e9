"""Figures of a setup and a size: all that tables, plots and verdicts show, a line a row and seed.

They are kept beside the document, in JSON lines, so that what the tables average can be read, and
rows that were measured elsewhere stay when others are added.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.evidence_cells import Cell
from benchmarks.evidence_figures import OTHER, figures
from benchmarks.evidence_intervals import Intervals, intervals_of
from benchmarks.evidence_rows import ORIGINAL, RETRAIN, SETUPS, WAYS
from recbole_e2urec.errors import InputError
from recbole_e2urec.evaluator.over_seeds import Apart, Off, apart, off
from recbole_e2urec.results import load_rows
from recbole_e2urec.storage import write_text

Line = Mapping[str, Any]
KEY = ("setup", "size", "model")
ORDER = (ORIGINAL, RETRAIN, OTHER, *WAYS)
DIGITS = 6  # behind the point, in the file
SAME = 1e-5  # two measurements of one model differ by less than this


class Row(NamedTuple):
    """One model of a table.

    Attributes:
        lines: figures, one for each seed; for ``OTHER``, for each pair of seeds.
        intervals: of the means; None for Original and ``OTHER``.
        noise: how far its seeds are apart; None except for Retrain.
        off: bias and scatter of its distance from Retrain; None for Retrain and for a seed alone.
        decided_by: digests of all settings; several if seeds had unlike ones.
    """

    lines: list[Line]
    intervals: Intervals | None
    noise: Apart | None
    off: Off | None
    decided_by: list[str]

    @property
    def seeds(self) -> set[int]:
        """Under which it was measured."""
        return {line["seed"] for line in self.lines}


class Summary(NamedTuple):
    """All that is shown of a setup and a size.

    Attributes:
        setup: its short name.
        size: share of the training users.
        users: of the request.
        rows: by the name of the model, in the order of the tables.
    """

    setup: str
    size: float
    users: int
    rows: dict[str, Row]

    @property
    def short(self) -> str:
        """Setup and size, for people."""
        return f"{SETUPS[self.setup].title}, {self.size:.0%}"

    @property
    def title(self) -> str:
        """The same, and how many users that are."""
        return f"{self.short} ({self.users} {'user' if self.users == 1 else 'users'})"

    @property
    def lines(self) -> list[Line]:
        """Figures of all rows, with ``model`` and ``seed``."""
        return [line for row in self.rows.values() for line in row.lines]

    @property
    def place(self) -> tuple[str, float]:
        """Names it."""
        return self.setup, self.size


def summary_of(cell: Cell, resamples: int) -> Summary:
    """Compute what is shown of measured rows."""
    lines, intervals = figures(cell), intervals_of(cell, resamples)
    said = {name: {seed: one.forget for seed, one in by.items()} for name, by in cell.said.items()}
    rows = {}
    for name in dict.fromkeys(line["model"] for line in lines):
        kept = cell.rows[RETRAIN if name == OTHER else name]
        rows[name] = Row(
            [line for line in lines if line["model"] == name],
            intervals.get(name),
            apart(said[name]) if name == RETRAIN else None,
            off(said[name], said[RETRAIN]) if name not in (RETRAIN, OTHER) else None,
            sorted({row["decided_by"] for row in kept.values()}),
        )
    return Summary(cell.setup, cell.size, next(iter(cell.rows[RETRAIN].values()))["users"], rows)


def joined(new: Sequence[Summary], kept: Sequence[Summary]) -> list[Summary]:
    """Take each row from where it has more seeds, from ``new`` where it has as many.

    Raises:
        InputError: the two disagree about Original or Retrain of the same seed.
    """
    found: dict[tuple[str, float], list[Summary]] = {}
    for summary in (*new, *kept):
        found.setdefault(summary.place, []).append(summary)
    places = sorted(found, key=lambda place: (list(SETUPS).index(place[0]), place[1]))
    return [_joined(*found[place]) for place in places]


def _joined(new: Summary, old: Summary | None = None) -> Summary:
    if old is None:
        return new
    for name in (ORIGINAL, RETRAIN):
        _agree(new, old, name)
    rows = {
        name: max(
            (one.rows[name] for one in (new, old) if name in one.rows),
            key=lambda row: len(row.seeds),  # of equals the first
        )
        for name in ORDER
        if name in new.rows or name in old.rows
    }
    return new._replace(rows=rows)


def _agree(new: Summary, old: Summary, name: str) -> None:
    kept = {line["seed"]: line for line in old.rows[name].lines}
    for line in new.rows[name].lines:
        other = kept.get(line["seed"], line)
        if any(_differ(line[key], other[key]) for key in ("forget_auc", "test_auc")):
            raise InputError(
                f"{name} of {new.title}, seed {line['seed']}, is another model than the one whose "
                "figures are kept; move their file away and measure all rows in one place"
            )


def _differ(one: float | None, other: float | None) -> bool:
    """Whether two AUC are not the same; requests of one label have none."""
    return one != other if one is None or other is None else abs(one - other) > SAME


def write(path: Path, summaries: Iterable[Summary]) -> None:
    """Keep the figures, a line a model of a table."""
    told = (_told(one, name) for one in summaries for name in one.rows)
    write_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in told))


def _told(summary: Summary, name: str) -> dict[str, Any]:
    row = summary.rows[name]
    own = {"intervals": row.intervals, "noise": row.noise, "off": row.off}
    return {
        **dict(zip(KEY, (*summary.place, name), strict=True)),
        "users": summary.users,
        "decided_by": row.decided_by,
        **{key: _rounded(value._asdict()) for key, value in own.items() if value is not None},
        "lines": [_rounded({k: v for k, v in line.items() if k != "model"}) for line in row.lines],
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return round(value, DIGITS) if isinstance(value, float) else value


def read(path: Path, digests: Mapping[tuple[str, str], str]) -> list[Summary]:
    """Figures that are kept, without those of other settings than today's.

    Args:
        path: the file; nothing is kept where there is none.
        digests: of today's settings, by setup and row.
    """
    found: dict[tuple[str, float], Summary] = {}
    for told in load_rows(path):
        setup, size, name = (told[key] for key in KEY)
        if told["decided_by"] != [digests.get((setup, RETRAIN if name == OTHER else name))]:
            continue
        row = Row(
            [{"model": name, **line} for line in told["lines"]],
            Intervals(**told["intervals"]) if "intervals" in told else None,
            Apart(**told["noise"]) if "noise" in told else None,
            Off(**told["off"]) if "off" in told else None,
            told["decided_by"],
        )
        empty = Summary(setup, size, told["users"], {})
        found.setdefault((setup, size), empty).rows[name] = row
    return [one for one in found.values() if {ORIGINAL, RETRAIN} <= one.rows.keys()]
