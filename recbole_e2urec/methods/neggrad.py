"""NegGrad: gradient ascent on the forget set beside descent on the retain set."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.methods.unlearner import RATES, GradientUnlearner
from recbole_e2urec.trainer.student import ForgetRetainBatch, StudentOptions


@option_class()
class NegGradOptions(StudentOptions):
    """Settings of NegGrad."""

    forget_weight: float = option("w in CE(retain) - w * CE(forget).")


class NegGrad(GradientUnlearner):
    """``CE(retain) - w * CE(forget)``.

    Golatkar et al., "Eternal Sunshine of the Spotless Net", CVPR 2020, and Zhang et al.,
    "Recommendation Unlearning via Influence Function", 2022; with w = 0.2 a baseline of E2URec
    (arXiv 2403.03536). Departure: the student is an adapter as in E2URec, unless ``student: full``.
    """

    options_class = NegGradOptions
    space: ClassVar = {"unlearn_learning_rate": RATES, "forget_weight": (0.005, 1.0)}

    def loss(self, batch: ForgetRetainBatch) -> Mapping[str, Tensor]:
        """Loss terms of a step."""
        forget, retain = batch.forget.answer_loss(), batch.retain.answer_loss()
        loss = retain - self.options.forget_weight * forget
        return {"loss": loss, "forget": forget, "retain": retain}
