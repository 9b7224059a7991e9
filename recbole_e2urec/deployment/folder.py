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

import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from logging import getLogger
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from recbole_e2urec.deployment.sealed import Broken, has_link, hash_of_file, read_json, read_tensors
from recbole_e2urec.errors import InputError
from recbole_e2urec.storage import alone, flush_folder, remove_parts, write_json, write_tensors

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
    def alone(self) -> Iterator[None]:
        """Have the folder for oneself; another process that wants to write waits.

        Raises:
            InputError: something that would be written to is a link.
        """
        for name in (".lock", GENERATIONS, WORK, CERTIFICATES):
            self._refuse_link(name)
        with alone(self.path / ".lock", getLogger().warning):
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
