"""NegKL: away from Original's answers on the forget set, near them on the retain set."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.methods.unlearner import RATES, GradientUnlearner
from recbole_e2urec.trainer.student import ORIGINAL, ForgetRetainBatch, StudentOptions


@option_class()
class NegKLOptions(StudentOptions):
    """Settings of NegKL."""

    forget_weight: float = option("w in KL(retain) - w * KL(forget).")


class NegKL(GradientUnlearner):
    """``KL(p_o || student)`` on retain rows minus w times the same on forget rows.

    A baseline named in the E2URec paper (arXiv 2403.03536). At its start the student is Original,
    where both terms and their gradients are nothing: the optimiser sets out on rounding errors. The
    true answers play no part. Departure: the student is an adapter as in E2URec, unless ``student:
    full``.
    """

    options_class = NegKLOptions
    space: ClassVar = {"unlearn_learning_rate": RATES, "forget_weight": (0.005, 1.0)}
    asks_on_forget = asks_on_retain = True

    def loss(self, batch: ForgetRetainBatch) -> Mapping[str, Tensor]:
        """Loss terms of a step."""
        forget, retain = batch.forget.distance_to(ORIGINAL), batch.retain.distance_to(ORIGINAL)
        loss = retain - self.options.forget_weight * forget
        return {"loss": loss, "forget": forget, "retain": retain}
