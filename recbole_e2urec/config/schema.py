"""Settings become frozen option dataclasses, and values that RecBole would misread are refused.

A dataclass sits beside the code that it steers; this module fills it from a flat mapping of keys.
"""

import codecs
import dataclasses
import os
import re
import sys
import types
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from recbole_e2urec.errors import InputError

# Whole numbers, and the least that does.
_WHOLE = {
    **dict.fromkeys(("epochs", "eval_step", "stopping_step"), None),
    **dict.fromkeys(("train_batch_size", "eval_batch_size", "nproc", "MAX_ITEM_LIST_LENGTH"), 1),
    **dict.fromkeys(("seed", "forget_seed"), 0),
}
_SEED = 2**32 - 1  # the greatest that NumPy's generators take
_MOST = {"seed": _SEED, "forget_seed": _SEED}
_LARGEST = 2**31 - 1  # of other whole numbers
_SIZE = re.compile(r".*_size|(n|num)_(layers|heads)")  # whole as well, where the default is
_MAPPINGS = ("threshold", "val_interval")  # also where the default is nothing
_LISTS = ("normalize_field", "numerical_features", "user_fields", "item_fields")
_OR_NOTHING = ("alpha", "clip_norm", "unlearn_clip_norm", "unlearn_adam_epsilon")  # a number or ~
_TEXTS = ("data_path", "checkpoint_dir")
_LEARNERS = ("adam", "adamw", "sgd", "adagrad", "rmsprop", "sparse_adam")


def check_values(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse a value that cannot stand in for the default: text for a number, a list for a mapping.

    Raises:
        InputError: names the key, the value and what would do.
    """
    for key, value in given.items():
        wanted = _unmet(key, value, defaults.get(key))
        if wanted:
            raise InputError(f"{key}: {value!r} does not do; {wanted} is needed")


def _unmet(key: str, value: Any, default: Any) -> str | None:
    """Say what is needed instead of the value, or None when it does."""
    if isinstance(default, bool):
        return None if isinstance(value, bool) else "True or False"
    if key in _WHOLE or (_SIZE.fullmatch(key) and isinstance(default, int)):
        return _unmet_whole(value, _WHOLE.get(key, 1), _MOST.get(key, _LARGEST))
    if isinstance(default, int | float) and not isinstance(value, int | float):
        return None if value is None and key in _OR_NOTHING else "a number"
    if isinstance(default, Mapping) or key in _MAPPINGS:
        return _unmet_mapping(key, value)
    if key in _LISTS and not isinstance(value, list | None):
        return f"a list such as [{' '.join(str(value).split())}]"
    if key in _TEXTS and not isinstance(value, str | os.PathLike):
        return "text"
    if key == "learner" and str(value).lower() not in _LEARNERS:
        return " or ".join(_LEARNERS)
    return _unmet_encoding(value) if key == "encoding" else None


def _unmet_whole(value: Any, least: int | None, most: int) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return "a whole number"
    if value > most:
        return f"a whole number up to {most}"
    return f"a whole number from {least} on" if least is not None and value < least else None


def _unmet_mapping(key: str, value: Any) -> str | None:
    is_rating = key == "threshold" and isinstance(value, Mapping)
    if is_rating and not all(isinstance(entry, int | float) for entry in value.values()):
        return "a number, as in {rating: 4},"
    return None if value is None or isinstance(value, Mapping) else "a mapping such as {a: 1}"


def _unmet_encoding(value: Any) -> str | None:
    try:
        codecs.lookup(value)
    except (LookupError, TypeError):
        return "an encoding such as utf-8"
    return None


def check_supported(given: Mapping[str, Any], model: str, is_language_model: bool) -> None:
    """Refuse what RecBole offers and a run here does not do.

    Raises:
        InputError: caches of data, another optimizer for a language model, a logger whose package
            is missing.
    """
    for key in ("save_dataset", "save_dataloaders"):
        if given.get(key):
            raise InputError(f"{key}: a cache keeps the settings of the run that made it; drop it")
    if is_language_model and given.get("learner", "adamw") != "adamw":
        raise InputError(f"learner: {model} learns by adamw alone; leave it out")
    if given.get("log_wandb") and "wandb" not in sys.modules and find_spec("wandb") is None:
        raise InputError("log_wandb: the package wandb is missing; pip install wandb")


def check_negatives(settings: Mapping[str, Any], model: str) -> None:
    """Refuse a model that learns from pairs without the unseen items of the pairs.

    Raises:
        InputError: says what to set.
    """
    from recbole.utils import InputType

    no_negatives = settings["train_neg_sample_args"]["distribution"] == "none"
    if no_negatives and settings["MODEL_INPUT_TYPE"] == InputType.PAIRWISE:
        raise InputError(
            f"train_neg_sample_args: {model} learns from pairs of a seen and an unseen item; "
            "set {distribution: uniform, sample_num: 1} or leave it out"
        )


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
