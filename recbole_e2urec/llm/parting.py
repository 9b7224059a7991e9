"""A merged adapter in memory: matrices that a model shares are parted where it changes one.

In T5 and others head and embeddings are one matrix, and an adapter may change the embeddings alone.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from recbole_e2urec.errors import InputError
from recbole_e2urec.llm.lora import backbone_weights


@torch.no_grad()
def merge_weights(model: Any, name: str) -> None:
    """Put the update of an adapter into the backbone's own weights; the adapter stays.

    Raises:
        InputError: the backbone is quantised.
    """
    if getattr(model, "is_quantized", False):
        raise InputError(
            "an adapter cannot be merged into quantised weights; see docs/how-to/backbones.md"
        )
    uses = Counter(id(weight) for _, weight in model.named_parameters(remove_duplicate=False))
    layers: list[Any] = [one for one in model.modules() if isinstance(one, BaseTunerLayer)]
    for layer in layers:
        if name not in layer.scaling:
            continue
        base = layer.get_base_layer()
        update = layer.get_delta_weight(name)
        if not update.any():
            continue
        merged = (base.weight + update).to(base.weight.dtype)
        if uses[id(base.weight)] > 1:
            base.weight = nn.Parameter(merged, base.weight.requires_grad)
        else:
            base.weight.copy_(merged)


def part_weights(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give those matrices of a model without adapters a copy of their own that a state parts."""
    known = backbone_weights(model)
    shared = dict(model.named_parameters(remove_duplicate=False))
    for name in set(state) & set(shared) - set(known):
        path, _, kind = name.rpartition(".")
        weight = shared[name]
        own = nn.Parameter(weight.detach().clone(), weight.requires_grad)
        setattr(model.get_submodule(path), kind, own)
