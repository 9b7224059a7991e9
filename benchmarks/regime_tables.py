"""Tables of ``benchmarks.regimes``: means over seeds."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from tabulate import tabulate

from recbole_e2urec.evaluator.bootstrap import bias_in_floors
from recbole_e2urec.evaluator.metrics import share_closed
from recbole_e2urec.report.results import load_answers

HEAD = (
    "", "seeds", "forget AUC", "closed, AUC", "closed, LogLoss", "foretold",
    "users who stay lose", "held-out AUC lost", "bias, floors", "seconds / Retrain's",
    "before / Retrain's",
)  # fmt: skip
DIGITS = (4, 2, 2, 2, 4, 4, 2, 3, 3)
HARM = 0.01  # of AUC that users who stay lose; counts as much as closing nothing
Row = Mapping[str, Any]
Place = tuple[str, float]


class Figures(NamedTuple):
    """What a line tells; shares of the gap, AUC, floors, and shares of Retrain's seconds."""

    forget_auc: float
    closed_auc: float
    closed_logloss: float
    foretold: float
    stay_lost: float
    lost: float
    bias: float
    seconds: float
    prior: float
    residual: float  # not shown, as it tells nothing without its floor


def table_of(rows: Sequence[Row], names: Sequence[str], folder: Path) -> str:
    """A Markdown table of one regime and size, a line a model.

    Args:
        rows: of all seeds; each seed has its Original and Retrain.
        names: of the lines, in their order.
        folder: with the answers of the rows.
    """
    lines = []
    for name in names:
        seeds = [row["seed"] for row in rows if row["row"] == name]
        if seeds:
            told = zip(means(rows, name, folder), DIGITS, strict=False)
            cells = ["-" if np.isnan(value) else f"{value:.{digits}f}" for value, digits in told]
            lines.append([name, str(len(seeds)), *cells])
    return str(tabulate(lines, HEAD, tablefmt="pipe", disable_numparse=True))


def means(rows: Sequence[Row], name: str, folder: Path) -> Figures:
    """Figures of a line, means over its seeds."""
    found = [list(figures) for figures in _by_seed(rows, name)]
    mean = Figures(*(fmean(values) for values in zip(*found, strict=True)))
    said = {
        base: {row["seed"]: load_answers(folder, row) for row in rows if row["row"] == base}
        for base in (name, "Retrain")
    }
    yes = [{seed: one.yes for seed, one in said[base].items() if one} for base in said]
    if name == "Retrain":
        return mean._replace(bias=0.0)
    bias = bias_in_floors(*yes) if yes[0].keys() <= yes[1].keys() else None
    return mean._replace(bias=float("nan") if bias is None else bias)


def _by_seed(rows: Sequence[Row], name: str) -> Iterator[Figures]:
    bases = {(row["row"], row["seed"]): row for row in rows}
    for row in rows:
        if row["row"] == name:
            yield _figures(row, *(bases[base, row["seed"]] for base in ("Original", "Retrain")))


def _figures(row: Row, original: Row, retrain: Row) -> Figures:
    def closed(metric: str) -> float:
        share = share_closed(*(one["forget"][metric] for one in (row, original, retrain)))
        return float("nan") if share is None else share

    def lost(group: str) -> float:
        return float(original[group]["auc"] - row[group]["auc"])

    found, loss = row.get("found", {}), [one["forget"]["logloss"] for one in (original, retrain)]
    wanted = found.get("target_logloss", float("nan")) - found.get("original_logloss", 0.0)
    cost, whole = row["cost"], retrain["cost"]["seconds"]
    return Figures(
        row["forget"]["auc"], closed("auc"), closed("logloss"), wanted / (loss[1] - loss[0]),
        lost("heldout_other_users"), lost("test"), float("nan"), cost["seconds"] / whole,
        cost.get("prior_seconds", 0.0) / whole, row["to_retrain"]["residual"],
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


def best_of(rows: Mapping[Place, Sequence[Row]], models: Mapping[str, str], folder: Path) -> str:
    """Name the best candidate of each method: the least mean badness over regimes and sizes.

    Args:
        rows: by regime and size.
        models: the method of each candidate.
        folder: with the answers of the rows.
    """
    scores: dict[str, list[float]] = {}
    for name in models:
        scores[name] = [
            badness(means(own, name, folder)) if any(row["row"] == name for row in own) else np.nan
            for own in rows.values()
        ]
    lines = []
    for model in dict.fromkeys(models.values()):
        own = {name: float(np.mean(scores[name])) for name in models if models[name] == model}
        least = min((value for value in own.values() if not np.isnan(value)), default=np.nan)
        for name, value in own.items():
            told = "-" if np.isnan(value) else f"{value:.2f}"
            each = [f"{score:.2f}" for score in scores[name]]
            lines.append([model, f"**{name}**" if value == least else name, told, *each])
    head = ["method", "candidate", "mean badness", *(f"{at[0]}, {at[1]:.0%}" for at in rows)]
    return str(tabulate(lines, head, tablefmt="pipe", disable_numparse=True))
