"""Randomness as an argument: a seeded stretch of code beside the global generator."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run the body on torch's CPU generator seeded with ``seed``, then put its old state back.

    Weights are made on the CPU whatever the device, so the generators of accelerators are neither
    read nor touched (``torch.manual_seed`` would reseed them all).
    """
    generator = torch.random.default_generator
    state = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(state)
