"""Tables and plots of ``benchmarks.regimes``: means over seeds, the frontier of costs, a test.

:func:`truth_table` measures the test of :func:`recbole_e2urec.evaluator.over_seeds.nearer` on
models of which it is known whether they are nearer to Retrain. A run is drawn as the mean of the
measured runs plus their deviations, each times a normal number. So drawn runs vary as the measured
ones do, in what seeds change for all users alike, too.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite, nan
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tabulate import tabulate

from benchmarks.lineplots import Line, Panel, svg
from recbole_e2urec.config.keys import split_forget_method
from recbole_e2urec.evaluator.over_seeds import (
    LEVEL,
    ORIGINAL,
    RETRAIN,
    Values,
    apart,
    bias_in_floors,
    nearer,
    scatter_in_floors,
    verdicts,
)
from recbole_e2urec.report.results import ForgetAnswers, load_answers

HEAD = (
    "", "seeds", "forget AUC", "closed, AUC", "closed, LogLoss", "predicted",
    "users who stay lose", "held-out AUC lost", "bias, floors", "scatter, floors",
    "seconds / Retrain's", "before / Retrain's", "nearer to Retrain",
)  # fmt: skip
DIGITS = (4, 2, 2, 2, 4, 4, 2, 2, 3, 3)
HARM = 0.01  # a loss of AUC of users who stay that is as bad as not forgetting at all
COSTS = {
    "seconds": "seconds / Retrain's",
    "stay_lost": "AUC that users who stay lose",
    "bias": "bias, floors",
}
WAY = (0.0, 0.25, 0.5, 0.75, 1.0)  # of mixtures, from Original to another seed's Retrain
DRAWS = 400  # of each line of the table of known truth
FEW_USERS = 20
METHODS = 12  # a corrected verdict is one of so many
Row = Mapping[str, Any]
Cell = tuple[str, str]  # regime and request
Users = NDArray[np.integer]


class Figures(NamedTuple):
    """Figures of a table line: shares of the gap, AUC, floors, and shares of Retrain's seconds."""

    forget_auc: float
    closed_auc: float
    closed_logloss: float
    predicted: float
    stay_lost: float
    lost: float
    bias: float
    scatter: float
    seconds: float
    prior: float
    residual: float  # not shown, because it means little without its floor


def table_of(rows: Sequence[Row], names: Sequence[str], folder: Path) -> str:
    """Return a Markdown table of one regime and request, with a line for each model.

    Args:
        rows: rows of all seeds; each seed has its Original and Retrain.
        names: names of the lines, in order.
        folder: folder with the answers of the rows.
    """
    lines = []
    answers = answers_by_name(rows, names, folder)
    users = [
        each.users for of in answers.values() for each in of.values() if each.users is not None
    ]
    words = verdicts(_yes(answers), users[0]) if users and RETRAIN in answers else {}
    for name, figures in _figures_by_name(rows, names, folder).items():
        seeds = sum(row["row"] == name for row in rows)
        cells = [_number(value, digits) for value, digits in zip(figures, DIGITS, strict=False)]
        lines.append([name, str(seeds), *cells, words.get(name, "-")])
    floor = apart(_yes(answers).get(RETRAIN, {}))
    caption = "" if floor is None else f"\n\nFloor: two Retrains are {floor:.4f} apart."
    return _markdown(lines, HEAD) + caption


def payers_of(rows: Sequence[Row], names: Sequence[str]) -> str:
    """Return a Markdown table of the AUC that parts of the held-out rows lose against Original.

    Args:
        rows: rows of all seeds; rows without ``who_pays`` are left out.
        names: names of the lines, in order.
    """
    parts = [f"{end} {fifth}" for end in ("users", "items") for fifth in range(1, 6)]
    bases = {row["seed"]: _paid(row) for row in rows if row["row"] == ORIGINAL}
    lines = []
    for name in names:
        lost = [bases[row["seed"]] - _paid(row) for row in rows if row["row"] == name]
        if lost and np.isfinite(lost).any():
            lines.append([name, *(_number(value, 4) for value in np.mean(lost, axis=0))])
    return _markdown(lines, ["", *parts, "forgotten users"])


def _paid(row: Row) -> NDArray[np.float64]:  # [11]
    """AUC of users by activity, of items by popularity, and of forgotten users; NaN: unknown."""
    fifths = row.get("who_pays", {})
    each = [*fifths.get("activity", [None] * 5), *fifths.get("popularity", [None] * 5)]
    return np.array([*each, row["heldout_forget_users"]["auc"]], dtype=np.float64)


def answers_by_name(
    rows: Sequence[Row], names: Sequence[str], folder: Path
) -> dict[str, dict[int, ForgetAnswers]]:
    """Read the answers of rows, by name and seed, without those that are not there."""
    answers: dict[str, dict[int, ForgetAnswers]] = {}
    for name in names:
        for row in rows:
            if row["row"] == name and (of_row := load_answers(folder, row)):
                answers.setdefault(name, {})[row["seed"]] = of_row
    return answers


def _yes(answers: Mapping[str, Mapping[int, ForgetAnswers]]) -> dict[str, dict[int, Values]]:
    return {name: {seed: each.yes for seed, each in of.items()} for name, of in answers.items()}


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if isfinite(value) else "-"


def _markdown(lines: Sequence[Sequence[str]], head: Sequence[str]) -> str:
    return str(tabulate(lines, head, tablefmt="pipe", disable_numparse=True))


def _figures_by_name(rows: Sequence[Row], names: Sequence[str], folder: Path) -> dict[str, Figures]:
    """Return mean figures over seeds for the names that have rows."""
    means = {name: _mean(rows, name, folder) for name in names}
    return {name: mean for name, mean in means.items() if mean is not None}


def data_of(rows: Mapping[Cell, Sequence[Row]], names: Sequence[str]) -> pd.DataFrame:
    """Return the figures of every row but bias and scatter, which are of several seeds.

    Args:
        rows: rows by regime and request.
        names: names of the rows, in order.
    """
    lines = [
        {"regime": regime, "forgets": forgets, "row": name, "seed": seed, **figures._asdict()}
        for (regime, forgets), measured in rows.items()
        for name in names
        for seed, figures in _by_seed(measured, name).items()
    ]
    return pd.DataFrame(lines).drop(columns=["bias", "scatter"], errors="ignore")


def _by_seed(rows: Sequence[Row], name: str) -> dict[int, Figures]:
    """Return the figures of a name by seed, without bias and scatter.

    A classic recommender stands beside its own Retrain. Rows without references are left out.
    """
    bases = {(row["row"], row["seed"]): row for row in rows}
    classic, _ = split_forget_method(name)
    pair = classic, f"{classic}-{RETRAIN}"
    if not any(base == pair[1] for base, _ in bases):
        pair = ORIGINAL, RETRAIN
    figures = {}
    for (base, seed), row in bases.items():
        original, retrain = (bases.get((reference, seed)) for reference in pair)
        if base == name and original is not None and retrain is not None:
            figures[seed] = _figures(row, original, retrain)
    return figures


def _mean(rows: Sequence[Row], name: str, folder: Path) -> Figures | None:
    """Return the mean over seeds; None if no row stands beside its references."""
    by_seed = _by_seed(rows, name).values()
    if not by_seed:
        return None
    mean = Figures(*(fmean(column) for column in zip(*by_seed, strict=True)))
    if name == RETRAIN:
        return mean._replace(bias=0.0, scatter=0.0)
    bias, scatter = _off(rows, name, folder)
    return mean._replace(bias=bias, scatter=scatter)


def _off(rows: Sequence[Row], name: str, folder: Path) -> tuple[float, float]:
    """Return bias and scatter over seeds, in floors; NaN if they are unknown."""
    yes = _yes(answers_by_name(rows, (name, RETRAIN), folder))
    ours, retrains = (yes.get(base, {}) for base in (name, RETRAIN))
    if not ours.keys() <= retrains.keys():
        return nan, nan
    found = bias_in_floors(ours, retrains), scatter_in_floors(ours, retrains)
    bias, scatter = (nan if value is None else value for value in found)
    return bias, scatter


def share_closed(ours: float | None, original: float | None, retrain: float | None) -> float:
    """Share of the gap from Original's value to Retrain's that is closed; NaN if there is none."""
    if ours is None or original is None or retrain is None or original == retrain:
        return nan
    return (original - ours) / (original - retrain)


def _figures(row: Row, original: Row, retrain: Row) -> Figures:
    """Return the figures of one seed, without bias and scatter."""

    def closed(metric: str) -> float:
        return share_closed(*(base["forget"].get(metric) for base in (row, original, retrain)))

    def lost(group: str) -> float:
        return float(original[group]["auc"] - row[group]["auc"])

    strength = row.get("found", {})
    target = strength.get("target_logloss", nan) - strength.get("original_logloss", 0.0)
    losses = [base["forget"].get("logloss", nan) for base in (original, retrain)]
    cost, seconds = row["cost"], retrain["cost"]["seconds"]
    return Figures(
        row["forget"]["auc"], closed("auc"), closed("logloss"), target / (losses[1] - losses[0]),
        lost("heldout_other_users"), lost("test"), nan, nan, cost["seconds"] / seconds,
        cost.get("prior_seconds", 0.0) / seconds, row.get("to_retrain", {}).get("residual", nan),
    )  # fmt: skip


def badness(figures: Figures) -> float:
    """Return the objective to minimise: 0 = forgets as Retrain does, without harm.

    It is a sum of four terms: how far the closed shares of the gaps in AUC and in LogLoss are from
    1, the residual, and the AUC that users who stay lose, in units of ``HARM``. Each term is about
    1 for a method that forgets nothing, or does as much harm as is acceptable. The bias is left
    out, because over few seeds it is 0 for any model that differs much between seeds.
    """
    off = abs(1 - figures.closed_auc) + abs(1 - figures.closed_logloss)
    return off + figures.residual + max(0.0, figures.stay_lost) / HARM


def best_of(rows: Mapping[Cell, Sequence[Row]], models: Mapping[str, str], folder: Path) -> str:
    """Return a Markdown table of all candidates. The best of a method has the least mean badness.

    Args:
        rows: rows by regime and request.
        models: the method of each candidate.
        folder: folder with the answers of the rows.
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
    cells = [f"{regime}, {forgets}" for regime, forgets in rows]
    return _markdown(lines, ["method", "candidate", "mean badness", *cells])


def frontier(rows: Mapping[Cell, Sequence[Row]], names: Sequence[str], folder: Path) -> str:
    """Return an SVG with a row of panels for each regime and request, and a panel for each cost.

    The x axis is the closed share of the gap in forget AUC, the y axis is the cost. Rows whose
    names differ only after a comma are one method with several settings. They are joined by a line.

    Args:
        rows: rows by regime and request.
        names: names of the rows to draw, in order.
        folder: folder with the answers of the rows.
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
        compared = len(lines) > 1  # with a single seed only Retrain has a bias
        yield Panel(f"({cell[0]}), {cell[1]}: {title}", lines if compared else [])


def _method(name: str) -> str:
    return name.partition(",")[0]


def verdict_table(
    rows: Mapping[Cell, Sequence[Row]],
    names: Sequence[str],
    users: Mapping[Cell, Users],
    folder: Path,
) -> str:
    """Return a Markdown table of verdicts, with a line for each model.

    Args:
        rows: rows by regime and request; each seed has its Original and Retrain.
        names: names of the lines, in order.
        users: user of each forget row, by regime and request.
        folder: folder with the answers of the rows.
    """
    words = {
        cell: verdicts(_yes(answers_by_name(measured, names, folder)), users[cell])
        for cell, measured in rows.items()
    }
    lines = [
        [name, *(of_cell.get(name, "-") for of_cell in words.values())]
        for name in names
        if any(name in of_cell for of_cell in words.values())
    ]
    return _markdown(lines, ["", *(f"({regime}), {forgets}" for regime, forgets in rows)])


def truth_table(
    rows: Mapping[Cell, Sequence[Row]], users: Mapping[Cell, Users], folder: Path
) -> str:
    """Return a Markdown table of how often models of known truth get a verdict.

    Args:
        rows: rows by regime and request.
        users: user of each forget row, by regime and request.
        folder: folder with the answers of the rows.
    """
    lines = []
    for (regime, forgets), measured in rows.items():
        answers = _yes(answers_by_name(measured, (ORIGINAL, RETRAIN), folder))
        runs = [np.stack(list(answers[name].values())) for name in (ORIGINAL, RETRAIN)]
        all_users = len(np.unique(users[regime, forgets]))
        for seeds, count in ((3, FEW_USERS), (3, all_users), (5, all_users)):
            p_values = _p_values(runs, users[regime, forgets], seeds, count)
            rates = [
                f"{(p <= LEVEL).mean():.2f} / {(p >= 1 - LEVEL).mean():.2f}" for p in p_values.T
            ]
            corrected = f"{(p_values[:, -1] <= LEVEL / METHODS).mean():.2f}"
            title = f"({regime}), {forgets}"
            lines.append([title, str(seeds), str(count), *rates, corrected])
    mixtures = ["another Original", *(f"w = {way:g}" for way in WAY)]
    return _markdown(lines, ["", "seeds", "users", *mixtures, f"w = 1, one of {METHODS}"])


def _p_values(runs: Sequence[Values], users: Users, seeds: int, count: int) -> Values:
    """Draw runs and users, and return p of another Original and of each mixture, [draws, 1 + ways].

    Args:
        runs: P(yes) of the measured runs of Original, and of Retrain, [runs, n].
        users: user of each row, [n].
        seeds: number of seeds to draw.
        count: number of users to draw, with replacement.
    """
    generator = np.random.default_rng(0)
    rows_of = [np.flatnonzero(users == user) for user in np.unique(users)]
    means = [of.mean(axis=0) for of in runs]
    deviations = [(of - mean) / np.sqrt(len(of) - 1) for of, mean in zip(runs, means, strict=True)]

    def drawn(kind: int, rows: Users) -> dict[int, Values]:
        numbers = generator.normal(size=(seeds, len(runs[kind])))
        return dict(enumerate(means[kind][rows] + numbers @ deviations[kind][:, rows]))

    found = []
    for _ in range(DRAWS):
        chosen = [rows_of[user] for user in generator.integers(0, len(rows_of), count)]
        rows, user = np.concatenate(chosen), np.repeat(np.arange(count), list(map(len, chosen)))
        original, retrain, another = drawn(0, rows), drawn(1, rows), drawn(1, rows)
        models = [drawn(0, rows)]
        for way in WAY:
            models.append({s: (1 - way) * original[s] + way * another[s] for s in original})
        tests = [nearer(model, original, retrain, user) for model in models]
        found.append([test.p if test else np.nan for test in tests])
    return np.array(found)
