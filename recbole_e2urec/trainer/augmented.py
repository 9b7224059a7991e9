"""The augmented model: Original trained further on the forget set, which it then knows better."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import inf
from typing import Any

from recbole_e2urec.errors import InputError
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.scorers import Adapted
from recbole_e2urec.trainer.student import Student
from recbole_e2urec.trainer.studentoptions import StudentOptions
from recbole_e2urec.trainer.unlearning import Plan, train_adapter

AUGMENTED = "augmented"


@dataclass(frozen=True)
class AugmentedOptions(StudentOptions):
    """How the augmented model is trained.

    Attributes:
        augmented_learning_rate: AdamW's rate at the first step.
        augmented_epochs: passes over the forget rows that the student's steps show; a fraction cuts
            the last pass.
    """

    augmented_learning_rate: float
    augmented_epochs: float

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        super().__post_init__()
        if not 0 <= self.augmented_epochs < inf:
            raise InputError(f"augmented_epochs is {self.augmented_epochs}; it must be at least 0")


def teach_augmented(student: Student) -> dict[str, Any]:
    """Train Original further on the forget set, and keep what it answers there.

    It trains what Original trained: all weights with ``tuning: full``, which are put back when it
    has answered, else a copy of Original's adapter. The student's options are
    :class:`AugmentedOptions`. Gives the cost.
    """
    options: Any = student.options
    model, request = student.model, student.request
    rule = student.rule(options.augmented_learning_rate)
    settings = {
        **asdict(rule),
        "epochs": options.augmented_epochs,
        "batch_size": options.unlearn_batch_size,
        "share": options.unlearn_share,
    }
    plan = Plan(
        options.augmented_epochs,
        rule,
        request.seed,
        lambda epoch: [step.forget for step in student.pairing.steps(epoch, joint=False)],
        model.answer_losses,
        request.show,
    )
    stage = request.stage(AUGMENTED, settings)
    with _augmentable(model, request.seed) as name:
        with model.shown(request.forget_history):
            cost = train_adapter(model, name, stage, plan)
        student.teach(AUGMENTED, Adapted(name), forget=True)
    return cost


@contextmanager
def _augmentable(model: LLMRec, seed: int) -> Iterator[str | None]:
    """What becomes the augmented model: a copy of Original's adapter, or all weights.

    In the latter case they are the backbone's own, and are put back afterwards.
    """
    if model.adapter is not None:
        model.fresh_adapter(AUGMENTED, seed)
        yield AUGMENTED
        return
    with model.bank.kept(None):
        yield None
