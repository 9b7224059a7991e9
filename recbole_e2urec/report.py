"""Results for a person: one table in the terminal, made from the rows of ``results.jsonl``."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from texttable import Texttable

# Title, path in a row, decimals.
UNLEARNING = (
    ("test AUC", "test.auc", 4),
    ("test ACC", "test.acc", 4),
    ("test LogLoss", "test.logloss", 4),
    ("forget AUC", "forget.auc", 4),
    ("forget ACC", "forget.acc", 4),
    ("forget LogLoss", "forget.logloss", 4),
    ("JSD to Retrain", "to_retrain.jsd", 5),
    ("L2 to Retrain", "to_retrain.l2", 4),
    ("residual", "to_retrain.residual", 3),
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
COST = (("seconds", "cost.seconds", 1), ("trained parameters", "cost.trained_parameters", 0))
# The same where models are lines; the gap is against Retrain of the same seed.
COMPARED = (
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
READING = (
    "Read forget AUC, LogLoss and MIA AUC against Retrain's, not against 0.5. "
    "residual: 0 = Retrain, 1 = did nothing, above 1 = did harm."
)


def print_report(results: Mapping[str, Any]) -> None:
    """Print the table of a run, and where its results are."""
    rows = results["rows"]
    measured = any("to_retrain" in row for row in rows)
    print(f"\n{rows[0]['dataset']}, seed {rows[0]['seed']}")
    print(table(rows, UNLEARNING + _ranking(rows) if measured else _plain(rows)))
    if measured:
        sizes = (f"{count} {name} rows" for name, count in results["groups"].items())
        print("measured on", ", ".join(sizes))
        print(READING)
    print(f"results: {results['results_file']}")


def print_comparison(results: Mapping[str, Any]) -> None:
    """Print a line a model: means over seeds, with their standard deviations."""
    rows = results["rows"]
    seeds = list(dict.fromkeys(row["seed"] for row in rows))
    print(f"\n{rows[0]['dataset']}, seeds {', '.join(map(str, seeds))}")
    print(comparison(rows))
    if len(seeds) > 1:
        print("mean ± standard deviation over seeds")
    if results["groups"]:
        sizes = (f"{count} {name} rows" for name, count in results["groups"].items())
        print("measured on", ", ".join(sizes))
        print(READING)
    print(f"results: {results['results_file']}")


def comparison(rows: Sequence[Mapping[str, Any]]) -> str:
    """Draw a table with a line a model and a column a measure; a missing value is a dash."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    by_model = {name: [row for row in rows if row["model"] == name] for name in models}
    gapped = {name: [_with_gap(row, rows) for row in found] for name, found in by_model.items()}
    lines = [
        (title, path, decimals)
        for title, path, decimals in COMPARED
        if any(_value(row, path) is not None for found in gapped.values() for row in found)
    ]
    text = Texttable(max_width=0)
    text.set_deco(Texttable.HEADER)
    text.set_cols_dtype(["t"] * (len(lines) + 1))
    text.set_cols_align(["l"] + ["r"] * len(lines))
    text.header(["", *(title for title, _, _ in lines)])
    for name, found in gapped.items():
        text.add_row([name, *(_spread(found, path, decimals) for _, path, decimals in lines)])
    return str(text.draw())


def table(rows: Sequence[Mapping[str, Any]], lines: Sequence[tuple[str, str, int]]) -> str:
    """Draw a table with a column a model and a line a measure; a missing value is a dash."""
    text = Texttable(max_width=0)
    text.set_deco(Texttable.HEADER)
    text.set_cols_dtype(["t"] * (len(rows) + 1))
    text.set_cols_align(["l"] + ["r"] * len(rows))
    text.header(["", *(row["model"] for row in rows)])
    for title, path, decimals in lines:
        text.add_row([title, *(_cell(row, path, decimals) for row in rows)])
    return str(text.draw())


def _ranking(rows: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, str, int], ...]:
    names = rows[0].get("ranking", {})
    return tuple((f"test {name}", f"ranking.{name}", 4) for name in names)


def _plain(rows: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, str, int], ...]:
    return (*((f"test {name}", f"test.{name}", 4) for name in rows[0]["test"]), *COST)


def _cell(row: Mapping[str, Any], path: str, decimals: int) -> str:
    value = _value(row, path)
    return "-" if value is None else f"{value:,.{decimals}f}"


def _spread(rows: Sequence[Mapping[str, Any]], path: str, decimals: int) -> str:
    """Mean over the rows, and their standard deviation where there are several."""
    values = [value for row in rows if (value := _value(row, path)) is not None]
    if not values:
        return "-"
    shown = f"{mean(values):,.{decimals}f}"
    return f"{shown} ± {stdev(values):,.{decimals}f}" if len(values) > 1 else shown


def _with_gap(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Add the distance in forget AUC to Retrain of the same seed, where there is one."""
    for other in rows:
        if other["model"] == "Retrain" and other["seed"] == row["seed"] and "forget" in row:
            ours, theirs = _value(row, "forget.auc"), _value(other, "forget.auc")
            if ours is not None and theirs is not None:
                return {**row, "gap": ours - theirs}
    return row


def _value(row: Mapping[str, Any], path: str) -> Any:
    value: Any = row
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
