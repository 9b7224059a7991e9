"""What a search for hyper-parameters looks through: RecBole's params files, read without ``eval``.

A line is ``name type values``::

    learning_rate loguniform -7,-4
    train_batch_size choice [64,128,256]
    beta uniform 0.2,0.8
    joint_epochs quniform 1,4,1
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, isfinite, prod
from pathlib import Path
from typing import Any

from recbole_e2urec.data.textfile import read_lines
from recbole_e2urec.errors import InputError
from recbole_e2urec.yamlfiles import typed

# Numbers that follow each kind; loguniform takes logarithms of its bounds, as RecBole does.
_BOUNDS = {"uniform": 2, "loguniform": 2, "quniform": 3}
_FORM = (
    "name choice [a,b], name uniform low,high, name loguniform low,high or name quniform low,high,q"
)


@dataclass(frozen=True)
class Space:
    """Settings to try.

    Attributes:
        choices: values by key.
        ranges: kind and its numbers by key.
    """

    choices: Mapping[str, list[Any]]
    ranges: Mapping[str, tuple[str, list[float]]]

    @classmethod
    def read(cls, path: Path) -> "Space":
        """Read a params file.

        Raises:
            InputError: it cannot be read, or a line is no such line.
        """
        choices: dict[str, list[Any]] = {}
        ranges: dict[str, tuple[str, list[float]]] = {}
        for number, line in enumerate(read_lines(path), start=1):
            parts = line.split(None, 2)
            if not parts or parts[0].startswith("#"):
                continue
            name, kind, text = [*parts, "", ""][:3]
            if name in choices or name in ranges:
                raise InputError(f"{path}, line {number}: {name} is there twice")
            values = typed(text) if kind == "choice" else _numbers(text, kind)
            if not isinstance(values, list) or not values:
                raise InputError(f"{path}, line {number}: {line.strip()!r} is none of {_FORM}")
            if kind == "choice":
                choices[name] = values
            else:
                ranges[name] = (kind, values)
        if not choices and not ranges:
            raise InputError(f"{path} names nothing to search; a line is {_FORM}")
        return cls(choices, ranges)

    @property
    def names(self) -> list[str]:
        """Keys that are searched."""
        return [*self.choices, *self.ranges]

    @property
    def size(self) -> int | None:
        """How many settings there are; None without end."""
        return None if self.ranges else prod(map(len, self.choices.values()))

    def samples(self) -> list[dict[str, Any]]:
        """Each choice and each bound once, a key at a time: what must not be refused."""
        found = [{name: value} for name, values in self.choices.items() for value in values]
        for name, (kind, numbers) in self.ranges.items():
            bounds = map(exp, numbers) if kind == "loguniform" else numbers[:2]
            found += [{name: whole(bound)} for bound in bounds]
        return found

    def for_recbole(self) -> dict[str, dict[str, list[Any]]]:
        """The argument ``params_dict`` of RecBole's HyperTuning; lists as text, see ``typed``."""
        made: dict[str, dict[str, list[Any]]] = {}
        for name, values in self.choices.items():
            made.setdefault("choice", {})[name] = [
                json.dumps(value) if isinstance(value, list | dict) else value for value in values
            ]
        for name, (kind, numbers) in self.ranges.items():
            made.setdefault(kind, {})[name] = numbers
        return made


def whole(value: Any) -> Any:
    """A whole number as an int, as sizes and counts have to be; other values as they are."""
    value = value.item() if hasattr(value, "item") else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _numbers(text: str, kind: str) -> list[float] | None:
    """Numbers between commas, as many as the kind has, the second above the first."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        return None
    if len(numbers) != _BOUNDS.get(kind) or not all(map(isfinite, numbers)):
        return None
    low, high, *step = numbers
    return numbers if low < high and all(one > 0 for one in step) else None
