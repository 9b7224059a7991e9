"""What ``benchmarks.regimes`` prints and draws: tables of means over seeds, and the frontier."""

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite, nan
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from tabulate import tabulate

from benchmarks.lineplots import Line, Panel, svg
from recbole_e2urec.evaluator.bootstrap import bias_in_floors
from recbole_e2urec.evaluator.metrics import share_closed
from recbole_e2urec.report.results import load_answers

HEAD = (
    "", "seeds", "forget AUC", "closed, AUC", "closed, LogLoss", "predicted",
    "users who stay lose", "held-out AUC lost", "bias, floors", "seconds / Retrain's",
    "before / Retrain's",
)  # fmt: skip
DIGITS = (4, 2, 2, 2, 4, 4, 2, 3, 3)
HARM = 0.01  # of AUC that users who stay lose; counts as much as closing nothing
COSTS = {
    "seconds": "seconds / Retrain's",
    "stay_lost": "AUC that users who stay lose",
    "bias": "bias, floors",
}
Row = Mapping[str, Any]
Cell = tuple[str, float]  # regime, and size of the request


class Figures(NamedTuple):
    """The figures of a line: shares of the gap, AUC, floors, and shares of Retrain's seconds."""

    forget_auc: float
    closed_auc: float
    closed_logloss: float
    predicted: float
    stay_lost: float
    lost: float
    bias: float
    seconds: float
    prior: float
    residual: float  # not shown, as it says nothing without its floor


def table_of(rows: Sequence[Row], names: Sequence[str], folder: Path) -> str:
    """A Markdown table of one regime and size, a line a model.

    Args:
        rows: of all seeds; each seed has its Original and Retrain.
        names: of the lines, in their order.
        folder: with the answers of the rows.
    """
    lines = []
    for name, figures in _figures_by_name(rows, names, folder).items():
        seeds = sum(row["row"] == name for row in rows)
        cells = [_number(value, digits) for value, digits in zip(figures, DIGITS, strict=False)]
        lines.append([name, str(seeds), *cells])
    return _markdown(lines, HEAD)


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if isfinite(value) else "-"


def _markdown(lines: Sequence[Sequence[str]], head: Sequence[str]) -> str:
    return str(tabulate(lines, head, tablefmt="pipe", disable_numparse=True))


def _figures_by_name(rows: Sequence[Row], names: Sequence[str], folder: Path) -> dict[str, Figures]:
    """Figures of the names that have rows, means over seeds."""
    measured = {row["row"] for row in rows}
    return {name: _mean(rows, name, folder) for name in names if name in measured}


def _mean(rows: Sequence[Row], name: str, folder: Path) -> Figures:
    bases = {(row["row"], row["seed"]): row for row in rows}
    by_seed = [
        _figures(row, bases["Original", row["seed"]], bases["Retrain", row["seed"]])
        for row in rows
        if row["row"] == name
    ]
    mean = Figures(*(fmean(column) for column in zip(*by_seed, strict=True)))
    return mean._replace(bias=0.0 if name == "Retrain" else _bias(rows, name, folder))


def _bias(rows: Sequence[Row], name: str, folder: Path) -> float:
    """The bias over seeds; NaN where it is unknown."""
    ours, retrains = (
        {
            row["seed"]: answers.yes
            for row in rows
            if row["row"] == base and (answers := load_answers(folder, row))
        }
        for base in (name, "Retrain")
    )
    bias = bias_in_floors(ours, retrains) if ours.keys() <= retrains.keys() else None
    return nan if bias is None else bias


def _figures(row: Row, original: Row, retrain: Row) -> Figures:
    """Figures of one seed, without the bias."""

    def closed(metric: str) -> float:
        share = share_closed(*(base["forget"][metric] for base in (row, original, retrain)))
        return nan if share is None else share

    def lost(group: str) -> float:
        return float(original[group]["auc"] - row[group]["auc"])

    strength = row.get("found", {})
    target = strength.get("target_logloss", nan) - strength.get("original_logloss", 0.0)
    gap = retrain["forget"]["logloss"] - original["forget"]["logloss"]
    cost, seconds = row["cost"], retrain["cost"]["seconds"]
    return Figures(
        row["forget"]["auc"], closed("auc"), closed("logloss"), target / gap,
        lost("heldout_other_users"), lost("test"), nan, cost["seconds"] / seconds,
        cost.get("prior_seconds", 0.0) / seconds, row["to_retrain"]["residual"],
    )  # fmt: skip


def badness(figures: Figures) -> float:
    """What is to be least: 0 = Retrain's forgetting, without harm.

    The sum of what is missing of the gap in AUC and in LogLoss, or too much, of the residual, and
    of what users who stay lose, in units of ``HARM``; each is about 1 for a method that does
    nothing or does as much harm as is affordable. The bias of few seeds is 0 for whatever differs
    much between them, so it does not count.
    """
    off = abs(1 - figures.closed_auc) + abs(1 - figures.closed_logloss)
    return off + figures.residual + max(0.0, figures.stay_lost) / HARM


def best_of(rows: Mapping[Cell, Sequence[Row]], models: Mapping[str, str], folder: Path) -> str:
    """A Markdown table of all candidates; the best of each method has the least mean badness.

    Args:
        rows: by regime and size.
        models: the method of each candidate.
        folder: with the answers of the rows.
    """
    figures = [_figures_by_name(cell, list(models), folder) for cell in rows.values()]
    scores = {
        name: [badness(cell[name]) if name in cell else nan for cell in figures] for name in models
    }
    means = {name: float(np.mean(values)) for name, values in scores.items()}
    lines = []
    for model in dict.fromkeys(models.values()):
        candidates = [name for name in models if models[name] == model]
        least = min((means[name] for name in candidates if isfinite(means[name])), default=nan)
        for name in candidates:
            title = f"**{name}**" if means[name] == least else name
            each = [_number(score, 2) for score in scores[name]]
            lines.append([model, title, _number(means[name], 2), *each])
    cells = [f"{regime}, {size:.0%}" for regime, size in rows]
    return _markdown(lines, ["method", "candidate", "mean badness", *cells])


def frontier(rows: Mapping[Cell, Sequence[Row]], names: Sequence[str], folder: Path) -> str:
    """An SVG: a row of panels for each regime and size, one for each cost.

    The share of the gap in forget AUC that is closed goes to the right, the cost goes up. Rows
    whose names differ only after a comma are one method under several settings: a line.

    Args:
        rows: by regime and size.
        names: of the rows that are drawn, in their order.
        folder: with the answers of the rows.
    """
    methods = list(dict.fromkeys(map(_method, names)))
    panels = [
        panel
        for cell, measured in rows.items()
        for panel in _panels(cell, _figures_by_name(measured, names, folder), methods)
    ]
    return svg(panels, "closed, forget AUC", len(COSTS))


def _panels(cell: Cell, figures: Mapping[str, Figures], methods: Sequence[str]) -> Iterator[Panel]:
    for cost, title in COSTS.items():
        lines = []
        for style, method in enumerate(methods):
            points = sorted(
                (of_name.closed_auc, getattr(of_name, cost))
                for name, of_name in figures.items()
                if _method(name) == method and isfinite(getattr(of_name, cost))
            )
            if points:
                lines.append(Line(method, points, style, marked=len(points) == 1))
        compared = len(lines) > 1  # under one seed Retrain alone has a bias
        yield Panel(f"({cell[0]}), {cell[1]:.0%}: {title}", lines if compared else [])


def _method(name: str) -> str:
    return name.partition(",")[0]
