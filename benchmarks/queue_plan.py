"""What the benchmark of requests in a row carries out, and what it has measured already."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.settings import SYNTHETIC, synthetic

NUMBERED = {"prompt": "numbered"}


@dataclass(frozen=True)
class Plan:
    """What is carried out.

    Attributes:
        folder: of all files.
        requests: how many.
        most: users of a request.
        draw: the seed that draws them.
        retrain_after: after which requests a Retrain is made.
        seeds: further seeds; how far models of other seeds are apart is the scale of drift.
        given: data set, prompt, and settings that are not the default.
    """

    folder: Path
    requests: int = 20
    most: int = 10
    draw: int = 1
    retrain_after: tuple[int, ...] = (1, 5, 10, 15, 20)
    seeds: tuple[int, ...] = (2021, 2022)
    given: Mapping[str, Any] = field(default_factory=lambda: dict(NUMBERED))

    @property
    def saved(self) -> Path:
        """The run's results and stages."""
        return self.folder / "saved"

    def named(self, name: str) -> Path:
        """A file or folder of these requests alone."""
        return self.folder / f"{self.requests}-requests-{self.draw}-{self.given['prompt']}" / name


def small(folder: Path) -> Plan:
    """A quick look."""
    name = synthetic(folder, 3000)
    given = {"dataset": name, "data_path": str(folder), "epochs": 1, **NUMBERED, **SYNTHETIC}
    return Plan(folder, 2, 2, 1, (1, 2), (2021,), given)


class Notes:
    """JSON lines in a file, by key; what is there is not made again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.rows: dict[str, dict[str, Any]] = {row["key"]: row for row in map(json.loads, lines)}

    def add(self, key: str, row: Mapping[str, Any]) -> None:
        """Write one down."""
        self.rows[key] = {"key": key, **row}
        with self._path.open("a") as file:
            file.write(json.dumps(self.rows[key]) + "\n")
        print(json.dumps(self.rows[key]), flush=True)
