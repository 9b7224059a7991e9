"""E2URecRef: E2URec whose forgetting teacher is as sure as a model that never saw the user."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.methods.unlearner import RATES, GradientUnlearner
from recbole_e2urec.model.losses import (
    e2urec_loss,
    forgetting_teacher,
    kl_divergence,
    margin_of,
    meeting_alpha,
)
from recbole_e2urec.trainer.student import ORIGINAL, ForgetRetainBatch, Student
from recbole_e2urec.trainer.teachers import (
    AUGMENTED,
    HELD_OUT,
    AugmentedOptions,
    CrossFitOptions,
    teach_augmented,
    teach_held_out,
)


@option_class()
class E2URecRefOptions(CrossFitOptions, AugmentedOptions):
    """Settings of E2URecRef."""

    most_alpha: float = option("The largest alpha that a row may have.", gt=0)


class E2URecRef(GradientUnlearner):
    """E2URec with an alpha per row, so that its teacher agrees with a model unaware of the user.

    E2URec's forgetting teacher, ``z_o - alpha * relu(z_a - z_o)`` (arXiv 2403.03536), goes as far
    on a row that Original hardly remembers as on one that it knows well. Here a model that never
    saw the row's user, as in CrossFit, says how sure a Retrain would be. With m the margin of yes
    over no, ``alpha = (m_o - m_unseen) / m(relu(z_a - z_o))``, between 0 and ``most_alpha``. The
    teacher then has that model's margin wherever the augmented model moved that way. Elsewhere
    alpha is 0, and the row stays as it is. The losses are those of E2URec.
    """

    options_class = E2URecRefOptions
    space: ClassVar = {
        "unlearn_learning_rate": RATES,
        "most_alpha": (2.0, 50.0),
        "beta": (0.2, 0.8),
    }
    asks_on_forget = asks_on_retain = True
    has_only_original = False
    _costs: Sequence[dict[str, Any]] = ()

    def teach(self, student: Student) -> list[dict[str, Any]]:
        """Ask models that lack a part of the users each, and the augmented model."""
        fitted = teach_held_out(student)
        self._costs = fitted.costs if fitted is not None else ()
        return [teach_augmented(student)]

    def prior(self) -> list[dict[str, Any]]:
        """Costs of the models that lack a part of the users."""
        return list(self._costs)

    def findings(self, losses: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """The mean of alpha over the rows."""
        used = [terms["alpha"] for terms in losses if "alpha" in terms]  # none without any step
        return {"alpha": used[0]} if used else {}

    def loss(self, batch: ForgetRetainBatch) -> Mapping[str, Tensor]:
        """The forgetting loss; in joint steps beside the remembering loss."""
        rows, retain = batch
        original, augmented = rows.teachers[ORIGINAL], rows.teachers[AUGMENTED]
        margin = margin_of(rows.teachers[HELD_OUT], rows.answer_ids)
        most = self.options.most_alpha
        each = meeting_alpha(original, augmented, margin, rows.answer_ids, most)
        teacher = forgetting_teacher(original, augmented, each[:, None])
        forget, alpha = rows.mean(kl_divergence(teacher, rows.logits)), rows.mean(each)
        if retain.in_step == 0:
            return {"loss": forget, "forget": forget, "alpha": alpha}
        remember = retain.distance_to(ORIGINAL) + retain.answer_loss()
        loss = e2urec_loss(forget, remember, self.options.beta)
        return {"loss": loss, "forget": forget, "remember": remember, "alpha": alpha}
