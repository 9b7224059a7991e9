"""``recbole-e2urec purge``: remove what runs or a killed request left.

All that the runs on a data set write, except their results, lies in one folder in
``checkpoint_dir``, see :func:`run_folder`. A purge removes it as a whole, whatever is in it. Only
few files lie directly in ``checkpoint_dir`` and are found by their names, since whoever writes them
does not know the run's folder: RecBole, if it is called directly; ``--output_file``; and version
0.7 and earlier, which had no such folders. Where such a file says which data set it belongs to, it
is removed with this data set only. All else in ``checkpoint_dir`` stays, and is named.

If the purge is killed, the same command removes the rest. Files are removed, not overwritten: what
the disk itself keeps of them is out of reach. A purge that follows a request is reported in the
request's certificate.
"""

import logging
import os
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.deployment.certificate import certify, name_of
from recbole_e2urec.deployment.model_folder import PLACES, STAGE, ModelFolder, hash_of_file
from recbole_e2urec.deployment.served_model import ServedModel
from recbole_e2urec.deployment.verify import read_certificate
from recbole_e2urec.errors import InputError
from recbole_e2urec.report.results import RESULTS, load_results
from recbole_e2urec.utils.html import OF_RESULTS, OF_USERS, printable
from recbole_e2urec.utils.io import RUN_SUFFIX, flush_folder, outside_run_folder, run_folder
from recbole_e2urec.utils.recbole_compat import close_events

MAX_NAMED = 20  # unknown files in a terminal


@option_class()
class PurgeOptions:
    """What is purged."""

    checkpoint_dir: str | None = option(
        "Where the runs wrote: all of them, or with --dataset=NAME those on this data set. ~ = as "
        "the model folder says.",
        default=None,
        text=True,
    )
    checkpoint: str | None = option(
        "Or a model folder, which says where its run wrote and what a killed request left.",
        default=None,
        text=True,
    )
    dry_run: bool = option("Say what would be removed; remove nothing.", default=False)

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        if not self.checkpoint_dir and not self.checkpoint:
            raise InputError("purge: what? write --checkpoint_dir=saved, or --checkpoint=DIR")
        if self.checkpoint_dir and not Path(self.checkpoint_dir).is_dir():
            raise InputError(
                f"checkpoint_dir: {self.checkpoint_dir} is no folder; name the one that a run "
                "wrote to"
            )


# --- What a purge removes, what it keeps, and what it leaves alone

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


# --- The purge


class Purged(NamedTuple):
    """What a purge did.

    Attributes:
        removed: number of files and bytes by kind: ``files`` and ``bytes`` each.
        kept: name, SHA-256 and reason of each file that stays on purpose.
        unknown: names of files that were left because no run writes them.
        earlier: whether version 0.7 or earlier wrote some of the removed files.
        dry: whether this was a dry run, which removes nothing.
    """

    removed: dict[str, dict[str, int]]
    kept: list[dict[str, str]]
    unknown: list[str]
    earlier: bool = False
    dry: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return what a certificate reports."""
        return {"removed": dict(self.removed), "kept": self.kept, "unknown": self.unknown}

    def lines(self) -> list[str]:
        """Return it as lines for people."""
        files, total = (sum(n[key] for n in self.removed.values()) for key in ("files", "bytes"))
        lines = [f"{'would purge' if self.dry else 'purged'} {files:,} files of {total:,} bytes"]
        lines += [f"  {k}: {n['files']:,}, {n['bytes']:,} bytes" for k, n in self.removed.items()]
        lines += [
            f"kept: {kept['name']}, sha256 {kept['sha256']} ({kept['why']})" for kept in self.kept
        ]
        if self.unknown:
            more = len(self.unknown) - MAX_NAMED
            suffix = f" and {more:,} more" if more > 0 else ""
            names = ", ".join(self.unknown[:MAX_NAMED]) + suffix
            lines.append(f"warning: left, as no run writes them; look what they hold: {names}")
        if self.earlier:
            lines.append(
                "warning: version 0.7 and earlier also wrote log, log_tensorboard and wandb where "
                "it was started, as other programs do; look there"
            )
        return [printable(line) for line in lines]


def purge_by(options: PurgeOptions, dataset: str | None = None) -> str:
    """Carry out ``recbole-e2urec purge``.

    Args:
        options: what is purged.
        dataset: the data set whose runs are purged; None: all, or that of the model folder.

    Returns:
        What was done, for people.

    Raises:
        InputError: :func:`purge` refuses.
    """
    if options.checkpoint is None:
        where = parent = Path(str(options.checkpoint_dir)).resolve()
        missing = ""
        if dataset is not None:
            where = run_folder(parent, dataset)
            missing = "" if where.is_dir() else ", which is not there"
        purged = purge(parent, None, dataset, options.dry_run)
        return "\n".join([f"in {where}{missing}:", *purged.lines()])
    folder = ModelFolder(options.checkpoint)
    record = folder.read(with_tensors=False).record
    if options.dry_run:
        return "\n".join(purge_with_run(folder, record, options.checkpoint_dir, dry_run=True)[1])
    with folder.locked():
        folder.tidy()
        return "\n".join(purge_with_run(folder, record, options.checkpoint_dir)[1])


def purge_after_request(
    run: ServedModel, folder: ModelFolder, digest: str, checkpoint_dir: str | None
) -> list[str]:
    """Purge a model folder and its run, and report that in the certificate of the request.

    Args:
        run: the model, opened on its data.
        folder: the model's folder; call this inside ``locked()``.
        digest: hash of the request.
        checkpoint_dir: of the run; None: the one that the folder records.

    Returns:
        What was done, for people.

    Raises:
        InputError: a file cannot be removed, or another run is at work there.
    """
    record = folder.read(with_tensors=False).record
    purged, lines = purge_with_run(folder, record, checkpoint_dir)
    certify_purge(run, folder, digest, purged)
    return lines


def purge_with_run(
    folder: ModelFolder,
    record: Mapping[str, Any],
    checkpoint_dir: str | None,
    dry_run: bool = False,
) -> tuple[Purged, list[str]]:
    """Purge a model folder and the run that made it; call this inside ``locked()``.

    Args:
        folder: the model's folder.
        record: the content of its ``model.json``.
        checkpoint_dir: of the run; None: the one that the folder records.
        dry_run: remove nothing.

    Returns:
        What was done, and the same for people.
    """
    warnings, recorded = [], recorded_checkpoint_dir(record)
    where = recorded if checkpoint_dir is None else Path(checkpoint_dir)
    if where is None:
        warnings = [
            "warning: the model folder does not say where its run wrote; --checkpoint_dir does"
        ]
    elif checkpoint_dir is None and not is_still_there(where, record):
        warnings = [
            f"warning: {where} is not, or no more, the folder of the run that made this model, and "
            "is left; --checkpoint_dir says where that is"
        ]
        where = None
    purged = purge(where, folder.path, record["dataset"], dry_run)
    return purged, [*purged.lines(), *warnings]


def recorded_checkpoint_dir(record: Mapping[str, Any]) -> Path | None:
    """Return where the run wrote that made a model; None if the model folder does not say.

    Raises:
        InputError: the record holds something else.
    """
    places = record.get(PLACES)
    if places is None:
        return None
    texts = [isinstance(places, dict) and places.get(key) for key in ("checkpoint_dir", STAGE)]
    if not all(isinstance(text, str) for text in texts) or not Path(str(texts[0])).is_absolute():
        raise InputError("model.json: places are no folders; name the run's by --checkpoint_dir")
    return Path(str(texts[0]))


def is_still_there(checkpoint_dir: Path, record: Mapping[str, Any]) -> bool:
    """Return whether the recorded checkpoint_dir still holds the run, or does not exist.

    After a model folder was moved to another machine, its record may name an unrelated folder.
    """
    if not checkpoint_dir.exists():
        return True
    rows = load_results(checkpoint_dir / RESULTS)
    return any(row.get("stage") == record[PLACES][STAGE] for row in rows)


def purge(
    checkpoint_dir: Path | None,
    model: Path | None = None,
    dataset: str | None = None,
    dry_run: bool = False,
) -> Purged:
    """Remove what runs left, and what a killed request left in a model folder.

    Args:
        checkpoint_dir: where the runs wrote; None: there are none.
        model: the model folder, which the caller has locked. The served model stays.
        dataset: the data set whose runs are purged; None: all.
        dry_run: remove nothing.

    Raises:
        InputError: another run is at work there, a file cannot be removed, or checkpoint_dir is
            itself the folder of a data set's runs, or lies in one.
    """
    if checkpoint_dir is not None and outside_run_folder(checkpoint_dir) != checkpoint_dir:
        raise InputError(
            f"checkpoint_dir: {checkpoint_dir} lies in the folder of one data set's runs; name the "
            "folder that holds that; purge takes --dataset=NAME as well"
        )
    scanned = scan_files(checkpoint_dir, model, dataset)
    if not dry_run:
        _refuse_busy(scanned.removed)
        close_log_handlers(scanned.folders)
        _remove(scanned)
    kept = [{"name": e.name, "sha256": _hash(e.path), "why": e.kind} for e in scanned.kept]
    earlier = any(EARLIER.match(entry.name) for entry in scanned.removed)
    return Purged(sums_by_kind(scanned.removed), kept, scanned.unknown, earlier, dry_run)


def close_log_handlers(folders: Sequence[Path]) -> None:
    """Close the log, TensorBoard's events and the run of wandb; later messages go to the terminal.

    Args:
        folders: logs in these folders are closed.
    """
    close_events()
    wandb = sys.modules.get("wandb")
    if wandb is not None and getattr(wandb, "run", None) is not None:
        wandb.finish()
    log = logging.getLogger()
    for handler in list(log.handlers):
        name = getattr(handler, "baseFilename", None)
        if name and Path(name).resolve().parent in folders:
            log.removeHandler(handler)
            handler.close()


def _refuse_busy(entries: list[Entry]) -> None:
    """Refuse to remove a stage that another run is training."""
    for entry in entries:
        if entry.path.name != ".lock":
            continue
        try:
            with FileLock(entry.path, timeout=0):
                pass
        except Timeout as error:
            raise InputError(
                f"purge: another run is at work in {entry.path.parent}; wait until it has ended"
            ) from error
        except OSError as error:
            raise _cannot_remove(entry.path, error) from error


def _remove(scanned: ScanResult) -> None:
    """Remove the files, flush their folders to the disk, and remove folders that are then empty."""
    path = Path()
    try:
        for path in [entry.path for entry in scanned.removed]:
            with suppress(FileNotFoundError):
                os.unlink(path)
        for path in dict.fromkeys(entry.path.parent for entry in scanned.removed):
            flush_folder(path)
        for path in scanned.folders:
            if not any(os.scandir(path)):
                path.rmdir()
    except OSError as error:
        raise _cannot_remove(path, error) from error


def _cannot_remove(path: Path, error: OSError) -> InputError:
    return InputError(
        f"purge: cannot remove {path}: {error.strerror}; mend that, and give the same command "
        "again, which goes on"
    )


def _hash(path: Path) -> str:
    try:
        return hash_of_file(path)
    except OSError as error:
        raise InputError(f"purge: cannot read {path}: {error.strerror}; mend that") from error


def certify_purge(run: ServedModel, folder: ModelFolder, digest: str, purged: Purged) -> None:
    """Report a purge in the certificate of a request.

    A certificate that reports an earlier purge stays as it is if nothing was removed this time.

    Args:
        run: the model, opened on its data.
        folder: the model's folder; call this inside ``locked()``.
        digest: hash of the request.
        purged: what the purge did.
    """
    for number, entry in enumerate(run.record["requests"], 1):
        if entry["digest"] == digest:
            earlier = purge_reported(folder, entry, number)
            if earlier is None or purged.removed:
                certify(run.request_numbers, folder, number, _combined(earlier, purged))


def purge_reported(
    folder: ModelFolder, entry: Mapping[str, Any], number: int
) -> Mapping[str, Any] | None:
    """Return what the certificate of a request reports of a purge; None if it reports none."""
    try:
        certificate = read_certificate(folder.path / name_of(entry, number))
    except InputError:  # the certificate is then written anew
        return None
    purged: Mapping[str, Any] | None = certificate["purged"]
    return purged


def _combined(earlier: Mapping[str, Any] | None, purged: Purged) -> dict[str, Any]:
    """Return what two purges removed, and what is left now."""
    combined = purged.as_json()
    for kind, earlier_counts in (earlier or {}).get("removed", {}).items():
        counts = combined["removed"].setdefault(kind, {"files": 0, "bytes": 0})
        for name in counts:
            counts[name] += earlier_counts[name]
    return combined
