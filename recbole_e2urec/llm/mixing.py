"""Several adapters at once, each with a weight of its own in every sample of a batch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn import functional as F


@contextmanager
def mixed_layers(model: nn.Module, names: Sequence[str], weights: Tensor) -> Iterator[None]:
    """Add ``sum over k of w_k B_k A_k`` to every adapted layer, w by sample; none may be active.

    That is what a forward with the weights merged for each sample alone would compute, without
    merging: an update is linear in its weight.

    Args:
        model: with the adapters.
        names: of the adapters, k of them.
        weights: [b, k], for the batch that the body runs.
    """
    hooks = []
    try:
        for layer in model.modules():
            if isinstance(layer, BaseTunerLayer):
                hooks.append(layer.register_forward_hook(_adder(names, weights)))
        with torch.compiler.set_stance("force_eager"):  # compiled code sees no later hook
            yield
    finally:
        for hook in hooks:
            hook.remove()


def _adder(names: Sequence[str], weights: Tensor) -> Any:
    def add(layer: Any, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        for name, weight in zip(names, weights.unbind(dim=1), strict=True):
            if name in layer.lora_A or name in layer.lora_embedding_A:
                shape = (-1, *[1] * (output.dim() - 1))
                output = output + weight.view(shape).to(output.dtype) * _update(
                    layer, name, inputs[0]
                )
        return output

    return add


def _update(layer: Any, name: str, inputs: Tensor) -> Tensor:
    """What one adapter adds to the layer's output, at weight 1."""
    scaling = layer.scaling[name]
    if name in layer.lora_A:
        first = layer.lora_A[name]
        return layer.lora_B[name](first(inputs.to(first.weight.dtype))) * scaling
    first = F.embedding(inputs, layer.lora_embedding_A[name].T)
    return torch.matmul(first, layer.lora_embedding_B[name].T) * scaling
