"""What the evidence has measured so far: a line a row, and its answers beside it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from recbole_e2urec.errors import InputError
from recbole_e2urec.results import load_rows, save_rows
from recbole_e2urec.storage import read_tensors, write_tensors

KEY = ("setup", "size", "seed", "row")
Values = NDArray[np.float64]


class Place(NamedTuple):
    """Names a row."""

    setup: str
    size: float
    seed: int
    row: str


class Said(NamedTuple):
    """P(yes) of a model on the rows of :class:`Labelled`."""

    forget: Values  # [n]
    test: Values  # [m]


class Labelled(NamedTuple):
    """Who is behind the answers: inner user ids and labels of forget rows and of test rows."""

    forget_user: NDArray[np.int64]  # [n]
    forget_label: NDArray[np.float32]  # [n], 1 or 0
    test_user: NDArray[np.int64]  # [m]
    test_label: NDArray[np.float32]  # [m]


class Store:
    """Files in a folder: ``rows.jsonl``, ``answers/`` and ``requests/``.

    Processes may add rows at the same time. A row's line is written after its answers, so that it
    is there if and only if these are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lines = folder / "rows.jsonl"

    def rows(self) -> dict[Place, dict[str, Any]]:
        """All rows; ``refused`` says why one could not be made."""
        return {Place(*(row[name] for name in KEY)): row for row in load_rows(self._lines)}

    def add(self, place: Place, row: Mapping[str, Any], said: Said | None = None) -> None:
        """Keep a row, and in place of an earlier one."""
        if said is not None:
            tensors = {name: torch.from_numpy(part) for name, part in said._asdict().items()}
            write_tensors(self._answers(place), tensors)
        save_rows(self._lines, [{**place._asdict(), **row}], KEY)

    def said(self, place: Place) -> Said:
        """Answers of a row."""
        return Said(*_read(self._answers(place), Said._fields))

    def ask(self, setup: str, size: float, asked: Labelled) -> None:
        """Keep the rows of a request."""
        tensors = {name: torch.from_numpy(part) for name, part in asked._asdict().items()}
        write_tensors(self._request(setup, size), tensors)

    def asked(self, setup: str, size: float) -> Labelled:
        """Rows of a request."""
        return Labelled(*_read(self._request(setup, size), Labelled._fields))

    def calibration(self, place: Place, method: str, digest: str) -> Path:
        """Where a rehearsal of a method on a model is kept; its size is none of the request's."""
        return self.folder / "calibrations" / f"{place.setup}-{place.seed}-{method}-{digest}.json"

    def _answers(self, place: Place) -> Path:
        name = re.sub(r"\W+", "-", place.row)
        return self.folder / "answers" / f"{_sized(place)}-{place.seed}-{name}.safetensors"

    def _request(self, setup: str, size: float) -> Path:
        return self.folder / "requests" / f"{_sized(Place(setup, size, 0, ''))}.safetensors"


def _sized(place: Place) -> str:
    return f"{place.setup}-{place.size:g}"


def _read(path: Path, names: tuple[str, ...]) -> list[NDArray[Any]]:
    try:
        tensors, _ = read_tensors(path)
        return [tensors[name].numpy() for name in names]
    except (OSError, KeyError, SafetensorError) as error:
        raise InputError(
            f"{path} is missing or damaged; remove the lines of rows.jsonl beside it that need it, "
            "and the same command makes them anew"
        ) from error
