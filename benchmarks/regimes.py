"""Methods in three regimes: ``python -m benchmarks.regimes --ml_1m=DIR``.

The regimes are MovieLens-100k with the paper's prompt (a), the same with user and item numbers in
the prompt (b), and MovieLens 1M with the paper's prompt and rows (c). The request is a fifth of the
users, drawn by a seed under which nothing was chosen, as are the models' seeds. ``--ml_1m`` is the
``data_path`` with the folder ``ml-1m``, see docs/datasets.md; ``--only a b`` leaves it out. Means
over seeds are printed, a Markdown table a regime; "foretold" is the share of the gap in forget
LogLoss that a method set out to close. ``--model_list`` sets the methods, ``--seeds``
the seeds, any ``--key=value`` what is common to all. Killed, the same command goes on.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from tabulate import tabulate

from benchmarks.given import arguments_of, common_settings, filled
from recbole_e2urec.compare import run_comparison
from recbole_e2urec.comparisons import comparisons
from recbole_e2urec.errors import InputError
from recbole_e2urec.matching import share_closed
from recbole_e2urec.tables import NOISE

MARK = "regimes"
FRESH = {
    "model_list": "E2URec,TaskVector,NegatedE2URec",
    "seeds": "3001,3002,3003",
    "forget_seed": 8200,
}
LAST = {
    "last_rows": 100000,
    "min_history": 5,
    "eval_args": {"split": {"RS": [0.6, 0.2, 0.2]}, "group_by": "none", "order": "TO"},
}
REGIMES: dict[str, tuple[str, Mapping[str, Any]]] = {
    "a": ("ml-100k, the paper's prompt", {"dataset": "ml-100k"}),
    "b": (
        "ml-100k, user and item numbers in the prompt",
        {"dataset": "ml-100k", "prompt": "numbered"},
    ),
    "c": ("ml-1m, the paper's prompt and rows", {"dataset": "ml-1m", **LAST}),
}
HEAD = (
    "", "forget AUC", "closed, AUC", "closed, LogLoss", "foretold", "users who stay lose",
    "test AUC lost", "bias, floors", "seconds / Retrain's",
)  # fmt: skip
DIGITS = (4, 2, 2, 2, 4, 4, 3)
Rows = Sequence[Mapping[str, Any]]


def main() -> None:
    """Run the regimes, and print a table of each."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--only", nargs="+", choices=REGIMES, default=list(REGIMES))
    parser.add_argument("--ml_1m", type=Path, help="data_path with the folder ml-1m")
    own, arguments = arguments_of(parser, MARK)
    if "c" in own.only and not own.small and not (own.ml_1m and (own.ml_1m / "ml-1m").is_dir()):
        raise InputError(
            f"--ml_1m: no folder ml-1m in {own.ml_1m}; make it as docs/datasets.md says and give "
            "its parent, or give --only a b"
        )
    tables = []
    with common_settings(own, arguments) as given:
        for name in own.only:
            title, settings = REGIMES[name]
            if name == "c" and own.ml_1m:
                settings = {**settings, "data_path": str(own.ml_1m)}
            if own.small:  # one made-up data set stands for all
                settings = {key: settings[key] for key in ("prompt",) if key in settings}
            tables.append(f"**{title}**\n\n{_measured({**FRESH, **settings, **given})}")
            print(f"\n{tables[-1]}", flush=True)
    if own.write:
        text = filled(own.write, MARK, "\n\n".join(tables))
        own.write.write_text(text, encoding="utf-8")


def _measured(settings: Mapping[str, Any]) -> str:
    """Run a regime; gives its table."""
    given = dict(settings)
    results = run_comparison(given.pop("dataset"), overrides=given)
    (one,) = comparisons(results["rows"], Path(results["results_file"]).parent)
    models = dict.fromkeys(row["model"] for row in one.rows if row["model"] != NOISE)
    lines = [_line([row for row in one.rows if row["model"] == name], one.rows) for name in models]
    return tabulate(lines, HEAD, tablefmt="pipe", disable_numparse=True)


def _line(rows: Rows, whole: Rows) -> list[str]:
    """A model's line: means over its seeds."""
    bases = {
        (row["model"], row["seed"]): row for row in whole if row["model"] in ("Original", "Retrain")
    }
    found = [
        _figures(row, *(bases[base, row["seed"]] for base in ("Original", "Retrain")))
        for row in rows
    ]
    means = [
        "-" if np.isnan(values).any() else f"{fmean(values):.{digits}f}"
        for values, digits in zip(zip(*found, strict=True), DIGITS, strict=True)
    ]
    bias = [row["bias"] for row in rows if "bias" in row]
    return [rows[0]["model"], *means[:-1], f"{bias[0]:.2f}" if bias else "-", means[-1]]


def _figures(
    row: Mapping[str, Any], original: Mapping[str, Any], retrain: Mapping[str, Any]
) -> list[float]:
    """Figures of one seed, in the order of the table, without the bias."""

    def closed(metric: str) -> float:
        share = share_closed(*(one["forget"][metric] for one in (row, original, retrain)))
        return float("nan") if share is None else share

    def lost(group: str) -> float:
        return float(original[group]["auc"] - row[group]["auc"])

    found, loss = row.get("found", {}), [one["forget"]["logloss"] for one in (original, retrain)]
    wanted = found.get("target_logloss", float("nan")) - found.get("original_logloss", 0.0)
    return [
        row["forget"]["auc"], closed("auc"), closed("logloss"), wanted / (loss[1] - loss[0]),
        lost("heldout_other_users"), lost("test"), seconds_of(row) / seconds_of(retrain),
    ]  # fmt: skip


def seconds_of(row: Mapping[str, Any]) -> float:
    """Seconds of all that made a row."""
    return float(row["cost"]["seconds"])


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
