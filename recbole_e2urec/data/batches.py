"""Batches of prompts of similar length: little padding, and a random order that can be repeated."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec.errors import InputError


def length_grouped_batches(
    lengths: NDArray[np.int64], batch_size: int, generator: np.random.Generator | None
) -> list[NDArray[np.int64]]:
    """Index arrays of at most `batch_size` that cover every index once, similar lengths together.

    With a generator: rows are shuffled into pools of up to 50 batches, sorted by length inside a
    pool, and the batches come in random order; the same generator state gives the same batches.
    With None: all sorted by length, nothing random.

    Raises:
        InputError: batch_size below 1.
    """
    if batch_size < 1:
        raise InputError(f"batch size {batch_size}; give 1 or more")
    lengths = np.asarray(lengths)
    count = len(lengths)
    shuffled = np.arange(count) if generator is None else generator.permutation(count)
    # At least about four pools, or the batches of every epoch would hold the same rows.
    batches_in_pool = count if generator is None else min(50, max(1, count // (4 * batch_size)))
    pool = np.arange(count) // max(1, batches_in_pool * batch_size)
    grouped = shuffled[np.lexsort((lengths[shuffled], pool))]
    batches = [grouped[at : at + batch_size] for at in range(0, count, batch_size)]
    if generator is None:
        return batches
    return [batches[place] for place in generator.permutation(len(batches))]


def pieces(lengths: NDArray[np.int64], tokens: int) -> Iterator[NDArray[np.int64]]:
    """Cut a batch into pieces of at most so many tokens, padding included.

    Args:
        lengths: of the prompts.
        tokens: most in a piece; a longer prompt makes a piece of its own.

    Yields:
        Indices in their order: all of them where they fit, else similar lengths together.
    """
    count = len(lengths)
    if count * lengths.max(initial=0) <= tokens:
        yield np.arange(count)
        return
    order, start = np.argsort(lengths, kind="stable"), 0
    for end in range(1, count + 1):
        if end == count or (end + 1 - start) * lengths[order[end]] > tokens:
            yield np.sort(order[start:end])
            start = end
