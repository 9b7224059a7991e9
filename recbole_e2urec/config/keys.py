"""Which keys a run may set, and which models and data sets RecBole knows."""

import difflib
import re
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from recbole_e2urec.config.yaml import properties, properties_folder
from recbole_e2urec.errors import InputError, nearest
from recbole_e2urec.registry import LANGUAGE_MODEL, METHODS, load_class

# Keys that RecBole's code reads though none of its yaml files lists them.
# fmt: off
_UNLISTED = (
    "model", "dataset", "config_files", "encoding", "feature_num", "token_num_threshold",
    "tail_ratio", "use_filter", "cin", "contrast", "has_residual", "norm", "sim",
    "xgb_early_stopping_rounds", "CROP_ITEM_SEQ", "CROP_ITEM_SEQ_LEN", "INVERSE_ITEM_SEQ",
    "MASK_INDEX", "MASK_ITEM_SEQ", "NEG_ITEMS", "POS_ITEMS", "REORDER_ITEM_SEQ", "neg_sampling",
    "training_neg_sample_num",
)
# fmt: on
LAUNCHING = ("nproc", "world_size", "ip", "port", "group_offset", "process_timeout")
# Keys that decide what a trained model is.
TRAINING = (
    "backbone", "backbone_source", "backbone_dtype", "backbone_attention", "backbone_quantization",
    "enable_amp", "tuning", "epochs", "learning_rate", "rate_schedule", "clip_norm",
    "train_batch_size", "weight_decay", "adam_epsilon", "average_decay", "eval_step",
    "stopping_step", "valid_metric", "seed", "eval_args", "device",
)  # fmt: skip
LORA = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules")
POST_RUN_KEYS = ("finalize", "purge")  # steps after a run
# Keys and a command of older versions. Their results and model folders may still contain them.
_BY_CONTROL_USERS = "NegatedE2URec and TaskVector set how strongly they forget by control users"
REMOVED_KEYS = {
    "calibration": _BY_CONTROL_USERS,
    "rehearse": _BY_CONTROL_USERS,
    "teacher_divergence": "give E2URec an alpha",
    "own_tokens_only": "it is called forget_tokens_only",
    "own_tokens_until": "it is called forget_tokens_until",
}
CLASSIC_METHODS = ("Retrain", "SISA")  # how a classic model can forget: DeepFM-SISA
ARROW_FORMATS = {".parquet": "parquet", ".arrow": "ipc", ".feather": "ipc"}  # pyarrow's names
BUNDLED = "ml-100k"  # the data set that comes with RecBole
_TOP_LEVEL_KEY = re.compile(r"^([A-Za-z][\w-]*) *:", re.MULTILINE)


def recbole_properties() -> Path:
    """Find RecBole's own folder of yaml files."""
    spec = find_spec("recbole")
    assert spec is not None  # a requirement of this package
    return Path(next(iter(spec.submodule_search_locations or []))) / "properties"


@cache
def recbole_models() -> frozenset[str]:
    """Return the names of RecBole's models, including three without a yaml file of their name."""
    listed = {path.stem for path in (recbole_properties() / "model").glob("*.yaml")}
    return frozenset(listed - {"lightgbm", "xgboost"} | {"Random", "LightGBM", "XGBoost"})


@cache
def downloadable_datasets() -> frozenset[str]:
    """Return the names of the data sets that RecBole can download."""
    return frozenset(_keys_of(recbole_properties() / "dataset" / "url.yaml"))


@cache
def known_keys() -> frozenset[str]:
    """Return every key of RecBole's yaml files and argument lists, and all keys of our own."""
    from recbole.utils import argument_list

    keys = set(_UNLISTED)
    for arguments in ("general", "training", "evaluation", "dataset"):
        keys.update(getattr(argument_list, f"{arguments}_arguments"))
    links = ("url.yaml", "kg_url.yaml")
    for folder in (recbole_properties(), properties_folder()):
        for path in folder.rglob("*.yaml"):
            if path.name not in links and path.parent.name not in ("prompt", "command"):
                keys.update(_keys_of(path))
    return frozenset(keys)


def find_model(name: str) -> type:
    """Import the class of a model by its name.

    Raises:
        InputError: no such model (names the nearest), or a package that it needs is missing.
    """
    if name in recbole_models():
        from recbole_e2urec.utils.recbole_compat import recbole_model

        try:
            return recbole_model(name)
        except ImportError as error:
            raise InputError(f"model {name} needs the package {error.name}; install it") from error
    ours = {LANGUAGE_MODEL, *METHODS}
    if name not in ours:
        known = {*ours, *recbole_models()}
        raise InputError(f"unknown model {name!r}; {_hint(name, known, 'see the README')}")
    model: type = load_class(LANGUAGE_MODEL)
    return model


def split_forget_method(name: str) -> tuple[str, str | None]:
    """Split a name such as ``DeepFM-SISA`` into the model and its forget method, None if absent."""
    model, dash, way = name.rpartition("-")
    return (model, way) if dash and way in CLASSIC_METHODS else (name, None)


def with_forget_method(model: str, way: str | None) -> str:
    """Join a model and its forget method; the inverse of :func:`split_forget_method`."""
    return model if way is None else f"{model}-{way}"


def protocol(name: str | None) -> dict[str, Any]:
    """Return the settings of a published experiment; empty for None.

    Raises:
        InputError: no such protocol (names the nearest).
    """
    known = {path.stem for path in (properties_folder() / "protocol").glob("*.yaml")}
    if name is not None and str(name) not in known:
        raise InputError(f"unknown protocol {name!r}; {nearest(str(name), known)}")
    return {} if name is None else properties("protocol", name)


def find_interactions(folder: Path, name: str) -> Path | None:
    """Return the table of interactions in a data set's folder: atomic, Parquet or Arrow."""
    atomic = folder / f"{name}.inter"
    arrow = (atomic.with_name(atomic.name + suffix) for suffix in ARROW_FORMATS)
    return atomic if atomic.is_file() else next((path for path in arrow if path.exists()), None)


def check_dataset(name: str, folder: Path, download: bool = False, in_shards: bool = False) -> None:
    """Refuse a data set whose interactions are not in its folder.

    Args:
        name: name of the data set.
        folder: the folder in which its folder should be.
        download: whether RecBole may fetch a data set that it knows.
        in_shards: whether the rows are read in shards, and so may be in a Parquet or Arrow file.

    Raises:
        InputError: names the file that was searched, and what would do.
    """
    searched = folder / name / f"{name}.inter"
    found = find_interactions(folder / name, name)
    if searched.is_file() or (in_shards and found):
        return
    if found:
        raise InputError(f"{found} is read in shards only: write --shard_rows=1000000")
    if name in downloadable_datasets() and download and not searched.parent.exists():
        return
    raise InputError(f"dataset {name!r}: there is no {searched}; {_advice(name, folder)}")


def _advice(name: str, folder: Path) -> str:
    """Say where the file is, which other data set could be meant, or how to get it."""
    above, inside = folder / f"{name}.inter", sorted((folder / name).glob("*.inter"))
    if above.is_file() and folder.resolve().name == name:
        parent = folder.parent if folder.name else ".."
        return f"{above} is there, so write --data_path={parent}"
    if above.is_file():
        return f"{above} is there, so move it into a folder {folder / name}"
    if folder.is_file():
        return f"data_path is the folder around the folder {name}, and {folder} is a file"
    if inside:
        return f"{inside[0]} is there, so rename it, or say which parts there are"
    if name == BUNDLED:
        return f"leave data_path out for the {name} that comes with RecBole"
    if name in downloadable_datasets():
        return "put its atomic files there, or let RecBole fetch it by --download=True"
    present = {path.name for path in folder.glob("*") if path.is_dir()} - {name}
    known = present | downloadable_datasets() | {BUNDLED}
    return _hint(name, known, "put its atomic files there")


def check_keys(keys: Iterable[str], source: str) -> None:
    """Refuse a key that no code reads.

    Raises:
        InputError: the message names the key, its source and the nearest known key.
    """
    for key in keys:
        if key in REMOVED_KEYS:
            raise InputError(f"{key} in {source} is gone; {REMOVED_KEYS[key]}")
        if key not in known_keys():
            hint = _hint(key, known_keys(), "see --help for the main keys")
            raise InputError(f"unknown key {key!r} in {source}; {hint}")


def _hint(word: str, known: Iterable[str], otherwise: str) -> str:
    """Suggest the nearest name, ignoring case; there are too many names to list."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1)
    return f"did you mean {by_lower[close[0]]!r}?" if close else otherwise


def _keys_of(path: Path) -> list[str]:
    return _TOP_LEVEL_KEY.findall(path.read_text(encoding="utf-8"))
