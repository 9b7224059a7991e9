"""Who teaches a student: augmented and negated models, reset tokens, models that left users out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
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

AUGMENTED = "augmented"


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
    """Train Original further on the forget set, and keep what it answers there.

    It trains what Original trained: all weights with ``tuning: full``, which are put back when it
    has answered, else a copy of Original's adapter. The student's options are
    :class:`AugmentedOptions`. Gives the cost.
    """
    options: Any = student.options
    model, request = student.model, student.request
    rule = student.rule(options.augmented_learning_rate)
    settings = {
        **asdict(rule),
        "epochs": options.augmented_epochs,
        "batch_size": options.unlearn_batch_size,
        "share": options.unlearn_share,
    }
    plan = AdapterTrainingPlan(
        options.augmented_epochs,
        rule,
        request.seed,
        lambda epoch: [step.forget for step in student.pairing.steps(epoch, joint=False)],
        model.answer_losses,
        request.show,
    )
    stage = request.stage(AUGMENTED, settings)
    with _augmentable(model, request.seed) as name:
        with model.using_history(request.forget_history):
            cost = train_adapter(model, name, stage, plan)
        student.teach(AUGMENTED, Adapted(name), forget=True)
    return cost


@contextmanager
def _augmentable(model: LLMRec, seed: int) -> Iterator[str | None]:
    """What becomes the augmented model: a copy of Original's adapter, or all weights.

    In the latter case they are the backbone's own, and are put back afterwards.
    """
    if model.adapter is not None:
        model.fresh_adapter(AUGMENTED, seed)
        yield AUGMENTED
        return
    with model.bank.restored_after(None):
        yield None


DIRECTION = "direction"  # stage
LEAST_STRENGTH = 0.1  # a request never does nothing, whatever its rows seem to be remembered
MOST_STRENGTH = 64.0


@option_class()
class NegationOptions(StepOptions):
    """How the forget rows are learned, and how far the change is taken off."""

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
        """Forget rows a step, of a request of so many."""
        return max(1, min(self.unlearn_batch_size, ceil(rows / self.least_steps)))


class Direction(NamedTuple):
    """What learning the forget rows changed.

    Attributes:
        place: the adapter that learned; None: the backbone's own weights did.
        start: its weights before, which answer as Original does.
        end: its weights afterwards.
        cost: of its training.
    """

    place: str | None
    start: Mapping[str, Tensor]
    end: Mapping[str, Tensor]
    cost: dict[str, Any]

    def at(self, share: float) -> dict[str, Tensor]:
        """Weights: 0 = Original, 1 = as learned, -1 = as far before Original."""
        return interpolated(self.start, self.end, share)

    def scorer(self, share: float) -> Stored:
        """Who answers with these weights."""
        return Stored(self.place, lambda: self.at(share))


def learn_direction(
    model: LLMRec, request: UnlearningTask, options: NegationOptions, adapter: str | None = None
) -> Direction:
    """Learn the forget rows, from Original on, or take what was learned from its stage.

    Args:
        model: Original, which answers as before afterwards.
        request: what to forget.
        options: how to learn.
        adapter: its name, if one is to learn: with ``tuning: full`` a fresh one, with ``tuning:
            lora`` a copy of Original's. None: whatever Original trained learns.
    """
    size = options.batch_size(len(request.forget))
    pairing = ForgetRetainBatches(request, model.table, size)
    rule = options.rule(options.augmented_learning_rate, model.options.adam_epsilon)
    settings = {**asdict(rule), "epochs": options.augmented_epochs, "batch_size": size}
    plan = AdapterTrainingPlan(
        options.augmented_epochs,
        rule,
        request.seed,
        lambda epoch: [step.forget for step in pairing.steps(epoch, joint=False)],
        model.answer_losses,
        request.show,
        dropout=False,
    )
    if adapter is not None:
        model.fresh_adapter(adapter, request.seed)
    place = adapter or model.adapter
    stage = request.stage(DIRECTION, {**settings, "adapter": adapter is not None})
    start = model.bank.state(place)
    kept = nullcontext() if adapter is not None else model.bank.restored_after(place)
    with kept, model.using_history(request.forget_history):
        cost = train_adapter(model, place, stage, plan)
        return Direction(place, start, model.bank.state(place), cost)


def negation_strength(
    model: LLMRec, request: UnlearningTask, direction: Direction, strength: float | None
) -> tuple[float, TargetLoss | None]:
    """How often to take a change off Original, and what forget rows are then to lose.

    Args:
        model: Original.
        request: what to forget, at least one row.
        direction: what was learned of it.
        strength: None = as far as forget rows are to lose; else it is given back, and no target.
    """
    if strength is not None:
        return strength, None
    target = target_loss(model, request)
    reached = strength_reaching(
        model, request, target, lambda share: direction.scorer(-share), MOST_STRENGTH
    )
    return max(LEAST_STRENGTH, reached), target


def token_reset_scorer(
    model: LLMRec, request: UnlearningTask, tokens: Tensor
) -> Callable[[float], Stored]:
    """Original with some tokens reset, see :func:`reset_forget_tokens`, by the overshoot.

    For tokens that only forget rows show, such as forgotten users' names, that is about what
    Retrain has: it is read off Original and its start alone. The overshoot is how much further they
    are moved, as a share of the way; -1 leaves them where Original has them.

    Args:
        model: Original.
        request: knows the weights before training, and Original's training rows.
        tokens: int64 [m], token ids; without any, Original answers.
    """
    unshown = unshown_tokens(model, request)  # once: it looks through all training prompts

    def scorer(overshoot: float) -> Stored:
        def read() -> Mapping[str, Tensor]:
            start, state = request.services.untrained.read(), model.bank.state(model.adapter)
            return reset_forget_tokens(
                model.language_model, state, start, tokens, unshown, overshoot
            )

        return Stored(model.adapter, read)

    return scorer


def unshown_tokens(model: LLMRec, request: UnlearningTask) -> Tensor:
    """Tokens that no prompt of Original's training shows, int64 [u], sorted.

    Special tokens are left out, and the answer words, which every step teaches. Words of earlier
    requests, which a model in use has forgotten, are among them, as those requests left them.
    """
    lm = model.language_model
    shown = model.table.with_history(request.forget_history).tokens(request.train)
    around = [lm.pad_id, *lm.prefix_ids, *lm.suffix_ids, *lm.codec.tokenizer.all_special_ids]
    words: Any = lm.model.get_input_embeddings()
    every = np.arange(len(words.weight))
    return torch.from_numpy(np.setdiff1d(every, [*shown, *around, *lm.answer_ids]))


Rows = NDArray[np.int64]
HELD_OUT = "held_out"  # teacher
Shares = NDArray[np.float32]


class Chosen(Scorer):
    """Several models, each of which answers for some users.

    Args:
        members: who answers.
        user: inner user id by row id, of all rows.
        shares: how much each member's logits count in a user's rows, [users, members], by inner
            user id; lines add up to 1. A member is not asked about rows where it counts nothing.
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
    """What a single model says of the rows about which it is asked; nothing of the others."""
    (voice,) = scorer.ask(model, rows[chosen], None if items is None else items[chosen]).voices
    states: Tensor = voice.states.new_zeros(len(rows), voice.states.shape[1])
    states[torch.from_numpy(chosen).to(states.device)] = voice.states
    return [ModelOutput(states, voice.head)]


@option_class()
class CrossFitOptions(JointOptions):
    """How users are taken apart, and how the student learns."""

    parts: int = option(
        "Parts of the users; so many models are trained once for an Original, each without one "
        "part. Two together cost as much as Original, k of them k - 1 times that.",
        ge=2,
    )


class CrossFitted(NamedTuple):
    """Models of which each was trained without a part of the users.

    Attributes:
        held_out_model: answers for a user as those models do that never saw a row of that user.
        fits: the models, which are trained once for an Original, before any request.
    """

    held_out_model: Chosen
    fits: list[Fit]

    @property
    def costs(self) -> list[dict[str, Any]]:
        """Of their trainings."""
        return [dict(fit.cost) for fit in self.fits]


def cross_fit(request: UnlearningTask, parts: int) -> CrossFitted:
    """Train a model without each part of the training users, or take it from its stage.

    Parts are drawn at random from the seed, and models have Original's start weights, settings
    and training rows, forgotten ones too, but for those of one part: they are the same for each
    request on an Original. A model's early stopping looks at its own users' rows only. Users of
    whom Original saw nothing are unseen by all of them.

    Raises:
        InputError: there is one user alone.
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
    """Let models that never saw a forget row's user answer it, as the teacher ``HELD_OUT``.

    The student's options are :class:`CrossFitOptions`. Nothing is trained for an empty request.
    """
    options: Any = student.options
    if len(student.request.forget) == 0:
        return None
    fitted = cross_fit(student.request, options.parts)
    student.teach(HELD_OUT, fitted.held_out_model, forget=True)
    return fitted
