"""``recbole-e2urec purge``: remove what runs or a killed request left.

A purge removes the folder of all runs on a data set, and few other files, see :mod:`scan`. All else
in ``checkpoint_dir`` stays, and is named. If the purge is killed, the same command removes the
rest. Files are removed, not overwritten: what the disk itself keeps of them is out of reach. A
purge that follows a request is reported in the request's certificate.
"""

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.deployment.certificate import certify, name_of
from recbole_e2urec.deployment.model_folder import PLACES, STAGE, ModelFolder, hash_of_file
from recbole_e2urec.deployment.scan import EARLIER, Entry, ScanResult, scan_files, sums_by_kind
from recbole_e2urec.deployment.served_model import ServedModel
from recbole_e2urec.deployment.verify import read_certificate
from recbole_e2urec.errors import InputError
from recbole_e2urec.report.results import RESULTS, load_results
from recbole_e2urec.utils.html import printable
from recbole_e2urec.utils.io import flush_folder, outside_run_folder, run_folder
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
