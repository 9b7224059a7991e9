"""Attacks on an unlearned model: membership inference, relearning, rounding, both models.

Membership inference tells training rows from others by their loss. Relearning trains the model
again on one half of the forget rows and asks about the other half. What was only hidden comes back
sooner, also for rows that are not shown again. :class:`Relearning` measures this after each epoch,
:func:`step_curve` after single steps. The idea comes from Golatkar et al., CVPR 2020 (relearn time)
and Tarun et al., IEEE TNNLS 2023.

Rounding the weights can undo an unlearning that changed them by less than a step (Zhang et al.,
ICLR 2025). Whoever sees the answers of the models before and after can look for those that changed
(Chen et al., ACM CCS 2021).
"""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.data.prompt_table import length_grouped_batches
from recbole_e2urec.evaluator.metrics import UserBootstrap, interval, labelled_metrics
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.losses import log_losses
from recbole_e2urec.model.scorers import Scorer
from recbole_e2urec.trainer.loop import (
    EpochPosition,
    StepRule,
    Stream,
    adamw,
    generator_of,
    seed_dropout,
    train_epoch,
)

Rows = NDArray[np.int64]
# Points of a recorded ROC curve; as many are below 1 % as between 1 % and 10 %.
FALSE_POSITIVE_RATES = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0
)  # fmt: skip
LOSS_EDGES = tuple(round(0.1 * tenth, 1) for tenth in range(31))  # nats, 0 to 3
# Settings of step_curve.
CURVE_STEPS = (0, 1, 2, 4, 8, 16)  # steps after which the other half is asked about
CURVE_ROWS = 128  # most rows drawn; one half of them is shown
CURVE_BATCH_SIZE = 16  # rows a step, or all that are shown if they are fewer
CURVE_LEARNING_RATE = 0.001  # AdamW's rate at the first step; it falls linearly to zero
ROUNDED_BITS = (8, 4)  # to which weights are rounded
RESAMPLING_SEED = 0  # the same for all runs, so that intervals of two runs can be compared
Values = NDArray[np.float64]


def membership_auc(
    member_losses: NDArray[np.float64], other_losses: NDArray[np.float64]
) -> float:  # [m], [k] -> number
    """Compute the AUC of an attack that takes rows with a small loss for members.

    The attack is by Yeom et al., 2018. 0.5 = members cannot be told from others. The target for an
    unlearned model is Retrain's value: a value far below it means that too much was forgotten. The
    result is NaN if either group has no rows.
    """
    if len(member_losses) == 0 or len(other_losses) == 0:
        return float("nan")
    truth = np.r_[np.ones(len(member_losses)), np.zeros(len(other_losses))]
    return float(roc_auc_score(truth, -np.r_[member_losses, other_losses]))


def membership_roc(
    member_losses: NDArray[np.float64], other_losses: NDArray[np.float64]
) -> list[float]:  # [m], [k] -> [len(FALSE_POSITIVE_RATES)]
    """Compute the share of members that the attack finds at each of ``FALSE_POSITIVE_RATES``."""
    return [membership_tpr(member_losses, other_losses, fpr) for fpr in FALSE_POSITIVE_RATES]


def membership_tpr(
    member_losses: NDArray[np.float64], other_losses: NDArray[np.float64], fpr: float = 0.01
) -> float:  # [m], [k] -> number
    """Compute the share of members found when at most a share ``fpr`` of the others is accused.

    An attack that is sure about a few rows is worse than its AUC shows (Carlini et al., IEEE S&P
    2022). A result equal to ``fpr`` is no better than chance. The result is NaN if either group has
    no rows.
    """
    if len(member_losses) == 0 or len(other_losses) == 0:
        return float("nan")
    allowed = int(np.floor(fpr * len(other_losses)))
    ranked = np.sort(other_losses)
    threshold = ranked[allowed] if allowed < len(ranked) else np.inf
    return float((member_losses < threshold).mean())


def histogram(losses: NDArray[np.float64]) -> list[float]:  # [n] -> [len(LOSS_EDGES)]
    """Compute the share of losses between successive ``LOSS_EDGES``; the last bin is open."""
    counts = np.histogram(losses, [*LOSS_EDGES, np.inf])[0]
    return [float(count) for count in counts / max(1, len(losses))]


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
    """Draw at most ``most`` rows and split them at random: rows to show, and the rest; sorted."""
    sample = generator_of(seed, Stream.RELEARNED_HALF, len(rows)).permutation(rows)[:most]
    half = len(sample) // 2
    return np.sort(sample[:half]), np.sort(sample[half:])


class Relearning:
    """Trains on one half of the forget rows again and asks about the other half.

    Args:
        options: the training budget.
        forget: row ids; each half is drawn at random, and usually has rows of every user.
        history: histories in the prompts of these rows, [n, k] by row id.
        seed: seed of the halves and of the data order.
    """

    def __init__(self, options: RelearnOptions, forget: Rows, history: Rows, seed: int) -> None:
        self.options, self.history, self.seed = options, history, seed
        self.shown, self.rest = halves(forget, seed)

    def curve(self, config: Any, model: LLMRec, scorer: Scorer) -> dict[str, list[Any]] | None:
        """Measure the model on the rows not shown, before the first epoch and after each epoch.

        Args:
            config: the run's settings.
            model: the model.
            scorer: what answers.

        Returns:
            ``steps``, ``auc`` and ``logloss``, lists of equal length; None if nothing is relearned.
        """
        if self.options.epochs == 0 or len(self.shown) == 0:
            return None
        assert model.labels is not None  # Original was trained on them
        answer_ids, labels = model.language_model.answer_ids, model.labels[self.rest]
        scorers = [scorer, *self.further(model, scorer)]
        with model.using_history(self.history):
            answers = [each.ask(model, self.rest).yes(answer_ids).double() for each in scorers]
        metrics = [labelled_metrics(config, yes.cpu().numpy(), labels) for yes in answers]
        steps = -(-len(self.shown) // self.options.batch_size)
        return {
            "steps": [steps * epoch for epoch in range(len(metrics))],
            "auc": [epoch_metrics["auc"] for epoch_metrics in metrics],
            "logloss": [epoch_metrics["logloss"] for epoch_metrics in metrics],
        }

    def further(self, model: LLMRec, scorer: Scorer) -> list[Scorer]:
        """Return what answers after each epoch; the model is restored afterwards."""
        with model.using_history(self.history):
            return scorer.further(model, lambda *where: self._learn(model, *where))

    def _learn(
        self, model: LLMRec, adapter: str | None, place: str | None
    ) -> list[dict[str, Tensor]]:
        """Train the weights at ``place``, which answer under the adapter.

        Returns:
            The weights after each epoch.
        """
        options, bank, states = self.options, model.bank, []
        rule = StepRule(options.learning_rate, adam_epsilon=model.options.adam_epsilon)
        optimizer = adamw(bank.parameters(place), rule)
        lengths = model.table.lengths(self.shown)
        for epoch in range(options.epochs):
            generator = generator_of(self.seed, Stream.RELEARNING_ORDER, epoch)
            batches = length_grouped_batches(lengths, options.batch_size, generator)
            position = EpochPosition("relearning", epoch, options.epochs, show=False)
            with (
                torch.random.fork_rng(devices=[]),
                bank.training(adapter, backbone=place is None),
            ):
                seed_dropout(self.seed, epoch, Stream.RELEARNING_DROPOUT)
                train_epoch(
                    optimizer,
                    batches,
                    lambda part: model.answer_losses(self.shown[part]),
                    position,
                    rule,
                )
            states.append(bank.state(place))
        return states


class StepCurve(NamedTuple):
    """How fast a model relearns.

    Attributes:
        steps: numbers of training steps.
        loss: mean loss of the rows not shown after each of ``steps``, in nats.
        shown: number of rows that the model was trained on.
        asked: number of rows not shown.
    """

    steps: list[int]
    loss: list[float]
    shown: int
    asked: int


def step_curve(model: LLMRec, rows: Rows, history: Rows, seed: int) -> StepCurve | None:
    """Train the weights that Original's training changed on one half, and ask about the other.

    Args:
        model: answers with ``model.adapter``; its weights are restored afterwards, bit for bit.
        rows: row ids.
        history: histories in their prompts, [n, k] by row id.
        seed: seed of the halves and of the order in which rows are shown.

    Returns:
        The curve; None if there are fewer than two rows.
    """
    shown, rest = halves(rows, seed, CURVE_ROWS)
    if len(shown) == 0:
        return None
    weights = model.bank.parameters(model.adapter)
    rule = StepRule(CURVE_LEARNING_RATE, adam_epsilon=model.options.adam_epsilon)
    optimizer = adamw(weights, rule)
    batches, losses = _step_batches(shown, seed), []
    with model.using_history(history), model.bank.restored_after(model.adapter):
        for step in range(CURVE_STEPS[-1] + 1):
            if step in CURVE_STEPS:
                losses.append(_mean_loss(model, rest))
            if step < CURVE_STEPS[-1]:
                with torch.random.fork_rng(devices=[]), model.bank.training(model.adapter):
                    seed_dropout(seed, step, Stream.RELEARNING_DROPOUT)
                    position = EpochPosition("relearning", step, CURVE_STEPS[-1], show=False)
                    train_epoch(optimizer, [batches[step]], model.answer_losses, position, rule)
    return StepCurve(list(CURVE_STEPS), losses, len(shown), len(rest))


def _step_batches(shown: Rows, seed: int) -> list[Rows]:
    """Return the rows of each step; every row is shown once before any is shown again."""
    size = min(CURVE_BATCH_SIZE, len(shown))
    generator = generator_of(seed, Stream.RELEARNING_ORDER, len(shown))
    passes = -(-CURVE_STEPS[-1] * size // len(shown))
    order: Any = np.concatenate([generator.permutation(shown) for _ in range(passes)])
    return [order[step * size : (step + 1) * size] for step in range(CURVE_STEPS[-1])]


def _mean_loss(model: LLMRec, rows: Rows) -> float:
    assert model.labels is not None  # the model was trained on them
    yes = model.answer(rows, None).double().cpu().numpy()
    return float(log_losses(yes, model.labels[rows]).mean())


def rounded(weight: Tensor, bits: int) -> Tensor:  # [..., columns] -> the same shape
    """Round a matrix to the nearest multiples of a step for each row.

    A row's step is its largest absolute value / (2 ** (bits - 1) - 1), so that 8 bits leave 255
    different values and 4 bits leave 15.
    """
    values = weight.float()
    step = values.abs().amax(dim=-1, keepdim=True) / (2 ** (bits - 1) - 1)
    multiples = torch.round(values / torch.where(step > 0, step, 1.0))
    return (multiples * step).to(weight.dtype)


def rounded_answers(model: LLMRec, rows: Rows, history: Rows) -> dict[int, Values]:
    """Ask the model with rounded weights.

    An adapter that was tuned is merged into the backbone first, as for a model that is published.
    Every matrix is rounded; vectors, such as norms and biases, stay as they are.

    Args:
        model: answers with ``model.adapter``; its weights are restored afterwards, bit for bit.
        rows: row ids.
        history: histories in their prompts, [n, k] by row id.

    Returns:
        P(yes) by row id, NaN for other rows, for each of ``ROUNDED_BITS``; empty if the backbone
        is quantised already.
    """
    answers: dict[int, Values] = {}
    if getattr(model.language_model.model, "is_quantized", False):
        return answers
    for bits in ROUNDED_BITS:
        yes = np.full(len(history), np.nan)
        with (
            model.using_history(history),
            model.bank.changed_matrices(model.adapter, partial(rounded, bits=bits)),
        ):
            yes[rows] = model.yes(model.hidden(rows)).cpu().numpy()
        answers[bits] = yes
    return answers


def way_back(after: Values, after_rounded: Values, before_rounded: Values) -> Values:
    """Compute how far rounding takes the unlearned model back, as a share of the way to Original.

    Each argument says how much larger a model's mean loss is on forgotten rows than on rows that no
    model saw. Rounding that harms all rows alike therefore counts as nothing. Original is rounded,
    too: what its rounded weights have lost cannot come back.

    Args:
        after: of the unlearned model, [n].
        after_rounded: of the unlearned model with rounded weights, [n].
        before_rounded: of Original with rounded weights, [n].

    Returns:
        0 = all stays forgotten, 1 = it is known as well as by the rounded Original, [n]. NaN where
        the two do not differ.
    """
    way = after - before_rounded
    return np.divide(after - after_rounded, way, out=np.full_like(way, np.nan), where=way != 0)


def change_of_logit(before: Values, after: Values) -> Values:  # P(yes) [n], [n] -> [n]
    """Compute the absolute change of the logit of P(yes)."""
    clipped = (np.clip(yes, 1e-8, 1 - 1e-8) for yes in (before, after))
    first, second = (np.log(yes) - np.log1p(-yes) for yes in clipped)
    return np.abs(second - first)


def told_apart(
    scores: Values, users: Rows, is_sought: NDArray[np.bool_]
) -> dict[str, Any] | None:  # [n], [n], [n] -> AUC
    """Measure how well a score tells some users from others; a user's score is its rows' mean.

    Args:
        scores: large for rows of the users who are sought, [n].
        users: inner user id of each row, [n].
        is_sought: whether the row's user is sought; the same for all rows of a user, [n].

    Returns:
        ``auc`` (0.5 = not at all, 1 = all of them), and ``interval``, 95 %, over resampled users.
        None if there are no users on one side.
    """
    distinct, first, index = np.unique(users, return_index=True, return_inverse=True)
    means = np.bincount(index, scores) / np.bincount(index)
    sought = is_sought[first]
    if sought.all() or not sought.any():
        return None
    resampled = UserBootstrap(distinct, sought.astype(float), RESAMPLING_SEED).auc(means)
    auc = membership_auc(-means[sought], -means[~sought])
    return {"auc": auc, "interval": interval(resampled)}
