"""How a student of gradient unlearning learns."""

from dataclasses import dataclass
from typing import Literal

from recbole_e2urec.errors import InputError


@dataclass(frozen=True)
class StudentOptions:
    """How a student learns; each method adds its own.

    Attributes:
        unlearn_learning_rate: AdamW's rate at the first step.
        unlearn_batch_size: forget rows a step, and as many retain rows beside them.
        unlearn_share: share of the forget rows of each user who leaves wholly that are learned
            from, in (0, 1]; of users who stay, and of those whom prompts do not name, all are.
        joint_epochs: passes over these rows, each step beside a batch of retain rows.
        student: what learns: a LoRA adapter on Original (lora), or all of its weights (full).
        own_tokens_only: an adapted embedding learns only the tokens that no retain row's prompt
            shows; where fewer than 80 % of the forget rows show one, or if False, all tokens.
        own_tokens_until: share of the training rows, in [0, 1], up to which a request changes
            nothing but such tokens, see :func:`own_tokens_of`; 0 = it always changes more.
        unlearn_dropout: whether the backbone drops activations while the student learns. Teachers
            answer without, so a student does best without too, and saves the time; an adapter's
            own dropout stays.
        unlearn_stop: share of the steps after which learning ends, in (0, 1]; the rate falls as if
            it went on.
    """

    unlearn_learning_rate: float
    unlearn_batch_size: int
    unlearn_share: float
    joint_epochs: int
    student: Literal["lora", "full"]
    own_tokens_only: bool
    own_tokens_until: float
    unlearn_dropout: bool
    unlearn_stop: float

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        if self.unlearn_batch_size < 1:
            raise InputError(f"unlearn_batch_size is {self.unlearn_batch_size}; give 1 or more")
        for name in ("unlearn_share", "unlearn_stop"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be in (0, 1]")
        if not 0 <= self.own_tokens_until <= 1:
            raise InputError(f"own_tokens_until is {self.own_tokens_until}; it must be in [0, 1]")
        if self.joint_epochs < 0:
            raise InputError(f"joint_epochs is {self.joint_epochs}; it must be at least 0")
