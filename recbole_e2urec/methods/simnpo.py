"""SimNPO: NPO without a reference model."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.methods.unlearner import RATES, GradientUnlearner
from recbole_e2urec.model.losses import answer_cross_entropy, simnpo_loss
from recbole_e2urec.trainer.student import ForgetRetainBatch, StudentOptions


@option_class()
class SimNPOOptions(StudentOptions):
    """Settings of SimNPO."""

    simnpo_beta: float = option("Inverse temperature.", gt=0)
    simnpo_gamma: float = option("Margin by which an answer must become unlikely.")
    retain_weight: float = option("Weight of CE(retain).")


class SimNPO(GradientUnlearner):
    """``-2/beta * mean log sigmoid(-beta * log p_s - gamma) + w * CE(retain)``.

    Fan et al., "Simplicity Prevails", 2024 (arXiv 2410.07163). Its division by the length of the
    answer is by 1 here, where an answer is one token. Departure: the student is an adapter as in
    E2URec, unless ``student: full``.
    """

    options_class = SimNPOOptions
    space: ClassVar = {
        "unlearn_learning_rate": RATES,
        "simnpo_beta": (0.5, 5.0),
        "retain_weight": (0.5, 50.0),
    }

    def loss(self, batch: ForgetRetainBatch) -> Mapping[str, Tensor]:
        """Loss terms of a step."""
        rows = batch.forget
        student = -answer_cross_entropy(rows.logits, rows.labels, rows.answer_ids)
        forget = rows.mean(
            simnpo_loss(student, self.options.simnpo_beta, self.options.simnpo_gamma)
        )
        retain = batch.retain.answer_loss()
        loss = forget + self.options.retain_weight * retain
        return {"loss": loss, "forget": forget, "retain": retain}
