"""How a student of gradient unlearning learns."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import ClassVar, Literal

from recbole_e2urec.errors import InputError
from recbole_e2urec.model.llmrec import Schedule
from recbole_e2urec.trainer.loop import StepRule


@dataclass(frozen=True)
class StepOptions:
    """How whatever a method trains takes its steps.

    Attributes:
        unlearn_rate_schedule: whether rates fall to nothing over their training (linear) or stay as
            they are (constant).
        unlearn_clip_norm: largest norm of a gradient, above which it is scaled down; None: none is.
        unlearn_adam_epsilon: AdamW's epsilon; None: that of Original, ``adam_epsilon``.
        unlearn_weight_decay: AdamW's weight decay.
        unlearn_batch_size: forget rows a step, and as many retain rows beside them.
    """

    unlearn_rate_schedule: Schedule
    unlearn_clip_norm: float | None
    unlearn_adam_epsilon: float | None
    unlearn_weight_decay: float
    unlearn_batch_size: int

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        self._check(["unlearn_clip_norm", "unlearn_adam_epsilon"], lambda v: v > 0, "above 0")
        self._check(["unlearn_weight_decay"], lambda v: 0 <= v < inf, "at least 0")
        self._check(["unlearn_batch_size"], lambda size: size >= 1, "at least 1")

    def _check(self, names: list[str], fits: Callable[[float], bool], wanted: str) -> None:
        """Refuse a value that does not fit; None does."""
        for name in names:
            value = getattr(self, name)
            if value is not None and not fits(value):
                raise InputError(f"{name} is {value}; it must be {wanted}")

    def rule(self, learning_rate: float, adam_epsilon: float) -> StepRule:
        """How a gradient becomes a step, at some rate.

        Args:
            learning_rate: at the first step.
            adam_epsilon: of Original, for options without one.
        """
        return StepRule(
            learning_rate,
            self.unlearn_rate_schedule,
            self.unlearn_clip_norm,
            adam_epsilon if self.unlearn_adam_epsilon is None else self.unlearn_adam_epsilon,
            self.unlearn_weight_decay,
        )


@dataclass(frozen=True)
class StudentOptions(StepOptions):
    """How a student learns; each method adds its own.

    Attributes:
        unlearn_learning_rate: AdamW's rate at the first step.
        unlearn_share: share of the forget rows of each user who leaves wholly that are learned
            from, in (0, 1]; of users who stay, and of those whom prompts do not name, all are.
        joint_epochs: passes over these rows, each step beside a batch of retain rows; a fraction
            cuts the last pass.
        student: what learns: a LoRA adapter on Original (lora), or all of its weights (full).
        own_tokens_only: an adapted embedding learns only the tokens that no retain row's prompt
            shows; where fewer than 80 % of the forget rows show one, or if False, all tokens.
        own_tokens_until: share of the training rows, in [0, 1], up to which a request changes
            nothing but such tokens, see :func:`own_tokens_of`; 0 = it always changes more.
        unlearn_dropout: whether the backbone drops activations while the student learns. Teachers
            answer without, so a student does best without too, and saves the time; an adapter's
            own dropout stays.
        unlearn_stop: share of the steps after which learning ends, in (0, 1]; a rate that falls
            does so as if it went on.
        scale_to_target: whether the adapter is multiplied after training so that forget rows lose
            what a model that never saw them would lose, see :func:`target_loss`.
        factors: least and greatest such factor.
        share_of_all: whether ``unlearn_share`` is of every user's forget rows alike.
    """

    share_of_all: ClassVar[bool] = False
    factors: ClassVar[tuple[float, float]] = (0.1, 64.0)

    unlearn_learning_rate: float
    unlearn_share: float
    joint_epochs: float
    student: Literal["lora", "full"]
    own_tokens_only: bool
    own_tokens_until: float
    unlearn_dropout: bool
    unlearn_stop: float
    scale_to_target: bool

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        super().__post_init__()
        self._check(["joint_epochs"], lambda epochs: 0 <= epochs < inf, "at least 0")
        self._check(["unlearn_share", "unlearn_stop"], lambda share: 0 < share <= 1, "in (0, 1]")
        self._check(["own_tokens_until"], lambda share: 0 <= share <= 1, "in [0, 1]")
        if self.scale_to_target and self.student == "full":
            raise InputError("scale_to_target multiplies an adapter; choose student: lora")
