"""BadT: an incompetent teacher for the forget set, a competent one for the rest."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from recbole_e2urec.methods.unlearner import GradientUnlearner
from recbole_e2urec.trainer.student import ORIGINAL, ForgetRetainBatch, Student, StudentOptions

INCOMPETENT = "incompetent"


class BadT(GradientUnlearner):
    """``KL(p_o || student)`` on retain rows plus ``KL(p_u || student)`` on forget rows.

    Chundawat et al., "Can Bad Teaching Induce Forgetting?", AAAI 2023. The incompetent teacher p_u
    is the model from which Original was trained: for an embedded backbone random weights, for a
    pretrained one the language model that has not seen the task. The public code of E2URec runs
    flipped labels under this name; that is FlipLabel here. Departure: the student is an adapter as
    in E2URec, unless ``student: full``.
    """

    options_class = StudentOptions
    asks_on_retain = True

    def teach(self, student: Student) -> list[dict[str, Any]]:
        """Ask the untrained model."""
        student.teach(INCOMPETENT, student.request.services.untrained, forget=True)
        return []

    def loss(self, batch: ForgetRetainBatch) -> Mapping[str, Tensor]:
        """Loss terms of a step."""
        forget, retain = batch.forget.distance_to(INCOMPETENT), batch.retain.distance_to(ORIGINAL)
        return {"loss": forget + retain, "forget": forget, "retain": retain}
