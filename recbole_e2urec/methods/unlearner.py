"""What every unlearning method offers, and what those that train a student share."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.scorers import Adapted, Scorer
from recbole_e2urec.trainer.adapter import UnlearningTask
from recbole_e2urec.trainer.student import ORIGINAL, ForgetRetainBatch, JointOptions, Student


class Unlearned(NamedTuple):
    """The outcome of a method.

    Attributes:
        scorer: who answers as the unlearned model does.
        cost: ``seconds`` of all that the method trained and computed, ``steps``,
            ``trained_parameters`` (of all models on the way) and ``peak_memory_mb``; a method that
            leaves an adapter says its ``adapter_parameters``, one that trained something before
            the request for its sake ``prior_seconds``.
        losses: mean of each loss term by epoch.
        digest: names the stage that made it.
        before: who answered before the request; None = Original.
        findings: values that the method determined by itself.
    """

    scorer: Scorer
    cost: dict[str, Any]
    losses: list[dict[str, float]]
    digest: str
    before: Scorer | None = None
    findings: Mapping[str, float] = MappingProxyType({})


class Unlearner(ABC):
    """An unlearning method; ``options`` is its frozen dataclass, filled from the settings.

    Attributes:
        options_class: the dataclass, whose keys are its field names.
        space: options that ``--tune`` chooses, each with its least and greatest value.
        answers_alone: whether one model answers, rather than several together.
        trains_several: whether it trains several models, which takes about as long as Retrain.
        has_only_original: whether it needs no recommender but Original, and so can forget in a
            served model, which has only itself.
    """

    options_class: type
    space: ClassVar[Mapping[str, tuple[float, float]]] = {}
    answers_alone = True
    trains_several = False
    has_only_original = False

    def __init__(self, options: Any) -> None:
        self.options = options

    @classmethod
    def searched(cls, fixed: Collection[str]) -> dict[str, tuple[float, float]]:
        """The space that is left when the user has set some keys."""
        return {key: bounds for key, bounds in cls.space.items() if key not in fixed}

    def refuse(self, original: LLMRec, request: UnlearningTask) -> None:  # noqa: B027 - most do not
        """Refuse a request that the method cannot carry out, as far as data and prompts tell.

        It is asked before anything is trained.

        Raises:
            InputError: the message says why, and what would do.
        """

    @abstractmethod
    def unlearn(self, original: LLMRec, request: UnlearningTask) -> Unlearned:
        """Make the unlearned model beside ``original``, whose own answers do not change."""


NOT_REACHED = "rows_not_reached"  # among the findings: forget rows that a method left as they are
RATES = (0.00001, 0.01)  # of students, between which ``--tune`` looks; papers have 1e-5 to 1e-3


class GradientUnlearner(Unlearner):
    """A method that trains a student on a loss; ``options_class`` extends StudentOptions.

    Attributes:
        asks_on_forget: whether the loss looks at Original's answers on forget rows.
        asks_on_retain: the same on retain rows.
    """

    space: ClassVar[Mapping[str, tuple[float, float]]] = {"unlearn_learning_rate": RATES}
    asks_on_forget = False
    asks_on_retain = False
    has_only_original = True

    @abstractmethod
    def loss(self, batch: ForgetRetainBatch) -> Mapping[str, Tensor]:
        """Loss terms of a piece of a step, each a scalar; ``loss`` is minimised.

        They are sums of means over the step's rows (:meth:`BatchPart.mean`), so that the terms of
        all pieces add up to those of the step.
        """

    def teach(self, student: Student) -> list[dict[str, Any]]:
        """Ask further teachers, after Original; gives the costs of what was trained for it."""
        return []

    def aim(self, student: Student) -> None:
        """Predict what forget rows should lose, if the student is to be scaled to it."""
        if self.options.scale_to_target and len(student.request.forget):
            student.aim()

    def unlearn(self, original: LLMRec, request: UnlearningTask) -> Unlearned:
        """See :meth:`Unlearner.unlearn`; the student bears the method's name."""
        student = self.student(original, request)
        teacher = Adapted(original.adapter)
        student.teach(ORIGINAL, teacher, self.asks_on_forget, self.asks_on_retain)
        self.aim(student)
        before = self.teach(student)
        learned = student.train(self.loss)
        cost = total([*before, learned])
        prior = self.prior()
        if prior:
            cost["prior_seconds"] = total(prior)["seconds"]
        if self.options.student == "lora":
            cost["adapter_parameters"] = learned["trained_parameters"]
        losses = learned["losses"]
        findings = {**learned["found"], **self.findings(losses)}
        return Unlearned(student.scorer, cost, losses, student.stage.digest, findings=findings)

    def prior(self) -> list[dict[str, Any]]:
        """Costs of what :meth:`teach` trained that later requests on the same Original reuse."""
        return []

    def findings(self, losses: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """Values that the method determined by itself; `losses` are means of the terms by epoch."""
        return {}

    def student(self, original: LLMRec, request: UnlearningTask) -> Student:
        """Make the student; it has not learned yet."""
        return Student(original, request, type(self).__name__, self.options, self.warmup)

    @property
    def warmup(self) -> int:
        """Epochs of the student on forget rows alone, before the joint ones."""
        return self.options.warmup_epochs if isinstance(self.options, JointOptions) else 0


def total(costs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sum of what several trainings cost; the highest peak of memory."""
    sums = ("seconds", "steps", "trained_parameters")
    memory = {"peak_memory_mb": 0.0}
    for cost in costs:
        peaks = {name: value for name, value in cost.items() if name.startswith("peak_")}
        memory |= {name: max(value, memory.get(name, 0.0)) for name, value in peaks.items()}
    return {**{name: sum(cost[name] for cost in costs) for name in sums}, **memory}
