"""Does it come back, and does it tell? ``python -m benchmarks.attacks``.

The runs are those of the fresh requests of ``benchmarks.regimes``. Models are loaded from the same
``checkpoint_dir``, or trained. The attacks are those of a certificate, on more rows, so that there
is less chance in them:

- relearning: how much of the way back to Original four steps on one half of the forgotten rows
  take, measured on the other half;
- rounding: how much of the way back rounding the weights to 8 and to 4 bits takes, and by how much
  rounding to 4 bits raises the loss of control users' rows;
- both models: how well an attacker who sees the answers of Original and of the model tells
  forgotten users from users who stay, and from control users, by the size of the change (first
  figure) or by the rise of the loss (second figure); and how well rows of users who stay are told
  from rows of control users by the model alone (first) and by both models (second).

Each line takes a model for the one after the request. ``Retrain, other seed`` is that of the seed
before. Any ``--key=value`` applies to all runs.
"""

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from math import isfinite, nan
from statistics import fmean
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
from tabulate import tabulate
from torch import Tensor

from benchmarks.common import common_settings, config_of, parse_options, publish, run_main
from benchmarks.regimes import SEEDS, Requests, Task, add_common, require_ml_1m, title_of
from recbole_e2urec.config.schema import DATA_DRIVEN
from recbole_e2urec.deployment import evidence
from recbole_e2urec.deployment.certificate_words import FEW_STEPS
from recbole_e2urec.deployment.evidence import (
    EvaluationRows,
    Evidence,
    RequestDelta,
    attack,
    delta_of,
    evaluation_rows_of,
    measure,
)
from recbole_e2urec.deployment.forget import merged_weights
from recbole_e2urec.deployment.served_model import with_orphaned_rows
from recbole_e2urec.evaluator import attacks
from recbole_e2urec.experiment.unlearning import Forgetting
from recbole_e2urec.methods import method_of
from recbole_e2urec.report.tables import NOISE
from recbole_e2urec.trainer.checkpoint import Stage

MARK = "attacks"
ORIGINAL, RETRAIN = "Original", "Retrain"
METHODS = ("E2URec", "NegatedE2URec")
HEAD = (
    "", "seeds", f"back after {FEW_STEPS} steps", "back at 8 bits", "back at 4 bits",
    "control users' loss rises by", "told from users who stay", "told from control users",
    "staying users' rows found",
)  # fmt: skip
Figures = list[tuple[float, ...]]  # one or two for each column
Weights = Mapping[str, Tensor]
UNKNOWN = nan


class Request(NamedTuple):
    """A request of a run that has trained Original and Retrain."""

    run: Forgetting
    delta: RequestDelta
    rows: EvaluationRows

    def measured(self) -> Evidence:
        """Measure the model that the run has."""
        return measure(self.run, self.delta, self.rows, self.delta.after)


def main() -> None:
    """Measure, and print a table of each regime and request."""
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawTextHelpFormatter
    )
    add_common(parser)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.set_defaults(only=["a"], requests=["20%"])
    options, arguments = parse_options(parser, MARK)
    options.development = False
    require_ml_1m(options)
    with more_rows(), common_settings(options, arguments) as common:
        task = Task(options, arguments, common, {})
        tables = [
            _table(task, regime, forgets) for regime in options.only for forgets in options.requests
        ]
    publish("\n\n".join(tables), options, MARK)


@contextmanager
def more_rows() -> Iterator[None]:
    """Ask about more rows than a certificate does."""
    with (
        patch.object(evidence, "MAX_OTHER_ROWS", 20_000),
        patch.object(evidence, "ROWS_OF_USER", 20),
        patch.object(attacks, "CURVE_ROWS", 2_000),
    ):
        yield


def _table(task: Task, regime: str, forgets: str) -> str:
    """Return the table of a regime and a request: means over seeds."""
    by_model: dict[str, list[Figures]] = {}
    other: Weights | None = None
    for seed in task.options.seeds or SEEDS["fresh"]:
        settings = task.settings(regime, seed)
        request = _request(task, settings, forgets)
        retrain = Stage.of(request.run.stages, RETRAIN, request.run.retrain.stage).weights()
        before = request.measured()
        models = chain(
            [(ORIGINAL, before)],
            _references(request, {RETRAIN: retrain, NOISE: other}),
            _unlearned(task, settings, forgets),
        )
        for name, after in models:
            found = attack(request.run, request.delta, request.rows, before.answers, after.answers)
            figures = _figures(before, after, found or {})
            by_model.setdefault(name, []).append(figures)
            print(f"{regime}, {forgets}, seed {seed}:", *_line(name, [figures]), flush=True)
        other = retrain
    lines = [_line(name, seeds) for name, seeds in by_model.items()]
    title = title_of(regime, forgets)
    return f"**{title}**\n\n{tabulate(lines, HEAD, tablefmt='pipe', disable_numparse=True)}"


def _request(task: Task, settings: Mapping[str, Any], forgets: str) -> Request:
    """Return the request of a run whose model is Original."""
    ((_, run),) = Requests(task, settings).runs([forgets])
    asked = with_orphaned_rows(run, run.forget_request.rows)
    delta = delta_of(run, np.empty(0, np.int64), asked)
    return Request(run, delta, evaluation_rows_of(run, delta))


def _references(
    request: Request, weights: Mapping[str, Weights | None]
) -> Iterator[tuple[str, Evidence]]:
    """Yield what models with these weights answer; Original's are lost."""
    model = request.run.model
    for name, state in weights.items():
        if state is not None:
            model.bank.load(model.adapter, state)
            yield name, request.measured()


def _unlearned(
    task: Task, settings: Mapping[str, Any], forgets: str
) -> Iterator[tuple[str, Evidence]]:
    """Yield what the unlearned models answer, each merged in a run of its own."""
    for name in task.options.methods:
        request = _request(task, settings, forgets)
        run, config = request.run, config_of(settings, task.arguments._replace(model=name))
        config = config.with_settings({key: run.config[key] for key in DATA_DRIVEN})
        with run.model.using_history(run.after):
            unlearned = method_of(config).unlearn(run.model, run.request)
            merged_weights(run.model, unlearned.scorer)
        yield name, request.measured()


def _figures(before: Evidence, after: Evidence, found: Mapping[str, Any]) -> Figures:
    """Return the figures of a line for one seed, in the order of ``HEAD``."""
    rounding, both = (found.get(name, {}) for name in ("rounding", "both_models"))
    control = after.measures["rounding"]["control"]
    return [
        (_back_after_few_steps(before, after),),
        *(((rounding.get(bits) or {}).get("back", UNKNOWN),) for bits in ("8", "4")),
        ((control.get("loss_4_bits") or UNKNOWN) - (control["loss"] or UNKNOWN),),
        *(
            tuple(
                (both[f"forgotten_from_{group}"][score] or {}).get("auc", UNKNOWN)
                for score in ("change", "rise")
            )
            for group in ("stay", "control")
        ),
        tuple(
            (both["staying"] or {}).get(name, {}).get("auc", UNKNOWN) for name in ("after", "both")
        ),
    ]


def _back_after_few_steps(before: Evidence, after: Evidence) -> float:
    """Return the share of the way back to Original's loss that relearning took."""
    known, curve = (one.measures["relearning"]["forget"] for one in (before, after))
    start, loss = curve["loss"][0], curve["loss"][curve["steps"].index(FEW_STEPS)]
    way = start - known["loss"][0]
    return float((start - loss) / way) if way > 0 else UNKNOWN


def _line(name: str, seeds: list[Figures]) -> list[str]:
    """Return the cells of a model: means over the seeds under which a figure is known."""
    means = [
        [
            fmean([one for one in values if isfinite(one)] or [UNKNOWN])
            for values in zip(*column, strict=True)
        ]
        for column in zip(*seeds, strict=True)
    ]
    cells = [" / ".join(f"{one:.2f}" if isfinite(one) else "-" for one in some) for some in means]
    return [name, str(len(seeds)), *cells]


if __name__ == "__main__":
    run_main(main)
