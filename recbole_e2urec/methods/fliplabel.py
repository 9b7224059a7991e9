"""FlipLabel: learn the wrong answers of the forget set beside the true ones of the rest."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.methods.unlearner import RATES, GradientUnlearner
from recbole_e2urec.model.losses import answer_cross_entropy
from recbole_e2urec.trainer.student import ForgetRetainBatch, StudentOptions


@option_class()
class FlipLabelOptions(StudentOptions):
    """Settings of FlipLabel."""

    forget_weight: float = option("w in CE(retain) + w * CE(flipped forget labels).")


class FlipLabel(GradientUnlearner):
    """``CE(retain) + w * CE(flipped answers of forget)``.

    After Graves et al., "Amnesiac Machine Learning", AAAI 2021; what the public code of E2URec runs
    as Bad-T, with w = 0.2. Departure: the student is an adapter as in E2URec, unless ``student:
    full``.
    """

    options_class = FlipLabelOptions
    space: ClassVar = {"unlearn_learning_rate": RATES, "forget_weight": (0.005, 1.0)}

    def loss(self, batch: ForgetRetainBatch) -> Mapping[str, Tensor]:
        """Loss terms of a step."""
        forget, retain = batch.forget, batch.retain.answer_loss()
        wrong = answer_cross_entropy(forget.logits, 1 - forget.labels, forget.answer_ids)
        flipped = forget.mean(wrong)
        loss = retain + self.options.forget_weight * flipped
        return {"loss": loss, "flipped": flipped, "retain": retain}
