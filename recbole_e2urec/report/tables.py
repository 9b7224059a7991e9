"""Tables of results with a line for each model: means over seeds, as text, markdown, csv and more.

The columns are given as tuples of title, dotted path in a row of results, and decimals.
"""

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from math import isnan, nan
from statistics import mean, stdev
from typing import Any, NamedTuple

from tabulate import tabulate

Row = Mapping[str, Any]
Columns = tuple[tuple[str, str, int], ...]  # title, path in a row, decimals

# Columns of a single unlearning run.
UNLEARNING: Columns = (
    ("test AUC", "test.auc", 4),
    ("test ACC", "test.acc", 4),
    ("test LogLoss", "test.logloss", 4),
    ("forget AUC", "forget.auc", 4),
    ("forget ACC", "forget.acc", 4),
    ("forget LogLoss", "forget.logloss", 4),
    ("JSD to Retrain", "to_retrain.jsd", 5),
    ("L2 to Retrain", "to_retrain.l2", 4),
    ("MIA AUC", "mia_auc", 4),
    ("held-out AUC, forgotten users", "heldout_forget_users.auc", 4),
    ("held-out AUC, everyone else", "heldout_other_users.auc", 4),
    ("seconds", "cost.seconds", 1),
    ("seconds / Retrain's", "cost.relative_to_retrain", 3),
    ("trained parameters", "cost.trained_parameters", 0),
    ("of them in the adapter", "cost.adapter_parameters", 0),
    ("steps", "cost.steps", 0),
    ("peak memory, MB", "cost.peak_memory_mb", 0),
)
# More columns for methods that train something before the request, which serves later ones too.
PRIOR: Columns = (
    ("seconds before any request", "cost.prior_seconds", 1),
    *(
        (f"seconds a request, of {count}", f"cost.amortised_seconds.{count}", 1)
        for count in (1, 10, 100)
    ),
)
# More columns for classic models that forget.
FORGETTING: Columns = (
    ("forget AUC", "forget.auc", 4),
    ("forget LogLoss", "forget.logloss", 4),
    ("held-out AUC, forgotten users", "heldout_forget_users.auc", 4),
    ("held-out AUC, everyone else", "heldout_other_users.auc", 4),
    ("seconds before the request", "cost.prior_seconds", 1),
)
COST: Columns = (
    ("seconds", "cost.seconds", 1), ("trained parameters", "cost.trained_parameters", 0),
)  # fmt: skip
# Columns of a comparison; "gap" is forget AUC minus that of Retrain under the same seed.
COMPARED: Columns = (
    ("test AUC", "test.auc", 4),
    ("test LogLoss", "test.logloss", 4),
    ("forget AUC", "forget.auc", 4),
    ("its gap", "gap", 4),
    ("forget LogLoss", "forget.logloss", 4),
    ("JSD", "to_retrain.jsd", 4),
    ("MIA AUC", "mia_auc", 4),
    ("seconds", "cost.seconds", 1),
    ("/ Retrain's", "cost.relative_to_retrain", 2),
    ("before", "cost.prior_seconds", 1),
    ("of 10 requests", "cost.amortised_seconds.10", 1),
)
BIAS: Columns = (
    ("bias, floors", "bias", 2),
    ("scatter, floors", "scatter", 2),
    ("nearer to Retrain", "nearer", 0),
)
RESIDUAL: Columns = (("residual", "to_retrain.residual", 3), ("its floor", "floor", 3))

NOISE = "Retrain, other seed"  # the row that shows the effect of another seed
WITHIN = "~"  # marks a distance to Retrain that may be noise
DISTANCES = ("gap", "to_retrain.jsd", "to_retrain.residual")
LARGEST_CLEAR_FLOOR = 0.5  # above this floor a residual says nothing
CHANCE = 0.5  # AUC of a guess
HIDDEN = ("bias", "scatter", "floor", "nearer")  # where there is no gap to close
FACTS = {"rows_not_reached"}  # in ``found``, beside strengths and what predicts them
NO_SHARES = "Shares of the gap and strengths found are shown as -; see docs/reference/measures.md."
READING = "Read forget AUC, LogLoss and MIA AUC against Retrain's, not against 0.5."
READ_RESIDUAL = (
    "residual: 0 = Retrain, 1 = did nothing, above 1 = did harm; its floor is what a second "
    "Retrain of another seed has."
)
READ_BIAS = (
    "bias: how far P(yes) on forget rows is from Retrain's under every seed alike, as a share of "
    "the distance of two Retrains of different seeds; 0 = as Retrain. scatter: how much that "
    "differs from seed to seed; 1 = as two Retrains, and beside more a small bias says little."
)
READ_NEARER = (
    "nearer to Retrain: yes, or no = nearer to Original; p-values count users and seeds, and are "
    "corrected for the number of methods."
)
_TABULATE_FORMATS = {
    "text": "simple", "markdown": "github", "latex": "latex_booktabs", "html": "html",
}  # fmt: skip


class TextTable(NamedTuple):
    """A table whose cells are text."""

    header: list[str]
    lines: list[list[str]]

    @property
    def has_noise_mark(self) -> bool:
        """Whether the table marks a distance that may be noise."""
        return any(WITHIN in cell for line in self.lines for cell in line)

    def render(self, kind: str = "text") -> str:
        """Write the table as text, markdown, csv, latex or html."""
        if kind == "csv":
            file = io.StringIO()
            csv.writer(file, lineterminator="\n").writerows([self.header, *self.lines])
            return file.getvalue().rstrip("\n")
        lines = self.lines
        if kind == "html":  # a wide table breaks its cells before a deviation
            lines = [[cell.replace("± ", "±\u00a0") for cell in line] for line in lines]
        aligned = ["left", *["right"] * (len(self.header) - 1)]
        return str(
            tabulate(
                lines,
                self.header,
                tablefmt=_TABULATE_FORMATS[kind],
                colalign=aligned,
                disable_numparse=True,
            )
        )


def tables_of(rows: Sequence[Row]) -> list[TextTable]:
    """Make the tables of a comparison: measures, and ranking and tuning if there are any."""
    names = dict.fromkeys(name for row in rows for name in row.get("ranking", {}))
    ranking = tuple((name, f"ranking.{name}", 4) for name in names)
    caution = caution_of(rows)
    rows, row_measure = row_by_row(rows)
    rows = without_shares(rows) if caution else rows
    columns = insert_columns(COMPARED, row_measure.columns, "to_retrain.jsd")
    tables = [comparison(rows, columns), *([comparison(rows, ranking)] if ranking else [])]
    tuned = {row["model"]: row["tuning"] for row in rows if "tuning" in row}
    return [*tables, *([tuning(tuned)] if tuned else [])]


def caution_of(rows: Sequence[Row]) -> str | None:
    """Say why shares of the gap to Retrain mean nothing; None if they mean something.

    This is so if Original is no better than chance on test rows, or if its gap to Retrain may be
    noise (:func:`within_noise`). Original is no better than chance if the 95 % user-bootstrap
    interval of its test AUC begins at or below 0.5, as a mean over seeds.

    Args:
        rows: rows of a comparison; without Original's intervals, nothing is said.
    """
    originals = [_with_gap(row, rows) for row in rows if row["model"] == "Original"]
    bounds = [value_of(row, "intervals.test_auc") for row in originals]
    if all_known(bounds) and (low := mean(low for low, _ in bounds)) <= CHANCE:
        high = mean(high for _, high in bounds)
        return (
            f"Nothing was learned: the 95 % interval of Original's test AUC, {low:.3f} to "
            f"{high:.3f}, has 0.5 in it or lies below. {NO_SHARES}"
        )
    if within_noise(originals, "gap", floor_of(rows)):
        gap = mean(row["gap"] for row in originals if "gap" in row)
        return (
            f"No gap to close: Original's forget AUC minus Retrain's, {gap:.4f}, may be noise. "
            f"{NO_SHARES}"
        )
    return None


def without_shares(rows: Sequence[Row]) -> list[Row]:
    """Blank the shares of the gap to Retrain, and the strengths that were to close it."""

    def blank(measures: Any, kept: Collection[str]) -> dict[str, Any]:
        return {name: value if name in kept else nan for name, value in measures.items()}

    shown: list[Row] = []
    for row in rows:
        shares: dict[str, Any] = {key: nan for key in HIDDEN if key in row}
        if "to_retrain" in row:
            shares["to_retrain"] = blank(row["to_retrain"], row["to_retrain"].keys() - {"residual"})
        if "found" in row:
            shares["found"] = blank(row["found"], FACTS)
        shown.append({**row, **shares})
    return shown


def number(value: float | None, decimals: int) -> str:
    """Write a number; a dash if there is none, or if it is blank (NaN)."""
    return "-" if value is None or isnan(value) else f"{value:,.{decimals}f}"


class RowByRow(NamedTuple):
    """How to show the distance to Retrain on single rows of data.

    Attributes:
        columns: columns to add to a table; none if no measure says something.
        notes: text below the table.
    """

    columns: Columns
    notes: list[str]


def row_by_row(rows: Sequence[Row]) -> tuple[list[Row], RowByRow]:
    """Choose the measure of single rows to show: the bias over seeds, the residual, or neither.

    A residual is only shown with its floor, the residual of a Retrain with another seed. If the
    floor is high, no method can have a small residual.

    Args:
        rows: rows of a comparison, with ``bias`` and ``nearer`` if they are known.

    Returns:
        The rows and the choice. If the residual is shown, one row of each model also has ``floor``.
    """
    if all(value_of(row, "to_retrain.residual") is None for row in rows):
        return list(rows), RowByRow((), [])
    floor = floor_of(rows).get("to_retrain.residual")
    if any("bias" in row for row in rows):
        why_hidden = [residual_hidden(floor)] if is_high(floor) else []
        notes = [READ_BIAS, *([READ_NEARER] if any("nearer" in row for row in rows) else [])]
        return list(rows), RowByRow(BIAS, [*why_hidden, *notes])
    if floor is None or is_high(floor):
        return list(rows), RowByRow((), [residual_hidden(floor, len(seeds_of(rows, "Retrain")))])
    first = {row["model"]: index for index, row in reversed(list(enumerate(rows)))}
    with_floor = [
        {**row, "floor": floor} if first[row["model"]] == index and "to_retrain" in row else row
        for index, row in enumerate(rows)
    ]
    return with_floor, RowByRow(RESIDUAL, [READ_RESIDUAL])


def is_high(floor: float | None) -> bool:
    """Whether two Retrains are so far apart that a residual says nothing."""
    return floor is not None and floor > LARGEST_CLEAR_FLOOR


def residual_hidden(floor: float | None, seeds: int = 1) -> str:
    """Explain why no residual is shown.

    Args:
        floor: the residual of a Retrain with another seed; None if there is none.
        seeds: number of Retrains.
    """
    if floor is not None:
        why = f"two Retrains of different seeds are {floor:.2f} apart on this request"
    elif seeds > 1:
        why = "no second Retrain was measured on the same rows"
    else:
        why = "it needs a second Retrain: --model_list=E2URec --seeds=1,2"
    return f"residual: not shown; {why}"


def seeds_of(rows: Sequence[Row], model: str) -> set[Any]:
    """Return the seeds of a model's rows."""
    return {row["seed"] for row in rows if row["model"] == model}


def insert_columns(columns: Columns, more: Columns, after: str) -> Columns:
    """Insert more columns after the column with the path ``after``."""
    index = 1 + [path for _, path, _ in columns].index(after)
    return (*columns[:index], *more, *columns[index:])


def tuning(tuned: Mapping[str, Mapping[str, Any]]) -> TextTable:
    """Make a table of the chosen settings of each method and their development measures."""
    lines = []
    for model, result in tuned.items():
        trial = next(each for each in result["trials"] if each["settings"] == result["chosen"])
        chosen = ", ".join(f"{key}={value:g}" for key, value in result["chosen"].items())
        measures = [f"{trial[name]:.4f}" for name in ("gap", "lost")]
        lines.append([model, str(len(result["trials"])), *measures, chosen or "defaults"])
    header = ["tuned on other users", "trials", "gap", "AUC lost", "chosen"]
    return TextTable(header, lines)


def comparison(rows: Sequence[Row], wanted: Columns = COMPARED) -> TextTable:
    """Make a table with a line for each model and a column for each measure.

    A missing value is a dash. Columns and models without any value are left out.
    """
    rows = [_with_gap(row, rows) for row in rows]
    columns = [
        column for column in wanted if any(value_of(row, column[1]) is not None for row in rows)
    ]
    models = dict.fromkeys(
        row["model"]
        for row in rows
        if any(value_of(row, path) is not None for _, path, _ in columns)
    )
    floor = floor_of(rows)
    lines = []
    for model in models:
        model_rows = [row for row in rows if row["model"] == model]
        cells = [_mean_and_deviation(model_rows, path, decimals) for _, path, decimals in columns]
        for index, (_, path, _) in enumerate(columns):
            is_distance = path in DISTANCES and not is_retrain(model)
            if is_distance and within_noise(model_rows, path, floor):
                cells[index] += f" {WITHIN}"
        lines.append([model, *cells])
    return TextTable(["", *(title for title, _, _ in columns)], lines)


def is_retrain(model: str) -> bool:
    """Whether a row is a Retrain, whose distances are not marked as noise."""
    return model == NOISE or model.endswith("Retrain")


def floor_of(rows: Sequence[Row]) -> dict[str, float]:
    """Compute how far Retrains with different seeds are apart, by the path of the distance.

    These are means of absolute values from the rows of Retrains with other seeds. If a comparison
    has no such rows, only the gap is known, from the forget AUC of its Retrains; JSD and residual
    are not.
    """
    noise_rows = [row for row in rows if row["model"] == NOISE]
    distances = {path: [value_of(row, path) for row in noise_rows] for path in DISTANCES}
    floor = {
        path: mean(map(abs, values)) for path, values in distances.items() if all_known(values)
    }
    retrains = [value_of(row, "forget.auc") for row in rows if row["model"] == "Retrain"]
    gaps = [abs(one - other) for one, other in combinations(retrains, 2) if all_known([one, other])]
    return {"gap": mean(gaps), **floor} if gaps else floor


def all_known(values: Sequence[float | None]) -> bool:
    """Whether there are values and none of them is missing."""
    return bool(values) and None not in values


def within_noise(rows: Sequence[Row], path: str, floor: Mapping[str, float]) -> bool:
    """Whether a model's distance to Retrain may be noise.

    This is so if its mean is not larger than the floor. A gap may also be noise if zero lies in its
    user-bootstrap interval under every seed.
    """
    values = [value for row in rows if (value := value_of(row, path)) is not None]
    if not values:
        return False
    if path in floor and abs(mean(values)) <= floor[path]:
        return True
    intervals = [value_of(row, "intervals.gap") for row in rows]
    covers_zero = all(bounds is not None and bounds[0] <= 0 <= bounds[1] for bounds in intervals)
    return path == "gap" and covers_zero


def value_of(row: Row, path: str) -> Any:
    """Return the value at a dotted path; None if there is none."""
    value: Any = row
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _mean_and_deviation(rows: Sequence[Row], path: str, decimals: int) -> str:
    """Write the mean over the rows, and the standard deviation if several rows have a value.

    A word is written as it is.
    """
    values = [value for row in rows if (value := value_of(row, path)) is not None]
    if values and isinstance(values[0], str):
        return values[0]
    if not values or isnan(mean(values)):
        return "-"
    text = number(mean(values), decimals)
    return f"{text} ± {number(stdev(values), decimals)}" if len(values) > 1 else text


def _with_gap(row: Row, rows: Sequence[Row]) -> Row:
    """Add the distance in forget AUC to the Retrain of the same seed, if there is one.

    For a classic model such as DeepFM or DeepFM-SISA, this is DeepFM-Retrain.
    """
    reference = "Retrain" if "to_retrain" in row else f"{row['model'].partition('-')[0]}-Retrain"
    for other in rows:
        if other["model"] == reference and other["seed"] == row["seed"]:
            ours, theirs = value_of(row, "forget.auc"), value_of(other, "forget.auc")
            if ours is not None and theirs is not None:
                return {**row, "gap": ours - theirs}
    return row
