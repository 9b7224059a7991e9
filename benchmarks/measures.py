"""Do the measures measure? ``python -m benchmarks.measures``.

A measure of forgetting should tell models that have seen the forget rows from models that have not,
also after these models were changed. Here both kinds are known, under each seed:

- seen: Original; Original after ``--short`` epochs; and Retrain after as many more, on all rows;
- not seen: Retrain; Retrain after ``--short`` epochs; and a model of half of the users who stay.

Each figure is an AUC over all pairs of a seen and an unseen model: how often the measure is larger
for the seen one; 1 = always, 0.5 = the measure tells nothing. It is found for the models as they
are, with weights rounded to 8 bits, and after one epoch on one half of the forget rows; all figures
are about the other half. JSD, L2 and residual are distances to the next seed's Retrain, and the
residual's denominator is that Retrain's distance to Original. To judge measures by models whose
past is known is an idea of OpenUnlearning (arXiv 2506.12618).

The runs are those of ``benchmarks.regimes``, whose ``checkpoint_dir`` saves training. Any
``--key=value`` applies to all runs.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
from tabulate import tabulate
from torch import Tensor

from benchmarks.common import common_settings, parse_options, publish, run_main
from benchmarks.regimes import SEEDS, Requests, Task, add_common, require_ml_1m, title_of
from recbole_e2urec.evaluator.attacks import (
    Relearning,
    RelearnOptions,
    halves,
    membership_auc,
    rounded,
)
from recbole_e2urec.evaluator.measure import Answers, Groups, ask, attacks, distance_to
from recbole_e2urec.evaluator.metrics import labelled_metrics
from recbole_e2urec.evaluator.over_seeds import ORIGINAL, RETRAIN
from recbole_e2urec.experiment.unlearning import Forgetting
from recbole_e2urec.model.losses import log_losses
from recbole_e2urec.model.scorers import Adapted
from recbole_e2urec.trainer.checkpoint import Stage

MARK = "measures"
PLAIN, ROUNDED, RELEARNED = CONDITIONS = ("as they are", "at 8 bits", "relearned")
SEEN = (ORIGINAL, "Original, short", "Retrain, relearned")
UNSEEN = (RETRAIN, "Retrain, short", "Retrain of fewer users")
RELEARNING = RelearnOptions(epochs=1, learning_rate=0.001, batch_size=128)
FAILS = 0.8  # a measure with a smaller AUC under any condition fails
Weights = Callable[[], Mapping[str, Tensor]]


class Asked(NamedTuple):
    """What a model answers."""

    run: Forgetting
    groups: Groups
    answers: Answers


Pool = dict[tuple[int, str, str], Asked]  # by seed, model and condition


def main() -> None:
    """Ask all models, and print a table of each regime and request."""
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawTextHelpFormatter
    )
    add_common(parser)
    parser.add_argument("--short", type=int, default=4, help="epochs of short trainings; 4")
    parser.set_defaults(only=["a"], requests=["20%"])
    options, arguments = parse_options(parser, MARK)
    options.development = False
    require_ml_1m(options)
    with common_settings(options, arguments) as common:
        task = Task(options, arguments, common, {})
        tables = [
            _table(task, regime, forgets) for regime in options.only for forgets in options.requests
        ]
    publish("\n\n".join(tables), options, MARK)


def _table(task: Task, regime: str, forgets: str) -> str:
    """Return the table of a regime and a request: a line for each measure."""
    pool: Pool = {}
    seeds = task.options.seeds or SEEDS["fresh"]
    for seed in seeds:
        for name, condition, asked in _asked(task, regime, seed, forgets):
            pool[seed, name, condition] = asked
            print(f"{regime}, {forgets}, seed {seed}: {name}, {condition}", flush=True)
    next_seed = dict(zip(seeds, [*seeds[1:], seeds[0]], strict=True))
    values = {key: _values(pool, asked, next_seed[key[0]]) for key, asked in pool.items()}
    lines = []
    for measure in values[seeds[0], ORIGINAL, PLAIN]:
        told = []
        for condition in CONDITIONS:
            seen, unseen = (
                np.array(
                    [values[seed, name, condition][measure] for name in names for seed in seeds]
                )
                for names in (SEEN, UNSEEN)
            )
            known = np.isfinite([*seen, *unseen]).all()
            told.append(membership_auc(-seen, -unseen) if known else np.nan)
        verdict = "fails" if min(told) < FAILS else ""
        lines.append([measure, *(f"{auc:.2f}" for auc in told), verdict])
    table = tabulate(lines, ["", *CONDITIONS, ""], tablefmt="pipe", disable_numparse=True)
    models = f"{len(seeds) * len(SEEN)} models that saw the rows, as many that did not"
    return f"**{title_of(regime, forgets)}; {models}**\n\n{table}"


def _asked(task: Task, regime: str, seed: int, forgets: str) -> Iterator[tuple[str, str, Asked]]:
    """Ask all models of a seed under all conditions; their answers are about one half."""
    settings = task.settings(regime, seed)
    ((_, run),) = Requests(task, settings).runs([forgets])
    ((_, short),) = Requests(task, {**settings, "epochs": task.options.short}).runs([forgets])
    relearning = Relearning(RELEARNING, run.split.forget, run.before, seed=0)
    groups = run.groups._replace(forget=relearning.rest)
    model, adapter = run.model, run.model.adapter
    histories = run.before, run.after
    for name, weights in _models(run, short).items():
        model.bank.load(adapter, weights())
        scorer = Adapted(adapter)
        yield name, PLAIN, Asked(run, groups, ask(model, scorer, groups, *histories))
        with model.bank.changed_matrices(adapter, partial(rounded, bits=8)):
            answers = ask(model, Adapted(None), groups, *histories)
        yield name, ROUNDED, Asked(run, groups, answers)
        (relearned,) = relearning.further(model, scorer)
        yield name, RELEARNED, Asked(run, groups, ask(model, relearned, groups, *histories))


def _models(run: Forgetting, short: Forgetting) -> dict[str, Weights]:
    """Train the models that the run lacks; return what reads the weights of each."""
    weights: dict[str, Weights] = {
        name + ending: Stage.of(of.stages, name, stage.stage).weights
        for of, ending in ((run, ""), (short, ", short"))
        for name, stage in ((ORIGINAL, of.original), (RETRAIN, of.retrain))
    }
    users, retain = run.dataset.rows.user, run.split.retain
    fewer, _ = halves(np.unique(users[retain]), seed=0)
    rows = retain[np.isin(users[retain], fewer)]
    weights[UNSEEN[2]] = run.services.fit("Fewer", rows, run.after).weights
    short.model.bank.load(short.model.adapter, weights[RETRAIN]())
    _, stage = short.trained("Relearned", short.parts.splits.train, retain, short.before)
    return {**weights, SEEN[2]: stage.weights}


def _values(pool: Pool, asked: Asked, reference: int) -> dict[str, float]:
    """Return the measures of a model, each larger for a model that knows more.

    Args:
        pool: all answers.
        asked: the model's answers.
        reference: seed of the models to which distances are measured.
    """
    run, groups, answers = asked
    labels = run.dataset.rows.label
    assert labels is not None  # the models were trained on them
    original, retrain = (pool[reference, name, PLAIN].answers for name in (ORIGINAL, RETRAIN))
    forget, held_out = (
        labelled_metrics(run.config, answers.yes[rows], labels[rows])
        for rows in (groups.forget, groups.heldout_forget_users)
    )
    distances = distance_to(answers, original, retrain, groups.forget)
    found = attacks(log_losses(answers.yes, labels), groups)
    measures = {
        "forget AUC": forget["auc"],
        "forget LogLoss": -(forget["logloss"] or 0),
        "JSD to Retrain": distances["jsd"],
        "L2 to Retrain": distances["l2"],
        "residual": distances["residual"],
        "MIA AUC": found["mia_auc"],
        "MIA TPR at 1 % FPR": found["mia_tpr_at_fpr_01"],
        "MIA AUC, same users": found["mia_auc_same_users"],
        "held-out AUC, forgotten users": held_out["auc"],
    }
    return {name: np.nan if value is None else value for name, value in measures.items()}


if __name__ == "__main__":
    run_main(main)
