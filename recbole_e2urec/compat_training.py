"""Workarounds for RecBole's trainers and its search for hyper-parameters; called by ``compat``."""

import os
import types
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakSet

import numpy as np
from recbole.trainer import hyper_tuning, trainer
from recbole.utils import logger, utils

from recbole_e2urec import processes


class LateWriter:
    """A TensorBoard writer that opens its file when the first value is written.

    Args:
        make: opens it.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make, self._made = make, None

    def __getattr__(self, name: str) -> Any:
        """Give what the writer has, which is opened now if it was not."""
        if self._made is None:
            self._made = self._make()
            _open.add(self)
        return getattr(self._made, name)

    def close(self) -> None:
        """Write out what there is; a later value opens another file."""
        if self._made is not None:
            self._made.close()
            self._made = None


_open: WeakSet[LateWriter] = WeakSet()


def close_events() -> None:
    """Close what TensorBoard has open in this process: it writes by name, to removed files too."""
    for one in list(_open):
        one.close()


class Nowhere:
    """Takes what a writer of events takes, and writes nothing."""

    def __getattr__(self, name: str) -> Any:
        """Give a function that does nothing."""
        return lambda *args, **options: None


def make_folders_at_once() -> None:
    """Let processes that begin together make the same folder.

    Symptom: ``FileExistsError: saved``. Cause: ``ensure_dir`` looks first and makes the folder
    then. Can go when it passes ``exist_ok``.
    """
    for module in (utils, logger, trainer):
        module.ensure_dir = partial(os.makedirs, exist_ok=True)


def open_tensorboard_late() -> None:
    """Let a trainer that only evaluates leave no file, and of several processes the writer alone.

    Symptom: an event file without any value in ``log_tensorboard`` for each trainer that is made,
    in each process. Cause: ``SummaryWriter`` opens its file when it is made, whoever makes it. Can
    go when RecBole waits for a value, and asks which process it is in.
    """
    original = trainer.get_tensorboard
    trainer.get_tensorboard = lambda logger: LateWriter(
        lambda: original(logger) if processes.is_writer() else Nowhere()
    )


def search_with_generators() -> None:
    """Let RecBole's exhaustive search work with hyperopt 0.2.6 and later.

    Symptom: ``RandomState has no attribute integers``. Cause: hyperopt draws from NumPy's
    ``Generator``, and ``exhaustive_search`` hands it a ``RandomState``. The name ``np`` in its
    module gets another ``RandomState``; NumPy is left alone. Can go when RecBole asks for newer
    hyperopt than 0.2.5.
    """
    numpy = types.ModuleType("numpy")
    numpy.__dict__.update(np.__dict__)
    random = types.ModuleType("numpy.random")
    random.__dict__.update(np.random.__dict__)
    random.__dict__["RandomState"] = np.random.default_rng
    numpy.__dict__["random"] = random
    hyper_tuning.np = numpy
