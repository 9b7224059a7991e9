"""A disk without room, simulated where the package meets it: folders, files, flushes, renames."""

import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import recbole_e2urec.utils.io as files


def _always(*given: Any, **more: Any) -> bool:
    return True


def _creates(path: Any, flags: int = 0, *rest: Any, **more: Any) -> bool:
    return bool(flags & os.O_CREAT) and not str(path).endswith(".lock")


def _opens(path: Any, mode: str = "r", *rest: Any, **more: Any) -> bool:
    return isinstance(path, str | Path) and ".part" in str(path) and mode[:1] in "wx"


@contextmanager
def room_for(steps: int) -> Iterator[list[str]]:
    """Let so many steps succeed, and no later one; gives the names of all that were tried."""
    tried: list[str] = []

    def limited(name: str, function: Callable[..., Any], writes: Callable[..., bool]) -> Any:
        def call(*given: Any, **more: Any) -> Any:
            if not writes(*given, **more):
                return function(*given, **more)
            tried.append(name)
            if len(tried) > steps:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(given[0]))
            return function(*given, **more)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for module, name, writes in (
            (os, "mkdir", _always), (os, "open", _creates), (os, "fsync", _always),
            (os, "replace", _always), (files, "save_file", _always), (io, "open", _opens),
        ):  # fmt: skip
            patch.setattr(module, name, limited(name, getattr(module, name), writes))
        yield tried
