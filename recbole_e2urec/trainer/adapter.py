"""Training of one adapter, epoch by epoch, in a stage: what gradient unlearning is made of."""

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
        epochs: number of epochs; a fraction cuts the last one.
        rule: how a gradient becomes a step.
        seed: of dropout.
        batches: the batches of an epoch, by its number; must depend on the number alone.
        losses: loss terms of a batch, see :func:`train_epoch`.
        show: whether to draw progress bars.
        spent: seconds that preparation took; they are part of the cost.
        tokens: int64 [m], the only tokens that adapted embeddings learn; None: all of them.
        alone: whether nothing but these tokens learns.
        dropout: whether the backbone drops activations.
        stop: share of the steps of all epochs after which learning ends.
        begin: called before the first step; may change the weights.
        end: called after the last one; may change them as well.
        found: settings that were found for it; they are part of the summary.
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
    found: Mapping[str, float] = field(default_factory=dict)

    def clock(self, name: str, epoch: int, steps: int) -> EpochPosition:
        """Where an epoch of so many steps lies in its stage, and how many of them are taken."""
        end = steps_until(self.stop, steps_until(self.epochs, steps))
        return EpochPosition(name, epoch, self.epochs, self.show, max(0, end - epoch * steps))


def train_adapter(
    model: LLMRec, name: str | None, stage: Stage, plan: AdapterTrainingPlan
) -> dict[str, Any]:
    """Train the adapter ``name``, resume it, or load what a finished stage holds.

    No other weight learns; None trains the backbone's own. Files are written after every epoch.

    Returns:
        Its summary: ``seconds``, ``steps``, ``epochs``, ``trained_parameters``,
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
        if epoch + 1 < plan.epochs:  # or the outcome follows at once
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
        "found": dict(plan.found),
    }
    stage.finish(model.bank.state(name), summary)
    stage.curves.close()
    return summary


def _seconds(work: Callable[[], None]) -> float:
    """Do some work; gives the seconds that it took."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


class Fit(NamedTuple):
    """A recommender that was trained on some rows, from the weights that Original began with."""

    scorer: Scorer
    cost: Mapping[str, Any]
    digest: str  # names its stage
    weights: Callable[[], Mapping[str, Tensor]]  # of what was trained


class TrainingServices(ABC):
    """What a method can ask the run for: stages, and models that are trained anew.

    Args:
        model: the recommender.
        start: its weights before tuning.
    """

    def __init__(self, model: LLMRec, start: Mapping[str, Tensor]) -> None:
        self._adapter, self._start = model.adapter, start

    @property
    def untrained(self) -> Stored:
        """Answers as the model did before it was tuned."""
        return Stored(self._adapter, lambda: self._start)

    @property
    def start(self) -> Callable[[], Mapping[str, Tensor]] | None:
        """The backbone's weights before tuning; None where tuning leaves them alone."""
        return None if self._adapter is not None else lambda: self._start

    @abstractmethod
    def stage(self, name: str, settings: Mapping[str, Any]) -> Stage:
        """Make the stage of a part of the method."""

    @abstractmethod
    def fit(self, name: str, rows: NDArray[np.int64], history: NDArray[np.int64]) -> Fit:
        """Train a recommender, or take it from its stage.

        Args:
            name: of its stage.
            rows: ids of the training rows; only their own users validate it.
            history: what prompts show, [n, k] by row id.
        """

    @abstractmethod
    def fit_adapter(self, name: str, rows: NDArray[np.int64], history: NDArray[np.int64]) -> Fit:
        """Do the same for an adapter on the backbone as it was before tuning."""

    @abstractmethod
    def embed(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """User embeddings of RecBole's BPR trained on the rows, by inner user id, [users, d]."""


@dataclass(frozen=True)
class UnlearningTask:
    """What an unlearner works with.

    Attributes:
        forget: row ids to forget, sorted.
        retain: row ids that stay, sorted.
        valid: validation row ids, of all users but the control users.
        unseen: row ids that no model was trained on: of control users, or where none are kept out,
            validation rows of users who stay.
        user, item: inner user and item ids by row id, of all rows.
        forget_history: histories that the prompts of forget rows show, [n, k] by row id; they are
            those that all prompts showed before the request.
        retain_history: the same for all other rows, after it.
        services: what the run can do for a method.
        seed: of everything random in the method.
        show: whether to draw progress bars.
        stage_settings: what tells stages of this task from those of others, see :meth:`apart`.
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

    @property
    def train(self) -> NDArray[np.int64]:
        """Row ids of the training set before the request, sorted."""
        return np.union1d(self.forget, self.retain)

    def stage(self, name: str, settings: Mapping[str, Any]) -> Stage:
        """The stage of a part of the method."""
        return self.services.stage(name, {**settings, **self.stage_settings})

    def apart(self, **settings: Any) -> "UnlearningTask":
        """The same request; these settings tell its stages from those of this one."""
        return replace(self, stage_settings={**self.stage_settings, **settings})
