"""What lies in the folders of a run and of a model: what a purge removes, keeps or leaves alone.

Tables of file kinds decide. A file's path, relative to its place, is matched name by name. ``**``
stands for any number of folders of any name. A file that no table knows belongs to somebody else
and is left alone.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recbole_e2urec.errors import InputError
from recbole_e2urec.report.results import RESULTS, load_results
from recbole_e2urec.trainer.training_log import FOLDER as CURVES
from recbole_e2urec.utils.html import OF_RESULTS, OF_USERS

DEFAULT_CHECKPOINT_DIR = "saved"  # RecBole's
STAGE = "stage"
MODEL = "model"  # the place of a model folder; the other places are those of Places
ANY_DEPTH = "**"

_SAVED, _WANDB = "checkpoint_dir", "wandb"
_TIME = r"[^\W\d_]+\.?-\d\d-\d{4}_\d\d-\d\d-\d\d"  # as RecBole writes it
_PART = r"\..+\.[a-z0-9_]{8}\.part"
_ANSWERS = r"[0-9a-f]{16}\.safetensors"
_TENSORS = r"[\w.-]+\.safetensors"
_WANDB_RUN = r"(offline-)?run-\d{8}_\d{6}-\w+"


class Places(NamedTuple):
    """The folders of a run, absolute; some may not exist."""

    checkpoint_dir: Path
    log: Path
    log_tensorboard: Path
    wandb: Path

    @classmethod
    def below(cls, start: Path, checkpoints: Path | str) -> "Places":
        """Return the places of a run that was started in a folder."""
        start = start.resolve()
        wandb = Path(os.environ.get("WANDB_DIR") or ".") / "wandb"
        names = checkpoints, "log", CURVES, wandb
        return cls(*((start / name).resolve() for name in names))

    @classmethod
    def of_run(cls, checkpoints: Path, configured: str) -> "Places":
        """Return the places of a finished run.

        Args:
            checkpoints: its checkpoint_dir, as seen from here.
            configured: its checkpoint_dir in its own settings. If it is a relative path with which
                ``checkpoints`` ends, the rest of ``checkpoints`` is where the run was started.
                Otherwise the run is taken to have been started here.
        """
        path, relative = checkpoints.resolve(), Path(configured)
        names = relative.parts
        is_end = not relative.is_absolute() and names and path.parts[-len(names) :] == names
        start = Path(*path.parts[: -len(names)]) if is_end else Path.cwd()
        return cls.below(start, path)

    def as_record(self, stage: str) -> dict[str, str]:
        """Return what a model folder records of the places; the stage identifies the run."""
        return {**{name: str(path) for name, path in self._asdict().items()}, STAGE: stage}


def recorded_places(record: Mapping[str, Any]) -> Places | None:
    """Return the places of the run that made a model, as its folder records them.

    Returns:
        The places; None if the folder records none.

    Raises:
        InputError: the record holds something else.
    """
    recorded = record.get("places")
    if recorded is None:
        return None
    names = (*Places._fields, STAGE)
    fits = isinstance(recorded, dict) and all(isinstance(recorded.get(name), str) for name in names)
    if not fits or not all(Path(recorded[name]).is_absolute() for name in Places._fields):
        raise InputError("model.json: places are no folders; name the run's by --checkpoint_dir")
    return Places(*(Path(recorded[name]) for name in Places._fields))


def is_still_there(places: Places, record: Mapping[str, Any]) -> bool:
    """Return whether the recorded checkpoint_dir still holds the run, or does not exist.

    After a model folder was moved to another machine, its record may name an unrelated folder.
    """
    if not places.checkpoint_dir.exists():
        return True
    rows = load_results(places.checkpoint_dir / RESULTS)
    return any(row.get("stage") == record["places"][STAGE] for row in rows)


class Kind(NamedTuple):
    """A kind of files.

    Attributes:
        name: the name under which its files are counted.
        place: the place that holds them.
        pattern: pattern of their paths.
        holds: what they contain.
        mark: bytes that tell our files from files of others with such a name. A file directly in
            its place must contain them. Deeper down, it is enough that some file does that lies
            below the same folder of the place.
    """

    name: str
    place: str
    pattern: str
    holds: str
    mark: bytes | None = None

    def fits(self, parts: Sequence[str]) -> bool:
        """Return whether this is the path of such a file."""
        *folders, file = self.pattern.split("/")
        at_any_depth = bool(folders) and folders[-1] == ANY_DEPTH
        folders = folders[:-1] if at_any_depth else folders
        enough = len(parts) > len(folders) if at_any_depth else len(parts) == len(folders) + 1
        return enough and _all_match(folders, parts) and bool(re.fullmatch(file, parts[-1]))

    def leads_to(self, parts: Sequence[str]) -> bool:
        """Return whether such a file may lie in this folder, or below it."""
        *folders, _ = self.pattern.split("/")
        if folders and folders[-1] == ANY_DEPTH:
            return _all_match(folders[:-1], parts)
        return len(parts) <= len(folders) and _all_match(folders, parts)


def _all_match(patterns: Iterable[str], names: Iterable[str]) -> bool:
    return all(re.fullmatch(*pair) for pair in zip(patterns, names, strict=False))


def _stage(name: str = r"[A-Za-z][\w.-]*") -> str:
    """Return the pattern of a stage's folder."""
    return rf"stages/({name})-[0-9a-f]{{16}}"


def _and_in_development(kinds: Iterable[Kind]) -> list[Kind]:
    """Add the same kinds below ``development``, which tuning writes for its own request."""
    kinds = list(kinds)
    inner = [kind._replace(pattern=f"development/{kind.pattern}") for kind in kinds]
    return [*kinds, *inner]


REMOVED: tuple[Kind, ...] = (
    *_and_in_development(
        [
            Kind("Original", _SAVED, rf"{_stage('Original|LLMRec')}/weights\.safetensors",
                 "the model that learned from all rows"),
            Kind("augmented model", _SAVED, rf"{_stage('augmented')}/weights\.safetensors",
                 "the model that E2URec trains further on the forgotten rows; it knows them best"),
            Kind("progress and optimiser states", _SAVED,
                 rf"{_stage()}/(progress|best)\.safetensors", "training that was interrupted"),
            Kind("other stages", _SAVED, rf"{_stage()}/({_TENSORS}|stage\.json|\.lock|{_PART})",
                 "students, Retrain and shards, also of other requests; they know users whom this "
                 "request names"),
        ]
    ),
    Kind("answers", _SAVED, rf"answers/({_ANSWERS}|\.{_ANSWERS}\.[a-z0-9_]{{8}}\.part)",
         "what every model answers for the forgotten rows, without their names"),
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
    Kind("wandb's local runs", _WANDB, rf"{_WANDB_RUN}/**/.+", "the same", b"wandb_project"),
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

# Neither counted nor reported: they are empty, have a hash of their own, or only name other files.
PASSED_OVER: tuple[Kind, ...] = (
    Kind("locks", _SAVED, r"\.results\.jsonl\.lock", "nothing"),
    Kind("locks", MODEL, r"\.lock", "nothing"),
    Kind("pointer", MODEL, r"current\.json", "the hash of model.json"),
    Kind("audit", MODEL, r"certificates/[\w-]+\.(json|html)", "what requests did, with its hash"),
    Kind("audit", MODEL, r"purged\.json", "what a purge did"),
    Kind("pointer", _WANDB, r"latest-run|debug(-internal)?\.log", "wandb's links to its last run"),
)
_ALL = (*REMOVED, *KEPT, *PASSED_OVER)


class Entry(NamedTuple):
    """A file of a known kind.

    Attributes:
        kind: its kind.
        path: where it is.
        name: its name in reports: the path in the model folder, or the name of its place and the
            path there.
        size: in bytes.
    """

    kind: Kind
    path: Path
    name: str
    size: int


class ScanResult(NamedTuple):
    """What the folders hold.

    Attributes:
        removed: files that a purge removes.
        kept: files that it keeps.
        unknown: names of files and folders that no table knows.
        folders: folders that may hold known files, the deepest first.
    """

    removed: list[Entry]
    kept: list[Entry]
    unknown: list[str]
    folders: list[Path]


def scan_files(places: Places | None, model: Path | None) -> ScanResult:
    """Look through the folders of a run and of a model; folders that do not exist hold nothing.

    No link is followed. A folder in which no known file can lie is not opened.

    Raises:
        InputError: a folder cannot be read.
    """
    by_place = {} if places is None else dict(places._asdict())
    if model is not None:
        by_place[MODEL] = model.resolve()
    result = ScanResult([], [], [], [])
    for root in dict.fromkeys(by_place.values()):
        names = [name for name, path in by_place.items() if path == root]
        kinds = [kind for kind in _ALL if kind.place in names]
        other_roots = {path for path in by_place.values() if path != root}
        _Scan(root, names[0], kinds, other_roots, result).run()
    return result


class _Scan:
    """Looks through one folder, and adds to a result.

    Args:
        root: the folder.
        place: its name in reports.
        kinds: kinds of files that it may hold.
        other_roots: folders that have a scan of their own.
        result: what to add to.
    """

    def __init__(
        self,
        root: Path,
        place: str,
        kinds: list[Kind],
        other_roots: set[Path],
        result: ScanResult,
    ) -> None:
        self.root, self.place, self.kinds = root, place, kinds
        self.other_roots, self.result = other_roots, result

    def run(self) -> None:
        """Sort the content of the folder into the lists of the result."""
        try:
            if self.root.exists():
                self._scan_folder(())
        except OSError as error:
            raise InputError(
                f"cannot read {error.filename or self.root}: {error.strerror}; mend that, and give "
                "the same command again"
            ) from error

    def _scan_folder(self, above: tuple[str, ...]) -> None:
        folder = self.root.joinpath(*above)
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            parts = (*above, entry.name)
            path = self.root.joinpath(*parts)
            if path in self.other_roots:
                continue
            if not entry.is_dir(follow_symlinks=False):
                self._sort_file(parts, entry.stat(follow_symlinks=False))
            elif any(kind.leads_to(parts) for kind in self.kinds) and self._has_marks(parts):
                self._scan_folder(parts)
                self.result.folders.append(path)
            else:
                self._leave(parts, "/")

    def _has_marks(self, parts: tuple[str, ...]) -> bool:
        """Return whether a folder has the marks that its kinds require."""
        marks = {kind.mark for kind in self.kinds if kind.mark and kind.leads_to(parts)}
        return all(_is_marked(self.root / parts[0], mark) for mark in marks)

    def _sort_file(self, parts: tuple[str, ...], status: os.stat_result) -> None:
        path = self.root.joinpath(*parts)
        is_regular = stat.S_ISREG(status.st_mode)
        for kind in self.kinds:
            if not kind.fits(parts) or not (is_regular or kind in PASSED_OVER):
                continue
            if kind.mark and len(parts) == 1 and not _contains(path, kind.mark):
                continue
            if kind not in PASSED_OVER:
                entries = self.result.removed if kind in REMOVED else self.result.kept
                entries.append(Entry(kind, path, self._name(parts), status.st_size))
            return
        self._leave(parts, "" if is_regular else " (a link or no plain file)")

    def _leave(self, parts: tuple[str, ...], suffix: str) -> None:
        self.result.unknown.append(self._name(parts) + suffix)

    def _name(self, parts: tuple[str, ...]) -> str:
        return "/".join(parts if self.place == MODEL else (self.place, *parts))


def _is_marked(folder: Path, mark: bytes) -> bool:
    """Return whether a run of wandb has the mark in its settings or its log."""
    paths = (path for path in _files_below(folder) if path.suffix in (".yaml", ".wandb"))
    return any(_contains(path, mark) for path in paths)


def _files_below(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        paths = (Path(parent, name) for name in names)
        yield from (path for path in paths if path.is_file() and not path.is_symlink())


def _contains(path: Path, mark: bytes) -> bool:
    """Return whether a file contains these bytes; a file that cannot be read is not ours."""
    rest = b""
    try:
        with path.open("rb") as file:
            while chunk := file.read(2**20):
                if mark in rest + chunk:
                    return True
                rest = chunk[-len(mark) :]
    except PermissionError:
        pass
    return False


def sums_by_kind(entries: list[Entry]) -> Mapping[str, tuple[int, int]]:
    """Count files and bytes by the name of their kind, in the order of the tables."""
    sums: dict[str, tuple[int, int]] = {}
    order = {kind.name: place for place, kind in reversed(list(enumerate(_ALL)))}
    for entry in sorted(entries, key=lambda entry: order[entry.kind.name]):
        files, size = sums.get(entry.kind.name, (0, 0))
        sums[entry.kind.name] = files + 1, size + entry.size
    return sums
