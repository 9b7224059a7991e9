"""What a comparison is asked for: models, seeds, and how many at the same time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recbole_e2urec.errors import InputError
from recbole_e2urec.yamlfiles import read_switch, typed

# What a single row is told instead; the comparison itself shows how far it is.
ONE_ROW = {"model_list": None, "seeds": None, "nproc_rows": 1, "tune": 0, "show_progress": False}


@dataclass(frozen=True)
class Grid:
    """The rows of a comparison.

    Attributes:
        models: names, in the order of the table.
        seeds: each of them is run with every model; None = the seed that the settings say.
        processes: how many rows are made at the same time.
        tries: settings of every method that are tried before; 0 = its defaults are taken.
        show: whether progress is shown.
        prompts: how many prompts are shown instead of all that.
    """

    models: list[str]
    seeds: list[int | None]
    processes: int
    tries: int
    show: bool
    prompts: int = 0

    @classmethod
    def of(cls, layers: Sequence[Mapping[str, Any]]) -> "Grid":
        """Read the settings; later layers win.

        Raises:
            InputError: a value that does not do; names its key.
        """
        models = _listed(layers, "model_list", [])
        if not models:
            raise InputError("no models to compare; write --model_list=E2URec,NegGrad")
        return cls(
            [str(model) for model in models],
            [_whole("seeds", seed, 0) for seed in _listed(layers, "seeds", [])] or [None],
            _whole("nproc_rows", _last(layers, "nproc_rows", 1), 1),
            _whole("tune", _last(layers, "tune", 0), 0),
            read_switch(_last(layers, "show_progress", True), "show_progress"),
            _whole("show_prompts", _last(layers, "show_prompts", 0), 0),
        )


def _listed(layers: Sequence[Mapping[str, Any]], key: str, default: list[Any]) -> list[Any]:
    """The values of a key that holds several; text is taken apart at its commas."""
    value = _last(layers, key, None)
    if value is None:
        return default
    if isinstance(value, str):
        value = [typed(part.strip(), key) for part in value.strip("[]").split(",")]
    found = value if isinstance(value, list) else [value]
    if not found or any(one in ("", None) for one in found):
        raise InputError(f"{key} is empty, or a part of it is; write --{key}=A,B")
    if len({str(one) for one in found}) < len(found):
        raise InputError(f"{key}: something is named twice in {found}")
    return found


def _last(layers: Sequence[Mapping[str, Any]], key: str, default: Any) -> Any:
    """The value in the last layer that has the key; text is read as on the command line."""
    for layer in reversed(layers):
        if key in layer:
            value = layer[key]
            return typed(value, key) if isinstance(value, str) else value
    return default


def _whole(key: str, value: Any, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{key}: {value!r} does not do; whole numbers from {least} on do")
    return value
