"""A purge that follows a request on a model in use, and is told in the request's certificate.

What is known to be written by this package and by RecBole is removed (see :mod:`scan`); whatever
else lies in the same folders stays, and is named. Killed, the same command removes the rest.
Nothing is overwritten: what a disk keeps of a removed file is out of reach from here.
"""

import os
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
    Found,
    Places,
    by_kind,
    close_log_handlers,
    is_still_there,
    recorded,
    scan_files,
)
from recbole_e2urec.deployment.served_model import ServedModel
from recbole_e2urec.deployment.verify import read_certificate
from recbole_e2urec.errors import InputError
from recbole_e2urec.utils.html import printable
from recbole_e2urec.utils.io import flush_folder

NAMED = 20  # of what is left, at most, in a terminal


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
        removed: files and bytes by kind.
        kept: name, SHA-256 and why, of what stays on purpose.
        unknown: names of what was left because nothing here writes it.
        dry: whether it would have done it.
    """

    removed: dict[str, tuple[int, int]]
    kept: list[tuple[str, str, str]]
    unknown: list[str]
    dry: bool = False

    def as_json(self) -> dict[str, Any]:
        """The same as JSON: ``removed`` (``files``, ``bytes``), ``kept`` and ``unknown``."""
        kinds = {name: {"files": n, "bytes": size} for name, (n, size) in self.removed.items()}
        kept = [{"name": name, "sha256": digest, "why": why} for name, digest, why in self.kept]
        return {"removed": kinds, "kept": kept, "unknown": list(self.unknown)}

    def lines(self) -> list[str]:
        """The same for a person."""
        files = sum(one[0] for one in self.removed.values())
        size = sum(one[1] for one in self.removed.values())
        told = [f"{'would purge' if self.dry else 'purged'} {files:,} files of {size:,} bytes"]
        told += [f"  {name}: {n:,}, {part:,} bytes" for name, (n, part) in self.removed.items()]
        told += [f"kept: {name}, sha256 {digest} ({why})" for name, digest, why in self.kept]
        if self.unknown:
            more = len(self.unknown) - NAMED
            names = ", ".join(self.unknown[:NAMED]) + (f" and {more:,} more" if more > 0 else "")
            told.append(f"warning: left, as no run writes them; look what they hold: {names}")
        return [printable(line) for line in told]


def purge(places: Places | None, model: Path | None = None, dry_run: bool = False) -> Purged:
    """Remove what a run left, and what a killed request left in a model folder.

    Args:
        places: folders of the run; None: there is none.
        model: the folder, which the caller has for itself; what is in use stays.
        dry_run: remove nothing.

    Raises:
        InputError: another run is at work there, or the disk does not let go of a file.
    """
    found = scan_files(places, model)
    if not dry_run:
        _refuse_busy(found.removed)
        close_log_handlers(places)
        _remove(found)
    kept = [(one.name, _hash(one.path), one.kind.holds) for one in found.kept]
    return Purged(dict(by_kind(found.removed)), kept, found.unknown, dry_run)


def _hash(path: Path) -> str:
    try:
        return hash_of_file(path)
    except OSError as error:
        raise InputError(f"purge: cannot read {path}: {error.strerror}; mend that") from error


def purge_by(options: PurgeOptions) -> str:
    """``recbole-e2urec purge``; gives what was done, for a person.

    Raises:
        InputError: no such folder, or as :func:`purge`.
    """
    given = options.checkpoint_dir
    if given is not None and not Path(given).is_dir():
        raise InputError(f"checkpoint_dir: {given} is no folder; name the one that a run wrote to")
    if options.checkpoint is None:
        places = Places.of_run(Path(str(given)), str(given))
        where = ", ".join(str(path) for path in places if path.is_dir())
        return "\n".join([f"in {where}:", *purge(places, None, options.dry_run).lines()])
    folder = ModelFolder(options.checkpoint)
    record = folder.read(whole=False).record
    if options.dry_run:
        return "\n".join(purge_beside(folder, record, given, dry_run=True)[1])
    with folder.locked():
        folder.tidy()
        return "\n".join(purge_beside(folder, record, given)[1])


def purge_beside(
    folder: ModelFolder, record: Mapping[str, Any], given: str | None, dry_run: bool = False
) -> tuple[Purged, list[str]]:
    """Purge a model folder and the run that made it; call it inside ``alone()``.

    Args:
        folder: where the model is.
        record: what it says.
        given: the run's checkpoint_dir; None: what the folder says.
        dry_run: remove nothing.

    Returns:
        What was done, and the same for a person.
    """
    places, told = recorded(record), []
    if given is not None:
        own = Places.of_run(Path(given), given)
        places = own if places is None else places._replace(checkpoint_dir=own.checkpoint_dir)
    elif places is None:
        told = ["warning: the model folder does not say where its run wrote; --checkpoint_dir does"]
    elif not is_still_there(places, record):
        told = [
            f"warning: {places.checkpoint_dir} is not, or no more, the folder of the run that made "
            "this model, and is left; --checkpoint_dir says where that is"
        ]
        places = None
    done = purge(places, folder.path, dry_run)
    return done, [*done.lines(), *told]


def _refuse_busy(entries: list[Entry]) -> None:
    """Refuse to take a stage away from a run that trains it."""
    for one in entries:
        if one.path.name != ".lock":
            continue
        try:
            with FileLock(one.path, timeout=0):
                pass
        except Timeout as error:
            raise InputError(
                f"purge: another run is at work in {one.path.parent}; wait until it has ended"
            ) from error
        except OSError as error:
            raise _stuck(one.path, error) from error


def _remove(found: Found) -> None:
    """Remove the files, see to it that the disk knows, and then the folders that are empty."""
    at = Path()
    try:
        for at in [one.path for one in found.removed]:
            with suppress(FileNotFoundError):
                os.unlink(at)
        for at in dict.fromkeys(one.path.parent for one in found.removed):
            flush_folder(at)
        for at in found.folders:
            if not any(os.scandir(at)):
                at.rmdir()
    except OSError as error:
        raise _stuck(at, error) from error


def _stuck(path: Path, error: OSError) -> InputError:
    return InputError(
        f"purge: cannot remove {path}: {error.strerror}; mend that, and give the same command "
        "again, which goes on"
    )


def purged_after(
    run: ServedModel, folder: ModelFolder, digest: str, given: str | None
) -> list[str]:
    """Purge a model folder and its run; the certificate of the request then says so.

    Args:
        run: the model, opened on its data.
        folder: where it is; call this inside ``alone()``.
        digest: of the request.
        given: checkpoint_dir of the run; None: what the folder says.

    Returns:
        What was done, for a person.

    Raises:
        InputError: the disk does not let go of a file, or another run is at work there.
    """
    record = folder.read(whole=False).record
    purged, told = purge_beside(folder, record, given)
    file_purge(run, folder, digest, purged)
    return told


def file_purge(run: ServedModel, folder: ModelFolder, digest: str, purged: Purged) -> None:
    """Have the certificate of a request tell of a purge; where nothing was left, it stays."""
    for number, entry in enumerate(run.record["requests"], 1):
        if entry["digest"] == digest:
            before = _told(folder, entry, number)
            if before is None or purged.removed:
                certify(run.named, folder, number, _together(before, purged))


def _told(folder: ModelFolder, entry: Mapping[str, Any], number: int) -> Mapping[str, Any] | None:
    """What the certificate says of an earlier purge."""
    try:
        purged: Mapping[str, Any] | None = read_certificate(folder.path / name_of(entry, number))[
            "purged"
        ]
    except InputError:  # it is written anew
        return None
    return purged


def _together(before: Mapping[str, Any] | None, purged: Purged) -> dict[str, Any]:
    """What two purges removed, and what is left now."""
    now = purged.as_json()
    for kind, counts in (before or {}).get("removed", {}).items():
        own = now["removed"].setdefault(kind, {"files": 0, "bytes": 0})
        for name in own:
            own[name] += counts[name]
    return now
