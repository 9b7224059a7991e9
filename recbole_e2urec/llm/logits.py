"""What some architectures do to their logits after the head's matrix product."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class LogitShape:
    """A scale (Cohere, Granite), then a soft cap: ``cap * tanh(logits / cap)`` (Gemma 2).

    Attributes:
        scale: factor of the logits.
        cap: bound of the logits; None = they have none.
    """

    scale: float = 1.0
    cap: float | None = None

    @classmethod
    def of(cls, config: Any) -> "LogitShape":
        """Read a transformers config; one that says nothing leaves the logits alone."""
        scale = getattr(config, "logit_scale", None) or 1.0
        divisor = getattr(config, "logits_scaling", None) or 1.0
        return cls(scale / divisor, getattr(config, "final_logit_softcapping", None))

    def __call__(self, logits: Tensor) -> Tensor:  # [b, v] -> [b, v]
        """Shape the logits of a plain head."""
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)
