"""Models that leave some users out each, so that for every user one never saw them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbole_e2urec.errors import InputError
from recbole_e2urec.model.asked import Asked, Voice
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.scorers import Learn, Scorer
from recbole_e2urec.trainer.joint import JointOptions
from recbole_e2urec.trainer.sharding import random_shards
from recbole_e2urec.trainer.student import Student
from recbole_e2urec.trainer.unlearning import Fit, Request

Rows = NDArray[np.int64]
STRANGER = "stranger"  # teacher
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

    def ask(self, model: LLMRec, rows: Rows, items: Rows | None = None) -> Asked:
        """See :meth:`Scorer.ask`."""
        shares = self.shares[self.user[rows]]
        voices = [
            voice
            for one, share in zip(self.members, shares.T, strict=True)
            for voice in _heard(one, model, rows, items, share > 0)
        ]
        return Asked(voices, torch.from_numpy(shares).to(voices[0].states.device))

    def further(self, model: LLMRec, learn: Learn) -> list[Scorer]:
        """See :meth:`Scorer.further`; every member learns all of it."""
        parts = zip(*(one.further(model, learn) for one in self.members), strict=True)
        return [Chosen(members, self.user, self.shares) for members in parts]


def _heard(
    one: Scorer, model: LLMRec, rows: Rows, items: Rows | None, asked: NDArray[np.bool_]
) -> list[Voice]:
    """What a single model says of the rows about which it is asked; nothing of the others."""
    (voice,) = one.ask(model, rows[asked], None if items is None else items[asked]).voices
    states: Tensor = voice.states.new_zeros(len(rows), voice.states.shape[1])
    states[torch.from_numpy(asked).to(states.device)] = voice.states
    return [Voice(states, voice.head)]


@dataclass(frozen=True)
class CrossFitOptions(JointOptions):
    """How users are taken apart, and how the student learns.

    Attributes:
        parts: number of user parts, at least 2: so many models are trained, each without one part.
    """

    parts: int

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        super().__post_init__()
        if self.parts < 2:
            raise InputError(f"parts is {self.parts}; give 2 or more: each model lacks one part")


class CrossFitted(NamedTuple):
    """Models of which each was trained without a part of the users.

    Attributes:
        stranger: answers for a user as those models do that never saw a row of that user.
        fits: the models, which are trained once for an Original, before any request.
    """

    stranger: Chosen
    fits: list[Fit]

    @property
    def costs(self) -> list[dict[str, Any]]:
        """Of their trainings."""
        return [dict(fit.cost) for fit in self.fits]


def cross_fit(request: Request, parts: int) -> CrossFitted:
    """Train a model without each part of the training users, or take it from its stage.

    Parts are drawn at random from the seed, and models have Original's start weights, settings
    and training rows, forgotten ones too, but for those of one part: they are the same for each
    request on an Original. A model's early stopping looks at its own users' rows only. Users of
    whom Original saw nothing are strangers to all of them.

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
        fits.append(request.tools.fit(f"Without{number}", others, request.forget_history))
    lacking[lacking.sum(axis=1) == 0] = 1
    shares = lacking / lacking.sum(axis=1, keepdims=True)
    stranger = Chosen([fit.scorer for fit in fits], user, shares)
    return CrossFitted(stranger, fits)


def teach_stranger(student: Student) -> CrossFitted | None:
    """Let models that never saw a forget row's user answer it, as the teacher ``STRANGER``.

    The student's options are :class:`CrossFitOptions`. Nothing is trained for an empty request.
    """
    options: Any = student.options
    if len(student.request.forget) == 0:
        return None
    fitted = cross_fit(student.request, options.parts)
    student.teach(STRANGER, fitted.stranger, forget=True)
    return fitted
