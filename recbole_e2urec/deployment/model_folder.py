"""A model folder: a served model as files. The folder moves from one state to the next atomically.

``current.json`` names the current generation, ``generations/000001`` and so on. A new generation is
written beside the current one and flushed to the disk. Replacing ``current.json`` then makes it
current. If the process is killed, the folder holds either the old state or the new one. A
generation consists of

- ``model.json``: settings, the requests carried out so far, and hashes of the other files;
- ``weights.safetensors``: the weights of the backbone, or of the adapter that was tuned;
- ``forgotten.safetensors``: ids of rows that no later training and no history may show;
- ``sample.safetensors``: rows on which drift is measured, and what the first model answered;
- ``remainder.safetensors``: only after rows were erased, see :class:`Remainder`;
- ``corrections.safetensors``: only after rows were corrected, see :class:`Corrections`;
- ``answers.safetensors``: what the model answers to rows that a request will ask it about. It saves
  time, and may be missing.

The model that a request leaves serves before the request is measured and certified. Until then, the
generation before it stays, too.

While rows are being erased, ``erasing`` holds what is about to be put in place, and a journal of
it. The next command finishes what was decided, or else takes it back.

``certificates`` holds a JSON file and a page for each request. They stay when generations are
removed. Nothing here is ever unpickled, no name in a file leads to another file, and links are
refused. The journal alone names files elsewhere: those that the same command wrote beside the data.
"""

import hashlib
import json
import os
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
from recbole_e2urec.data.prompt_table import PromptTable
from recbole_e2urec.errors import InputError, one_line
from recbole_e2urec.experiment.run import Experiment, Rows, hash_of
from recbole_e2urec.report.results import versions
from recbole_e2urec.utils import io
from recbole_e2urec.utils.io import (
    file_lock,
    flush_folder,
    link_or_copy,
    make_folder,
    remove_parts,
    write_json,
    write_tensors,
)

POINTER, RECORD, GENERATIONS, WORK = "current.json", "model.json", "generations", "work"
CERTIFICATES, ERASING, JOURNAL = "certificates", "erasing", "journal.json"
PLACES, STAGE = "places", "stage"  # where the run wrote that made the model, and its stage there
TENSORS, REMAINDER = ("weights", "forgotten", "sample"), "remainder"
CORRECTIONS, ANSWERS = "corrections", "answers"
WEIGHTS = f"{TENSORS[0]}.safetensors"
NO_GENERATION = "000000"  # stands for a model that was in no folder
# Format 1 did not say which request a forgotten row belongs to; 3 has corrections, which a version
# that knows only format 2 would leave out of account.
FOLDER_FORMAT, CORRECTED_FORMAT = 2, 3
MAX_JSON_BYTES = 2**26
READ_ATTEMPTS = 5  # while another process replaces the generation that is being read

# Settings that describe a run and its request, not the model.
RUN_ONLY_KEYS = {
    "model", "dataset", "checkpoint_dir", "show_prompts", "prompt_users", "train_neg_sample_args",
    "model_list", "seeds", "tune", "nproc_rows", "forget_by", "forget_ratio", "forget_file",
    "forget_where", "forget_unknown", "request_id", "dry_run", "retrain_share", "ranking_pass",
    "log_wandb", "processes", "show_progress", *REMOVED_KEYS,
}  # fmt: skip
REQUEST_KEYS = ("request_id", "request_digest")  # of the comparison that the model comes from
_PATH_KEYS = ("backbone", "backbone_source", "prompt")  # settings that may be paths
_RECORD_TYPES = {
    "format": int, "model": str, "dataset": str, "seed": int, "settings": dict,
    "fingerprint": dict, "requests": list, "files": dict,
}  # fmt: skip
STAGED = ".e2urec-erasing"  # of the folder beside data files with their successors
_GENERATION_NAME = re.compile(r"[0-9]{6}")
_CHANGED = "it is not what was written"
Tensors = Mapping[str, Tensor] | Path  # a file of a generation, or what it holds


def first_record(row: Mapping[str, Any], run: Experiment) -> dict[str, Any]:
    """Return what a new folder records about a model of the results."""
    checkpoint_dir = str(Path(run.config["checkpoint_dir"]).resolve())
    return {
        "model": row["model"],
        "dataset": row["dataset"],
        "seed": row["seed"],
        "settings": model_settings(row["settings"], run.config),
        "fingerprint": fingerprint(run),
        "requests": [],
        "versions": versions(),
        "made_for": {key: row.get(key) for key in REQUEST_KEYS},
        PLACES: {"checkpoint_dir": checkpoint_dir, STAGE: row["stage"]},
    }


def model_settings(settings: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """Return the settings of a run that describe its model, with absolute paths."""
    described = {key: value for key, value in settings.items() if key not in RUN_ONLY_KEYS}
    if "data_path" in settings:  # RecBole appends the name of the data set to it
        path = Path(str(config["data_path"])).resolve()
        described["data_path"] = str(path.parent if path.name == config["dataset"] else path)
    for key in _PATH_KEYS:
        if described.get(key) and Path(str(described[key])).exists():
            described[key] = str(Path(str(described[key])).resolve())
    return described


def fingerprint(run: Experiment) -> dict[str, str]:
    """Hash what must not change for the model to keep its meaning: data, prompts and split."""
    return fingerprint_of(run.dataset, run.model.table, run.parts.splits.train)


def fingerprint_of(dataset: Any, table: PromptTable, train: Rows) -> dict[str, str]:
    """Hash the data, the prompts without histories, and the training rows."""
    return {
        "data": data_digest(dataset),
        "prompts": table.fingerprint(),
        "train": hash_of(train),
    }


def data_digest(dataset: Any) -> str:
    """Hash all rows, with the names of users and items, in the order of the files."""
    rows, ids = dataset.rows, dataset.ids
    digest = hashlib.sha256(dataset.dataset_name.encode())
    for names in (ids.users, ids.items):
        digest.update("\0".join(sorted(names, key=names.__getitem__)).encode() + b"\n")
    for column in (rows.user, rows.item, rows.time, rows.rating, rows.label):
        digest.update(b"-" if column is None else np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()


def unmeasured_of(record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the ledger's entry of a request whose model is in place, but not measured yet."""
    requests = record["requests"]
    evidence = requests[-1].get("evidence", {}) if requests else {}
    return requests[-1] if evidence and "measures" not in evidence else None


class UnusableFile(Exception):
    """A file cannot be used; the message says why."""


def hash_of_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def has_link(folder: Path, name: str) -> bool:
    """Return whether a file, or a folder on the way to it, is a link.

    Args:
        folder: where the way begins; it may itself be a link.
        name: path of the file, relative to the folder.
    """
    path = folder / name
    return any(step.is_symlink() for step in (path, *path.parents) if folder in step.parents)


def read_json(path: Path, digest: str | None = None) -> dict[str, Any]:
    """Read a mapping from a JSON file.

    Args:
        path: the file.
        digest: its expected hash; None: any content will do.

    Raises:
        UnusableFile: the file is missing or too large, is not JSON, holds no mapping, or does not
            have the expected hash.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise UnusableFile("it is too large")
        data = path.read_bytes()
        if digest is not None and hashlib.sha256(data).hexdigest() != digest:
            raise UnusableFile(_CHANGED)
        value = json.loads(data)
    except (OSError, ValueError, RecursionError) as error:
        raise UnusableFile(one_line(error)) from error
    if not isinstance(value, dict):
        raise UnusableFile("it holds no mapping")
    return value


def read_tensors(path: Path, digest: str) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file that has this hash.

    Raises:
        UnusableFile: the file is missing, is not safetensors, or does not have the expected hash.
    """
    try:
        if hash_of_file(path) != digest:
            raise UnusableFile(_CHANGED)
        return io.read_tensors(path)[0]
    except (OSError, ValueError) as error:
        raise UnusableFile(one_line(error)) from error


class Generation(NamedTuple):
    """A state of the model: the content of ``model.json``, and the tensors of the other files."""

    name: str
    digest: str  # SHA-256 of ``model.json``
    record: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]]

    @property
    def kinds(self) -> list[str]:
        """The names of its files of tensors, without their suffix."""
        return _kinds_of(self.record)

    @property
    def pointer(self) -> dict[str, str]:
        """What ``current.json`` holds where this is the current generation."""
        return {"generation": self.name, "sha256": self.digest}

    @property
    def state(self) -> dict[str, Any]:
        """What identifies this state, as JSON: its name and the hashes of its files."""
        return {"generation": self.name, "model_json": self.digest, "files": self.record["files"]}


class _Pointer(NamedTuple):
    """The name of the current generation, and the hash of its record."""

    name: str
    digest: str


class ModelFolder:
    """The folder at ``path``. Creating this object reads and writes nothing."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._is_locked = False  # by this object

    @property
    def work(self) -> Path:
        """Where a request keeps what it needs to resume if it is killed."""
        return self.path / WORK

    @property
    def has_model(self) -> bool:
        """Whether the folder holds a model."""
        return (self.path / POINTER).is_file()

    @property
    def is_free(self) -> bool:
        """Whether the folder is empty, except for what a killed first writer may have left."""
        if not self.path.exists():
            return True
        leftovers = {".lock", GENERATIONS}
        return self.path.is_dir() and all(path.name in leftovers for path in self.path.iterdir())

    def read(self, with_tensors: bool = True) -> Generation:
        """Read the current generation; without ``with_tensors``, its record alone.

        Raises:
            InputError: the folder holds no model, or is damaged.
        """
        for _ in range(READ_ATTEMPTS):
            pointer = self.pointer()
            try:
                return self._read_generation(*pointer, with_tensors)
            except InputError:
                if self.pointer() == pointer:
                    raise
        raise InputError(f"{self.path} changes all the time; try again")

    def write(self, record: Mapping[str, Any], tensors: Mapping[str, Tensors]) -> Generation:
        """Write a new current generation, and tidy. Call this inside ``locked()``.

        Args:
            record: the content of ``model.json``; format and hashes are added.
            tensors: by kind, tensors or a file of them, see :meth:`files`.

        Returns:
            The generation, without its tensors.

        Raises:
            InputError: the disk is full, or a link is in the way. The current generation stays as
                it was.
        """
        generation = self.prepare(record, tensors)
        write_json(self.path / POINTER, generation.pointer)
        flush_folder(self.path)
        self.tidy()
        return generation

    def prepare(self, record: Mapping[str, Any], tensors: Mapping[str, Tensors]) -> Generation:
        """Write a new generation beside the current one; arguments are as for :meth:`write`.

        Returns:
            The generation, without its tensors.
        """
        number = int(self.pointer().name) + 1 if self.has_model else 1
        name = f"{number:06d}"
        folder = self.path / GENERATIONS / name
        self._refuse_link(f"{GENERATIONS}/{name}")
        shutil.rmtree(folder, ignore_errors=True)  # left by a killed process
        try:
            written = self._write_generation(folder, record, tensors)
        except InputError:
            shutil.rmtree(folder, ignore_errors=True)  # gives back the room on the full disk
            raise
        return Generation(name, hash_of_file(folder / RECORD), written, {})

    def files(self) -> dict[str, Path]:
        """Return the files of tensors of the current generation, by kind.

        A generation that takes over such a file has it under a second name, and does not write it
        again.
        """
        current = self.read(with_tensors=False)
        return {kind: self.path / _place(current.name, kind) for kind in current.kinds}

    def tidy(self) -> None:
        """Remove old generations, and what a killed process left.

        While a request is not measured, the model before it stays.
        """
        current = self.read(with_tensors=False)
        unmeasured, stay = unmeasured_of(current.record), {current.name}
        if unmeasured is not None:
            stay.add(str(unmeasured["evidence"]["before"]["generation"]))
        for folder in (self.path / GENERATIONS).iterdir():
            if folder.name not in stay and not folder.is_symlink():
                shutil.rmtree(folder, ignore_errors=True)
        remove_parts(self.path)
        remove_parts(self.path / CERTIFICATES)

    def read_before(self, entry: Mapping[str, Any]) -> Generation:
        """Read the generation with which an unmeasured request began.

        Raises:
            InputError: the folder is damaged.
        """
        before = entry["evidence"]["before"]
        return self._read_generation(str(before["generation"]), str(before["model_json"]), True)

    def remove_work(self) -> None:
        """Remove the working files of a request; their models know the forgotten rows well."""
        if not self.work.is_symlink():
            shutil.rmtree(self.work, ignore_errors=True)

    @contextmanager
    def locked(self, unmeasured: bool = False) -> Iterator[None]:
        """Lock the folder; another process that wants to write waits.

        Args:
            unmeasured: whether the body can go on where a request is not measured yet.

        Raises:
            InputError: something that would be written to is a link, or a request is not measured.
        """
        for name in (".lock", GENERATIONS, WORK, CERTIFICATES, ERASING):
            self._refuse_link(name)
        with file_lock(self.path / ".lock", getLogger().warning):
            self._is_locked = True
            try:
                self.finish_erasure()
                if not unmeasured:
                    self._refuse_unmeasured()
                yield
            finally:
                self._is_locked = False

    def begin_erasure(self, data: Path, dataset: str) -> Path:
        """Make a data folder inside the present one, in which the successors of its files go.

        Args:
            data: the folder of the data files. Call this inside ``locked()``.
            dataset: name of the data set.

        Raises:
            InputError: a folder cannot be written to.
        """
        name = hashlib.sha256(str(self.path.resolve()).encode()).hexdigest()[:16]
        staged = data.resolve() / f".{name}{STAGED}" / dataset
        write_json(self.path / ERASING / JOURNAL, {"staged": str(staged)})
        flush_folder(self.path)
        shutil.rmtree(staged.parent, ignore_errors=True)
        for folder in (staged, self.path / ERASING / CERTIFICATES, self.path / CERTIFICATES):
            make_folder(folder, "erase")
        return staged

    def decide_erasure(self, staged: Path, files: Mapping[str, Sequence[str]]) -> None:
        """Decide that what is in ``erasing`` and ``staged`` takes effect, and let it.

        Until the journal is written, the old state holds; from then on, the new one does.

        Args:
            staged: as :meth:`begin_erasure` made it.
            files: names of the data files, and SHA-256 of what each is and of what it becomes.
        """
        erasing = self.path / ERASING
        for changed in (staged, *staged.parents[:2], erasing / CERTIFICATES, erasing):
            flush_folder(changed)
        journal = {"staged": str(staged), "files": files}
        write_json(erasing / JOURNAL, journal)
        flush_folder(erasing)
        self.finish_erasure()

    def finish_erasure(self) -> None:
        """Finish an erasure that was decided; take back one that was not.

        Raises:
            InputError: a file cannot be put in place.
        """
        erasing = self.path / ERASING
        if not erasing.exists():
            return
        try:
            if (erasing / JOURNAL).exists():
                self._follow(self._read_file(read_json, f"{ERASING}/{JOURNAL}"))
            shutil.rmtree(erasing)
            flush_folder(self.path)
        except OSError as error:
            raise InputError(
                f"{self.path}: rows are being erased, and {error.filename}: {error.strerror}; mend "
                "that, and give any command on this folder again, which goes on"
            ) from error

    def _follow(self, journal: Mapping[str, Any]) -> None:
        """Put in place what a journal says, unless other files are there by now."""
        staged, files = Path(str(journal.get("staged"))), journal.get("files")
        holder, data = staged.parent, staged.parent.parent
        if not holder.name.endswith(STAGED) or has_link(data, f"{holder.name}/{staged.name}"):
            raise self._damaged(f"{JOURNAL}: it names no folder of an erasure")
        if isinstance(files, dict) and self._is_possible(staged, data, files):
            for name in files:
                if (staged / name).exists():
                    os.replace(staged / name, data / name)
            flush_folder(data)
            self._place_staged()
        if holder.exists():
            shutil.rmtree(holder)

    def _is_possible(self, staged: Path, data: Path, files: Mapping[str, Any]) -> bool:
        """Return whether each data file is what it was, or what it is to become.

        Raises:
            InputError: some have been replaced, and others are neither.
        """
        states = set()
        for name, hashes in files.items():
            place, successor = data / name, staged / name
            is_pair = isinstance(hashes, list) and len(hashes) == 2
            if Path(name).name != name or place.is_symlink() or not is_pair:
                raise self._damaged(f"{JOURNAL}: it names a file elsewhere")
            before, after = hashes
            now = hash_of_file(place) if place.exists() else None
            is_ready = successor.exists() and hash_of_file(successor) == after
            states.add("old" if now == before and is_ready else "new" if now == after else "other")
        if {"new", "other"} <= states:
            raise InputError(
                f"{data}: a file was changed while rows were being erased; put it back"
            )
        return "other" not in states

    def _place_staged(self) -> None:
        """Put certificates in place, and then ``current.json``."""
        erasing = self.path / ERASING
        for file in sorted((erasing / CERTIFICATES).glob("*")):
            os.replace(file, self.path / CERTIFICATES / file.name)
        if (erasing / POINTER).exists():
            flush_folder(self.path / CERTIFICATES)
            os.replace(erasing / POINTER, self.path / POINTER)
            flush_folder(self.path)

    def pointer(self) -> _Pointer:
        """Return the name of the current generation, and the hash of its record.

        If rows are being erased, this waits until they are; if the process was killed, this
        finishes its work.

        Raises:
            InputError: the folder holds no model, or ``current.json`` is damaged.
        """
        if not (self.path / POINTER).exists():
            raise InputError(
                f"{self.path} is no model folder (it has no {POINTER}); make one by "
                "recbole-e2urec export --output=DIR"
            )
        if (self.path / ERASING).exists() and not self._is_locked:
            with self.locked(unmeasured=True):
                pass
        pointer = self._read_file(read_json, POINTER)
        name, digest = pointer.get("generation"), pointer.get("sha256")
        is_name = isinstance(name, str) and _GENERATION_NAME.fullmatch(name)
        if not is_name or not isinstance(digest, str):
            raise self._damaged(f"{POINTER}: it names no generation")
        return _Pointer(name, digest)

    def _read_generation(self, name: str, digest: str, with_tensors: bool) -> Generation:
        folder = f"{GENERATIONS}/{name}"
        record = self._read_file(read_json, f"{folder}/{RECORD}", digest)
        for key, expected_type in _RECORD_TYPES.items():
            if not isinstance(record.get(key), expected_type):
                raise self._damaged(f"{RECORD}: {key} is missing or of another kind")
        if not all(_is_request(entry) for entry in record["requests"]):
            raise self._damaged(f"{RECORD}: a request in it has no id")
        if record["format"] not in (FOLDER_FORMAT, CORRECTED_FORMAT):
            raise self._damaged(
                f"{RECORD}: format {record['format']} is not known, {FOLDER_FORMAT} is"
            )
        tensors = {}
        for kind in _kinds_of(record) if with_tensors else ():
            file = f"{kind}.safetensors"
            digest_of_file = str(record["files"].get(file))
            tensors[kind] = self._read_file(read_tensors, _place(name, kind), digest_of_file)
        return Generation(name, digest, record, tensors)

    def _write_generation(
        self, folder: Path, record: Mapping[str, Any], tensors: Mapping[str, Tensors]
    ) -> dict[str, Any]:
        files = {}
        for kind, content in tensors.items():
            path = self.path / _place(folder.name, kind)
            if isinstance(content, Path):
                link_or_copy(content, path)
            else:
                write_tensors(path, content)
            files[path.name] = hash_of_file(path)
        is_corrected = any("kind" in entry for entry in record["requests"])
        number = CORRECTED_FORMAT if is_corrected else FOLDER_FORMAT
        written = {**record, "format": number, "files": files}
        write_json(folder / RECORD, written)
        for changed in (folder, folder.parent, self.path):
            flush_folder(changed)
        return written

    def _read_file(self, read: Callable[..., dict[str, Any]], name: str, *digest: str) -> Any:
        """Read a file of the folder; refuse it if its path leads through a link."""
        self._refuse_link(name)
        try:
            return read(self.path / name, *digest)
        except UnusableFile as error:
            raise self._damaged(f"{Path(name).name}: {error}") from error

    def _refuse_unmeasured(self) -> None:
        if self.has_model and unmeasured_of(self.read(with_tensors=False).record):
            raise InputError(
                f"{self.path}: its last request is carried out, but was killed before it was "
                "measured and certified; give it once more"
            )

    def _refuse_link(self, name: str) -> None:
        if has_link(self.path, name):
            raise self._damaged(f"{Path(name).name}: it is a link, which could lead anywhere")

    def _damaged(self, why: str) -> InputError:
        return InputError(f"{self.path} is damaged: {why}; restore or export it anew")


def _place(generation: str, kind: str) -> str:
    """Return the path of a file of tensors, relative to the model folder."""
    return f"{GENERATIONS}/{generation}/{kind}.safetensors"


def _kinds_of(record: Mapping[str, Any]) -> list[str]:
    """Return the names of a generation's files of tensors, without their suffix."""
    optional = REMAINDER, CORRECTIONS, ANSWERS
    more = (kind for kind in optional if f"{kind}.safetensors" in record["files"])
    return [*TENSORS, *more]


def _is_request(entry: Any) -> bool:
    keys = ("request_id", "digest")
    return isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in keys)
