"""Tables of results, a line a model: means over seeds, in the formats that people paste."""

import csv
import io
from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import mean, stdev
from typing import Any, NamedTuple

from tabulate import tabulate

Row = Mapping[str, Any]
_TABULATED = {
    "text": "simple", "markdown": "github", "latex": "latex_booktabs", "html": "html",
}  # fmt: skip
Columns = tuple[tuple[str, str, int], ...]  # title, path in a row, decimals
WITHIN = "~"  # marks a gap that may be noise
# "gap" is forget AUC minus Retrain's of the same seed.
COMPARED: Columns = (
    ("test AUC", "test.auc", 4),
    ("test LogLoss", "test.logloss", 4),
    ("forget AUC", "forget.auc", 4),
    ("its gap", "gap", 4),
    ("forget LogLoss", "forget.logloss", 4),
    ("JSD", "to_retrain.jsd", 4),
    ("residual", "to_retrain.residual", 3),
    ("MIA AUC", "mia_auc", 4),
    ("seconds", "cost.seconds", 1),
    ("/ Retrain's", "cost.relative_to_retrain", 2),
    ("before", "cost.prior_seconds", 1),
)


class Cells(NamedTuple):
    """A table as text."""

    header: list[str]
    lines: list[list[str]]

    def drawn(self, kind: str = "text") -> str:
        """The table as text, markdown, csv, latex or html."""
        if kind == "csv":
            file = io.StringIO()
            csv.writer(file, lineterminator="\n").writerows([self.header, *self.lines])
            return file.getvalue().rstrip("\n")
        aligned = ["left", *["right"] * (len(self.header) - 1)]
        return str(
            tabulate(
                self.lines,
                self.header,
                tablefmt=_TABULATED[kind],
                colalign=aligned,
                disable_numparse=True,
            )
        )


def ranked_columns(rows: Sequence[Row]) -> Columns:
    """Columns of the table of ranking metrics; none where no row ranked items."""
    names = dict.fromkeys(name for row in rows for name in row.get("ranking", {}))
    return tuple((name, f"ranking.{name}", 4) for name in names)


def comparison(rows: Sequence[Row], wanted: Columns = COMPARED) -> Cells:
    """Give a line a model and a column a measure; a missing value is a dash.

    Columns without any value are left out, and so are models.
    """
    gapped = [_with_gap(row, rows) for row in rows]
    columns = [
        column for column in wanted if any(value_of(row, column[1]) is not None for row in gapped)
    ]
    models = dict.fromkeys(
        row["model"]
        for row in gapped
        if any(value_of(row, path) is not None for _, path, _ in columns)
    )
    floor = floor_of(rows)
    lines = []
    for model in models:
        own = [row for row in gapped if row["model"] == model]
        cells = [_spread(own, path, decimals) for _, path, decimals in columns]
        for place, (_, path, _) in enumerate(columns):
            if path == "gap" and not model.endswith("Retrain") and within_noise(own, floor):
                cells[place] += f" {WITHIN}"
        lines.append([model, *cells])
    return Cells(["", *(title for title, _, _ in columns)], lines)


def floor_of(rows: Sequence[Row]) -> float | None:
    """Mean distance in forget AUC between Retrains that differ in seed; None for one seed."""
    values = [
        value
        for row in rows
        if row["model"] == "Retrain" and (value := value_of(row, "forget.auc")) is not None
    ]
    distances = [abs(one - other) for one, other in combinations(values, 2)]
    return mean(distances) if distances else None


def within_noise(rows: Sequence[Row], floor: float | None) -> bool:
    """Whether a model's gap may be noise.

    It may if its mean is no larger than the floor, or if zero lies in the user-bootstrap interval
    of the gap under every seed.
    """
    gaps = [row["gap"] for row in rows if "gap" in row]
    if not gaps:
        return False
    if floor is not None and abs(mean(gaps)) <= floor:
        return True
    bounds = [value_of(row, "intervals.gap") for row in rows]
    return all(bound is not None and bound[0] <= 0 <= bound[1] for bound in bounds)


def value_of(row: Row, path: str) -> Any:
    """The value at a dotted path; None where there is none."""
    value: Any = row
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _spread(rows: Sequence[Row], path: str, decimals: int) -> str:
    """Mean over the rows, and their standard deviation where there are several."""
    values = [value for row in rows if (value := value_of(row, path)) is not None]
    if not values:
        return "-"
    shown = f"{mean(values):,.{decimals}f}"
    return f"{shown} ± {stdev(values):,.{decimals}f}" if len(values) > 1 else shown


def _with_gap(row: Row, rows: Sequence[Row]) -> Row:
    """Add the distance in forget AUC to Retrain of the same seed, where there is one.

    A classic model's own is, for DeepFM and DeepFM-SISA, DeepFM-Retrain.
    """
    reference = "Retrain" if "to_retrain" in row else f"{row['model'].partition('-')[0]}-Retrain"
    for other in rows:
        if other["model"] == reference and other["seed"] == row["seed"]:
            ours, theirs = value_of(row, "forget.auc"), value_of(other, "forget.auc")
            if ours is not None and theirs is not None:
                return {**row, "gap": ours - theirs}
    return row
