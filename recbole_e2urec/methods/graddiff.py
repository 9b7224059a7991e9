"""GradDiff: the difference of two gradients, the forget set's in full."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.methods.unlearner import RATES, GradientUnlearner
from recbole_e2urec.trainer.student import ForgetRetainBatch, StudentOptions


@option_class()
class GradDiffOptions(StudentOptions):
    """Settings of GradDiff."""

    retain_weight: float = option("w in w * CE(retain) - CE(forget).")


class GradDiff(GradientUnlearner):
    """``-CE(forget) + w * CE(retain)``.

    Maini et al., "TOFU: A Task of Fictitious Unlearning for LLMs", 2024 (arXiv 2401.06121), section
    4, gradient difference with w = 1. NegGrad is the same up to a factor where its w is 1 / w.
    Departure: the student is an adapter as in E2URec, unless ``student: full``.
    """

    options_class = GradDiffOptions
    space: ClassVar = {"unlearn_learning_rate": RATES, "retain_weight": (0.5, 50.0)}

    def loss(self, batch: ForgetRetainBatch) -> Mapping[str, Tensor]:
        """Loss terms of a step."""
        forget, retain = batch.forget.answer_loss(), batch.retain.answer_loss()
        loss = self.options.retain_weight * retain - forget
        return {"loss": loss, "forget": forget, "retain": retain}
