"""Whoever makes the rows of a comparison: this process, or several."""

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

from recbole_e2urec.errors import InputError


@contextmanager
def workers_of(processes: int) -> Iterator[Any]:
    """Give something with ``map``; processes start afresh and share the machine's cores.

    They obey OMP_NUM_THREADS where it is set.

    Raises:
        InputError: one of them died.
    """
    if processes == 1:
        yield _Here()
        return
    try:
        with (
            cores_shared(processes),
            ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool,
        ):
            yield pool
    except BrokenProcessPool as error:
        raise InputError(
            f"nproc_rows: one of its {processes} processes died: killed, out of memory, or started "
            "by a script that does not check __name__ == '__main__'; the same command goes on"
        ) from error


@contextmanager
def cores_shared(processes: int) -> Iterator[None]:
    """Give processes that start in the body an equal share of the machine's cores."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = before or str(max(1, (os.cpu_count() or 1) // processes))
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]


class _Here:
    map = staticmethod(map)
