"""NegatedE2URec: two teachers mend an adapter whose sign was turned."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from recbole_e2urec.errors import InputError
from recbole_e2urec.llm.lora import on_line
from recbole_e2urec.methods.base import GradientUnlearner
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.losses import e2urec_loss
from recbole_e2urec.model.scorers import Stored
from recbole_e2urec.trainer.joint import JointOptions
from recbole_e2urec.trainer.negation import (
    Direction,
    NegationOptions,
    learn_direction,
    naming_tokens,
    reaching,
    turned,
)
from recbole_e2urec.trainer.sides import ORIGINAL, Batch
from recbole_e2urec.trainer.strength import TargetLoss
from recbole_e2urec.trainer.student import Student
from recbole_e2urec.trainer.unlearning import Request

NEGATED = "negated"  # teacher
LEAST, MOST = 0.5, 2.0  # times what the student became


@dataclass(frozen=True)
class NegatedE2URecOptions(NegationOptions, JointOptions):
    """Settings of NegatedE2URec.

    Attributes:
        overshoot: how much further than its teacher the student begins, as a share of the strength;
            at least 0. Retain rows take a part of it back.
        true_answers: whether retain rows also have the cross-entropy of the true answers.
    """

    share_of_all: ClassVar[bool] = True  # the direction has learned from all of them
    overshoot: float
    true_answers: bool

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        super().__post_init__()
        self._check(["overshoot"], lambda share: share >= 0, "at least 0")
        if self.student == "full":
            raise InputError("student: full has no adapter to turn; choose student: lora")


class NegatedE2URec(GradientUnlearner):
    """E2URec's two teachers, from a negated start, as strongly as control users say; our own.

    An adapter learns the forget rows better still, as E2URec's augmented model does (arXiv
    2403.03536). With its sign turned it forgets them, as a task vector does (arXiv 2212.04089): how
    far it is turned, c, is where forget rows lose what a model that never saw them would lose, see
    :func:`target_loss`. No Retrain, no held-out row of the forgotten users and no trial is needed.

    Alone it also harms users who stay. So the adapter is the start of a student, ``1 + overshoot``
    times as far turned, which two teachers mend in one short pass: on forget rows the negated
    adapter at c, on retain rows Original,

        beta * KL(negated || student) + (1 - beta) * KL(Original || student).

    In the end the student's adapter is multiplied so that forget rows lose that again. Where each
    forget row shows a token that no other prompt does, as under ``prompt: numbered``, only these
    tokens' embeddings are learned and turned, nobody else's answers change, and nothing is mended.

    Departures from E2URec: the augmented model is an adapter and becomes the student; the
    forgetting teacher is the negated adapter instead of ``z_o - alpha relu(z_a - z_o)``; retain
    rows have no cross-entropy unless ``true_answers`` is set, since Original has learned their
    answers already.
    """

    options_class = NegatedE2URecOptions
    space: ClassVar = {
        "unlearn_learning_rate": (0.0001, 0.01),
        "augmented_learning_rate": (0.0001, 0.01),
        "overshoot": (0.1, 2.0),
        "beta": (0.2, 0.8),
    }
    asks_on_retain = True

    def student(self, original: LLMRec, request: Request) -> Student:
        """Make the student; where tokens name the request, nothing is to be mended."""
        student = super().student(original, request)
        tokens = student.timed(lambda: naming_tokens(original, student.pairing))
        if tokens is not None:
            student.learn_alone(tokens)
            student.epochs = 0
        return student

    def teach(self, student: Student) -> list[dict[str, Any]]:
        """Learn the direction, turn it, and let it answer the forget rows."""
        model, request = student.model, student.request
        if len(request.forget) == 0:
            return []
        direction = learn_direction(model, request, self.options, student.learns.tokens)
        if not student.stage.finished:
            self._turn(student, direction)
        return [direction.cost]

    def _turn(self, student: Student, direction: Direction) -> None:
        model, request = student.model, student.request
        strength, target = student.timed(
            lambda: turned(model, request, direction, self.options.strength)
        )
        if target is not None:
            student.found = {"strength": strength, **target.found}
        start = direction.at(-strength)
        if student.epochs > 0:
            start = direction.at(-strength * (1 + self.options.overshoot))
            student.teach(NEGATED, direction.scorer(-strength), forget=True)
            if target is not None:
                student.end = lambda: self._settle(student, direction, target)
        student.begin = lambda: model.bank.load(student.name, start)

    def _settle(self, student: Student, direction: Direction, target: TargetLoss) -> None:
        """Multiply what the student became so that forget rows lose what they are to lose."""
        model, name = student.model, student.name
        trained = model.bank.state(name)

        def multiplied(share: float) -> dict[str, Tensor]:
            return on_line(direction.start, trained, share)

        share = reaching(
            model, student.request, target, lambda at: Stored(name, lambda: multiplied(at)), MOST
        )
        share = max(LEAST, share)
        model.bank.load(name, multiplied(share))
        student.found["scale"] = share

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """The forgetting loss beside the remembering loss."""
        rows, retain = batch
        forget = rows.distance_to(NEGATED)
        remember = retain.distance_to(ORIGINAL)
        if self.options.true_answers:
            remember = remember + retain.answer_loss()
        loss = e2urec_loss(forget, remember, self.options.beta)
        return {"loss": loss, "forget": forget, "remember": remember}
