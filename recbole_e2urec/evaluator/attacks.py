"""Attacks on a model that forgot: membership inference and relearning.

What was only hidden comes back after a step or two, also for rows that are not shown; see
:class:`Relearning`, which does the same by epochs.

What was only hidden comes back sooner, and also for rows that are not shown again. Source of the
idea: Golatkar et al., CVPR 2020 (relearn time); Tarun et al., IEEE TNNLS 2023.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.data.prompt_table import length_grouped_batches
from recbole_e2urec.evaluator.metrics import labelled_metrics
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.scorers import Scorer
from recbole_e2urec.trainer.loop import (
    EpochPosition,
    StepRule,
    adamw,
    epoch_seed,
    seed_dropout,
    train_epoch,
)

# Where a ROC curve is written down: few points, and as many below 1 % as between 1 % and 10 %.
FALSE_POSITIVE_RATES = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0
)  # fmt: skip
LOSS_EDGES = tuple(round(0.1 * place, 1) for place in range(31))  # nats, 0 to 3


def answer_losses(
    yes: NDArray[np.float64], labels: NDArray[np.float32]
) -> NDArray[np.float64]:  # [n], [n] -> [n]
    """Cross-entropy of the true answer in nats, from P(yes)."""
    true = np.where(labels == 1, yes, 1 - yes)
    return -np.log(np.clip(true, np.finfo(np.float64).tiny, None))


def membership_auc(
    member_losses: NDArray[np.float64], other_losses: NDArray[np.float64]
) -> float:  # [m], [k] -> number
    """AUC of an attack that calls rows with a small loss members (Yeom et al., 2018).

    0.5 = members cannot be told apart. For an unlearned model the target is Retrain's value: far
    below it means that too much was forgotten. NaN when a side has no rows.
    """
    if len(member_losses) == 0 or len(other_losses) == 0:
        return float("nan")
    truth = np.r_[np.ones(len(member_losses)), np.zeros(len(other_losses))]
    return float(roc_auc_score(truth, -np.r_[member_losses, other_losses]))


def membership_roc(
    member_losses: NDArray[np.float64], other_losses: NDArray[np.float64]
) -> list[float]:  # [m], [k] -> [len(FALSE_POSITIVE_RATES)]
    """Share of members that the attack finds at each of ``FALSE_POSITIVE_RATES``."""
    return [membership_tpr(member_losses, other_losses, fpr) for fpr in FALSE_POSITIVE_RATES]


def histogram(losses: NDArray[np.float64]) -> list[float]:  # [n] -> [len(LOSS_EDGES)]
    """Share of the losses from each of ``LOSS_EDGES`` to the next; the last part is open."""
    counts = np.histogram(losses, [*LOSS_EDGES, np.inf])[0]
    return [float(count) for count in counts / max(1, len(losses))]


def membership_tpr(
    member_losses: NDArray[np.float64], other_losses: NDArray[np.float64], fpr: float = 0.01
) -> float:  # [m], [k] -> number
    """Share of members that the attack finds when it accuses at most this share of the others.

    Carlini et al., IEEE S&P 2022: an attack that is sure about a few is worse than an AUC shows.
    ``fpr`` itself = no better than chance. NaN when a side has no rows.
    """
    if len(member_losses) == 0 or len(other_losses) == 0:
        return float("nan")
    allowed = int(np.floor(fpr * len(other_losses)))
    ranked = np.sort(other_losses)
    bound = ranked[allowed] if allowed < len(ranked) else np.inf
    return float((member_losses < bound).mean())


Rows = NDArray[np.int64]


@option_class(prefix="relearn_")
class RelearnOptions:
    """The budget, the same for every model."""

    epochs: int = option(
        "Passes over one half of the forgotten rows; 0 = nothing is relearned.", ge=0
    )
    learning_rate: float = option(
        "AdamW's learning rate at the first step; it falls linearly to zero."
    )
    batch_size: int = option("Rows in a step.", ge=1)


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
        with model.using_history(self.history):
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
            clock = EpochPosition("relearning", epoch, options.epochs, show=False)
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


POINTS = (0, 1, 2, 4, 8, 16)  # steps after which the other half is asked about
MOST = 128  # rows, of which one half is shown
BATCH = 16  # rows a step, or all that are shown
RATE = 0.001  # of AdamW at the first step; it falls linearly to nothing


class StepCurve(NamedTuple):
    """Mean loss of the rows that are not shown, in nats, after each of ``steps``."""

    steps: list[int]
    loss: list[float]
    shown: int
    asked: int


def step_curve(model: LLMRec, rows: Rows, history: Rows, seed: int) -> StepCurve | None:
    """Train what Original's training reached on one half of the rows, and ask about the other.

    Args:
        model: answers by ``model.adapter``; its weights are as before afterwards, bit for bit.
        rows: row ids.
        history: what their prompts show, [n, k] by row id.
        seed: of the halves and of the order in which rows are shown.

    Returns:
        The curve; None where there are fewer than two rows.
    """
    shown, rest = halves(rows, seed, MOST)
    if len(shown) == 0:
        return None
    weights = model.bank.parameters(model.adapter)
    rule = StepRule(RATE, adam_epsilon=model.options.adam_epsilon)
    optimizer = adamw(weights, rule)
    batches, losses = _batches(shown, seed), []
    with model.using_history(history), model.bank.restored_after(model.adapter):
        for step in range(POINTS[-1] + 1):
            if step in POINTS:
                losses.append(_loss(model, rest))
            if step < POINTS[-1]:
                with torch.random.fork_rng(devices=[]), model.bank.training(model.adapter):
                    seed_dropout(seed, step)
                    clock = EpochPosition("relearning", step, POINTS[-1], show=False)
                    train_epoch(optimizer, [batches[step]], model.answer_losses, clock, rule)
    return StepCurve(list(POINTS), losses, len(shown), len(rest))


def _batches(shown: Rows, seed: int) -> list[Rows]:
    """Rows of each step: every row is shown once before any is shown again."""
    size = min(BATCH, len(shown))
    generator = np.random.default_rng([seed, len(shown)])
    passes = -(-POINTS[-1] * size // len(shown))
    order: Any = np.concatenate([generator.permutation(shown) for _ in range(passes)])
    return [order[step * size : (step + 1) * size] for step in range(POINTS[-1])]


def _loss(model: LLMRec, rows: Rows) -> float:
    assert model.labels is not None  # the model was trained on them
    yes = model.answer(rows, None).double().cpu().numpy()
    return float(answer_losses(yes, model.labels[rows]).mean())
