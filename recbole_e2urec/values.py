"""Whether a value fits its key, where RecBole would crash on it or quietly do something else."""

import codecs
import os
import re
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from recbole.utils import InputType

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
    no_negatives = settings["train_neg_sample_args"]["distribution"] == "none"
    if no_negatives and settings["MODEL_INPUT_TYPE"] == InputType.PAIRWISE:
        raise InputError(
            f"train_neg_sample_args: {model} learns from pairs of a seen and an unseen item; "
            "set {distribution: uniform, sample_num: 1} or leave it out"
        )
