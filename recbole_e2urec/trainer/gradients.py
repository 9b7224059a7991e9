"""Gradients of the processes that share a step."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from recbole_e2urec import processes

BUCKET = 2**23  # numbers that travel at once


def sum_gradients(weights: Iterable[nn.Parameter]) -> None:
    """Add up the gradients that each process has of what learns; alone, do nothing.

    Losses are sums over the step's rows, so the sum is the gradient of the step. Weights without a
    gradient in any process, which an optimizer passes over, stay without one.
    """
    if processes.count() == 1:
        return
    learning = [weight for weight in weights if weight.requires_grad]
    has = torch.tensor([float(weight.grad is not None) for weight in learning])
    somewhere = processes.summed(has.to(processes.device())).tolist()
    for weight, times in zip(learning, somewhere, strict=True):
        if times and weight.grad is None:
            weight.grad = torch.zeros_like(weight)
    for bucket in _buckets([weight.grad for weight in learning if weight.grad is not None]):
        whole = processes.summed(torch.cat([gradient.flatten() for gradient in bucket]))
        parts = whole.split([gradient.numel() for gradient in bucket])
        for gradient, part in zip(bucket, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one dtype, some millions of numbers together."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        size = sum(one.numel() for one in bucket) + gradient.numel()
        if bucket and (size > BUCKET or bucket[0].dtype != gradient.dtype):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket
