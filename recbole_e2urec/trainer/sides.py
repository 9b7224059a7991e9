"""What a loss sees of a step: rows, the student's logits and the teachers' kept answers."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbole_e2urec.model.asked import Asked
from recbole_e2urec.model.losses import answer_cross_entropy, kl_divergence

ORIGINAL = "original"  # the teacher that every student has


class Side(NamedTuple):
    """Forget rows or retain rows of a piece of a step; logits are those at the answer position.

    Attributes:
        logits: the student's, [n, vocab].
        labels: 1 = yes, 0 = no, float32 [n].
        teachers: the teachers' logits, [n, vocab] each, by their names; those that were asked.
        answer_ids: token ids of (no, yes).
        in_step: such rows in the whole step.
    """

    logits: Tensor
    labels: Tensor
    teachers: Mapping[str, Tensor]
    answer_ids: tuple[int, int]
    in_step: int

    def mean(self, values: Tensor) -> Tensor:  # [n] -> []
        """What these rows add to the mean over such rows of the step."""
        return values.sum() / max(1, self.in_step)

    def answer_loss(self) -> Tensor:  # -> []
        """Cross-entropy of the true answers, as :meth:`mean`."""
        return self.mean(answer_cross_entropy(self.logits, self.labels, self.answer_ids))

    def distance_to(self, teacher: str) -> Tensor:  # -> []
        """KL(teacher || student) in nats, as :meth:`mean`."""
        return self.mean(kl_divergence(self.teachers[teacher], self.logits))


class Batch(NamedTuple):
    """What a loss sees of a piece of a step; a step on forget rows alone has no retain rows."""

    forget: Side
    retain: Side


Loss = Callable[[Batch], Mapping[str, Tensor]]


class Taught(NamedTuple):
    """A teacher's kept answers to sorted rows."""

    rows: NDArray[np.int64]
    answers: Asked

    def of(self, rows: NDArray[np.int64]) -> Tensor:  # [b] -> [b, vocab]
        """Logits of some of the rows."""
        return self.answers.logits(torch.from_numpy(np.searchsorted(self.rows, rows)))
