"""What a request changes for a served model, and how that is measured, with a Retrain or alone.

It is never put into the folder. What is trained is kept in ``work`` until the request is carried
out, so that a killed request goes on.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec.config.config import Config
from recbole_e2urec.deployment.served_model import ServedModel, drawn, fully_forgotten_users
from recbole_e2urec.errors import InputError
from recbole_e2urec.evaluator.attacks import answer_losses, membership_auc, step_curve
from recbole_e2urec.evaluator.bootstrap import UserBootstrap, interval
from recbole_e2urec.evaluator.measure import RESAMPLING_SEED, Answers, distance_to
from recbole_e2urec.evaluator.metrics import labelled_metrics
from recbole_e2urec.experiment.base import Experiment, Rows
from recbole_e2urec.experiment.preview import touched
from recbole_e2urec.model.scorers import Adapted
from recbole_e2urec.report.tables import NOISE
from recbole_e2urec.trainer.checkpoint import Stage

TESTED = 2000  # test rows, at most, that are asked about; of forgotten ones all are
MOST = 500  # held-out and control users' rows, the same


class RequestDelta(NamedTuple):
    """A request on a model in use.

    Attributes:
        earlier: rows that were forgotten before it.
        forgotten: those that are afterwards, with ``earlier``.
        forget: training rows that it takes away.
        retain: training rows that are left.
        before, after: histories that prompts show, [n, k].
    """

    earlier: Rows
    forgotten: Rows
    forget: Rows
    retain: Rows
    before: Rows
    after: Rows


def delta_of(run: Experiment, earlier: Rows, forgotten: Rows) -> RequestDelta:
    """The request after which these rows are forgotten, of which the earlier ones were already."""
    live = np.setdiff1d(run.parts.splits.train, earlier)
    forget, retain = np.intersect1d(live, forgotten), np.setdiff1d(live, forgotten)
    shown = run.history(earlier), run.history(forgotten)
    return RequestDelta(earlier, forgotten, forget, retain, *shown)


class EvaluationRows(NamedTuple):
    """Rows that are asked about before and after a request.

    Attributes:
        forget: its training rows.
        heldout: test rows of the same users, which nobody was trained on.
        control: rows of users that no model was trained on and no request touched.
        test: test rows of users who stay.
    """

    forget: Rows
    heldout: Rows
    control: Rows
    test: Rows


def evaluation_rows_of(run: Experiment, change: RequestDelta) -> EvaluationRows:
    """The rows to ask about: the same whenever this is asked, and of both models."""
    user, test, seed = run.dataset.rows.user, run.parts.splits.test, run.config["seed"]
    control, users = run.parts.control, np.unique(user[change.forget])
    own = np.setdiff1d(test[np.isin(user[test], users)], change.earlier)
    gone = fully_forgotten_users(run, change.forgotten)
    stay = np.setdiff1d(test[~np.isin(user[test], gone)], change.forgotten)
    untouched = control[~np.isin(user[control], user[change.forgotten])]
    heldout, control = (drawn(rows, seed, MOST) for rows in (own, untouched))
    return EvaluationRows(change.forget, heldout, control, drawn(stay, seed, TESTED))


def counts_of(run: Experiment, change: RequestDelta) -> dict[str, Any]:
    """What was asked for, and found, in numbers."""
    columns = {"users": run.dataset.rows.user, "items": run.dataset.rows.item}
    parts = {
        name: touched(of, change.forget, change.retain)._asdict() for name, of in columns.items()
    }
    train = len(change.forget) + len(change.retain)
    return {
        "rows": len(change.forgotten) - len(change.earlier),
        "training_rows": len(change.forget),
        "training_rows_before": train,
        "share_of_training": len(change.forget) / max(1, train),
        **parts,
    }


Losses = NDArray[np.float64]


class Evidence(NamedTuple):
    """What a model answered, and the measures made of it, as JSON."""

    answers: Answers
    measures: dict[str, Any]


def measured(
    run: Experiment, change: RequestDelta, watched: EvaluationRows, history: Rows
) -> Evidence:
    """Measure a model.

    Args:
        run: its model answers.
        change: the request; all but the test rows are asked with the histories before it, as they
            were learned.
        watched: the rows to ask about.
        history: of the test rows: what prompts show while this model is in use, [n, k].
    """
    model, user, labels = run.model, run.dataset.rows.user, run.dataset.rows.label
    assert labels is not None  # the model was trained on them
    scorer, words = Adapted(model.adapter), model.language_model.answer_ids
    yes = np.full(len(labels), np.nan)
    with model.using_history(change.before):
        forget = scorer.ask(model, watched.forget)
        yes[watched.forget] = forget.yes(words).cpu().numpy()
        others = np.union1d(watched.heldout, watched.control)
        yes[others] = model.answer(others, None).cpu().numpy()
    losses = answer_losses(yes, labels)
    seed = run.config["seed"]
    curves = {
        name: step_curve(model, rows, change.before, seed)
        for name, rows in (("forget", watched.forget), ("control", watched.control))
    }
    with model.using_history(
        history
    ):  # test rows of users who stay may be held-out rows of this request
        test = model.answer(watched.test, None).double().cpu().numpy()
    measures = {
        "test": labelled_metrics(run.config, test, labels[watched.test]),
        **{name: _loss(losses[getattr(watched, name)]) for name in EvaluationRows._fields[:3]},
        "mia": _attack(losses, watched.forget, watched.control, user),
        "mia_same_users": _attack(losses, watched.forget, watched.heldout, user),
        "relearning": {name: one and one._asdict() for name, one in curves.items()},
    }
    return Evidence(Answers(yes, forget), measures)


def _loss(losses: Losses) -> dict[str, Any]:  # [n] -> mean cross-entropy of the true answers, nats
    return {"loss": float(losses.mean()) if len(losses) else None, "rows": len(losses)}


def _attack(losses: Losses, members: Rows, others: Rows, user: Rows) -> dict[str, Any] | None:
    """Membership inference by the loss: AUC, and its 95 % interval over resampled users."""
    if len(members) == 0 or len(others) == 0:
        return None
    rows = np.concatenate([members, others])
    belongs = np.repeat([1.0, 0.0], [len(members), len(others)])
    found = UserBootstrap(user[rows], belongs, RESAMPLING_SEED)
    return {
        "auc": membership_auc(losses[members], losses[others]),
        "interval": interval(found.auc(-losses[rows])),
        "users": len(np.unique(user[members])),
        "other_users": len(np.unique(user[others])),
    }


RETRAIN = "Retrain"


class Reference(Experiment):
    """A model trained on what a request leaves, with the settings of the one in use.

    Args:
        run: the model in use, which is not touched: this one has a backbone of its own.
        folder: where the training is kept.
        seed: of the weights and of the order of the data; the split is that of the model in use.
    """

    def __init__(self, run: ServedModel, folder: Path, seed: int) -> None:
        given = {**run.config.external_config_dict, "seed": seed}
        super().__init__(Config("LLMRec", run.config.dataset, None, given), run.dataset)
        self.parts = run.parts
        self._folder = folder

    def train(self, change: RequestDelta) -> dict[str, Any]:
        """Train on what is left, and give what that cost; users who stay validate it."""
        splits = self.parts.splits  # whose order decides that of the training
        train = splits.train[np.isin(splits.train, change.retain)]
        valid = splits.valid[~np.isin(splits.valid, change.forgotten)]
        self.parts = self.parts._replace(splits=splits._replace(valid=valid))
        return self.trained(RETRAIN, train, train, change.after)[0]

    def stage(self, name: str, inputs: Mapping[str, Any]) -> Stage:
        """The stage of this name and these inputs, in the folder; no logger is told of it."""
        return Stage(self._folder, name, inputs)


def check_reference(run: ServedModel, noise_floor: bool) -> None:
    """Refuse a noise floor that would measure more than noise.

    Raises:
        InputError: an adapter was tuned: the backbone under it may be drawn from the seed.
    """
    if noise_floor and run.model.adapter is not None:
        raise InputError(
            "noise_floor: with tuning: lora another seed may give another backbone; drop it"
        )


def referred(
    run: ServedModel,
    change: RequestDelta,
    watched: EvaluationRows,
    answers: Mapping[str, Answers],
    work: Path,
    noise_floor: bool,
) -> dict[str, Any]:
    """Train a Retrain for the request, and measure how far models are from it.

    Args:
        run: the model in use.
        change: the request; some training rows are forgotten by it.
        watched: the rows to ask about.
        answers: of the model ``before`` and ``after`` the request.
        work: where the training is kept.
        noise_floor: train another one under the next seed as well, and measure it alike.

    Returns:
        ``measures`` of Retrain, ``distances`` to it by model, the ``seconds`` of its training;
        the other seed's Retrain is called as in a comparison.
    """
    seed = run.config["seed"]
    retrain, cost = _made(run, change, watched, work, seed)
    asked, seconds = dict(answers), cost["seconds"]
    if noise_floor:
        other, cost = _made(run, change, watched, work, seed + 1)
        asked[NOISE] = other.answers
        seconds += cost["seconds"]
    return referred_to(retrain, asked, watched, seconds)


def referred_to(
    retrain: Evidence, answers: Mapping[str, Answers], watched: EvaluationRows, seconds: float
) -> dict[str, Any]:
    """How far models are from a Retrain that is there; returns what :func:`referred` does.

    Args:
        retrain: what it answered, and its measures.
        answers: of the model ``before`` the request, and of any others.
        watched: the rows that were asked about.
        seconds: of the training.
    """
    distances = {
        name: distance_to(one, answers["before"], retrain.answers, watched.forget)
        for name, one in answers.items()
    }
    return {"measures": retrain.measures, "distances": distances, "seconds": seconds}


def _made(
    run: ServedModel, change: RequestDelta, watched: EvaluationRows, work: Path, seed: int
) -> tuple[Evidence, dict[str, Any]]:
    reference = Reference(run, work, seed)
    cost = reference.train(change)
    return measured(reference, change, watched, change.after), cost
