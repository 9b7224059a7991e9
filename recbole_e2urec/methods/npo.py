"""NPO: forgetting as a preference against what Original would say."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.methods.unlearner import RATES, GradientUnlearner
from recbole_e2urec.model.losses import answer_cross_entropy, npo_loss
from recbole_e2urec.trainer.student import ORIGINAL, ForgetRetainBatch, StudentOptions


@option_class()
class NPOOptions(StudentOptions):
    """Settings of NPO."""

    npo_beta: float = option("Inverse temperature; towards 0, NPO becomes gradient ascent.", gt=0)
    retain_weight: float = option("Weight of CE(retain).")


class NPO(GradientUnlearner):
    """``-2/beta * mean log sigmoid(-beta * (log p_s - log p_o)) + w * CE(retain)``.

    Zhang et al., "Negative Preference Optimization", 2024 (arXiv 2404.05868), with its
    retain term (NPO-RT); p_s and p_o are the probabilities that student and Original give to the
    true answer of a forget row. Departure: the student is an adapter as in E2URec, unless
    ``student: full``.
    """

    options_class = NPOOptions
    space: ClassVar = {
        "unlearn_learning_rate": RATES,
        "npo_beta": (0.05, 5.0),
        "retain_weight": (0.5, 50.0),
    }
    asks_on_forget = True

    def loss(self, batch: ForgetRetainBatch) -> Mapping[str, Tensor]:
        """Loss terms of a step."""
        rows = batch.forget
        student, original = (
            -answer_cross_entropy(logits, rows.labels, rows.answer_ids)
            for logits in (rows.logits, rows.teachers[ORIGINAL])
        )
        forget = rows.mean(npo_loss(student, original, self.options.npo_beta))
        retain = batch.retain.answer_loss()
        loss = forget + self.options.retain_weight * retain
        return {"loss": loss, "forget": forget, "retain": retain}
