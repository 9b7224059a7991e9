"""What a purge removes, what it keeps, and what it leaves alone.

All that the runs on a data set write, except their results, lies in one folder in
``checkpoint_dir``, see :func:`run_folder`. A purge removes it as a whole, whatever is in it. Only
few files lie directly in ``checkpoint_dir`` and are found by their names, since whoever writes them
does not know the run's folder: RecBole, if it is called directly; ``--output_file``; and version
0.7 and earlier, which had no such folders. Where such a file says which data set it belongs to, it
is removed with this data set only.
"""

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recbole_e2urec.errors import InputError
from recbole_e2urec.utils.html import OF_RESULTS, OF_USERS
from recbole_e2urec.utils.io import RUN_SUFFIX, outside_run_folder, run_folder

REMOVED, OPENED, PASSED_OVER = "removed", "opened", "passed over"

# Names of files that version 0.7 and earlier wrote
EARLIER = re.compile(r"checkpoint_dir/(stages|answers|development)/")
_TIME = r"[^\W\d_]+\.?-\d\d-\d{4}_\d\d-\d\d-\d\d"  # as RecBole writes it
_PART = r"\..+\.[a-z0-9_]{8}\.part"


class Rule(NamedTuple):
    """What becomes of some files or folders.

    Attributes:
        pattern: regular expression of the path in checkpoint_dir or in the model folder; the path
            of a folder ends with a slash. The group ``dataset`` is the name of the data set.
        verdict: ``REMOVED``, with all that is in it; ``OPENED``, to look at what is in it;
            ``PASSED_OVER``, which is neither counted nor reported; anything else: it is kept, and
            this is what it holds.
        mark: bytes that tell our files from files of others with such a name.
    """

    pattern: str
    verdict: str
    mark: bytes = b""


IN_CHECKPOINT_DIR = (
    Rule(rf".+{re.escape(RUN_SUFFIX)}/", REMOVED),
    Rule(r"results\.jsonl", "measures and settings of every model, no names"),
    Rule(r"[^/]+\.html", "a page of measures, no names", OF_RESULTS),
    Rule(r"hyper(-best)?\.(json|yaml)", "settings that were chosen, and their measures"),
    Rule(r"\.results\.jsonl\.lock", PASSED_OVER),
    Rule(r"[^/]+\.html", REMOVED, OF_USERS),
    Rule(_PART, REMOVED),
    Rule(rf"\w+-{_TIME}(-\d+-\d+)?(-temp(-best)?)?\.pth(\.part)?", REMOVED),
    Rule(r"(S3Rec|RaCT)-(?P<dataset>[^/]+)-\d+\.pth", REMOVED),
    Rule(r"(?P<dataset>[^/]+)-(\w*Dataset|for-\w+-dataloader)\.pth", REMOVED, b"recbole"),
    # Version 0.7 and earlier; nothing says of which data set
    Rule(r"(development/)?stages/[A-Za-z][\w.-]*-[0-9a-f]{16}/", REMOVED),
    Rule(rf"answers/([0-9a-f]{{16}}\.safetensors|{_PART})", REMOVED),
    Rule(rf"development/(request\.csv|{_PART})", REMOVED),
    Rule(r"(development/)?stages/|answers/|development/", OPENED),
)
IN_MODEL_FOLDER = (
    Rule(r"work/", REMOVED),
    Rule(rf"(certificates/)?{_PART}", REMOVED),
    Rule(r"generations/\d{6}/(model\.json|\w+\.safetensors)", "the model in use"),
    Rule(r"\.lock|current\.json|purged\.json|certificates/[\w-]+\.(json|html)", PASSED_OVER),
    Rule(r"certificates/|generations/(\d{6}/)?", OPENED),
)

# Kinds of files, by the first folder or by the suffix; files of stages are named after their model.
_KINDS = {
    "answers": "answers", "log": "logs", "log_tensorboard": "tensorboard events",
    "wandb": "wandb's local runs", "development": "requests drawn for tuning",
    "work": "work of requests", ".html": "pages of prompts and users",
    ".pth": "RecBole's checkpoints and pickles", ".part": "parts of files",
}  # fmt: skip


class Entry(NamedTuple):
    """A file.

    Attributes:
        path: where it is.
        name: its name in reports.
        kind: what kind of file a purge counts it as; if it is kept, what it holds.
        size: in bytes.
    """

    path: Path
    name: str
    kind: str
    size: int


class ScanResult(NamedTuple):
    """What the folders hold.

    Attributes:
        removed: files that a purge removes.
        kept: files that it keeps.
        unknown: names of files and folders that no rule knows.
        folders: folders that a purge removes if they are empty then, inner ones first.
    """

    removed: list[Entry]
    kept: list[Entry]
    unknown: list[str]
    folders: list[Path]


def scan_files(
    checkpoint_dir: Path | None, model: Path | None, dataset: str | None = None
) -> ScanResult:
    """Look through the folders of runs and of a model; folders that do not exist hold nothing.

    No link is followed.

    Args:
        checkpoint_dir: where the runs wrote; None: there are none.
        model: the model folder; None: there is none.
        dataset: the data set whose runs are looked for; None: all.

    Raises:
        InputError: a folder cannot be read.
    """
    result = ScanResult([], [], [], [])
    model = None if model is None else model.resolve()
    try:
        for root, prefix, rules in (
            (checkpoint_dir, "checkpoint_dir/", IN_CHECKPOINT_DIR),
            (model, "", IN_MODEL_FOLDER),
        ):
            if root is not None and root.exists():
                root = root.resolve()
                _Scan(root, prefix, rules, dataset, model, result).sort(root)
    except OSError as error:
        raise InputError(
            f"cannot read {error.filename}: {error.strerror}; mend that, and give the same command "
            "again"
        ) from error
    return result


class _Scan(NamedTuple):
    """Looks through one folder, and adds to a result.

    Attributes:
        root: the folder.
        prefix: what names in reports begin with.
        rules: what becomes of what is in it; the first that fits applies.
        dataset: the data set whose files are removed; None: all.
        model: the model folder, which may lie in ``checkpoint_dir``; None: there is none.
        result: what to add to.
    """

    root: Path
    prefix: str
    rules: Sequence[Rule]
    dataset: str | None
    model: Path | None
    result: ScanResult

    def sort(self, folder: Path) -> None:
        """Sort the content of the root, or of a folder in it, into the lists of the result."""
        for entry in _entries(folder):
            path = Path(entry.path)
            is_folder = entry.is_dir(follow_symlinks=False)
            if is_folder or entry.is_file(follow_symlinks=False):
                self._apply(self._verdict(path, "/" * is_folder), path)
            else:
                self.result.unknown.append(self._name(path) + " (a link or no plain file)")

    def _verdict(self, path: Path, slash: str) -> str | None:
        """Return the verdict of the first rule that fits; None: there is none."""
        if path == self.model:
            return PASSED_OVER
        for rule in self.rules:
            match = re.fullmatch(rule.pattern, path.relative_to(self.root).as_posix() + slash)
            if match and (not rule.mark or _contains(path, rule.mark)):
                others = rule.verdict == REMOVED and self._is_of_another(path, match)
                return PASSED_OVER if others else rule.verdict
        return None

    def _is_of_another(self, path: Path, match: re.Match[str]) -> bool:
        """Return whether a file or folder says that it belongs to another data set."""
        if self.dataset is None:
            return False
        if path.name.endswith(RUN_SUFFIX):
            return path != run_folder(self.root, self.dataset)
        if "dataset" in match.groupdict():
            return match["dataset"] != self.dataset
        # RecBole pickles the settings into a checkpoint
        is_checkpoint = path.suffix == ".pth" and _contains(path, b"recbole")
        return is_checkpoint and not _contains(path, self.dataset.encode())

    def _apply(self, verdict: str | None, path: Path) -> None:
        if verdict == REMOVED:
            self._remove(path)
        elif verdict == OPENED:
            self.sort(path)
            self.result.folders.append(path)
        elif verdict is None:
            self.result.unknown.append(self._name(path) + "/" * path.is_dir())
        elif verdict != PASSED_OVER:
            self.result.kept.append(self._entry(path, verdict))

    def _remove(self, path: Path) -> None:
        """Remove a file, or a folder with all that is in it; a link in it is removed itself."""
        if path == self.model:
            return
        if path.is_symlink() or not path.is_dir():
            self.result.removed.append(self._entry(path, _kind_of(path.relative_to(self.root))))
            return
        for entry in _entries(path):
            self._remove(Path(entry.path))
        self.result.folders.append(path)

    def _entry(self, path: Path, kind: str) -> Entry:
        return Entry(path, self._name(path), kind, path.lstat().st_size)

    def _name(self, path: Path) -> str:
        return f"{self.prefix}{path.relative_to(self.root).as_posix()}"


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    return sorted(os.scandir(folder), key=lambda entry: entry.name)


def _kind_of(path: Path) -> str:
    """Return the kind of a file, from its path in checkpoint_dir or in the model folder."""
    parts = outside_run_folder(path).parts
    if "stages" in parts[:-2]:
        name = parts[parts.index("stages") + 1].rpartition("-")[0]
        return name.rstrip("0123456789") or "stages"
    return _KINDS.get(parts[0]) or _KINDS.get(path.suffix, "other files")


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


def sums_by_kind(entries: Sequence[Entry]) -> dict[str, Any]:
    """Count files and bytes by their kind: ``files`` and ``bytes`` each."""
    files, sizes = Counter(entry.kind for entry in entries), Counter[str]()
    for entry in entries:
        sizes[entry.kind] += entry.size
    return {kind: {"files": files[kind], "bytes": sizes[kind]} for kind in sorted(files)}
