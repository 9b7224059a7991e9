"""Reading files that may have been damaged or made to do harm; nothing of them is trusted."""

import hashlib
import json
from pathlib import Path
from typing import Any

from torch import Tensor

from recbole_e2urec import storage
from recbole_e2urec.errors import one_line

MOST_JSON = 2**26  # bytes of a JSON file
_CHANGED = "it is not what was written"


class Broken(Exception):
    """Why a file cannot be used."""


def hash_of_file(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


def has_link(folder: Path, name: str) -> bool:
    """Whether a file, or a folder on the way to it, is a link.

    Args:
        folder: where the way begins; it may be a link itself.
        name: of the file, from there.
    """
    path = folder / name
    return any(one.is_symlink() for one in (path, *path.parents) if folder in one.parents)


def read_json(path: Path, digest: str | None = None) -> dict[str, Any]:
    """Read a mapping from a JSON file.

    Args:
        path: the file.
        digest: its hash; None: of whatever content.

    Raises:
        Broken: too large, no such file, no JSON, no mapping, or another content.
    """
    try:
        if path.stat().st_size > MOST_JSON:
            raise Broken("it is too large")
        data = path.read_bytes()
        if digest is not None and hashlib.sha256(data).hexdigest() != digest:
            raise Broken(_CHANGED)
        value = json.loads(data)
    except (OSError, ValueError, RecursionError) as error:
        raise Broken(one_line(error)) from error
    if not isinstance(value, dict):
        raise Broken("it holds no mapping")
    return value


def read_tensors(path: Path, digest: str) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file of this hash.

    Raises:
        Broken: no such file, another content, or no safetensors.
    """
    try:
        if hash_of_file(path) != digest:
            raise Broken(_CHANGED)
        return storage.read_tensors(path)[0]
    except (OSError, ValueError) as error:
        raise Broken(one_line(error)) from error
