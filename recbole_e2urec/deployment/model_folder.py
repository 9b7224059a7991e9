"""A model folder: a model in use as files, which goes from one state to the next at one moment.

``current.json`` names the generation that counts, ``generations/000001`` and so on. A generation is
written beside the one that counts, flushed to the disk, and then named by replacing the small
file: whoever is killed leaves the old state or the new one. A generation has

- ``model.json``: settings, what was forgotten by which request, and hashes of the other files;
- ``weights.safetensors``: of the backbone, or of the adapter that was tuned;
- ``forgotten.safetensors``: ids of rows that no later training and no history may show;
- ``sample.safetensors``: rows on which drift is measured, and what the first model answered.

``certificates`` has a file and a page of each request, which stay when generations go. Nothing here
is ever unpickled, no name in a file leads to another file, and links are refused.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from logging import getLogger
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from recbole_e2urec.config.keys import REMOVED_KEYS
from recbole_e2urec.deployment.scan import DEFAULT, Places
from recbole_e2urec.errors import InputError, one_line
from recbole_e2urec.experiment.base import Experiment, hash_of
from recbole_e2urec.report.results import versions
from recbole_e2urec.utils import io
from recbole_e2urec.utils.io import file_lock, flush_folder, remove_parts, write_json, write_tensors

MOST_JSON = 2**26  # bytes of a JSON file
_CHANGED = "it is not what was written"


class Broken(Exception):
    """Why a file cannot be used."""


def hash_of_file(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


def has_link(folder: Path, name: str) -> bool:
    """Whether a file, or a folder on the way to it, is a link.

    Args:
        folder: where the way begins; it may be a link itself.
        name: of the file, from there.
    """
    path = folder / name
    return any(one.is_symlink() for one in (path, *path.parents) if folder in one.parents)


def read_json(path: Path, digest: str | None = None) -> dict[str, Any]:
    """Read a mapping from a JSON file.

    Args:
        path: the file.
        digest: its hash; None: of whatever content.

    Raises:
        Broken: too large, no such file, no JSON, no mapping, or another content.
    """
    try:
        if path.stat().st_size > MOST_JSON:
            raise Broken("it is too large")
        data = path.read_bytes()
        if digest is not None and hashlib.sha256(data).hexdigest() != digest:
            raise Broken(_CHANGED)
        value = json.loads(data)
    except (OSError, ValueError, RecursionError) as error:
        raise Broken(one_line(error)) from error
    if not isinstance(value, dict):
        raise Broken("it holds no mapping")
    return value


def read_tensors(path: Path, digest: str) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file of this hash.

    Raises:
        Broken: no such file, another content, or no safetensors.
    """
    try:
        if hash_of_file(path) != digest:
            raise Broken(_CHANGED)
        return io.read_tensors(path)[0]
    except (OSError, ValueError) as error:
        raise Broken(one_line(error)) from error


# What a run says about itself and its request, not about the model.
RUN_ONLY_KEYS = {
    "model", "dataset", "checkpoint_dir", "show_prompts", "prompt_users", "train_neg_sample_args",
    "model_list", "seeds", "tune", "nproc_rows", "forget_by", "forget_ratio", "forget_file",
    "forget_where", "forget_unknown", "request_id", "dry_run", "retrain_share", "ranking_pass",
    "log_wandb", "processes", "show_progress", *REMOVED_KEYS,
}  # fmt: skip
MADE_FOR = ("request_id", "request_digest")  # of the comparison that it comes from
_PATHS = ("backbone", "backbone_source", "prompt")  # which may be paths


def first_record(row: Mapping[str, Any], run: Experiment) -> dict[str, Any]:
    """What a new folder says about a model of the results."""
    told = str(row["settings"].get("checkpoint_dir") or DEFAULT)
    places = Places.of_run(Path(run.config["checkpoint_dir"]), told)
    return {
        "model": row["model"],
        "dataset": row["dataset"],
        "seed": row["seed"],
        "settings": settings_kept(row["settings"], run.config),
        "fingerprint": fingerprint(run),
        "requests": [],
        "versions": versions(),
        "made_for": {key: row.get(key) for key in MADE_FOR},
        "places": places.told(row["stage"]),
    }


def settings_kept(settings: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """Those of a run's settings that say something of its model; paths are made absolute."""
    kept = {key: value for key, value in settings.items() if key not in RUN_ONLY_KEYS}
    if "data_path" in settings:  # RecBole puts the name behind what it is given
        path = Path(str(config["data_path"])).resolve()
        kept["data_path"] = str(path.parent if path.name == config["dataset"] else path)
    for key in _PATHS:
        if kept.get(key) and Path(str(kept[key])).exists():
            kept[key] = str(Path(str(kept[key])).resolve())
    return kept


def data_digest(dataset: Any) -> str:
    """Hash of all rows with users, items and their names, in the order of the files."""
    rows, ids = dataset.rows, dataset.ids
    digest = hashlib.sha256(dataset.dataset_name.encode())
    for names in (ids.users, ids.items):
        digest.update("\0".join(sorted(names, key=names.__getitem__)).encode() + b"\n")
    for column in (rows.user, rows.item, rows.time, rows.rating, rows.label):
        digest.update(b"-" if column is None else np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()


def fingerprint(run: Experiment) -> dict[str, str]:
    """What must be the same for the model to mean the same: data, prompts and parts."""
    return {
        "data": data_digest(run.dataset),
        "prompts": run.model.table.fingerprint(),
        "train": hash_of(run.parts.splits.train),
    }


POINTER, RECORD, GENERATIONS, WORK = "current.json", "model.json", "generations", "work"
CERTIFICATES = "certificates"
TENSORS = ("weights", "forgotten", "sample")
WEIGHTS = f"{TENSORS[0]}.safetensors"
NO_GENERATION = "000000"  # stands for a model that came from elsewhere
FORMAT = 2  # 1 did not say which request a forgotten row belongs to
TRIES = 5  # to read while another process replaces what is read
_NAME = re.compile(r"[0-9]{6}")
_KEYS = {
    "format": int, "model": str, "dataset": str, "seed": int, "settings": dict,
    "fingerprint": dict, "requests": list, "files": dict,
}  # fmt: skip


class Generation(NamedTuple):
    """A state of the model: what ``model.json`` says, and the tensors of the other files."""

    name: str
    digest: str  # SHA-256 of ``model.json``
    record: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]]

    @property
    def state(self) -> dict[str, Any]:
        """What tells it from any other, as JSON: its name and the hashes of its files."""
        return {"generation": self.name, "model_json": self.digest, "files": self.record["files"]}


class _Pointer(NamedTuple):
    """Which generation counts, and the hash of its record."""

    name: str
    digest: str


def _is_request(entry: Any) -> bool:
    keys = ("request_id", "digest")
    return isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in keys)


class ModelFolder:
    """The folder at ``path``; nothing is read or written yet."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @property
    def work(self) -> Path:
        """Where a request that is being carried out keeps what it needs to go on when killed."""
        return self.path / WORK

    @property
    def is_one(self) -> bool:
        """Whether there is a model in it."""
        return (self.path / POINTER).is_file()

    @property
    def is_free(self) -> bool:
        """Whether there is nothing in it, but for what a killed first writer left."""
        if not self.path.exists():
            return True
        left = {".lock", GENERATIONS}
        return self.path.is_dir() and all(path.name in left for path in self.path.iterdir())

    def read(self, whole: bool = True) -> Generation:
        """Read the generation that counts; not ``whole``: its record alone.

        Raises:
            InputError: there is none, or the folder is damaged.
        """
        for _ in range(TRIES):
            pointer = self.pointer()
            try:
                return self._generation(*pointer, TENSORS if whole else ())
            except InputError:
                if self.pointer() == pointer:
                    raise
        raise InputError(f"{self.path} changes all the time; try again")

    def write(self, record: Mapping[str, Any], tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Make this the generation that counts, and remove all others; call it inside alone().

        Raises:
            InputError: the disk is full, or a link is in the way; the generation that counted
                still does.
        """
        number = int(self.pointer().name) + 1 if self.is_one else 1
        name = f"{number:06d}"
        folder = self.path / GENERATIONS / name
        self._refuse_link(f"{GENERATIONS}/{name}")
        shutil.rmtree(folder, ignore_errors=True)  # of one that was killed
        try:
            self._write_generation(folder, record, tensors)
        except InputError:
            shutil.rmtree(folder, ignore_errors=True)  # it takes the room that is wanted
            raise
        write_json(
            self.path / POINTER, {"generation": name, "sha256": hash_of_file(folder / RECORD)}
        )
        flush_folder(self.path)
        self.tidy()

    def _write_generation(
        self, folder: Path, record: Mapping[str, Any], tensors: Mapping[str, Mapping[str, Tensor]]
    ) -> None:
        files = {}
        for kind in TENSORS:
            path = folder / f"{kind}.safetensors"
            write_tensors(path, tensors[kind])
            files[path.name] = hash_of_file(path)
        write_json(folder / RECORD, {**record, "format": FORMAT, "files": files})
        for each in (folder, folder.parent, self.path):
            flush_folder(each)

    def tidy(self) -> None:
        """Remove all that does not count: old generations, and what a killed process left."""
        name = self.pointer().name
        for folder in (self.path / GENERATIONS).iterdir():
            if folder.name != name and not folder.is_symlink():
                shutil.rmtree(folder, ignore_errors=True)
        remove_parts(self.path)
        remove_parts(self.path / CERTIFICATES)

    def done(self) -> None:
        """Remove what a request that is carried out kept on the way: it knows the data well."""
        if not self.work.is_symlink():
            shutil.rmtree(self.work, ignore_errors=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Have the folder for oneself; another process that wants to write waits.

        Raises:
            InputError: something that would be written to is a link.
        """
        for name in (".lock", GENERATIONS, WORK, CERTIFICATES):
            self._refuse_link(name)
        with file_lock(self.path / ".lock", getLogger().warning):
            yield

    def pointer(self) -> "_Pointer":
        """Which generation counts; InputError: none, or the file that names it is damaged."""
        if not (self.path / POINTER).exists():
            raise InputError(
                f"{self.path} is no model folder (it has no {POINTER}); make one by "
                "recbole-e2urec export --output=DIR"
            )
        pointer = self._sealed(read_json, POINTER)
        name, digest = pointer.get("generation"), pointer.get("sha256")
        if not isinstance(name, str) or not _NAME.fullmatch(name) or not isinstance(digest, str):
            raise self._damaged(f"{POINTER}: it names no generation")
        return _Pointer(name, digest)

    def _generation(self, name: str, digest: str, kinds: Sequence[str]) -> Generation:
        place = f"{GENERATIONS}/{name}"
        record = self._sealed(read_json, f"{place}/{RECORD}", digest)
        for key, wanted in _KEYS.items():
            if not isinstance(record.get(key), wanted):
                raise self._damaged(f"{RECORD}: {key} is missing or of another kind")
        if not all(_is_request(entry) for entry in record["requests"]):
            raise self._damaged(f"{RECORD}: a request in it has no id")
        if record["format"] != FORMAT:
            raise self._damaged(f"{RECORD}: format {record['format']} is not known, {FORMAT} is")
        tensors = {}
        for kind in kinds:
            file = f"{kind}.safetensors"
            tensors[kind] = self._sealed(
                read_tensors, f"{place}/{file}", str(record["files"].get(file))
            )
        return Generation(name, digest, record, tensors)

    def _sealed(self, read: Callable[..., dict[str, Any]], name: str, *digest: str) -> Any:
        """Read a file below the folder; none of the names on the way may be a link."""
        self._refuse_link(name)
        try:
            return read(self.path / name, *digest)
        except Broken as error:
            raise self._damaged(f"{Path(name).name}: {error}") from error

    def _refuse_link(self, name: str) -> None:
        if has_link(self.path, name):
            raise self._damaged(f"{Path(name).name}: it is a link, which could lead anywhere")

    def _damaged(self, why: str) -> InputError:
        return InputError(f"{self.path} is damaged: {why}; restore or export it anew")
