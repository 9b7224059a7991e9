"""E2URec: unlearning by a LoRA adapter between two teachers."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from recbole_e2urec import writer
from recbole_e2urec.errors import InputError
from recbole_e2urec.methods.base import RATES, GradientUnlearner
from recbole_e2urec.model.losses import (
    alpha_of,
    e2urec_loss,
    forgetting_teacher,
    kl_divergence,
)
from recbole_e2urec.trainer.augmented import AUGMENTED, AugmentedOptions, teach_augmented
from recbole_e2urec.trainer.joint import JointOptions
from recbole_e2urec.trainer.sides import ORIGINAL, Batch, Side
from recbole_e2urec.trainer.student import Student

SOLVED_ON = 2**23  # logits of each teacher from which alpha is found, at most


@dataclass(frozen=True)
class E2URecOptions(JointOptions, AugmentedOptions):
    """Settings of E2URec; the paper's values are in the comments of its yaml.

    Attributes:
        alpha: how strongly the forget data is pushed away, at least 0; None = as strongly as
            ``teacher_divergence`` says.
        teacher_divergence: KL(p_f || p_o), mean over forget rows, in nats, that alpha is set for.
        forgetting_teacher: whether forget rows are pushed at all; without it there is neither an
            augmented model nor a warm-up, and the loss is the remembering loss alone.
        remembering_teacher: whether retain rows imitate Original; without it the true answers
            alone are remembered.
    """

    alpha: float | None
    teacher_divergence: float | None
    forgetting_teacher: bool
    remembering_teacher: bool

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        super().__post_init__()
        if self.alpha is not None and self.alpha < 0:
            raise InputError(f"alpha is {self.alpha}; it must be at least 0")
        if self.alpha is None and not (self.teacher_divergence or 0) > 0:
            raise InputError(
                f"teacher_divergence is {self.teacher_divergence}; it must be above 0, or give an "
                "alpha"
            )
        if not (self.forgetting_teacher or self.remembering_teacher):
            raise InputError("forgetting_teacher and remembering_teacher are False; keep one")


class E2URec(GradientUnlearner):
    """Wang et al., "Towards Efficient and Effective Unlearning of LLMs for Recommendation".

    arXiv 2403.03536; Frontiers of Computer Science 19(3):193327, 2025. The student is a fresh LoRA
    adapter on Original, whose own weights stay. On forget rows it imitates the forgetting teacher,
    ``z_o - alpha * relu(z_a - z_o)``, on retain rows the remembering teacher, Original, and the
    true answers: ``beta * KL(p_f || student) + (1 - beta) * (KL(p_o || student) + CE)``.

    Defaults are the settings and the schedule of the paper's public scripts: alpha 2; 1.5 passes of
    the augmented model, one of the student on the forgetting loss alone, then a part of a joint
    one; constant rates, torch's AdamW, no clipping.

    How far the teacher of a fixed alpha is from Original depends on how far the augmented model
    moved, which differs between seeds and data, and with it how much is forgotten and what it
    costs. With ``alpha: ~``, which is not the paper's, alpha is set for each request, so that the
    teacher is ``teacher_divergence`` from Original. Neither Retrain nor a held-out row is asked.

    Departures from the public code: the attention mask is always passed; losses look at the
    answer position alone; log_softmax instead of ``log(p + 1e-12)``; a teacher answers each row
    once, as a hidden state that its head turns into logits again; the student runs once per row
    and step, forget and retain rows in one pass; the augmented model's training is part of the
    cost. It trains what Original trained: all weights with ``tuning: full``, which are put back
    when it has answered; with ``tuning: lora`` it and the student begin as copies of Original's
    adapter. The cost counts both. The backbone drops no activations while the student learns
    (``unlearn_dropout``). Its ``lora_target_modules`` say what is adapted: attention queries and
    values, as in the paper, but on an embedded backbone its word embeddings as well. There
    ``own_tokens_only``, which is not the paper's either, has the adapter learn only the tokens that
    no retain row's prompt shows, such as words that name the forgotten users, if at least 80 % of
    the forget rows show one: other users' answers do not depend on those.
    """

    options_class = E2URecOptions
    space: ClassVar = {
        "unlearn_learning_rate": RATES,
        "alpha": (0.5, 20.0),
        "teacher_divergence": (0.1, 0.6),
        "beta": (0.2, 0.8),
    }
    strength = "alpha"
    asks_on_forget = asks_on_retain = True
    _alpha = 0.0  # of the request at hand; from teach() on

    @classmethod
    def searched(
        cls, fixed: Collection[str], settings: Mapping[str, Any]
    ) -> dict[str, tuple[float, float]]:
        """With alpha, or where a run has none, with ``teacher_divergence`` in its place."""
        unused = "alpha" if settings["alpha"] is None else "teacher_divergence"
        return super().searched({*fixed, unused}, settings)

    @classmethod
    def strength_in(cls, settings: Mapping[str, Any]) -> tuple[str | None, float]:
        """Alpha, or in its place ``teacher_divergence``."""
        if settings["alpha"] is None:
            return "teacher_divergence", 2.0  # near 0 a divergence is the square of a shift
        return super().strength_in(settings)

    @property
    def warmup(self) -> int:
        """None without a forgetting teacher."""
        return super().warmup * self.options.forgetting_teacher

    def teach(self, student: Student) -> list[dict[str, Any]]:
        """Train Original further on the forget set, keep what it answers there, and set alpha."""
        if not self.options.forgetting_teacher:
            return []
        cost = teach_augmented(student)
        if not student.stage.finished:
            self._alpha = student.timed(lambda: self._strength(student))
        return [cost]

    def _strength(self, student: Student) -> float:
        """The alpha given, or the one that takes the teacher as far as it is to go."""
        if self.options.alpha is not None:
            return self.options.alpha
        assert self.options.teacher_divergence is not None
        if len(student.request.forget) == 0:
            return 0.0
        said = student.said(SOLVED_ON)
        return writer.agreed(
            alpha_of(said[ORIGINAL], said[AUGMENTED], self.options.teacher_divergence)
        )

    def found(self, losses: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """The alpha, unless it was given."""
        if self.options.alpha is not None:
            return {}
        used = [terms["alpha"] for terms in losses if "alpha" in terms]  # none without any step
        return {"alpha": used[0]} if used else {}

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """The forgetting loss; in joint steps beside the remembering loss."""
        rows, retain = batch
        if not self.options.forgetting_teacher:
            remember = self._remember(retain)
            return {"loss": remember, "remember": remember}
        teacher = forgetting_teacher(rows.teachers[ORIGINAL], rows.teachers[AUGMENTED], self._alpha)
        forget = rows.mean(kl_divergence(teacher, rows.logits))
        alpha = rows.mean(torch.full((len(rows.logits),), self._alpha))
        if retain.in_step == 0:
            return {"loss": forget, "forget": forget, "alpha": alpha}
        remember = self._remember(retain)
        loss = e2urec_loss(forget, remember, self.options.beta)
        return {"loss": loss, "forget": forget, "remember": remember, "alpha": alpha}

    def _remember(self, retain: Side) -> Tensor:
        """The remembering loss."""
        truth = retain.answer_loss()
        return truth + retain.distance_to(ORIGINAL) if self.options.remembering_teacher else truth
