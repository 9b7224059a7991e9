"""E2URec: unlearning by a LoRA adapter between two teachers."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.errors import InputError
from recbole_e2urec.methods.unlearner import RATES, GradientUnlearner
from recbole_e2urec.model.losses import e2urec_loss, forgetting_teacher, kl_divergence
from recbole_e2urec.trainer.student import (
    ORIGINAL,
    BatchPart,
    ForgetRetainBatch,
    JointOptions,
    Student,
)
from recbole_e2urec.trainer.teachers import AUGMENTED, AugmentedOptions, teach_augmented


@option_class()
class E2URecOptions(JointOptions, AugmentedOptions):
    """Settings of E2URec."""

    alpha: float = option("How strongly forget rows are pushed away.", ge=0, allow_inf_nan=False)
    forgetting_teacher: bool = option(
        "Push forget rows away. False = there is no augmented model and no warm-up, and the loss "
        "is the remembering loss alone."
    )
    remembering_teacher: bool = option(
        "Let retain rows imitate Original. False = they learn their true answers alone."
    )

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        super().__post_init__()
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

    Departures from the public code: The attention mask is always passed. Losses look at the answer
    position alone, and use log_softmax instead of ``log(p + 1e-12)``. A teacher answers each row
    once. The student reads forget and retain rows in one pass. The cost includes the augmented
    model's training.

    The augmented model trains what Original trained. With ``tuning: full`` these are all weights,
    which are put back when it has answered. With ``tuning: lora`` it and the student begin as
    copies of Original's adapter. The backbone drops no activations while the student learns
    (``unlearn_dropout``).

    ``lora_target_modules`` says what the adapter adapts: attention queries and values, as in the
    paper, and on an embedded backbone its word embeddings as well. There ``forget_tokens_only``,
    which is not the paper's either, limits learning to tokens that no retain row's prompt shows,
    such as words that name the forgotten users, if at least 80 % of the forget rows show one. Other
    users' answers do not depend on these.
    """

    options_class = E2URecOptions
    space: ClassVar = {
        "unlearn_learning_rate": RATES,
        "alpha": (0.5, 20.0),
        "beta": (0.2, 0.8),
    }
    asks_on_forget = asks_on_retain = True

    @property
    def warmup(self) -> int:
        """None without a forgetting teacher."""
        return super().warmup * self.options.forgetting_teacher

    def teach(self, student: Student) -> list[dict[str, Any]]:
        """Train Original further on the forget set, and keep what it answers there."""
        return [teach_augmented(student)] if self.options.forgetting_teacher else []

    def loss(self, batch: ForgetRetainBatch) -> Mapping[str, Tensor]:
        """The forgetting loss; in joint steps beside the remembering loss."""
        rows, retain = batch
        if not self.options.forgetting_teacher:
            remember = self._remember(retain)
            return {"loss": remember, "remember": remember}
        original, augmented = rows.teachers[ORIGINAL], rows.teachers[AUGMENTED]
        teacher = forgetting_teacher(original, augmented, self.options.alpha)
        forget = rows.mean(kl_divergence(teacher, rows.logits))
        if retain.in_step == 0:
            return {"loss": forget, "forget": forget}
        remember = self._remember(retain)
        loss = e2urec_loss(forget, remember, self.options.beta)
        return {"loss": loss, "forget": forget, "remember": remember}

    def _remember(self, retain: BatchPart) -> Tensor:
        """The remembering loss."""
        truth = retain.answer_loss()
        return truth + retain.distance_to(ORIGINAL) if self.options.remembering_teacher else truth
