"""CrossFit: on forget rows, imitate a model that never saw their users."""

from dataclasses import replace
from typing import Any, ClassVar

from recbole_e2urec.config.schema import option_class
from recbole_e2urec.methods.negatede2urec import FORGETTING, NegatedE2URec, NegatedE2URecOptions
from recbole_e2urec.methods.unlearner import RATES, Unlearned, total
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.scorers import Scorer
from recbole_e2urec.trainer.adapter import UnlearningTask
from recbole_e2urec.trainer.student import Student
from recbole_e2urec.trainer.teachers import CrossFitOptions, CrossFitted, Direction, cross_fit


@option_class()
class CrossFitMethodOptions(NegatedE2URecOptions, CrossFitOptions):
    """Settings of CrossFit: those of NegatedE2URec, and ``parts``."""


class CrossFit(NegatedE2URec):
    """NegatedE2URec whose forgetting teacher never saw the users; this project's own.

    Beside Original, part models are trained: each leaves out one part of the users, two halves by
    default. They are trained once for an Original, and every request uses them. So for each row
    there is a model that never saw its user, as Retrain did not. The student begins with the
    negated adapter, as in NegatedE2URec. It imitates that model on forget rows, and Original on
    retain rows.

    A part model that saw the users must forget them as well after a request. Otherwise the next
    request would learn from a model that remembers them. It forgets in the same way, taught by the
    models that never saw them, and this time is part of the request's cost.

    The idea to let models answer for data that they were not trained on is that of cross-fitting
    (Chernozhukov et al., Econometrics Journal 21(1), 2018).

    It is meant for users who leave. For a user who stays and loses single rows, such a model knows
    less than Retrain does. A model folder keeps no part models, so a served model cannot forget by
    CrossFit.
    """

    options_class = CrossFitMethodOptions
    trains_several = True
    space: ClassVar = {
        "unlearn_learning_rate": RATES,
        "overshoot": (0.1, 2.0),
        "beta": (0.2, 0.8),
    }
    has_only_original = False
    _fitted: CrossFitted | None = None

    def unlearn(self, original: LLMRec, request: UnlearningTask) -> Unlearned:
        """See :meth:`Unlearner.unlearn`."""
        unlearned = super().unlearn(original, request)
        if self._fitted is None:  # nothing to forget, or tokens alone
            return unlearned
        parts = [
            _part_forgets(self.options, original, request, self._fitted, number)
            for number in range(len(self._fitted.fits))
        ]
        cost = {**unlearned.cost, **total([unlearned.cost, *parts])}
        findings = {**unlearned.findings, "parts_seconds": sum(part["seconds"] for part in parts)}
        return unlearned._replace(cost=cost, findings=findings)

    def teach_forgetting(self, student: Student, direction: Direction, strength: float) -> None:
        """Let models that never saw a row's user answer it."""
        assert self._fitted is not None
        student.teach(FORGETTING, self._fitted.held_out_model, forget=True)

    def teach(self, student: Student) -> list[dict[str, Any]]:
        """See :meth:`NegatedE2URec.teach`; the part models are trained before."""
        if len(student.request.forget):
            self._fitted = cross_fit(student.request, self.options.parts)
        return super().teach(student)

    def prior(self) -> list[dict[str, Any]]:
        """Costs of the part models."""
        return [] if self._fitted is None else self._fitted.costs


class _Part(NegatedE2URec):
    """How a part model forgets."""

    def __init__(self, options: Any, name: str, held_out_model: Scorer) -> None:
        super().__init__(options)
        self._name, self._held_out_model = name, held_out_model

    def student(self, original: LLMRec, request: UnlearningTask) -> Student:
        """See :meth:`GradientUnlearner.student`; it bears the part's name."""
        student = Student(original, request, self._name, self.options, self.warmup)
        student.stage.curves.chief = False  # CrossFit's own student is the run's
        return student

    def teach_forgetting(self, student: Student, direction: Direction, strength: float) -> None:
        """Let models that never saw a row's user answer it."""
        student.teach(FORGETTING, self._held_out_model, forget=True)


def _part_forgets(
    options: CrossFitMethodOptions,
    original: LLMRec,
    request: UnlearningTask,
    fitted: CrossFitted,
    number: int,
) -> dict[str, Any]:
    """Have a part model forget the users whom it saw; gives what that cost."""
    user, fit = request.user, fitted.fits[number]
    saw = fitted.held_out_model.shares[:, number] == 0  # by inner user id
    forget, retain = (rows[saw[user[rows]]] for rows in (request.forget, request.retain))
    if len(forget) == 0:
        return total([])
    name = f"Without{number}Forgets"
    task = replace(request, forget=forget, retain=retain).apart(part=fit.digest)
    with original.bank.swapped_weights(original.adapter, fit.weights()):
        return _Part(options, name, fitted.held_out_model).unlearn(original, task).cost
