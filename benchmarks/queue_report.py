"""Tables and plots of requests in a row, from the lines that the benchmark wrote down."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.lineplots import Line, Panel, svg
from recbole_e2urec.report.tables import value_of

Row = Mapping[str, Any]
ORIGINAL, RETRAIN = "Original", "Retrain"
COLUMNS = {
    "test AUC": "test.auc", "test LogLoss": "test.logloss", "bias": "bias",
    "forgotten AUC": "forgotten.auc", "residual": "residual", "first's LogLoss": "first.logloss",
    "drift": "drift", "seconds": "seconds",
}  # fmt: skip
PANELS = {
    "test AUC, users who stay": "test.auc",
    "test LogLoss, users who stay": "test.logloss",
    "AUC of all rows forgotten so far": "forgotten.auc",
    "residual on them: 0 Retrain, 1 did nothing": "residual",
    "LogLoss of the first request's rows": "first.logloss",
    "drift, nats": "drift",
    "seconds of a request": "seconds",
}


def tables(rows: Iterable[Row]) -> str:
    """Markdown: every model at the requests after which there is a Retrain."""
    known = list(rows)
    counts = {row["requests"] for row in known if row["model"] == RETRAIN}
    head = ["model", "requests", *COLUMNS]
    shown = [row for row in known if row["requests"] in counts | {0}]
    lines = [head, ["---"] * len(head), *(_cells(row) for row in shown)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(row: Row) -> list[str]:
    seed = f", seed {row['seed']}" if row.get("seed") else ""
    values = [value_of(row, path) for path in COLUMNS.values()]
    return [row["model"] + seed, str(row["requests"]), *map(_number, COLUMNS, values)]


def _number(column: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if column == "seconds" else f"{value:.4f}"


def draw_plots(rows: Iterable[Row], path: Path) -> None:
    """Write a panel a measure, over the number of requests."""
    known = [row for row in rows if not row.get("seed") and not row["model"].endswith("at once")]
    names = dict.fromkeys([RETRAIN, ORIGINAL, *(row["model"] for row in known)])
    panels = []
    for title, measure in PANELS.items():
        lines = [
            Line(name, _points(_own(known, name), measure), style, name == RETRAIN)
            for style, name in enumerate(names)
        ]
        panels.append(Panel(title, lines))
    path.write_text(svg(panels, "requests"), encoding="utf-8")


def _own(rows: Sequence[Row], name: str) -> list[Row]:
    """Rows of a model in order; all but Retrain begin as Original."""
    first = [row for row in rows if row["model"] == ORIGINAL and row["requests"] == 0]
    own = [row for row in rows if row["model"] == name and row["requests"] > 0]
    return own if name == RETRAIN else [*first, *own]


def _points(rows: Sequence[Row], measure: str) -> list[tuple[float, float]]:
    found = [(float(row["requests"]), value_of(row, measure)) for row in rows]
    return [(x, float(y)) for x, y in found if y is not None]
