"""Training of one adapter in a stage, and what an unlearning method works with.

:func:`train_adapter` is the training loop of gradient unlearning. An :class:`UnlearningTask` tells
a method what to forget. Its :class:`TrainingServices` give the method stages and models that are
trained anew.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.scorers import Scorer, Stored
from recbole_e2urec.trainer.checkpoint import Stage
from recbole_e2urec.trainer.loop import (
    EpochPosition,
    Losses,
    StepRule,
    adamw,
    load_optimizer,
    optimizer_tensors,
    seed_dropout,
    steps_until,
    train_epoch,
    with_prefix,
    without_prefix,
)
from recbole_e2urec.trainer.training_log import memory_used


@dataclass(frozen=True)
class AdapterTrainingPlan:
    """How an adapter is trained.

    Attributes:
        epochs: number of epochs; a fraction cuts the last one short.
        rule: how a gradient becomes a step.
        seed: seed of dropout.
        batches: gives the batches of an epoch; must depend on the epoch's number alone.
        losses: loss terms of a batch, see :func:`train_epoch`.
        show: whether to draw progress bars.
        spent: seconds that preparation took; they are part of the cost.
        tokens: ids of the only tokens that adapted embeddings learn, int64 [m]; None: all tokens.
        alone: whether nothing but these tokens learns.
        dropout: whether the backbone drops activations.
        stop: share of the steps of all epochs after which training ends.
        begin: called before the first step; may change the weights.
        end: called after the last step; may change the weights.
        findings: settings that were determined for this training; they are part of the summary.
    """

    epochs: float
    rule: StepRule
    seed: int
    batches: Callable[[int], list[Any]]
    losses: Losses
    show: bool = True
    spent: float = 0.0
    tokens: Tensor | None = None
    alone: bool = False
    dropout: bool = True
    stop: float = 1.0
    begin: Callable[[], None] = lambda: None
    end: Callable[[], None] = lambda: None
    findings: Mapping[str, float] = field(default_factory=dict)

    def clock(self, name: str, epoch: int, steps: int) -> EpochPosition:
        """Locate an epoch in its stage, and decide how many of its steps are taken.

        Args:
            name: name of the stage.
            epoch: number of the epoch, from 0.
            steps: number of steps of a whole epoch.
        """
        end = steps_until(self.stop, steps_until(self.epochs, steps))
        return EpochPosition(name, epoch, self.epochs, self.show, max(0, end - epoch * steps))


def train_adapter(
    model: LLMRec, name: str | None, stage: Stage, plan: AdapterTrainingPlan
) -> dict[str, Any]:
    """Train an adapter, resume its training, or load the weights of a finished stage.

    No other weight learns. The stage's files are written after every epoch.

    Args:
        model: the recommender with the adapter.
        name: name of the adapter; None trains the backbone's own weights.
        stage: where progress and outcome are stored.
        plan: how to train.

    Returns:
        The stage's summary: ``seconds``, ``steps``, ``epochs``, ``trained_parameters``,
        ``peak_memory_mb``, ``losses``, the mean of each term by epoch, and ``found``, see
        :class:`AdapterTrainingPlan`.
    """
    with stage.open():
        if stage.finished:
            model.bank.load(name, stage.weights())
            return stage.summary()
        return _finish(model, name, stage, plan)


def _finish(
    model: LLMRec, name: str | None, stage: Stage, plan: AdapterTrainingPlan
) -> dict[str, Any]:
    optimizer = adamw(model.bank.parameters(name), plan.rule)
    state: dict[str, Any] = {"epoch": 0, "seconds": plan.spent, "steps": 0, "losses": []}
    progress = stage.progress()
    if progress is not None:
        tensors, state = progress
        model.bank.load(name, without_prefix("model", tensors))
        load_optimizer(optimizer, tensors)
    else:
        state["seconds"] += _seconds(plan.begin)

    for epoch in range(state["epoch"], ceil(plan.epochs)):
        started = time.perf_counter()
        batches = plan.batches(epoch)
        clock = plan.clock(stage.name, epoch, len(batches))
        if batches and clock.most == 0:
            break
        learning = model.bank.training(name, plan.tokens, dropout=plan.dropout, alone=plan.alone)
        with torch.random.fork_rng(devices=[]), learning:
            seed_dropout(plan.seed, epoch)
            terms = train_epoch(optimizer, batches, plan.losses, clock, plan.rule)
        stage.curves.trained(epoch, terms)
        state = {
            "epoch": epoch + 1,
            "seconds": state["seconds"] + time.perf_counter() - started,
            "steps": state["steps"] + len(batches[: clock.most]),
            "losses": [*state["losses"], terms],
        }
        if epoch + 1 < plan.epochs:  # after the last epoch, the outcome is written instead
            tensors = with_prefix("model", model.bank.state(name))
            stage.save_progress({**tensors, **optimizer_tensors(optimizer)}, state)
    seconds = _seconds(plan.end)
    summary = {
        "seconds": state["seconds"] + seconds,
        "steps": state["steps"],
        "epochs": len(state["losses"]),
        "trained_parameters": model.bank.learning(name, plan.tokens, plan.alone),
        **memory_used(),
        "losses": state["losses"],
        "found": dict(plan.findings),
    }
    stage.finish(model.bank.state(name), summary)
    stage.curves.close()
    return summary


def _seconds(work: Callable[[], None]) -> float:
    """Run a function and return the seconds that it took."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


class Fit(NamedTuple):
    """A recommender that was trained on some rows, from Original's start weights.

    Attributes:
        scorer: answers as this recommender does.
        cost: the summary of its stage.
        digest: the digest of its stage.
        weights: reads the trained weights.
    """

    scorer: Scorer
    cost: Mapping[str, Any]
    digest: str
    weights: Callable[[], Mapping[str, Tensor]]


class TrainingServices(ABC):
    """What the run provides to a method: stages, and models that are trained anew.

    Args:
        model: the recommender.
        start: the recommender's weights before tuning.
    """

    def __init__(self, model: LLMRec, start: Mapping[str, Tensor]) -> None:
        self._adapter, self._start = model.adapter, start

    @property
    def untrained(self) -> Stored:
        """Scorer that answers as the model did before tuning."""
        return Stored(self._adapter, lambda: self._start)

    @property
    def start(self) -> Callable[[], Mapping[str, Tensor]] | None:
        """Reads the backbone's weights before tuning; None if tuning does not change them."""
        return None if self._adapter is not None else lambda: self._start

    @abstractmethod
    def stage(self, name: str, settings: Mapping[str, Any]) -> Stage:
        """Make the stage of one part of the method."""

    @abstractmethod
    def fit(self, name: str, rows: NDArray[np.int64], history: NDArray[np.int64]) -> Fit:
        """Train a recommender, or load it from its stage.

        Args:
            name: name of the stage.
            rows: ids of the training rows; early stopping validates on the users of these alone.
            history: ids of the rows that prompts show, [n, k] by row id.
        """

    @abstractmethod
    def fit_adapter(self, name: str, rows: NDArray[np.int64], history: NDArray[np.int64]) -> Fit:
        """Train an adapter on the untuned backbone, or load it from its stage; see :meth:`fit`."""

    @abstractmethod
    def embed(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Train RecBole's BPR on the rows; give its user embeddings, by inner id, [users, d]."""


@dataclass(frozen=True)
class UnlearningTask:
    """One request, as an unlearning method receives it.

    Attributes:
        forget: ids of the rows to forget, sorted.
        retain: ids of the rows that stay, sorted.
        valid: ids of the validation rows of all users but the control users.
        unseen: ids of rows that no model was trained on: rows of control users, or, if there are no
            control users, validation rows of users who stay.
        user, item: inner user and item ids by row id, of all rows.
        forget_history: histories in the prompts of forget rows, [n, k] by row id: those that all
            prompts showed before the request.
        retain_history: histories in the prompts of all other rows, after the request; same shape.
        services: stages and trained models that the run provides.
        seed: seed of everything random in the method.
        show: whether to draw progress bars.
        stage_settings: settings that tell the stages of this task from those of other tasks, see
            :meth:`apart`.
        answered: P(yes) of the model before unlearning, float64 [n] by row id, with
            ``forget_history`` in the prompts; NaN for rows that are not answered yet. Answers that
            the method needs are added. None: no answer is known, and none is kept.
    """

    forget: NDArray[np.int64]
    retain: NDArray[np.int64]
    valid: NDArray[np.int64]
    unseen: NDArray[np.int64]
    user: NDArray[np.int64]
    item: NDArray[np.int64]
    forget_history: NDArray[np.int64]
    retain_history: NDArray[np.int64]
    services: TrainingServices
    seed: int
    show: bool = True
    stage_settings: Mapping[str, Any] = field(default_factory=dict)
    answered: NDArray[np.float64] | None = None

    @property
    def train(self) -> NDArray[np.int64]:
        """Ids of the training rows before the request, sorted."""
        return np.union1d(self.forget, self.retain)

    def stage(self, name: str, settings: Mapping[str, Any]) -> Stage:
        """Make the stage of one part of the method, with this task's settings."""
        return self.services.stage(name, {**settings, **self.stage_settings})

    def apart(self, **settings: Any) -> "UnlearningTask":
        """Copy the task with further settings that tell its stages from those of this one."""
        return replace(self, stage_settings={**self.stage_settings, **settings})
