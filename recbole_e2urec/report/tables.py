"""Tables of results, a line a model: means over seeds, in the formats that people paste."""

import csv
import io
from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import mean, stdev
from typing import Any, NamedTuple

from tabulate import tabulate

UNLEARNING = (
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
# What methods show that trained something before the request, which serves later ones as well.
PRIOR = (
    ("seconds before any request", "cost.prior_seconds", 1),
    *(
        (f"seconds a request, of {count}", f"cost.amortised_seconds.{count}", 1)
        for count in (1, 10, 100)
    ),
)
# What classic models that forget show besides.
FORGETTING = (
    ("forget AUC", "forget.auc", 4),
    ("forget LogLoss", "forget.logloss", 4),
    ("held-out AUC, forgotten users", "heldout_forget_users.auc", 4),
    ("held-out AUC, everyone else", "heldout_other_users.auc", 4),
    ("seconds before the request", "cost.prior_seconds", 1),
)
COST = (("seconds", "cost.seconds", 1), ("trained parameters", "cost.trained_parameters", 0))
READING = "Read forget AUC, LogLoss and MIA AUC against Retrain's, not against 0.5."


Row = Mapping[str, Any]
_TABULATED = {
    "text": "simple", "markdown": "github", "latex": "latex_booktabs", "html": "html",
}  # fmt: skip
Columns = tuple[tuple[str, str, int], ...]  # title, path in a row, decimals
WITHIN = "~"  # marks a distance to Retrain that may be noise
NOISE = "Retrain, other seed"  # the row that shows how much noise does
DISTANCES = ("gap", "to_retrain.jsd", "to_retrain.residual")
# "gap" is forget AUC minus Retrain's of the same seed.
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
BIAS: Columns = (("bias, floors", "bias", 2),)
RESIDUAL: Columns = (("residual", "to_retrain.residual", 3), ("its floor", "floor", 3))
CLEAR = 0.5  # the greatest floor beside which a residual says something
READ_RESIDUAL = (
    "residual: 0 = Retrain, 1 = did nothing, above 1 = did harm; its floor is what a second "
    "Retrain of another seed has."
)
READ_BIAS = (
    "bias: how far P(yes) on forget rows is from Retrain's under every seed alike, as a share of "
    "the distance of two Retrains of different seeds; 0 = as Retrain."
)


class TextTable(NamedTuple):
    """A table as text."""

    header: list[str]
    lines: list[list[str]]

    @property
    def marked(self) -> bool:
        """Whether a distance may be noise."""
        return any(WITHIN in cell for line in self.lines for cell in line)

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


def tables_of(rows: Sequence[Row]) -> list[TextTable]:
    """The measures of all models; ranking metrics and what was tuned, where there is any."""
    names = dict.fromkeys(name for row in rows for name in row.get("ranking", {}))
    ranking = tuple((name, f"ranking.{name}", 4) for name in names)
    rows, found = row_by_row(rows)
    columns = inserted(COMPARED, found.columns, "to_retrain.jsd")
    tables = [comparison(rows, columns), *([comparison(rows, ranking)] if ranking else [])]
    tuned = {row["model"]: row["tuning"] for row in rows if "tuning" in row}
    return [*tables, *([tuning(tuned)] if tuned else [])]


class RowByRow(NamedTuple):
    """How far answers to single rows are from Retrain's: what is shown, and what is said of it."""

    columns: Columns
    notes: list[str]


def row_by_row(rows: Sequence[Row]) -> tuple[list[Row], RowByRow]:
    """Choose what is shown of single rows: the bias over seeds, the residual, or neither.

    A residual never stands without its floor, that of a Retrain of another seed: where that is
    great, no method can have a small one.

    Args:
        rows: of a comparison, those with ``bias`` where it is known.

    Returns:
        The rows, with ``floor`` in one of each model where the residual is shown; and the rest.
    """
    if all(value_of(row, "to_retrain.residual") is None for row in rows):
        return list(rows), RowByRow((), [])
    floor = floor_of(rows).get("to_retrain.residual")
    if any("bias" in row for row in rows):
        return list(rows), RowByRow(BIAS, [*([hidden(floor)] if is_high(floor) else []), READ_BIAS])
    if floor is None or is_high(floor):
        return list(rows), RowByRow((), [hidden(floor, len(seeds_of(rows, "Retrain")))])
    first = {row["model"]: place for place, row in reversed(list(enumerate(rows)))}
    floored = [
        {**row, "floor": floor} if first[row["model"]] == place and "to_retrain" in row else row
        for place, row in enumerate(rows)
    ]
    return floored, RowByRow(RESIDUAL, [READ_RESIDUAL])


def is_high(floor: float | None) -> bool:
    """Whether two Retrains are so far apart that a residual says nothing."""
    return floor is not None and floor > CLEAR


def hidden(floor: float | None, seeds: int = 1) -> str:
    """Say why no residual is shown, given its floor and the number of Retrains."""
    if floor is not None:
        why = f"two Retrains of different seeds are {floor:.2f} apart on this request"
    elif seeds > 1:
        why = "no second Retrain was measured on the same rows"
    else:
        why = "it needs a second Retrain: --model_list=E2URec --seeds=1,2"
    return f"residual: not shown; {why}"


def seeds_of(rows: Sequence[Row], model: str) -> set[Any]:
    """Seeds under which there is a row of a model."""
    return {row["seed"] for row in rows if row["model"] == model}


def inserted(columns: Columns, more: Columns, after: str) -> Columns:
    """Columns with others behind the one of a path."""
    place = 1 + [path for _, path, _ in columns].index(after)
    return (*columns[:place], *more, *columns[place:])


def tuning(tuned: Mapping[str, Mapping[str, Any]]) -> TextTable:
    """The setting that each method was given, and what it showed on the development request."""
    lines = []
    for model, told in tuned.items():
        trial = next(one for one in told["trials"] if one["settings"] == told["chosen"])
        chosen = ", ".join(f"{key}={value:g}" for key, value in told["chosen"].items())
        shown = [f"{trial[name]:.4f}" for name in ("gap", "lost")]
        lines.append([model, str(len(told["trials"])), *shown, chosen or "defaults"])
    header = ["tuned on other users", "trials", "gap", "AUC lost", "chosen"]
    return TextTable(header, lines)


def comparison(rows: Sequence[Row], wanted: Columns = COMPARED) -> TextTable:
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
    floor = floor_of(gapped)
    lines = []
    for model in models:
        own = [row for row in gapped if row["model"] == model]
        cells = [_spread(own, path, decimals) for _, path, decimals in columns]
        for place, (_, path, _) in enumerate(columns):
            if path in DISTANCES and not is_retrain(model) and within_noise(own, path, floor):
                cells[place] += f" {WITHIN}"
        lines.append([model, *cells])
    return TextTable(["", *(title for title, _, _ in columns)], lines)


def is_retrain(model: str) -> bool:
    """Whether a row is a reference, to which noise does not apply."""
    return model == NOISE or model.endswith("Retrain")


def floor_of(rows: Sequence[Row]) -> dict[str, float]:
    """How far Retrains that differ in seed are apart, by the path of the distance.

    From the rows of other seeds' Retrains, means of absolute values; where a comparison has none,
    from the forget AUC of Retrains, which tells nothing of JSD and residual.
    """
    noise = [row for row in rows if row["model"] == NOISE]
    found = {path: [value_of(row, path) for row in noise] for path in DISTANCES}
    floor = {path: mean(map(abs, values)) for path, values in found.items() if all_known(values)}
    retrains = [value_of(row, "forget.auc") for row in rows if row["model"] == "Retrain"]
    apart = [
        abs(one - other) for one, other in combinations(retrains, 2) if all_known([one, other])
    ]
    return {"gap": mean(apart), **floor} if apart else floor


def all_known(values: Sequence[float | None]) -> bool:
    """Whether there are values, and none of them is missing."""
    return bool(values) and None not in values


def within_noise(rows: Sequence[Row], path: str, floor: Mapping[str, float]) -> bool:
    """Whether a model's distance to Retrain may be noise.

    It may if its mean is no larger than the floor, and a gap also if zero lies in its
    user-bootstrap interval under every seed.
    """
    values = [value for row in rows if (value := value_of(row, path)) is not None]
    if not values:
        return False
    if path in floor and abs(mean(values)) <= floor[path]:
        return True
    bounds = [value_of(row, "intervals.gap") for row in rows]
    covered = all(bound is not None and bound[0] <= 0 <= bound[1] for bound in bounds)
    return path == "gap" and covered


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
