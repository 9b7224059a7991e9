"""NegatedE2URec: two teachers correct a negated adapter."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from torch import Tensor

from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.data.prompt_table import PromptTable
from recbole_e2urec.errors import InputError
from recbole_e2urec.methods.tokenreset import TokenReset, TokenResetOptions
from recbole_e2urec.methods.unlearner import RATES, GradientUnlearner, Unlearned
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.losses import e2urec_loss
from recbole_e2urec.trainer.adapter import UnlearningTask
from recbole_e2urec.trainer.batches import ForgetRetainBatches, forget_token_coverage
from recbole_e2urec.trainer.student import ORIGINAL, ForgetRetainBatch, JointOptions, Student
from recbole_e2urec.trainer.teachers import (
    Direction,
    NegationOptions,
    learn_direction,
    negation_strength,
)

FORGETTING = "forgetting"  # teacher
DIRECTION = "direction"  # adapter


@option_class()
class NegatedE2URecOptions(NegationOptions, JointOptions):
    """Settings of NegatedE2URec."""

    share_of_all: ClassVar[bool] = True  # the direction has learned from all of them
    factors: ClassVar[tuple[float, float]] = (0.5, 2.0)
    unlearn_share: float = option(
        "Share of the forget rows that the student's steps show, but at least 512 rows.", gt=0, le=1
    )
    student: Literal["lora", "full"] = option(
        "Train an adapter on Original (lora); full is refused here."
    )
    overshoot: float = option(
        "How much further than its teacher the student begins, as a share of the strength; retain "
        "rows take a part of it back. Requests of fewer batches than least_joint_steps do without.",
        ge=0,
    )
    least_joint_steps: int = option(
        "Fewest joint steps; a small request gets smaller batches of forget rows.", ge=1
    )
    least_retain_rows: int = option(
        "Fewest retain rows in a joint step; fewer take back too little of what a small request "
        "did to others.",
        ge=1,
    )
    true_answers: bool = option("Let retain rows learn their true answers as well, as in E2URec.")

    def pairing(self, request: UnlearningTask, table: PromptTable) -> ForgetRetainBatches:
        """See :meth:`StudentOptions.pairing`; a small request takes more, smaller steps."""
        size, share = self.unlearn_batch_size, self.unlearn_share
        least = self.least_joint_steps, self.least_retain_rows
        return ForgetRetainBatches(request, table, size, share, self.share_of_all, least)

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        super().__post_init__()
        if self.student == "full":
            raise InputError("student: full has no adapter to negate; choose student: lora")


class NegatedE2URec(GradientUnlearner):
    """E2URec's two teachers, from a negated start, as strongly as control users say; our own.

    An adapter learns the forget rows better still, as E2URec's augmented model does (arXiv
    2403.03536). Negated, it forgets them, as a task vector does (arXiv 2212.04089). Its strength c
    is the one at which forget rows have the loss that a model which never saw them would have, see
    :func:`target_loss`. No Retrain, no held-out row of the forgotten users and no trial is needed.

    Alone it also harms users who stay. So the adapter, negated with ``1 + overshoot`` times that
    strength, is only the start of a student. Two teachers correct the student in one short pass: on
    forget rows the negated adapter at c, on retain rows Original,

        beta * KL(negated || student) + (1 - beta) * KL(Original || student).

    In the end the student's adapter is multiplied so that forget rows have that loss again. Where
    each forget row shows a token that no other prompt does, as under ``prompt: numbered``, these
    tokens' embeddings hold what is remembered: :class:`TokenReset` puts them back as far as the
    target loss asks, nobody else's answers change, and nothing is learned.

    A small request has few steps. It takes ``least_joint_steps`` smaller ones, beside at least
    ``least_retain_rows`` retain rows each, and begins without overshoot. Otherwise many small
    requests in a row would move the answers to everyone else.

    Departures from E2URec: the augmented model is an adapter and becomes the student; the
    forgetting teacher is the negated adapter instead of ``z_o - alpha relu(z_a - z_o)``; retain
    rows have no cross-entropy unless ``true_answers`` is set, since Original has learned their
    answers already.
    """

    options_class: type = NegatedE2URecOptions
    space: ClassVar = {
        "unlearn_learning_rate": RATES,
        "augmented_learning_rate": (0.0001, 0.01),
        "overshoot": (0.1, 2.0),
        "beta": (0.2, 0.8),
    }
    asks_on_retain = True

    def unlearn(self, original: LLMRec, request: UnlearningTask) -> Unlearned:
        """See :meth:`Unlearner.unlearn`."""
        if original.adapter is not None and not original.bank.reaches_words(original.lora):
            return super().unlearn(original, request)  # no embedding has learned any token
        coverage = forget_token_coverage(request, original.table)
        if coverage.complete:
            strength = self.options.strength
            overshoot = None if strength is None else max(0.0, strength - 1)
            reset = TokenReset(TokenResetOptions(partial=False, overshoot=overshoot))
            return reset.reset(original, request, lambda: coverage)
        unlearned = super().unlearn(original, request)
        seconds = unlearned.cost["seconds"] + coverage.seconds
        return unlearned._replace(cost={**unlearned.cost, "seconds": seconds})

    def aim(self, student: Student) -> None:
        """Leave it to :meth:`teach`, which needs the target to negate the direction."""

    def teach(self, student: Student) -> list[dict[str, Any]]:
        """Learn the direction, negate it, and let the forgetting teacher answer the forget rows."""
        model, request = student.model, student.request
        if len(request.forget) == 0:
            return []
        direction = learn_direction(model, request, self.options, DIRECTION)
        if not student.stage.finished:
            self._negate(student, direction)
        return [direction.cost]

    def _negate(self, student: Student, direction: Direction) -> None:
        model, request, options = student.model, student.request, self.options
        exact = not options.scale_to_target
        strength, target = student.timed(
            lambda: negation_strength(model, request, direction, options.strength, exact)
        )
        student.target = target if options.scale_to_target else None
        if target is not None:
            student.findings = {"strength": strength, **target.findings}
        takes_back = student.epochs > 0 and not student.pairing.is_small
        further = 1 + options.overshoot if takes_back else 1.0
        start = direction.at(-strength * further)
        student.begin = lambda: model.bank.load(student.name, start)
        self.teach_forgetting(student, direction, strength)

    def teach_forgetting(self, student: Student, direction: Direction, strength: float) -> None:
        """Let the negated adapter answer the forget rows, as the teacher ``FORGETTING``."""
        student.teach(FORGETTING, direction.scorer(-strength), forget=True)

    def loss(self, batch: ForgetRetainBatch) -> Mapping[str, Tensor]:
        """The forgetting loss beside the remembering loss."""
        rows, retain = batch
        forget = rows.distance_to(FORGETTING)
        remember = retain.distance_to(ORIGINAL)
        if self.options.true_answers:
            remember = remember + retain.answer_loss()
        loss = e2urec_loss(forget, remember, self.options.beta)
        return {"loss": loss, "forget": forget, "remember": remember}
