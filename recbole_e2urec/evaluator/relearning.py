"""Relearning: how fast a model that forgot learns a part of the forgotten rows again.

What was only hidden comes back sooner, and also for rows that are not shown again. Source of the
idea: Golatkar et al., CVPR 2020 (relearn time); Tarun et al., IEEE TNNLS 2023.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbole_e2urec.data.batches import length_grouped_batches
from recbole_e2urec.errors import InputError
from recbole_e2urec.evaluator.labelled import labelled_metrics
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.scorers import Scorer
from recbole_e2urec.trainer.loop import (
    Clock,
    StepRule,
    adamw,
    epoch_seed,
    seed_dropout,
    train_epoch,
)

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class RelearnOptions:
    """The budget, the same for every model; the keys begin with ``relearn_``.

    Attributes:
        epochs: passes over one half of the forget rows; 0 = nothing is relearned.
        learning_rate: AdamW's rate at the first step; it falls linearly to nothing.
        batch_size: rows a step.
    """

    epochs: int
    learning_rate: float
    batch_size: int

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        if self.epochs < 0:
            raise InputError(f"relearn_epochs is {self.epochs}; it must be at least 0")
        if self.batch_size < 1:
            raise InputError(f"relearn_batch_size is {self.batch_size}; give 1 or more")


def halves(rows: Rows, seed: int, most: int | None = None) -> tuple[Rows, Rows]:
    """Draw at most so many rows, and part them at random: what is shown, and the rest; sorted."""
    drawn = np.random.default_rng([seed, len(rows)]).permutation(rows)[:most]
    half = len(drawn) // 2
    return np.sort(drawn[:half]), np.sort(drawn[half:])


class Relearning:
    """One half of the forget rows is learned again, the other half is asked about.

    Args:
        options: the budget.
        forget: row ids; each half is drawn at random and shows every user, as a rule.
        history: what the prompts of these rows show, [n, k] by row id.
        seed: of the halves and of the order of the data.
    """

    def __init__(self, options: RelearnOptions, forget: Rows, history: Rows, seed: int) -> None:
        self.options, self.history, self.seed = options, history, seed
        self.shown, self.rest = halves(forget, seed)

    def curve(self, config: Any, model: LLMRec, scorer: Scorer) -> dict[str, list[Any]] | None:
        """What the model says of the rest, before the first epoch and after each.

        Returns:
            ``steps``, ``auc`` and ``logloss``, lists of one length; None if nothing is relearned.
        """
        if self.options.epochs == 0 or len(self.shown) == 0:
            return None
        assert model.labels is not None  # Original was trained on them
        words, labels = model.language_model.answer_ids, model.labels[self.rest]
        with model.shown(self.history):
            scorers = [scorer, *scorer.further(model, lambda *where: self._learn(model, *where))]
            answers = [one.ask(model, self.rest).yes(words).double() for one in scorers]
        told = [labelled_metrics(config, yes.cpu().numpy(), labels) for yes in answers]
        steps = -(-len(self.shown) // self.options.batch_size)
        return {
            "steps": [steps * epoch for epoch in range(len(told))],
            "auc": [one["auc"] for one in told],
            "logloss": [one["logloss"] for one in told],
        }

    def _learn(
        self, model: LLMRec, adapter: str | None, place: str | None
    ) -> list[dict[str, Tensor]]:
        """Train what answers under the adapter; its weights after every epoch."""
        options, bank, found = self.options, model.bank, []
        rule = StepRule(options.learning_rate, adam_epsilon=model.options.adam_epsilon)
        optimizer = adamw(bank.parameters(place), rule)
        lengths = model.table.lengths(self.shown)
        for epoch in range(options.epochs):
            generator = np.random.default_rng(epoch_seed(self.seed, epoch))
            batches = length_grouped_batches(lengths, options.batch_size, generator)
            clock = Clock("relearning", epoch, options.epochs, show=False)
            with (
                torch.random.fork_rng(devices=[]),
                bank.training(adapter, backbone=place is None),
            ):
                seed_dropout(self.seed, epoch)
                train_epoch(
                    optimizer,
                    batches,
                    lambda part: model.answer_losses(self.shown[part]),
                    clock,
                    rule,
                )
            found.append(bank.state(place))
        return found
