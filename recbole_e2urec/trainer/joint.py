"""Students that see forget rows alone at first, and then forget and retain rows together."""

from dataclasses import dataclass

from recbole_e2urec.errors import InputError
from recbole_e2urec.trainer.studentoptions import StudentOptions


@dataclass(frozen=True)
class JointOptions(StudentOptions):
    """How such a student learns, as in E2URec (arXiv 2403.03536).

    Attributes:
        beta: weight of the forgetting loss in joint steps, in [0, 1].
        warmup_epochs: passes over the forget set on the forgetting loss alone, before the joint
            ones.
    """

    beta: float
    warmup_epochs: int

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        super().__post_init__()
        if not 0 <= self.beta <= 1:
            raise InputError(f"beta is {self.beta}; it must be in [0, 1]")
        if self.warmup_epochs < 0:
            raise InputError(f"warmup_epochs is {self.warmup_epochs}; it must be at least 0")
