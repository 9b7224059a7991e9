"""What a request changes for a served model, and how the change is measured.

The model is measured before and after the request, by itself or against a Retrain. A Retrain made
here is a reference only: it is never put into the model folder. Its training is kept in ``work``
until the request is carried out, so that a killed request can resume.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from recbole_e2urec.config.config import Config
from recbole_e2urec.data.rows import RowTable, without
from recbole_e2urec.deployment.served_model import (
    ServedModel,
    drawn,
    forgotten_until,
    fully_forgotten_users,
)
from recbole_e2urec.errors import InputError
from recbole_e2urec.evaluator.attacks import (
    RESAMPLING_SEED,
    change_of_logit,
    membership_auc,
    rounded_answers,
    step_curve,
    told_apart,
    way_back,
)
from recbole_e2urec.evaluator.measure import Answers, distance_to
from recbole_e2urec.evaluator.metrics import UserBootstrap, interval, labelled_metrics, residual
from recbole_e2urec.experiment.preview import touched
from recbole_e2urec.experiment.run import Experiment, Parts, Rows
from recbole_e2urec.model.losses import log_losses
from recbole_e2urec.model.prompting import shown_histories
from recbole_e2urec.model.scorers import Adapted
from recbole_e2urec.report.tables import NOISE
from recbole_e2urec.trainer.checkpoint import Stage

RETRAIN = "Retrain"
MAX_TEST_ROWS = 2000  # test rows that are asked about
# Held-out rows, rows of control users, training rows of users who stay, and forgotten rows that are
# asked about with rounded weights; forgotten rows have no limit otherwise.
MAX_OTHER_ROWS = 500
ROWS_OF_USER = 5  # by which users are told apart, at most: as many for those who stay as for others
Losses = NDArray[np.float64]
NOTHING: Rows = np.empty(0, np.int64)


class RequestDelta(NamedTuple):
    """What a request changes.

    Attributes:
        earlier: rows that were forgotten before the request.
        forgotten: rows that are forgotten after it, including the earlier ones.
        forget: training rows that the request removes, or whose answer it corrects. The latter are
            further rows behind those of the data, see :func:`state_of`.
        retain: training rows that are left as they are.
        before, after: histories that prompts show before and after the request, [n, k].
        learn: training rows with another answer or user after the request.
        corrected: all rows that the request corrects, in training or not.
    """

    earlier: Rows
    forgotten: Rows
    forget: Rows
    retain: Rows
    before: Rows
    after: Rows
    learn: Rows = NOTHING
    corrected: Rows = NOTHING

    @property
    def trained(self) -> Rows:
        """Sorted training rows after the request."""
        return np.sort(np.concatenate([self.retain, self.learn]))


def delta_of(run: Experiment, earlier: Rows, forgotten: Rows) -> RequestDelta:
    """Return what changes between two states.

    Args:
        run: the run that has the data.
        earlier: rows that are forgotten already.
        forgotten: rows that will be forgotten, including the earlier ones.
    """
    live = without(run.parts.splits.train, earlier)
    leaves = np.isin(live, forgotten)
    forget, retain = live[leaves], live[~leaves]
    histories = run.history(earlier), run.history(forgotten)
    return RequestDelta(earlier, forgotten, forget, retain, *histories)


@contextmanager
def state_of(run: ServedModel, number: int) -> Iterator[RequestDelta]:
    """Put the data into the state of a request inside the block, and give what it changes.

    If the request corrects rows, each of them is there twice: in its place as the request leaves
    it, and behind all rows of the data as it was before. The latter are the rows to forget.

    Args:
        run: the served model.
        number: number of the request, from 1.
    """
    earlier, forgotten = (forgotten_until(run.number, until) for until in (number - 1, number))
    if (run.corrections.request < number).all():  # the rows are as the request left them
        yield delta_of(run, earlier, forgotten)
        return
    new = run.rows_after(number)
    corrected = np.unique(run.corrections.of(number).rows)
    if not len(corrected):
        with run.using_rows(new):
            yield delta_of(run, earlier, forgotten)
        return
    old = run.rows_after(number - 1)
    with run.using_rows(_followed(new, old, corrected)):
        yield _correction(run, old, earlier, forgotten, corrected)


@contextmanager
def in_same_state(earlier: ServedModel, run: ServedModel, number: int) -> Iterator[None]:
    """Put the data of the model before a request into the state of the request.

    Args:
        earlier: the model before the request.
        run: the model after it.
        number: number of the request, from 1.
    """
    if not len(run.corrections.rows):
        yield
        return
    earlier.number, earlier.corrections = run.number, run.corrections
    with state_of(earlier, number):
        yield


def _followed(rows: RowTable, others: RowTable, chosen: Rows) -> RowTable:
    """Return rows, and behind them the chosen ones of the others."""
    names = ("user", "item", "time", "rating", "label")
    pairs = {name: (getattr(rows, name), getattr(others, name)) for name in names}
    columns = {
        name: None if column is None else np.concatenate([column, other[chosen]])
        for name, (column, other) in pairs.items()
    }
    return replace(rows, **columns)  # type: ignore[arg-type]


def _correction(
    run: ServedModel, old: RowTable, earlier: Rows, forgotten: Rows, corrected: Rows
) -> RequestDelta:
    """Return what a correction changes; the data are in its state.

    Args:
        run: the served model.
        old: the rows before the request.
        earlier: rows that were forgotten before the request.
        forgotten: the same after it.
        corrected: the rows that it corrects, sorted.
    """
    count, whole, rows = len(old), run.parts.whole, run.dataset.rows
    user, label = rows.user[:count], rows.label[:count]
    new = RowTable(user, rows.item[:count], rows.time[:count])
    length = run.model.prompt_options.history_length
    after = shown_histories(new, whole, forgotten, length)
    before = shown_histories(old, whole, earlier, length)
    places = count + np.arange(len(corrected))  # of what the rows were
    moved = np.append(np.arange(count), -1)  # the last one: no row
    moved[corrected] = places
    before = moved[before]
    of_old = before[corrected]
    before[corrected] = after[corrected]
    train = run.parts.splits.train
    was_trained = np.isin(corrected, run.splits_of(old.user).train)
    differs = (old.user != user) | (old.label != label)
    is_new = differs[corrected] | ~was_trained
    learn = corrected[is_new & np.isin(corrected, train)]
    return RequestDelta(
        earlier,
        np.union1d(forgotten, places),
        places[differs[corrected] & was_trained],
        without(train, np.union1d(forgotten, learn)),
        np.concatenate([before, of_old]),
        np.concatenate([after, of_old]),
        learn,
        corrected,
    )


def counts_of(run: Experiment, delta: RequestDelta) -> dict[str, Any]:
    """Count the rows, users and items that a request asks for, and those that it finds."""
    columns = {"users": run.dataset.rows.user, "items": run.dataset.rows.item}
    parts = {
        name: touched(ids, delta.forget, delta.trained)._asdict() for name, ids in columns.items()
    }
    train = len(delta.forget) + len(delta.retain)
    corrected = {"corrected": _corrected_counts(run, delta)} if len(delta.corrected) else {}
    return {
        "rows": len(delta.forgotten) - len(delta.earlier),
        "training_rows": len(delta.forget),
        "training_rows_before": train,
        "share_of_training": len(delta.forget) / max(1, train),
        **parts,
        **corrected,
    }


def _corrected_counts(run: Experiment, delta: RequestDelta) -> dict[str, int]:
    """Count what a correction changes; the data are in its state."""
    rows, now = run.dataset.rows, delta.corrected
    was = np.arange(len(rows) - len(now), len(rows))
    changed = {
        "labels": rows.label[now] != rows.label[was],
        "users": rows.user[now] != rows.user[was],
    }
    counts = {name: int(mask.sum()) for name, mask in changed.items()}
    return {**counts, "learned": len(delta.learn)}


class EvaluationRows(NamedTuple):
    """Rows that are asked about before and after a request.

    Attributes:
        forget: training rows that the request removes.
        heldout: test rows of the same users; no model was trained on them.
        control: rows of users that no model was trained on and no request touched.
        test: test rows of users who stay.
        stay: training rows of users of whom the request removes none, a few of each.
        learned: training rows with their corrected answers.
    """

    forget: Rows
    heldout: Rows
    control: Rows
    test: Rows
    stay: Rows
    learned: Rows = NOTHING


def evaluation_rows_of(run: Experiment, delta: RequestDelta) -> EvaluationRows:
    """Return the rows to ask about; they are always the same, and the same for every model."""
    user, test, seed = run.dataset.rows.user, run.parts.splits.test, run.config["seed"]
    control, forget_users = run.parts.control, np.unique(user[delta.forget])
    same_users = without(test[np.isin(user[test], forget_users)], delta.earlier)
    gone = fully_forgotten_users(run, delta.forgotten)
    staying = without(test[~np.isin(user[test], gone)], delta.forgotten)
    untouched = control[~np.isin(user[control], user[delta.forgotten])]
    heldout, control = (drawn(rows, seed, MAX_OTHER_ROWS) for rows in (same_users, untouched))
    others = delta.retain[~np.isin(user[delta.retain], forget_users)]
    some = drawn(np.unique(user[others]), seed, MAX_OTHER_ROWS // ROWS_OF_USER)
    stay = few_of_each(others[np.isin(user[others], some)], user, seed)
    test = drawn(staying, seed, MAX_TEST_ROWS)
    return EvaluationRows(delta.forget, heldout, control, test, stay, delta.learn)


def few_of_each(rows: Rows, user: Rows, seed: int) -> Rows:
    """Draw at most ``ROWS_OF_USER`` rows of each user, sorted; the same ones for the same seed."""
    order: Rows = np.random.default_rng(seed).permutation(rows)
    number = pd.Series(user[order]).groupby(user[order]).cumcount().to_numpy()
    few: Rows = np.sort(order[number < ROWS_OF_USER])
    return few


class Evidence(NamedTuple):
    """What a model answered, and the measures computed from the answers, as JSON."""

    answers: Answers
    measures: dict[str, Any]


def measure(run: Experiment, delta: RequestDelta, rows: EvaluationRows, history: Rows) -> Evidence:
    """Measure a model.

    Args:
        run: the run whose model answers.
        delta: the request. Forgotten, held-out and control rows are asked with the histories from
            before the request, with which the model learned them; corrected answers with those
            from after it.
        rows: the rows to ask about.
        history: for test rows: what prompts show while this model is served, [n, k].
    """
    model, user, labels = run.model, run.dataset.rows.user, run.dataset.rows.label
    assert labels is not None  # the model was trained on them
    scorer, answer_ids = Adapted(model.adapter), model.language_model.answer_ids
    yes = np.full(len(labels), np.nan)
    with model.using_history(delta.before):
        forget = scorer.ask(model, rows.forget)
        yes[rows.forget] = forget.yes(answer_ids).cpu().numpy()
        others = np.union1d(rows.heldout, rows.control)
        yes[others] = model.answer(others, None).cpu().numpy()
        yes[rows.stay] = model.answer(rows.stay, None).cpu().numpy()
    if len(rows.learned):
        with model.using_history(delta.after):
            yes[rows.learned] = model.answer(rows.learned, None).cpu().numpy()
    losses = log_losses(yes, labels)
    seed = run.config["seed"]
    coarse = _rounded_rows(rows, seed)
    rounded = rounded_answers(model, np.union1d(*coarse.values()), delta.before)
    curves = {
        name: step_curve(model, part, delta.before, seed)
        for name, part in (("forget", rows.forget), ("control", rows.control))
    }
    # A test row of a user who stays may also be a held-out row, so it is asked separately.
    with model.using_history(history):
        test = model.answer(rows.test, None).double().cpu().numpy()
    measures = {
        "test": labelled_metrics(run.config, test, labels[rows.test]),
        **{name: _mean_loss(losses[getattr(rows, name)]) for name in EvaluationRows._fields[:3]},
        "mia": _membership_attack(losses, rows.forget, rows.control, user),
        "mia_same_users": _membership_attack(losses, rows.forget, rows.heldout, user),
        "relearning": {name: curve and curve._asdict() for name, curve in curves.items()},
        "stay": _mean_loss(losses[rows.stay]),
        "rounding": _rounding(yes, rounded, labels, coarse),
    }
    if len(rows.learned):
        measures["learned"] = _mean_loss(losses[rows.learned])
    return Evidence(Answers(yes, forget, rounded), measures)


def _mean_loss(losses: Losses) -> dict[str, Any]:  # [n] -> mean cross-entropy, in nats
    return {"loss": float(losses.mean()) if len(losses) else None, "rows": len(losses)}


def _rounded_rows(rows: EvaluationRows, seed: int) -> dict[str, Rows]:
    """Draw the rows that are asked about with rounded weights."""
    return {
        part: drawn(getattr(rows, part), seed, MAX_OTHER_ROWS) for part in ("forget", "control")
    }


def _rounding(
    yes: Losses,
    rounded: Mapping[int, Losses],
    labels: NDArray[np.float32],
    parts: Mapping[str, Rows],
) -> dict[str, Any]:
    """Return the mean losses of rows by part, with the weights as they are and rounded."""
    answers = {"loss": yes, **{f"loss_{bits}_bits": rounded[bits] for bits in rounded}}
    measures = {}
    for part, rows in parts.items():
        of_part = {key: _mean_loss(log_losses(p, labels)[rows]) for key, p in answers.items()}
        losses = {key: measure["loss"] for key, measure in of_part.items()}
        measures[part] = {**losses, "rows": len(rows)}
    return measures


def _membership_attack(
    losses: Losses, members: Rows, others: Rows, user: Rows
) -> dict[str, Any] | None:
    """Infer membership from the loss: AUC, and its 95 % interval over resampled users."""
    if len(members) == 0 or len(others) == 0:
        return None
    rows = np.concatenate([members, others])
    is_member = np.repeat([1.0, 0.0], [len(members), len(others)])
    bootstrap = UserBootstrap(user[rows], is_member, RESAMPLING_SEED)
    return {
        "auc": membership_auc(losses[members], losses[others]),
        "interval": interval(bootstrap.auc(-losses[rows])),
        "users": len(np.unique(user[members])),
        "other_users": len(np.unique(user[others])),
    }


def attack(
    run: Experiment, delta: RequestDelta, rows: EvaluationRows, before: Answers, after: Answers
) -> dict[str, Any] | None:
    """Attack with the answers of the models before and after a request, or of a Retrain.

    Args:
        run: the run that has the data.
        delta: the request.
        rows: the rows that they were asked about.
        before: answers of the model before it.
        after: answers of the model after it, or of Retrain.

    Returns:
        ``rounding`` and ``both_models``, as JSON; None if the request removes no training row.
    """
    if len(delta.forget) == 0:
        return None
    return {
        "rounding": _rounding_attack(run, rows, before, after),
        "both_models": _both_models_attack(run, rows, before, after),
    }


def _rounding_attack(
    run: Experiment, rows: EvaluationRows, before: Answers, after: Answers
) -> dict[str, Any]:
    """How far rounding takes the model back; None without a gap beyond noise, or control users."""
    user, labels = run.dataset.rows.user, run.dataset.rows.label
    found: dict[str, Any] = dict.fromkeys(map(str, after.rounded))
    if len(rows.control) == 0:
        return found
    parts = _rounded_rows(rows, run.config["seed"]).values()
    resamples = [
        UserBootstrap(user[part], labels[part], RESAMPLING_SEED + number)
        for number, part in enumerate(parts)
    ]

    def harder(yes: Losses) -> Losses:  # by how much forgotten rows are, then in resamples
        forget, control = (log_losses(yes, labels)[part] for part in parts)
        resampled = resamples[0].mean(forget) - resamples[1].mean(control)
        return np.r_[forget.mean() - control.mean(), resampled]

    for bits in after.rounded:
        ours, coarse, original = map(harder, (after.yes, after.rounded[bits], before.rounded[bits]))
        way = interval((ours - original)[1:])
        if way and way[0] > 0:
            share = way_back(ours, coarse, original)
            found[str(bits)] = {"back": float(share[0]), "interval": interval(share[1:])}
    return found


def _both_models_attack(
    run: Experiment, rows: EvaluationRows, before: Answers, after: Answers
) -> dict[str, Any]:
    """What the change of the answers tells about users who leave, and about those who stay."""
    user, labels = run.dataset.rows.user, run.dataset.rows.label
    first, second = (log_losses(answers.yes, labels) for answers in (before, after))
    scores = {"change": change_of_logit(before.yes, after.yes), "rise": second - first}
    few = few_of_each(rows.forget, user, run.config["seed"])
    found: dict[str, Any] = {}
    for name in ("stay", "control"):
        others = few_of_each(getattr(rows, name), user, run.config["seed"])
        asked, is_forgotten = np.r_[few, others], np.arange(len(few) + len(others)) < len(few)
        found[f"forgotten_from_{name}"] = {
            score: told_apart(values[asked], user[asked], is_forgotten)
            for score, values in scores.items()
        }
    return {**found, "staying": _members_attack(rows, user, first, second)}


def _members_attack(
    rows: EvaluationRows, user: Rows, first: Losses, second: Losses
) -> dict[str, Any] | None:
    """Infer that users who stay are members, from the model after alone and from both models."""
    if len(rows.stay) == 0 or len(rows.control) == 0:
        return None
    asked = np.concatenate([rows.stay, rows.control])
    is_member = np.repeat([1.0, 0.0], [len(rows.stay), len(rows.control)])
    bootstrap = UserBootstrap(user[asked], is_member, RESAMPLING_SEED)
    losses = {"after": second, "both": (first + second) / 2}
    resampled = {name: bootstrap.auc(-values[asked]) for name, values in losses.items()}
    found: dict[str, Any] = {
        name: {
            "auc": membership_auc(values[rows.stay], values[rows.control]),
            "interval": interval(resampled[name]),
        }
        for name, values in losses.items()
    }
    return {**found, "more_interval": interval(resampled["both"] - resampled["after"])}


class Reference(Experiment):
    """A model trained on what a request leaves, with the settings of the served model.

    Args:
        run: the served model. It is not touched, because the reference has its own backbone.
        folder: where the training is kept.
        seed: seed of the weights and of the order of the data. The split stays that of the served
            model.
    """

    def __init__(self, run: ServedModel, folder: Path, seed: int) -> None:
        settings = {**run.config.external_config_dict, "seed": seed}
        self._run, self._folder = run, folder
        super().__init__(Config("LLMRec", run.config.dataset, None, settings), run.dataset)

    def parts_of(self, config: Config, dataset: Any) -> Parts:
        """Return the rows of the served model."""
        return self._run.parts

    def train(self, delta: RequestDelta) -> dict[str, Any]:
        """Train on the rows that are left, and return the cost; users who stay validate."""
        splits = self.parts.splits  # the order of its rows decides the order of the training
        train = splits.train[np.isin(splits.train, delta.trained)]
        valid = splits.valid[~np.isin(splits.valid, delta.forgotten)]
        self.parts = self.parts._replace(splits=splits._replace(valid=valid))
        return self.trained(RETRAIN, train, train, delta.after)[0]

    def stage(self, name: str, inputs: Mapping[str, Any]) -> Stage:
        """Return the stage of this name and these inputs, in the folder; no logger sees it."""
        return Stage(self._folder, name, inputs)


def check_reference(run: ServedModel, noise_floor: bool) -> None:
    """Refuse a noise floor that would measure more than noise.

    Raises:
        InputError: an adapter was tuned; the backbone under it may depend on the seed.
    """
    if noise_floor and run.model.adapter is not None:
        raise InputError(
            "noise_floor: with tuning: lora another seed may give another backbone; drop it"
        )


def compare_to_retrain(
    run: ServedModel,
    delta: RequestDelta,
    rows: EvaluationRows,
    answers: Mapping[str, Answers],
    work: Path,
    noise_floor: bool,
) -> dict[str, Any]:
    """Train a Retrain for the request, and measure how far models are from it.

    Args:
        run: the served model.
        delta: the request; it removes at least one training row.
        rows: the rows to ask about.
        answers: answers of the model ``before`` and ``after`` the request.
        work: where the training is kept.
        noise_floor: also train a Retrain under the next seed, and measure its distance.

    Returns:
        ``measures`` of Retrain, ``distances`` to it by model, what an :func:`attack` finds between
        the model before and Retrain, and the ``seconds`` of the training. The Retrain of the next
        seed has the same name as in a comparison.
    """
    seed = run.config["seed"]
    retrain, cost = _train_and_measure(run, delta, rows, work, seed)
    compared, seconds = dict(answers), cost["seconds"]
    if noise_floor:
        other, cost = _train_and_measure(run, delta, rows, work, seed + 1)
        compared[NOISE] = other.answers
        seconds += cost["seconds"]
    return distances_to_retrain(run, delta, rows, retrain, compared, seconds)


def distances_to_retrain(
    run: Experiment,
    delta: RequestDelta,
    rows: EvaluationRows,
    retrain: Evidence,
    answers: Mapping[str, Answers],
    seconds: float,
) -> dict[str, Any]:
    """Measure how far models are from an existing Retrain.

    Args:
        run: the run that has the data.
        delta: the request.
        rows: the rows that the models were asked about.
        retrain: what Retrain answered, and its measures.
        answers: answers of the model ``before`` the request, and of any others.
        seconds: how long Retrain was trained.

    Returns:
        The same as :func:`compare_to_retrain`.
    """
    distances = {
        name: distance_to(answer, answers["before"], retrain.answers, delta.forget)
        for name, answer in answers.items()
    }
    if len(delta.learn):
        for name, answer in answers.items():
            yes = (each.yes[delta.learn] for each in (answer, answers["before"], retrain.answers))
            share = residual(*map(torch.from_numpy, yes))
            distances[name]["learned_residual"] = None if np.isnan(share) else share
    return {
        "measures": retrain.measures,
        "distances": distances,
        "attacks": attack(run, delta, rows, answers["before"], retrain.answers),
        "seconds": seconds,
    }


def _train_and_measure(
    run: ServedModel, delta: RequestDelta, rows: EvaluationRows, work: Path, seed: int
) -> tuple[Evidence, dict[str, Any]]:
    reference = Reference(run, work, seed)
    cost = reference.train(delta)
    return measure(reference, delta, rows, delta.after), cost
