"""CrossFit: forget rows are to be answered as a model does that never saw their users."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from recbole_e2urec.errors import InputError
from recbole_e2urec.methods.base import RATES, GradientUnlearner
from recbole_e2urec.model.losses import e2urec_loss, kl_divergence
from recbole_e2urec.model.references import SAME, Line, margin_of, mixed_target, with_margin
from recbole_e2urec.trainer.crossfit import (
    STRANGER,
    CrossFitOptions,
    calibrated_to,
    teach_stranger,
)
from recbole_e2urec.trainer.renewing import RENEWED, teach_renewed
from recbole_e2urec.trainer.sides import ORIGINAL, Batch, Side
from recbole_e2urec.trainer.student import Student


@dataclass(frozen=True)
class CrossFitMethodOptions(CrossFitOptions):
    """Settings of CrossFit.

    Attributes:
        crossfit_weight: w, how much the strangers' answer counts in the target, in [0, 1]; 0 = no
            model is trained without a part.
        calibrated: whether the strangers' margins are corrected, see :func:`calibrated_to`.
        renewed: whether the rest of the target is Original with the forget rows' own tokens as if
            never shown, see :func:`renewed_scorer`, instead of Original.
        overshoot: how far the margin of the target is moved on, away from Original's, as a share of
            the way between them; at least 0.
        true_answers: whether retain rows also have the cross-entropy of the true answers.
    """

    crossfit_weight: float
    calibrated: bool
    renewed: bool
    overshoot: float
    true_answers: bool

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        super().__post_init__()
        if not 0 <= self.crossfit_weight <= 1:
            raise InputError(f"crossfit_weight is {self.crossfit_weight}; it must be in [0, 1]")
        if not self.overshoot >= 0:
            raise InputError(f"overshoot is {self.overshoot}; it must be at least 0")


class CrossFit(GradientUnlearner):
    """Forget rows are answered as by a model that never saw their users; this project's own.

    Beside Original, models are trained without one part of the users each, two halves unless told
    otherwise: as many as there are parts, once for an Original, and every request uses them. Each
    row has a model that never saw its user, the stranger k, and Retrain is one as well. The student
    imitates ``p_f = w p_k + (1 - w) p_o`` on forget rows, and Original on retain rows:
    ``beta KL(p_f || student) + (1 - beta) (KL(p_o || student) + CE)``, as in E2URec.

    A student that must not move on retain rows gets only a part of the way to that target. With
    ``overshoot`` c the target is set further: its margin of yes over no is ``m_f + c (m_f - m_o)``.

    The idea to let models answer for data that they were not trained on is that of cross-fitting
    (Chernozhukov et al., Econometrics Journal 21(1), 2018).

    What it cannot do: a stranger has seen the other forgotten users, unless they are in the same
    part, and once their request was carried out its models should be trained again. Of a user who
    stays and loses single rows a stranger knows less than Retrain does; it is meant for users who
    leave. A model folder keeps no such models, so a model in use does not forget by it.
    """

    options_class = CrossFitMethodOptions
    space: ClassVar = {
        "unlearn_learning_rate": RATES,
        "overshoot": (0.05, 0.8),
        "beta": (0.2, 0.8),
    }
    asks_on_forget = asks_on_retain = True
    has_only_original = False
    _line = SAME
    _costs: Sequence[dict[str, Any]] = ()

    def teach(self, student: Student) -> list[dict[str, Any]]:
        """Have models trained that lack a part of the users each, and keep what they answer."""
        options = self.options
        fitted = teach_stranger(student) if options.crossfit_weight > 0 else None
        if fitted is not None:
            self._costs = fitted.costs
        if fitted is not None and options.calibrated and not student.stage.finished:
            model, request, stranger = student.model, student.request, fitted.stranger
            self._line = student.timed(lambda: calibrated_to(model, request, stranger))
        if options.renewed:
            teach_renewed(student)
        return []

    @property
    def _base(self) -> str:
        return RENEWED if self.options.renewed else ORIGINAL

    def prior(self) -> list[dict[str, Any]]:
        """Costs of these models."""
        return list(self._costs)

    def found(self, losses: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """Slope and bias of the correction, if it was asked for."""
        used = [terms for terms in losses if "slope" in terms]  # none without any step
        return {name: used[0][name] for name in Line._fields} if used else {}

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """The forgetting loss; in joint steps beside the remembering loss."""
        rows, retain = batch
        terms = {"forget": rows.mean(kl_divergence(self._target(rows), rows.logits))}
        if self.options.calibrated:
            ones = torch.ones(len(rows.logits))
            terms |= {name: rows.mean(value * ones) for name, value in self._line._asdict().items()}
        if retain.in_step == 0:
            return {"loss": terms["forget"], **terms}
        remember = retain.distance_to(ORIGINAL)
        if self.options.true_answers:
            remember = remember + retain.answer_loss()
        loss = e2urec_loss(terms["forget"], remember, self.options.beta)
        return {"loss": loss, "remember": remember, **terms}

    def _target(self, rows: Side) -> Tensor:  # -> [n, vocab]
        """What forget rows are to be answered."""
        words, weight, further = (
            rows.answer_ids,
            self.options.crossfit_weight,
            self.options.overshoot,
        )
        target = rows.teachers[self._base]
        if weight > 0:
            stranger = rows.teachers[STRANGER]
            if self.options.calibrated:
                margin = self._line.slope * margin_of(stranger, words) + self._line.bias
                stranger = with_margin(stranger, margin, words)
            target = mixed_target(stranger, target, weight)
        if further == 0:
            return target
        margin = margin_of(target, words)
        ahead = margin + further * (margin - margin_of(rows.teachers[ORIGINAL], words))
        return with_margin(target, ahead, words)
