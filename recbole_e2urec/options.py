"""Settings become frozen option dataclasses: typed, complete, or one clear error.

A dataclass sits beside the code that it steers; this module fills it from a flat mapping of keys.
"""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from recbole_e2urec.errors import InputError

T = TypeVar("T")


def build_options(kind: type[T], settings: Mapping[str, Any], prefix: str = "") -> T:
    """Create a dataclass from settings.

    The key of a field is ``prefix`` plus its name, or what ``field(metadata={"key": ...})`` says.

    Args:
        kind: a dataclass; its fields may be int, float, bool, str, Literal, lists and tuples of
            these, dict, and unions with None.
        settings: all keys of a run.
        prefix: what the keys of this dataclass begin with, such as ``forget_``.

    Raises:
        InputError: a key is missing or its value does not fit the field's type.
    """
    hints = get_type_hints(kind)
    values = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        key = field.metadata.get("key", prefix + field.name)
        if key not in settings:
            raise InputError(f"the setting {key!r} is missing; add it to a config file")
        values[field.name] = convert(settings[key], hints[field.name], key)
    return kind(**values)


def convert(value: Any, hint: Any, key: str) -> Any:
    """Give a value of the hinted type, or raise an InputError that names the key."""
    if hint is Any:
        return value
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(value, hint, key)
    if origin is Literal:
        if value in get_args(hint):
            return value
    elif origin in (list, tuple):
        if isinstance(value, list | tuple):
            return origin(convert(entry, get_args(hint)[0], key) for entry in value)
    elif _fits(value, origin or hint):
        return hint(value) if hint is float else value
    raise InputError(f"{key}: {value!r} does not do; {_wanted(hint)} is needed")


def _convert_union(value: Any, hint: Any, key: str) -> Any:
    for option in get_args(hint):
        if option is type(None):
            if value is None:
                return None
            continue
        try:
            return convert(value, option, key)
        except InputError:
            continue
    raise InputError(f"{key}: {value!r} does not do; {_wanted(hint)} is needed")


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, int | float)
    return isinstance(value, kind)


def _wanted(hint: Any) -> str:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_wanted(option) for option in get_args(hint))
    if origin is Literal:
        return " or ".join(repr(option) for option in get_args(hint))
    if origin in (list, tuple):
        return f"a list such as [{_wanted(get_args(hint)[0])}, ...]"
    names = {
        int: "a whole number",
        float: "a number",
        bool: "True or False",
        str: "text",
        type(None): "nothing (~)",
    }
    return names.get(origin or hint, "a mapping such as {a: 1}")
