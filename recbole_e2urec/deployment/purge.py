"""``recbole-e2urec purge``: remove what a run or a killed request left.

A purge removes the files that this package and RecBole are known to write, see :mod:`scan`. All
else in the same folders stays, and is named. If the purge is killed, the same command removes the
rest. Files are removed, not overwritten: what the disk itself keeps of them is out of reach. A
purge that follows a request is reported in the request's certificate.
"""

import logging
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.deployment.certificate import certify, name_of
from recbole_e2urec.deployment.model_folder import ModelFolder, hash_of_file
from recbole_e2urec.deployment.scan import (
    Entry,
    Places,
    ScanResult,
    is_still_there,
    recorded_places,
    scan_files,
    sums_by_kind,
)
from recbole_e2urec.deployment.served_model import ServedModel
from recbole_e2urec.deployment.verify import read_certificate
from recbole_e2urec.errors import InputError
from recbole_e2urec.utils.html import printable
from recbole_e2urec.utils.io import flush_folder
from recbole_e2urec.utils.recbole_compat import close_events

MAX_NAMED = 20  # unknown files in a terminal


@option_class()
class PurgeOptions:
    """What is purged."""

    checkpoint_dir: str | None = option(
        "Where the runs wrote; their logs are looked for beside it. ~ = as the model folder says.",
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


class Purged(NamedTuple):
    """What a purge did.

    Attributes:
        removed: number of files and bytes by kind.
        kept: name, SHA-256 and reason of each file that stays on purpose.
        unknown: names of files that were left because no run writes them.
        dry: whether this was a dry run, which removes nothing.
    """

    removed: dict[str, tuple[int, int]]
    kept: list[tuple[str, str, str]]
    unknown: list[str]
    dry: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON: ``removed`` (``files``, ``bytes``), ``kept`` and ``unknown``."""
        kinds = {name: {"files": n, "bytes": size} for name, (n, size) in self.removed.items()}
        kept = [{"name": name, "sha256": digest, "why": why} for name, digest, why in self.kept]
        return {"removed": kinds, "kept": kept, "unknown": list(self.unknown)}

    def lines(self) -> list[str]:
        """Return it as lines for people."""
        files = sum(n for n, _ in self.removed.values())
        total = sum(size for _, size in self.removed.values())
        lines = [f"{'would purge' if self.dry else 'purged'} {files:,} files of {total:,} bytes"]
        lines += [f"  {name}: {n:,}, {size:,} bytes" for name, (n, size) in self.removed.items()]
        lines += [f"kept: {name}, sha256 {digest} ({why})" for name, digest, why in self.kept]
        if self.unknown:
            more = len(self.unknown) - MAX_NAMED
            suffix = f" and {more:,} more" if more > 0 else ""
            names = ", ".join(self.unknown[:MAX_NAMED]) + suffix
            lines.append(f"warning: left, as no run writes them; look what they hold: {names}")
        return [printable(line) for line in lines]


def purge_by(options: PurgeOptions) -> str:
    """Carry out ``recbole-e2urec purge``.

    Returns:
        What was done, for people.

    Raises:
        InputError: there is no such folder, or :func:`purge` refuses.
    """
    checkpoint_dir = options.checkpoint_dir
    if checkpoint_dir is not None and not Path(checkpoint_dir).is_dir():
        raise InputError(
            f"checkpoint_dir: {checkpoint_dir} is no folder; name the one that a run wrote to"
        )
    if options.checkpoint is None:
        places = Places.of_run(Path(str(checkpoint_dir)), str(checkpoint_dir))
        where = ", ".join(str(path) for path in places if path.is_dir())
        return "\n".join([f"in {where}:", *purge(places, None, options.dry_run).lines()])
    folder = ModelFolder(options.checkpoint)
    record = folder.read(with_tensors=False).record
    if options.dry_run:
        return "\n".join(purge_with_run(folder, record, checkpoint_dir, dry_run=True)[1])
    with folder.locked():
        folder.tidy()
        return "\n".join(purge_with_run(folder, record, checkpoint_dir)[1])


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
    places, warnings = recorded_places(record), []
    if checkpoint_dir is not None:
        stated = Places.of_run(Path(checkpoint_dir), checkpoint_dir)
        places = stated if places is None else places._replace(checkpoint_dir=stated.checkpoint_dir)
    elif places is None:
        warnings = [
            "warning: the model folder does not say where its run wrote; --checkpoint_dir does"
        ]
    elif not is_still_there(places, record):
        warnings = [
            f"warning: {places.checkpoint_dir} is not, or no more, the folder of the run that made "
            "this model, and is left; --checkpoint_dir says where that is"
        ]
        places = None
    purged = purge(places, folder.path, dry_run)
    return purged, [*purged.lines(), *warnings]


def purge(places: Places | None, model: Path | None = None, dry_run: bool = False) -> Purged:
    """Remove what a run left, and what a killed request left in a model folder.

    Args:
        places: folders of the run; None: there is no run.
        model: the model folder, which the caller has locked. The served model stays.
        dry_run: remove nothing.

    Raises:
        InputError: another run is at work there, or a file cannot be removed.
    """
    scanned = scan_files(places, model)
    if not dry_run:
        _refuse_busy(scanned.removed)
        close_log_handlers(places)
        _remove(scanned)
    kept = [(entry.name, _hash(entry.path), entry.kind.holds) for entry in scanned.kept]
    return Purged(dict(sums_by_kind(scanned.removed)), kept, scanned.unknown, dry_run)


def close_log_handlers(places: Places | None) -> None:
    """Close the log, TensorBoard's events and the run of wandb; later messages go to the terminal.

    Args:
        places: the places whose log is closed; None: no log is.
    """
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
            earlier = _earlier_purge(folder, entry, number)
            if earlier is None or purged.removed:
                certify(run.request_numbers, folder, number, _combined(earlier, purged))


def _earlier_purge(
    folder: ModelFolder, entry: Mapping[str, Any], number: int
) -> Mapping[str, Any] | None:
    """Return what the certificate reports of an earlier purge; None if it reports none."""
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
