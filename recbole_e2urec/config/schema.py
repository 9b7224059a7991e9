"""Option classes, which hold checked settings, and checks of values that RecBole would misread.

An option class is defined next to the code that uses it. This module creates it from a flat mapping
of keys. Its fields are the only definition of what an option means and which values are valid::

    @option_class(prefix="lora_")
    class LoraOptions:
        r: int = option("Rank of a LoRA adapter.", ge=1)

The comments of yaml files, ``--help`` and docs/reference/options.md repeat it. ``python -m
recbole_e2urec.config.reference --write`` updates them, and a test checks that they agree.
"""

import codecs
import functools
import os
import re
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, Field, ValidationError
from pydantic import dataclasses as checked
from pydantic.fields import FieldInfo
from typing_extensions import dataclass_transform

from recbole_e2urec.errors import InputError

AUTO = "auto"  # the value of settings that follow from the data or the machine
DATA_DRIVEN = ("threshold", "title_field", "user_fields")
MAY_BE_AUTO = (*DATA_DRIVEN, "nproc_rows")
# Keys of whole numbers, and the least valid value.
_WHOLE = {
    "eval_step": None,  # 0 or less = never validate, as in RecBole
    **dict.fromkeys(("epochs", "stopping_step"), 0),
    **dict.fromkeys(("train_batch_size", "eval_batch_size", "nproc", "MAX_ITEM_LIST_LENGTH"), 1),
    **dict.fromkeys(("seed", "forget_seed"), 0),
}
_SEED = 2**32 - 1  # the greatest seed of NumPy's generators
_MOST = {"seed": _SEED, "forget_seed": _SEED}
_LARGEST = 2**31 - 1  # of other whole numbers
_SIZE = re.compile(r".*_size|(n|num)_(layers|heads)")  # whole numbers if their default is one
_MAPPINGS = ("threshold", "val_interval")  # mappings even if their default is nothing
_LISTS = ("normalize_field", "numerical_features", "user_fields", "item_fields")
_OR_NOTHING = ("alpha", "clip_norm", "unlearn_clip_norm", "unlearn_adam_epsilon")  # a number or ~
_TEXTS = ("data_path", "checkpoint_dir")
_FROM_ZERO = ("learning_rate", "weight_decay")  # ends of keys of numbers from 0 on
_LEARNERS = ("adam", "adamw", "sgd", "adagrad", "rmsprop", "sparse_adam")


def check_values(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse a value of the wrong kind, such as text for a number or a list for a mapping.

    Raises:
        InputError: the message names the key, the value and what is needed.
    """
    for key, value in settings.items():
        is_auto = value == AUTO and key in MAY_BE_AUTO
        wanted = None if is_auto else _unmet(key, value, defaults.get(key))
        if wanted:
            raise InputError(f"{key}: {value!r} does not do; {wanted} is needed")


def _unmet(key: str, value: Any, default: Any) -> str | None:
    """Return what is needed instead of the value; None if the value is valid."""
    if isinstance(default, bool):
        return None if isinstance(value, bool) else "True or False"
    if key in _WHOLE or (_SIZE.fullmatch(key) and isinstance(default, int)):
        return _unmet_whole(value, _WHOLE.get(key, 1), _MOST.get(key, _LARGEST))
    if isinstance(default, int | float):
        return _unmet_number(key, value)
    if isinstance(default, Mapping) or key in _MAPPINGS:
        return _unmet_mapping(key, value)
    if key in _LISTS and not isinstance(value, list | None):
        return f"a list such as [{' '.join(str(value).split())}]"
    if key == "learner" and str(value).lower() not in _LEARNERS:
        return " or ".join(_LEARNERS)
    return _unmet_text(key, value)


def _unmet_whole(value: Any, least: int | None, most: int) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return "a whole number"
    if value > most:
        return f"a whole number up to {most}"
    return f"a whole number from {least} on" if least is not None and value < least else None


def _unmet_number(key: str, value: Any) -> str | None:
    if not isinstance(value, int | float):
        return None if value is None and key in _OR_NOTHING else "a number"
    return "a number from 0 on" if key.endswith(_FROM_ZERO) and not value >= 0 else None


def _unmet_mapping(key: str, value: Any) -> str | None:
    is_rating = key == "threshold" and isinstance(value, Mapping)
    if is_rating and not all(isinstance(entry, int | float) for entry in value.values()):
        return "a number, as in {rating: 4},"
    return None if value is None or isinstance(value, Mapping) else "a mapping such as {a: 1}"


def _unmet_text(key: str, value: Any) -> str | None:
    if key in _TEXTS and (not isinstance(value, str | os.PathLike) or not str(value)):
        return "text"
    if key == "field_separator" and not (isinstance(value, str) and value):
        return "a character such as ','"
    return _unmet_encoding(value) if key == "encoding" else None


def _unmet_encoding(value: Any) -> str | None:
    try:
        codecs.lookup(value)
    except (LookupError, TypeError):
        return "an encoding such as utf-8"
    return None


def check_supported(settings: Mapping[str, Any], model: str, is_language_model: bool) -> None:
    """Refuse features of RecBole that a run here does not support.

    Raises:
        InputError: data are to be cached, a language model is to use another optimizer than adamw,
            or the package of a logger is missing.
    """
    for key in ("save_dataset", "save_dataloaders"):
        if settings.get(key):
            raise InputError(f"{key}: a cache keeps the settings of the run that made it; drop it")
    if is_language_model and settings.get("learner", "adamw") != "adamw":
        raise InputError(f"learner: {model} learns by adamw alone; leave it out")
    if settings.get("log_wandb") and "wandb" not in sys.modules and find_spec("wandb") is None:
        raise InputError("log_wandb: the package wandb is missing; pip install wandb")


def check_negatives(settings: Mapping[str, Any], model: str) -> None:
    """Refuse a pairwise model without negative sampling.

    Raises:
        InputError: the message says what to set.
    """
    from recbole.utils import InputType

    no_negatives = settings["train_neg_sample_args"]["distribution"] == "none"
    if no_negatives and settings["MODEL_INPUT_TYPE"] == InputType.PAIRWISE:
        raise InputError(
            f"train_neg_sample_args: {model} learns from pairs of a seen and an unseen item; "
            "set {distribution: uniform, sample_num: 1} or leave it out"
        )


T = TypeVar("T")
_BOUNDS = {"gt": "above {:g}", "ge": "at least {:g}", "lt": "below {:g}", "le": "at most {:g}"}
_EDGES = {"gt": "({:g}", "ge": "[{:g}", "lt": "{:g})", "le": "{:g}]"}
# fmt: off
_OUT_OF_RANGE = (
    "greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number",
)
# fmt: on


def option(
    meaning: str, *, default: Any = ..., key: str | None = None, text: bool = False, **bounds: Any
) -> Any:
    """Define a field of an option class: its meaning, and its valid values.

    Args:
        meaning: a sentence or two, which every description of the option repeats.
        default: default when the class is created from Python; defaults of runs are in yaml files.
        key: key in the settings; None: the prefix of the class, followed by the field's name.
        text: whether a value on the command line is always text, whatever it looks like.
        bounds: pydantic's ``gt``, ``ge``, ``lt``, ``le`` and ``allow_inf_nan``.
    """
    more: dict[str, Any] = {"key": key, "text": text}
    return Field(default, description=meaning, json_schema_extra=more, **bounds)


@dataclass_transform(frozen_default=True, field_specifiers=(option,))
def option_class(prefix: str = "") -> Callable[[type[T]], type[T]]:
    """Turn a class into a frozen dataclass. Pydantic checks its values; bad ones: InputError.

    Args:
        prefix: prefix of the keys of its fields, such as ``forget_``.
    """

    def make(kind: type[T]) -> type[T]:
        checked_class: Any = checked.dataclass(frozen=True, config=ConfigDict(strict=True))(kind)
        checked_class._prefix, create = prefix, checked_class.__init__

        @functools.wraps(create)
        def init(self: Any, *args: Any, **values: Any) -> None:
            try:
                create(self, *args, **values)
            except ValidationError as error:
                raise _refusal(type(self), error) from None

        checked_class.__init__ = init
        return checked_class

    return make


class Option(NamedTuple):
    """The definition of one field of an option class."""

    name: str
    key: str  # in settings
    hint: Any
    info: FieldInfo
    text: bool  # whether it is always text on the command line

    @property
    def range(self) -> str:
        """The valid values, as in ``at least 1`` or ``in (0, 1]``; empty if all are valid."""
        parts = self.info.metadata
        bounds = {n: getattr(part, n) for n in _BOUNDS for part in parts if hasattr(part, n)}
        if len(bounds) < 2:
            return "".join(_BOUNDS[name].format(value) for name, value in bounds.items())
        return f"in {', '.join(_EDGES[name].format(value) for name, value in bounds.items())}"

    @property
    def comment(self) -> str:
        """Type, range and meaning, as in the comment of a yaml file."""
        kinds = get_args(self.hint) if _is_union(self.hint) else [self.hint]
        first = next(get_origin(kind) or kind for kind in kinds if kind is not type(None))
        kind = {Literal: str, tuple: list}.get(first, first).__name__
        return f"({kind}{', ' if self.range else ''}{self.range}) {self.info.description}"


def options_of(kind: type) -> Iterator[Option]:
    """Iterate over the options of an option class."""
    hints, attributes = get_type_hints(kind), vars(kind)
    for name, info in attributes["__pydantic_fields__"].items():
        more = info.json_schema_extra
        key = more["key"] or attributes["_prefix"] + name
        yield Option(name, key, hints[name], info, more["text"])


def build_options(kind: type[T], settings: Mapping[str, Any]) -> T:
    """Create an option class from settings.

    Args:
        kind: the class; its fields may be int, float, bool, str, Literal, lists and tuples of
            these, dict, and unions with None.
        settings: all keys of a run.

    Raises:
        InputError: a key is missing, or its value does not fit the field's type or range.
    """
    values = {}
    for name, key, hint, *_ in options_of(kind):
        if key not in settings:
            raise InputError(f"the setting {key!r} is missing; add it to a config file")
        values[name] = convert(settings[key], hint, key)
    return kind(**values)


def _refusal(kind: type, error: ValidationError) -> Exception:
    """Convert pydantic's error into one line about the first value that it refused."""
    first = error.errors(include_url=False)[0]
    if "error" in first.get("ctx", {}):
        return first["ctx"]["error"]
    (place, *_), value = first["loc"], first["input"]
    matching = [
        option for number, option in enumerate(options_of(kind)) if place in (number, option.name)
    ]
    if not matching or first["type"] == "missing":
        return error  # a mistake of the calling code, not of the user
    (refused,) = matching
    if first["type"] not in _OUT_OF_RANGE:
        return _unfit(value, refused.hint, refused.key)
    wanted = f"it must be {refused.range}"
    if isinstance(value, int) and refused.range.startswith("at least "):
        wanted = f"give {refused.range.removeprefix('at least ')} or more"
    finite = ", and finite" if first["type"] == "finite_number" else ""
    return InputError(f"{refused.key} is {value}; {wanted}{finite}")


def convert(value: Any, hint: Any, key: str) -> Any:
    """Convert a value to the hinted type, or raise an InputError that names the key."""
    if hint is Any:
        return value
    origin = get_origin(hint)
    if _is_union(hint):
        return _convert_union(value, hint, key)
    if origin is Literal:
        if value in get_args(hint):
            return value
    elif origin in (list, tuple):
        if isinstance(value, list | tuple):
            return origin(convert(entry, get_args(hint)[0], key) for entry in value)
    elif _fits(value, origin or hint):
        return hint(value) if hint is float else value
    raise _unfit(value, hint, key)


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
    raise _unfit(value, hint, key)


def _unfit(value: Any, hint: Any, key: str) -> InputError:
    return InputError(f"{key}: {value!r} does not do; {_wanted(hint)} is needed")


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, int | float)
    return isinstance(value, kind)


def _wanted(hint: Any) -> str:
    origin = get_origin(hint)
    if _is_union(hint):
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
