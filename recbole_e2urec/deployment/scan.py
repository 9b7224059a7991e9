"""What a run leaves behind, and what lies in its folders: what a purge removes, keeps or leaves.

A path is matched from its place on, name by name; ``**`` stands for folders of whatever names and
number. What no line knows is somebody else's, and is left alone.
"""

import logging
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recbole_e2urec.errors import InputError
from recbole_e2urec.report.results import RESULTS, load_rows
from recbole_e2urec.trainer.training_log import FOLDER as CURVES
from recbole_e2urec.utils.html import OF_RESULTS, OF_USERS
from recbole_e2urec.utils.recbole_compat import close_events

DEFAULT = "saved"  # RecBole's checkpoint_dir
STAGE = "stage"


class Places(NamedTuple):
    """Folders, absolute; some may not be there."""

    checkpoint_dir: Path
    log: Path
    log_tensorboard: Path
    wandb: Path

    @classmethod
    def below(cls, start: Path, checkpoints: Path | str) -> "Places":
        """Those of a run that was started in a folder."""
        start = start.resolve()
        wandb = Path(os.environ.get("WANDB_DIR") or ".") / "wandb"
        names = checkpoints, "log", CURVES, wandb
        return cls(*((start / name).resolve() for name in names))

    @classmethod
    def of_run(cls, checkpoints: Path, told: str) -> "Places":
        """Those of a finished run.

        Args:
            checkpoints: its checkpoint_dir, from here.
            told: what the run itself called it: so one knows where the run was started, unless it
                is an absolute path, or another one by now; then it was started here.
        """
        whole, end = checkpoints.resolve(), Path(told)
        own = end.parts
        ends_so = not end.is_absolute() and own and whole.parts[-len(own) :] == own
        start = Path(*whole.parts[: -len(own)]) if ends_so else Path.cwd()
        return cls.below(start, whole)

    def told(self, stage: str) -> dict[str, str]:
        """What a model folder keeps of them; the stage tells this run from any other."""
        return {**{name: str(path) for name, path in self._asdict().items()}, STAGE: stage}


def recorded(record: Mapping[str, Any]) -> Places | None:
    """The places of the run that made a model, by what its folder says; None: it says nothing.

    Raises:
        InputError: it says something else.
    """
    told = record.get("places")
    if told is None:
        return None
    names = (*Places._fields, STAGE)
    fits = isinstance(told, dict) and all(isinstance(told.get(name), str) for name in names)
    if not fits or not all(Path(told[name]).is_absolute() for name in Places._fields):
        raise InputError("model.json: places are no folders; name the run's by --checkpoint_dir")
    return Places(*(Path(told[name]) for name in Places._fields))


def is_still_there(places: Places, record: Mapping[str, Any]) -> bool:
    """Whether what lies in the checkpoint_dir that a model folder names is that run, or nothing.

    A folder that was taken to another machine may name one that has nothing to do with it.
    """
    if not places.checkpoint_dir.exists():
        return True
    rows = load_rows(places.checkpoint_dir / RESULTS)
    return any(row.get("stage") == record["places"][STAGE] for row in rows)


MODEL = "model"  # the place of a model folder; the others are those of Places
ANY = "**"
_SAVED, _WANDB = "checkpoint_dir", "wandb"
_TIME = r"[^\W\d_]+\.?-\d\d-\d{4}_\d\d-\d\d-\d\d"  # RecBole's
_PART = r"\..+\.[a-z0-9_]{8}\.part"
_ANSWERS = r"[0-9a-f]{16}\.safetensors"
_TENSORS = r"[\w.-]+\.safetensors"
_RUN = r"(offline-)?run-\d{8}_\d{6}-\w+"  # of wandb


def _stage(name: str = r"[A-Za-z][\w.-]*") -> str:
    return rf"stages/({name})-[0-9a-f]{{16}}"


class Kind(NamedTuple):
    """A kind of files.

    Attributes:
        name: under which its files are counted.
        place: where they lie.
        pattern: of their paths.
        holds: what is in them.
        mark: bytes that it must have in it, or one of the files in the same folder of its place:
            others may use such a name as well.
    """

    name: str
    place: str
    pattern: str
    holds: str
    mark: bytes | None = None

    def fits(self, parts: Sequence[str]) -> bool:
        """Whether this is the path of such a file."""
        *folders, file = self.pattern.split("/")
        at_any_depth = bool(folders) and folders[-1] == ANY
        folders = folders[:-1] if at_any_depth else folders
        enough = len(parts) > len(folders) if at_any_depth else len(parts) == len(folders) + 1
        return enough and _alike(folders, parts) and bool(re.fullmatch(file, parts[-1]))

    def leads_to(self, parts: Sequence[str]) -> bool:
        """Whether such a file may lie in this folder, or further down."""
        *folders, _ = self.pattern.split("/")
        if folders and folders[-1] == ANY:
            return _alike(folders[:-1], parts)
        return len(parts) <= len(folders) and _alike(folders, parts)


def _alike(patterns: Iterable[str], names: Iterable[str]) -> bool:
    return all(re.fullmatch(*pair) for pair in zip(patterns, names, strict=False))


def _requests_too(kinds: Iterable[Kind]) -> list[Kind]:
    """The same below the folder of the request that settings are chosen on."""
    own = list(kinds)
    inner = [one._replace(pattern=f"development/{one.pattern}") for one in own]
    return [*own, *inner]


REMOVED: tuple[Kind, ...] = (
    *_requests_too(
        [
            Kind("Original", _SAVED, rf"{_stage('Original|LLMRec')}/weights\.safetensors",
                 "the model that learned from all rows"),
            Kind("augmented model", _SAVED, rf"{_stage('augmented')}/weights\.safetensors",
                 "what E2URec trains further on the forgotten rows; it knows them best of all"),
            Kind("progress and optimiser states", _SAVED,
                 rf"{_stage()}/(progress|best)\.safetensors", "training that was interrupted"),
            Kind("other stages", _SAVED, rf"{_stage()}/({_TENSORS}|stage\.json|\.lock|{_PART})",
                 "students, Retrain, shards, also of other requests: they know users whom this one "
                 "names"),
        ]
    ),
    Kind("answers", _SAVED, rf"answers/({_ANSWERS}|\.{_ANSWERS}\.[a-z0-9_]{{8}}\.part)",
         "what every model says of the forgotten rows, without their names"),
    Kind("requests drawn for tuning", _SAVED, rf"development/(request\.csv|{_PART})",
         "names of users or items"),
    Kind("pages of prompts and users", _SAVED, r".+\.html", "titles, users, prompts", OF_USERS),
    Kind("RecBole's checkpoints", _SAVED,
         rf"\w+-{_TIME}(-\d+-\d+)?(-temp(-best)?)?\.pth(\.part)?",
         "weights, optimiser states and, for some models, the data set"),
    Kind("RecBole's checkpoints", _SAVED, r"(S3Rec|RaCT)-.+-\d+\.pth", "the same, pretrained"),
    Kind("pickles of data", _SAVED, r".+-(\w*Dataset|for-\w+-dataloader)\.pth",
         "the data set, by RecBole's save_dataset and save_dataloaders", b"recbole"),
    Kind("parts of files", _SAVED, _PART, "what a killed process was writing"),
    Kind("logs", "log", rf"\w+/\w+-(.+-)?{_TIME}(-[0-9a-f]+)?\.log", "settings as they were typed"),
    Kind("tensorboard events", "log_tensorboard", r".+/**/events\.out\.tfevents\..+",
         "settings as they were typed, and curves"),
    Kind("wandb's local runs", _WANDB, rf"{_RUN}/**/.+", "the same", b"wandb_project"),
    Kind("wandb's local runs", _WANDB, r"debug(-\w+)?(\.\w+)?\.log", "the same", b"wandb_project"),
    Kind("work of requests", MODEL, rf"work/[\w.-]+/({_TENSORS}|stage\.json|\.lock|{_PART})",
         "the augmented model and students of a request that was killed"),
    Kind("parts of files", MODEL, _PART, "what a killed process was writing"),
    Kind("parts of files", MODEL, f"certificates/{_PART}", "the same"),
)  # fmt: skip

KEPT: tuple[Kind, ...] = (
    Kind("results", _SAVED, r"results\.jsonl", "measures and settings of every model, no names"),
    Kind("results", _SAVED, r".+\.html", "a page of measures, no names", OF_RESULTS),
    Kind("settings", _SAVED, r"hyper(-best)?\.(json|yaml)",
         "settings that were chosen, and their measures"),
    Kind("model", MODEL, r"generations/\d{6}/(model\.json|\w+\.safetensors)", "the model in use"),
)  # fmt: skip

# Neither counted nor told: empty, or with a hash of its own, or only the name of something else.
PASSED_OVER: tuple[Kind, ...] = (
    Kind("locks", _SAVED, r"\.results\.jsonl\.lock", "nothing"),
    Kind("locks", MODEL, r"\.lock", "nothing"),
    Kind("pointer", MODEL, r"current\.json", "the hash of model.json"),
    Kind("audit", MODEL, r"certificates/[\w-]+\.(json|html)", "what requests did, sealed"),
    Kind("audit", MODEL, r"purged\.json", "what a purge did"),
    Kind("pointer", _WANDB, r"latest-run|debug(-internal)?\.log", "wandb's links to its last run"),
)


def close_log_handlers(places: Places | None) -> None:
    """Close the log, TensorBoard's events and the run of wandb; later words go to the terminal."""
    close_events()
    wandb = sys.modules.get("wandb")
    if wandb is not None and getattr(wandb, "run", None) is not None:
        wandb.finish()
    if places is None:
        return
    log = logging.getLogger()
    for handler in list(log.handlers):
        name = getattr(handler, "baseFilename", None)
        if name and Path(name).resolve().is_relative_to(places.log):
            log.removeHandler(handler)
            handler.close()


_ALL = (*REMOVED, *KEPT, *PASSED_OVER)


class Entry(NamedTuple):
    """A file of a kind.

    Attributes:
        kind: of the table.
        path: where it is.
        name: how it is told: from the model folder, or the name of its place and the way from it.
        size: in bytes.
    """

    kind: Kind
    path: Path
    name: str
    size: int


class Found(NamedTuple):
    """What lies in the folders; ``folders`` are those of known kinds, the deepest first."""

    removed: list[Entry]
    kept: list[Entry]
    unknown: list[str]
    folders: list[Path]


def scan_files(places: Places | None, model: Path | None) -> Found:
    """Look through the folders of a run and of a model; those that are not there have nothing.

    No link is followed, no folder opened in which nothing known can lie.

    Raises:
        InputError: a folder that cannot be read.
    """
    by_place = {} if places is None else dict(places._asdict())
    if model is not None:
        by_place[MODEL] = model.resolve()
    found = Found([], [], [], [])
    for root in dict.fromkeys(by_place.values()):
        names = [name for name, path in by_place.items() if path == root]
        kinds = [kind for kind in _ALL if kind.place in names]
        others = {path for path in by_place.values() if path != root}
        _Scan(root, names[0], kinds, others, found).through()
    return found


class _Scan:
    """Goes through one folder, and adds to what was found."""

    def __init__(
        self, root: Path, place: str, kinds: list[Kind], others: set[Path], found: Found
    ) -> None:
        self.root, self.place, self.kinds = root, place, kinds
        self.others, self.found = others, found

    def through(self) -> None:
        """Sort what is there into the lists of what was found."""
        try:
            if self.root.exists():
                self._folder(())
        except OSError as error:
            raise InputError(
                f"cannot read {error.filename or self.root}: {error.strerror}; mend that, and give "
                "the same command again"
            ) from error

    def _folder(self, above: tuple[str, ...]) -> None:
        for entry in sorted(os.scandir(self.root.joinpath(*above)), key=lambda one: one.name):
            parts = (*above, entry.name)
            if self.root.joinpath(*parts) in self.others:  # looked through by itself
                continue
            if not entry.is_dir(follow_symlinks=False):
                self._file(parts, entry.stat(follow_symlinks=False))
            elif any(kind.leads_to(parts) for kind in self.kinds) and self._is_ours(parts):
                self._folder(parts)
                self.found.folders.append(self.root.joinpath(*parts))
            else:
                self._leave(parts, "/")

    def _is_ours(self, parts: tuple[str, ...]) -> bool:
        """Whether a folder has the mark that its kind asks for."""
        marks = {kind.mark for kind in self.kinds if kind.mark and kind.leads_to(parts)}
        return all(_is_marked(self.root / parts[0], mark) for mark in marks)

    def _file(self, parts: tuple[str, ...], status: os.stat_result) -> None:
        path = self.root.joinpath(*parts)
        regular = stat.S_ISREG(status.st_mode)
        for kind in self.kinds:
            if not kind.fits(parts) or not (regular or kind in PASSED_OVER):
                continue
            if kind.mark and len(parts) == 1 and not _has(path, kind.mark):
                continue
            if kind not in PASSED_OVER:
                to = self.found.removed if kind in REMOVED else self.found.kept
                to.append(Entry(kind, path, self._name(parts), status.st_size))
            return
        self._leave(parts, "" if regular else " (a link or no plain file)")

    def _leave(self, parts: tuple[str, ...], more: str) -> None:
        self.found.unknown.append(self._name(parts) + more)

    def _name(self, parts: tuple[str, ...]) -> str:
        return "/".join(parts if self.place == MODEL else (self.place, *parts))


def _is_marked(folder: Path, mark: bytes) -> bool:
    """Whether a run of wandb, in its settings or its log, has the mark."""
    return any(_has(path, mark) for path in _below(folder) if path.suffix in (".yaml", ".wandb"))


def _below(folder: Path) -> Iterator[Path]:
    for where, _, names in os.walk(folder):
        paths = (Path(where, name) for name in names)
        yield from (path for path in paths if path.is_file() and not path.is_symlink())


def _has(path: Path, mark: bytes) -> bool:
    """Whether a file has these bytes in it; what cannot be read is not ours."""
    rest = b""
    try:
        with path.open("rb") as file:
            while part := file.read(2**20):
                if mark in rest + part:
                    return True
                rest = part[-len(mark) :]
    except PermissionError:
        pass
    return False


def by_kind(entries: list[Entry]) -> Mapping[str, tuple[int, int]]:
    """Files and bytes by the name of their kind, in the order of the table."""
    sums: dict[str, tuple[int, int]] = {}
    order = {kind.name: place for place, kind in reversed(list(enumerate(_ALL)))}
    for one in sorted(entries, key=lambda entry: order[entry.kind.name]):
        files, size = sums.get(one.kind.name, (0, 0))
        sums[one.kind.name] = files + 1, size + one.size
    return sums
