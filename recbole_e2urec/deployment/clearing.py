"""A purge that follows a request on a model in use, and is told in the request's certificate."""

from collections.abc import Mapping
from typing import Any

from recbole_e2urec.deployment.certificate import certify, name_of
from recbole_e2urec.deployment.deployed import Deployed
from recbole_e2urec.deployment.filed import read_certificate
from recbole_e2urec.deployment.folder import ModelFolder
from recbole_e2urec.deployment.purging import Purged, purge_beside
from recbole_e2urec.errors import InputError


def purged_after(run: Deployed, folder: ModelFolder, digest: str, given: str | None) -> list[str]:
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


def file_purge(run: Deployed, folder: ModelFolder, digest: str, purged: Purged) -> None:
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
