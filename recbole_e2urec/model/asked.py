"""What was answered, kept as hidden states: they are small, and heads make logits of them."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from recbole_e2urec.model.losses import yes_probability

CHUNK = 128  # rows whose whole distributions are looked at together: what a cache can hold


class Voice(NamedTuple):
    """What one model answered."""

    states: Tensor  # [n, h]
    head: Callable[[Tensor], Tensor]  # [b, h] -> [b, vocab], float32


class Asked:
    """Kept answers to n rows.

    Args:
        voices: of the models that answered.
        weights: [n, voices], how much each of them counts in a row; None: all alike.
    """

    def __init__(self, voices: Sequence[Voice], weights: Tensor | None = None) -> None:
        self.voices, self.weights = list(voices), weights

    def __len__(self) -> int:
        """Give the number of rows."""
        return len(self.voices[0].states)

    @torch.no_grad()
    def logits(self, part: slice | Tensor = slice(None)) -> Tensor:  # -> [b, vocab]
        """Logits at the answer position of a part of the rows: the weighted mean over voices."""
        heard = [voice.head(voice.states[part]) for voice in self.voices]
        if len(heard) == 1:
            return heard[0]
        if self.weights is None:
            return torch.stack(heard).mean(dim=0)
        weights = self.weights[part].unbind(dim=1)
        return torch.stack([w[:, None] * z for w, z in zip(weights, heard, strict=True)]).sum(dim=0)

    def chunks(self) -> Iterator[slice]:
        """Parts whose logits fit into memory."""
        return (slice(start, start + CHUNK) for start in range(0, len(self), CHUNK))

    def yes(self, answer_ids: tuple[int, int]) -> Tensor:  # -> [n]
        """P(yes) of each row, float32."""
        parts = [yes_probability(self.logits(part), answer_ids) for part in self.chunks()]
        return torch.cat(parts) if parts else self.voices[0].states.new_zeros(0)
