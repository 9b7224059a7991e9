"""Stages: trained models on disk, which are reused if finished and resumed if not.

A stage is a folder. Its name contains a hash of everything that decides the outcome. Its files:

- ``progress.safetensors``: weights, optimizer state and counters after the last whole epoch;
- ``best.safetensors``: the weights of the best epoch so far;
- ``weights.safetensors`` and ``stage.json``: the outcome. ``stage.json`` is written last, so a
  stage is finished if and only if this file exists.

With several processes, only the main process touches the folder, and it broadcasts what it reads.
All processes must therefore make each call below.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from logging import getLogger
from pathlib import Path
from typing import Any

from torch import Tensor

from recbole_e2urec.errors import InputError, one_line
from recbole_e2urec.trainer.training_log import Curves
from recbole_e2urec.utils import distributed
from recbole_e2urec.utils.io import (
    file_lock,
    read_json,
    read_tensors,
    remove_parts,
    write_json,
    write_tensors,
)

STATE = "state"


class Stage:
    """One trained model on disk.

    Args:
        root: the folder of all stages.
        name: name of the model that the stage trains, such as ``Original``.
        inputs: everything that decides the outcome, as JSON values.
        config: the run's config, which names the loggers; None: nothing is logged.

    Attributes:
        curves: logs loss terms and validation metrics.
    """

    def __init__(
        self, root: Path, name: str, inputs: Mapping[str, Any], config: Any = None
    ) -> None:
        self.name, self.inputs = name, dict(inputs)
        text = json.dumps(self.inputs, sort_keys=True, default=str)
        self.digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.folder = root / f"{name}-{self.digest}"
        self.curves = Curves(config, name, self.folder.name)

    @classmethod
    def of(cls, root: Path, name: str, digest: str) -> "Stage":
        """Open the finished stage with this digest, such as one of another run."""
        folder = root / f"{name}-{digest}"
        return cls(root, name, distributed.on_main_process(lambda: _outcome(folder)["inputs"]))

    @property
    def finished(self) -> bool:
        """Whether the stage has an outcome."""
        return distributed.broadcast(self._is_finished())

    @contextmanager
    def open(self) -> Iterator[None]:
        """Lock the stage, so that only the body of the ``with`` statement trains it.

        A run that waited for the lock must check :attr:`finished` first: the run before it may have
        finished the stage.
        """
        with file_lock(self.folder / ".lock", getLogger().info):
            self.tidy()
            yield

    def finish(self, weights: Mapping[str, Tensor], summary: Mapping[str, Any]) -> None:
        """Write the outcome, and remove the files that only an unfinished stage needs."""
        write_tensors(self.folder / "weights.safetensors", weights)
        outcome = {"name": self.name, "inputs": self.inputs, "summary": dict(summary)}
        write_json(self.folder / "stage.json", json.loads(json.dumps(outcome, default=str)))
        self.tidy()

    def tidy(self) -> None:
        """Remove partly written files, and the progress of a finished stage."""
        names = ["progress.safetensors", "best.safetensors"] if self._is_finished() else []
        for name in names:
            (self.folder / name).unlink(missing_ok=True)
        remove_parts(self.folder)

    def weights(self) -> dict[str, Tensor]:
        """Read the weights of a finished stage."""
        return self._read("weights.safetensors")[0]

    def summary(self) -> dict[str, Any]:
        """Read the summary of a finished stage."""
        summary: dict[str, Any] = distributed.on_main_process(
            lambda: _outcome(self.folder)["summary"]
        )
        return summary

    def save_progress(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Write the progress of the stage to one file.

        Args:
            tensors: weights and optimizer state.
            state: counters, as JSON values.
        """
        metadata = {STATE: json.dumps(state)}
        write_tensors(self.folder / "progress.safetensors", tensors, metadata)

    def progress(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Read what :meth:`save_progress` wrote last; None if the stage has not begun."""
        name = "progress.safetensors"
        if not distributed.broadcast((self.folder / name).is_file()):
            return None
        tensors, metadata = self._read(name)
        with _undamaged(self.folder, name):
            return tensors, json.loads(metadata[STATE])

    def save_best(self, weights: Mapping[str, Tensor]) -> None:
        """Write the weights of the best epoch so far."""
        write_tensors(self.folder / "best.safetensors", weights)

    def best(self) -> dict[str, Tensor]:
        """Read the weights of the best epoch so far."""
        return self._read("best.safetensors")[0]

    def _is_finished(self) -> bool:
        return (self.folder / "stage.json").is_file()

    def _read(self, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
        def read() -> tuple[dict[str, Tensor], dict[str, str]]:
            with _undamaged(self.folder, name):
                return read_tensors(self.folder / name)

        return distributed.tensors_from_main_process(read)


def _outcome(folder: Path) -> dict[str, Any]:
    """Read the inputs and the summary from a finished stage's ``stage.json``."""
    with _undamaged(folder, "stage.json"):
        record = read_json(folder / "stage.json")
        return {"inputs": dict(record["inputs"]), "summary": dict(record["summary"])}


@contextmanager
def _undamaged(folder: Path, name: str) -> Iterator[None]:
    """Turn an error while a file is read into a one-line ``InputError``.

    Nothing in the file is unpickled.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{folder / name} is damaged ({one_line(error)[:200]}); remove {folder}, and the same "
            "command makes it anew"
        ) from error
