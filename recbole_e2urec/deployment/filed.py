"""Reading a certificate that may have been damaged, edited or made to do harm."""

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from recbole_e2urec.deployment.certificate import FORMAT, seal_of
from recbole_e2urec.deployment.folder import CERTIFICATES
from recbole_e2urec.deployment.sealed import Broken, read_json
from recbole_e2urec.errors import InputError, one_line

_FILE = re.compile(r"\w[\w.-]*")
_GENERATION = re.compile(r"[0-9]{6}")
_KINDS: dict[str, Any] = {
    "format": int,
    "request.id": str,
    "request.digest": str,
    "request.number": int,
    "before.generation": str,
    "before.files": dict,
    "after.generation": str,
    "after.files": dict,
    "identifiers": dict,
    "measures.before": dict,
    "measures.after": dict,
    "versions": dict,
    "purged": (dict, type(None)),
    "sha256": str,
}


def read_certificate(path: Path) -> dict[str, Any]:
    """Read a certificate; its hashes are not looked at.

    Raises:
        InputError: it is none, or it names a path that leads elsewhere.
    """
    if path.suffix == ".html":
        raise InputError(f"{path} is the page for people; name the .json file beside it")
    try:
        whole = read_json(path)
        seal_of(whole)
    except (Broken, ValueError, RecursionError) as error:
        raise InputError(f"{path} is no certificate: {one_line(error)}") from error
    for name, kind in _KINDS.items():
        value = _at(whole, name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InputError(f"{path} is no certificate: {name} is missing or of another kind")
    if whole["format"] != FORMAT:
        raise InputError(f"{path}: format {whole['format']} is not known, {FORMAT} is")
    _refuse_paths(path, whole)
    return whole


def folder_of(path: Path) -> Path:
    """The model folder that a certificate lies in.

    Raises:
        InputError: it lies elsewhere.
    """
    place = path.absolute().parent
    if place.name != CERTIFICATES:
        raise InputError(f"{path} lies in no model folder; write --checkpoint=DIR")
    return place.parent


def is_purge(purged: Mapping[str, Any]) -> bool:
    """Whether this is what a purge tells: ``removed``, ``kept`` and ``unknown``."""
    removed, kept, unknown = (purged.get(key) for key in ("removed", "kept", "unknown"))
    return (
        isinstance(removed, dict)
        and all(_has(one, int, "files", "bytes") for one in removed.values())
        and isinstance(kept, list)
        and all(_has(one, str, "name", "sha256", "why") for one in kept)
        and isinstance(unknown, list)
        and all(isinstance(one, str) for one in unknown)
    )


def _has(value: Any, kind: type, *keys: str) -> bool:
    return isinstance(value, dict) and all(type(value.get(key)) is kind for key in keys)


def climbs(name: str) -> bool:
    """Whether a name leads out of the folder that it is in, on this system or another."""
    if not name or "\0" in name:
        return True
    kinds = PurePosixPath(name), PureWindowsPath(name)
    return any(one.anchor or ".." in one.parts for one in kinds)


def _at(whole: Mapping[str, Any], name: str) -> Any:
    value: Any = whole
    for part in name.split("."):
        value = value.get(part, ...) if isinstance(value, Mapping) else ...
    return value


def _refuse_paths(path: Path, whole: Mapping[str, Any]) -> None:
    sides = [whole["before"], whole["after"]]
    fits = all(_GENERATION.fullmatch(side["generation"]) for side in sides)
    fits = fits and all(_FILE.fullmatch(name) for side in sides for name in side["files"])
    purged = whole["purged"]
    if purged is not None and not is_purge(purged):
        raise InputError(f"{path} is no certificate: purged is nothing that a purge writes")
    if not fits or any(climbs(one["name"]) for one in (purged or {}).get("kept", [])):
        raise InputError(f"{path} names a file that could lead out of its folder; do not trust it")
