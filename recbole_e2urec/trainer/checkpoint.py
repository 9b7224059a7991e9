"""Stages: trained models as artefacts that are reused when finished and resumed when not.

A stage is a folder named after a hash of everything that decides its outcome. Its files:

- ``progress.safetensors``: weights, optimizer state and counters after the last whole epoch;
- ``best.safetensors``: the weights of the best epoch so far;
- ``weights.safetensors`` and ``stage.json``: the outcome; the latter is written last, so a stage
  is finished if and only if it is there.

Of several processes the writer alone touches the folder, and tells the others what is in it. Each
question below is one that all of them must ask.
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
        name: what the stage makes, such as ``Original``.
        inputs: everything that decides the outcome, as JSON values.
        config: of the run, for the loggers that it names; None: nothing is logged.

    Attributes:
        curves: is told what training shows.
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
        """The finished stage that has this digest, such as another run's."""
        folder = root / f"{name}-{digest}"
        return cls(root, name, distributed.on_main_process(lambda: _outcome(folder)["inputs"]))

    @property
    def finished(self) -> bool:
        """Whether the outcome is there."""
        return distributed.broadcast(self._is_finished())

    @contextmanager
    def open(self) -> Iterator[None]:
        """Train in the body, and nobody else; whoever waits for it then finds it finished."""
        with file_lock(self.folder / ".lock", getLogger().info):
            self.tidy()
            yield

    def finish(self, weights: Mapping[str, Tensor], summary: Mapping[str, Any]) -> None:
        """Write the outcome and drop what only an unfinished stage needs."""
        write_tensors(self.folder / "weights.safetensors", weights)
        outcome = {"name": self.name, "inputs": self.inputs, "summary": dict(summary)}
        write_json(self.folder / "stage.json", json.loads(json.dumps(outcome, default=str)))
        self.tidy()

    def tidy(self) -> None:
        """Remove leftovers: parts of files, and progress once the stage is finished."""
        names = ["progress.safetensors", "best.safetensors"] if self._is_finished() else []
        for name in names:
            (self.folder / name).unlink(missing_ok=True)
        remove_parts(self.folder)

    def weights(self) -> dict[str, Tensor]:
        """Weights of a finished stage."""
        return self._read("weights.safetensors")[0]

    def summary(self) -> dict[str, Any]:
        """What a finished stage said about itself."""
        summary: dict[str, Any] = distributed.on_main_process(
            lambda: _outcome(self.folder)["summary"]
        )
        return summary

    def save_progress(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Remember where the stage is, in one file."""
        metadata = {STATE: json.dumps(state)}
        write_tensors(self.folder / "progress.safetensors", tensors, metadata)

    def progress(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What :meth:`save_progress` wrote last; None for a stage that has not begun."""
        name = "progress.safetensors"
        if not distributed.broadcast((self.folder / name).is_file()):
            return None
        tensors, metadata = self._read(name)
        with _undamaged(self.folder, name):
            return tensors, json.loads(metadata[STATE])

    def save_best(self, weights: Mapping[str, Tensor]) -> None:
        """Keep the weights of the best epoch so far."""
        write_tensors(self.folder / "best.safetensors", weights)

    def best(self) -> dict[str, Tensor]:
        """Weights of the best epoch so far."""
        return self._read("best.safetensors")[0]

    def _is_finished(self) -> bool:
        return (self.folder / "stage.json").is_file()

    def _read(self, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
        def read() -> tuple[dict[str, Tensor], dict[str, str]]:
            with _undamaged(self.folder, name):
                return read_tensors(self.folder / name)

        return distributed.tensors_from_main_process(read)


def _outcome(folder: Path) -> dict[str, Any]:
    """What a finished stage's last file says."""
    with _undamaged(folder, "stage.json"):
        record = read_json(folder / "stage.json")
        return {"inputs": dict(record["inputs"]), "summary": dict(record["summary"])}


@contextmanager
def _undamaged(folder: Path, name: str) -> Iterator[None]:
    """Give what goes wrong while a file is read as one line; nothing of it is unpickled."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{folder / name} is damaged ({one_line(error)[:200]}); remove {folder}, and the same "
            "command makes it anew"
        ) from error
