"""The teachers of gradient unlearning.

- The augmented model: Original, trained further on the forget set.
- Negation: Original minus what it changes when it learns the forget rows once more.
- Token reset: Original with the embeddings of some tokens put back to their start.
- Held-out models: models that were each trained without one part of the users.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.errors import InputError
from recbole_e2urec.model.backbones.lora import interpolated
from recbole_e2urec.model.backbones.merging import reset_forget_tokens
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.scorers import Adapted, CachedAnswers, Learn, ModelOutput, Scorer, Stored
from recbole_e2urec.trainer.adapter import AdapterTrainingPlan, Fit, UnlearningTask, train_adapter
from recbole_e2urec.trainer.batches import ForgetRetainBatches
from recbole_e2urec.trainer.shards import random_shards
from recbole_e2urec.trainer.strength import TargetLoss, strength_reaching, target_loss
from recbole_e2urec.trainer.student import JointOptions, StepOptions, Student, StudentOptions

Rows = NDArray[np.int64]
Shares = NDArray[np.float32]
AUGMENTED = "augmented"  # teacher and stage
HELD_OUT = "held_out"  # teacher
DIRECTION = "direction"  # stage
LEAST_STRENGTH = 0.1  # each request changes something, even if no row seems to be remembered
MOST_STRENGTH = 64.0


@option_class()
class AugmentedOptions(StudentOptions):
    """How the augmented model is trained."""

    augmented_learning_rate: float = option(
        "AdamW's learning rate at the augmented model's first step; it trains what Original "
        "trained."
    )
    augmented_epochs: float = option(
        "Passes of the augmented model over the student's forget rows; a fraction cuts the last "
        "pass short.",
        ge=0,
        allow_inf_nan=False,
    )


def teach_augmented(student: Student) -> dict[str, Any]:
    """Train Original further on the forget set, and cache its answers there as a teacher's.

    With ``tuning: full`` all weights learn, and they are restored after the teacher has answered.
    With ``tuning: lora`` a copy of Original's adapter learns.

    Args:
        student: the student to teach; its options are :class:`AugmentedOptions`.

    Returns:
        The cost: the summary of :func:`train_adapter`.
    """
    options: Any = student.options
    model, request = student.model, student.request
    plan, settings = _plan_on_forget_rows(model, student.pairing, options)
    stage = request.stage(AUGMENTED, {**settings, "share": options.unlearn_share})
    with _augmentable(model, request.seed) as name:
        with model.using_history(request.forget_history):
            cost = train_adapter(model, name, stage, plan)
        student.teach(AUGMENTED, Adapted(name), forget=True)
    return cost


@contextmanager
def _augmentable(model: LLMRec, seed: int) -> Iterator[str | None]:
    """Provide the weights of the augmented model: a copy of Original's adapter, or all weights.

    In the latter case, the backbone's own weights learn, and they are restored afterwards.

    Yields:
        The name of the adapter; None for the backbone.
    """
    if model.adapter is not None:
        model.fresh_adapter(AUGMENTED, seed)
        yield AUGMENTED
        return
    with model.bank.restored_after(None):
        yield None


@option_class()
class NegationOptions(StepOptions):
    """How the forget rows are learned, and how many times that change is subtracted."""

    augmented_learning_rate: float = option(
        "AdamW's learning rate at the first step of learning the forget rows."
    )
    augmented_epochs: float = option(
        "Passes over the forget rows to learn them; a fraction cuts the last pass short.",
        ge=0,
        allow_inf_nan=False,
    )
    least_steps: int = option(
        "Fewest steps in a pass over the forget rows; a small request gets smaller batches.", ge=1
    )
    strength: float | None = option(
        "How many times to take off what was learned of the forget rows; ~ = as often as they are "
        "to lose by what control users predict: docs/reference/methods.md.",
        gt=0,
        le=MOST_STRENGTH,
    )

    def batch_size(self, rows: int) -> int:
        """Choose the number of forget rows in a step for a request of ``rows`` forget rows."""
        return max(1, min(self.unlearn_batch_size, ceil(rows / self.least_steps)))


class Direction(NamedTuple):
    """How the weights changed when the forget rows were learned.

    Attributes:
        place: name of the adapter that learned; None: the backbone's own weights learned.
        start: the weights before, with which the model answers as Original does.
        end: the weights afterwards.
        cost: cost of the training, as :func:`train_adapter` returns it.
    """

    place: str | None
    start: Mapping[str, Tensor]
    end: Mapping[str, Tensor]
    cost: dict[str, Any]

    def at(self, share: float) -> dict[str, Tensor]:
        """Interpolate the weights: 0 = Original, 1 = as learned, -1 = as far the opposite way."""
        return interpolated(self.start, self.end, share)

    def scorer(self, share: float) -> Stored:
        """Make the scorer that answers with the weights of :meth:`at`."""
        return Stored(self.place, lambda: self.at(share))


def learn_direction(
    model: LLMRec, request: UnlearningTask, options: NegationOptions, adapter: str | None = None
) -> Direction:
    """Train Original further on the forget rows, or load the result from its stage.

    Args:
        model: Original; its answers are the same afterwards.
        request: what to forget.
        options: how to learn.
        adapter: name of a new adapter that learns: a fresh one with ``tuning: full``, a copy of
            Original's with ``tuning: lora``. None: the weights that Original trained learn.

    Returns:
        How the weights changed.
    """
    size = options.batch_size(len(request.forget))
    pairing = ForgetRetainBatches(request, model.table, size)
    plan, settings = _plan_on_forget_rows(model, pairing, options)
    if adapter is not None:
        model.fresh_adapter(adapter, request.seed)
    place = adapter or model.adapter
    stage = request.stage(DIRECTION, {**settings, "adapter": adapter is not None})
    start = model.bank.state(place)
    restoring = nullcontext() if adapter is not None else model.bank.restored_after(place)
    with restoring, model.using_history(request.forget_history):
        cost = train_adapter(model, place, stage, replace(plan, dropout=False))
        return Direction(place, start, model.bank.state(place), cost)


def _plan_on_forget_rows(
    model: LLMRec, pairing: ForgetRetainBatches, options: AugmentedOptions | NegationOptions
) -> tuple[AdapterTrainingPlan, dict[str, Any]]:
    """Plan to train Original further on the forget rows, and list the settings that decide it."""
    request, epochs = pairing.request, options.augmented_epochs
    rule = options.rule(options.augmented_learning_rate, model.options.adam_epsilon)
    plan = AdapterTrainingPlan(
        epochs,
        rule,
        request.seed,
        lambda epoch: [step.forget for step in pairing.steps(epoch, joint=False)],
        model.answer_losses,
        request.show,
    )
    return plan, {**asdict(rule), "epochs": epochs, "batch_size": pairing.batch_size}


def negation_strength(
    model: LLMRec,
    request: UnlearningTask,
    direction: Direction,
    strength: float | None,
    exact: bool = True,
) -> tuple[float, TargetLoss | None]:
    """Choose how many times to subtract the change from Original.

    Args:
        model: Original.
        request: what to forget, at least one row.
        direction: how the weights changed when the forget rows were learned.
        strength: the strength, if it is fixed; None: search for the one that reaches the target
            loss.
        exact: see :func:`strength_reaching`.

    Returns:
        The strength and the target loss; no target if the strength is fixed.
    """
    if strength is not None:
        return strength, None
    target = target_loss(model, request)
    with model.bank.active(direction.place):  # each strength's answers would switch to it and back
        reached = strength_reaching(
            model, request, target, lambda share: direction.scorer(-share), MOST_STRENGTH, exact
        )
    return max(LEAST_STRENGTH, reached), target


def token_reset_scorer(
    model: LLMRec, request: UnlearningTask, tokens: Tensor
) -> Callable[[float], Stored]:
    """Make a scorer that answers as Original with some tokens reset.

    See :func:`reset_forget_tokens`. For forget-only tokens, such as forgotten users' names, the
    result is close to Retrain's embeddings, but it is computed from Original and its start weights
    alone.

    Args:
        model: Original.
        request: gives access to the weights before training and to Original's training rows.
        tokens: token ids, int64 [m]; if there are none, the scorer answers as Original.

    Returns:
        A function from the overshoot to the scorer. The overshoot is how much further the tokens
        move, as a share of the way; -1 leaves them where Original has them.
    """
    unshown = unshown_tokens(model, request)  # once, because it reads all training prompts

    def scorer(overshoot: float) -> Stored:
        def read() -> Mapping[str, Tensor]:
            start, state = request.services.untrained.read(), model.bank.state(model.adapter)
            return reset_forget_tokens(
                model.language_model, state, start, tokens, unshown, overshoot
            )

        return Stored(model.adapter, read)

    return scorer


def unshown_tokens(model: LLMRec, request: UnlearningTask) -> Tensor:
    """Find the tokens that no prompt of Original's training shows, int64 [u], sorted.

    Special tokens are left out. So are the answer words, because every step trains them. If a
    served model has forgotten earlier requests, the words of these requests are included, with the
    embeddings that the requests left.
    """
    lm = model.language_model
    shown = model.table.with_history(request.forget_history).tokens(request.train)
    around = [lm.pad_id, *lm.prefix_ids, *lm.suffix_ids, *lm.codec.tokenizer.all_special_ids]
    words: Any = lm.model.get_input_embeddings()
    every = np.arange(len(words.weight))
    return torch.from_numpy(np.setdiff1d(every, [*shown, *around, *lm.answer_ids]))


class Chosen(Scorer):
    """Several models, each of which answers for some users.

    Args:
        members: scorers that answer.
        user: inner user id by row id, of all rows.
        shares: weight of each member's logits in a user's rows, [users, members], by inner user id;
            each row of the matrix sums to 1. A member with weight 0 is not asked.
    """

    def __init__(self, members: Sequence[Scorer], user: Rows, shares: Shares) -> None:
        self.members, self.user, self.shares = list(members), user, shares

    def ask(self, model: LLMRec, rows: Rows, items: Rows | None = None) -> CachedAnswers:
        """See :meth:`Scorer.ask`."""
        shares = self.shares[self.user[rows]]
        voices = [
            voice
            for member, share in zip(self.members, shares.T, strict=True)
            for voice in _heard(member, model, rows, items, share > 0)
        ]
        return CachedAnswers(voices, torch.from_numpy(shares).to(voices[0].states.device))

    def further(self, model: LLMRec, learn: Learn) -> list[Scorer]:
        """See :meth:`Scorer.further`; every member learns all of it."""
        parts = zip(*(member.further(model, learn) for member in self.members), strict=True)
        return [Chosen(members, self.user, self.shares) for members in parts]


def _heard(
    scorer: Scorer, model: LLMRec, rows: Rows, items: Rows | None, chosen: NDArray[np.bool_]
) -> list[ModelOutput]:
    """Ask a single model about the chosen rows; the states of all other rows are zeros."""
    (voice,) = scorer.ask(model, rows[chosen], None if items is None else items[chosen]).voices
    states: Tensor = voice.states.new_zeros(len(rows), voice.states.shape[1])
    states[torch.from_numpy(chosen).to(states.device)] = voice.states
    return [ModelOutput(states, voice.head)]


@option_class()
class CrossFitOptions(JointOptions):
    """How users are divided into parts, and how the student learns."""

    parts: int = option(
        "Parts of the users; so many models are trained once for an Original, each without one "
        "part. Two together cost as much as Original, k of them k - 1 times that.",
        ge=2,
    )


class CrossFitted(NamedTuple):
    """Models that were each trained without one part of the users.

    Attributes:
        held_out_model: answers for each user with the models that never saw a row of that user.
        fits: the models. They are trained once for an Original, before any request.
    """

    held_out_model: Chosen
    fits: list[Fit]

    @property
    def costs(self) -> list[dict[str, Any]]:
        """Cost of training each model."""
        return [dict(fit.cost) for fit in self.fits]


def cross_fit(request: UnlearningTask, parts: int) -> CrossFitted:
    """For each part of the training users, train a model without it, or load it from its stage.

    The seed decides the parts. A model has Original's start weights and settings, and Original's
    training rows, rows to forget included, except those of one part. The models are therefore the
    same for each request on an Original. Early stopping of a model uses the rows of its own users
    alone. For users whom Original was not trained on, all models count as held out.

    Args:
        request: gives access to the training rows and the training services.
        parts: number of parts; fewer if there are fewer users.

    Raises:
        InputError: the training rows are of a single user.
    """
    user, train = request.user, request.train
    members = random_shards(user[train], request.seed, parts)
    if len(members) < 2:
        raise InputError("parts: the training rows are of one user; who else is to be learned from")
    lacking = np.zeros((user.max() + 1, len(members)), dtype=np.float32)
    fits = []
    for number, users in enumerate(members):
        lacking[users, number] = 1
        others = train[~np.isin(user[train], users)]
        fits.append(request.services.fit(f"Without{number}", others, request.forget_history))
    lacking[lacking.sum(axis=1) == 0] = 1
    shares = lacking / lacking.sum(axis=1, keepdims=True)
    held_out_model = Chosen([fit.scorer for fit in fits], user, shares)
    return CrossFitted(held_out_model, fits)


def teach_held_out(student: Student) -> CrossFitted | None:
    """Cache the held-out model's answers to the forget rows, as the teacher ``HELD_OUT``.

    Args:
        student: the student to teach; its options are :class:`CrossFitOptions`.

    Returns:
        The models; None for an empty request, for which nothing is trained.
    """
    options: Any = student.options
    if len(student.request.forget) == 0:
        return None
    fitted = cross_fit(student.request, options.parts)
    student.teach(HELD_OUT, fitted.held_out_model, forget=True)
    return fitted
