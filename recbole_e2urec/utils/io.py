"""Files that appear whole or not at all, and text files read as published.

Every file is written to a temporary name in its own folder, flushed to disk and moved into place.
Tensors are safetensors, everything else is JSON or text; nothing here pickles or unpickles. Of
several processes only the writer writes; what a stage holds is read by it as well (see ``Stage``).
"""

import codecs
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import safe_open
from safetensors.torch import save, save_file
from torch import Tensor

from recbole_e2urec.errors import InputError, one_line
from recbole_e2urec.utils import distributed

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; creates the folder. Raises InputError when the disk is full."""
    _write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write one JSON document atomically; NaN and infinities are refused with a ValueError."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read one JSON document."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named tensors and text metadata into one safetensors file, atomically."""
    if not distributed.is_main_process():
        return
    whole = _whole(tensors)
    _write_atomically(path, lambda temporary: save_file(whole, temporary, dict(metadata or {})))


def _whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def hash_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256, in hex, of the file that :func:`write_tensors` makes of these alone."""
    return hashlib.sha256(save(_whole(tensors), {})).hexdigest()


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what :func:`write_tensors` wrote: the tensors on the CPU, and the metadata.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such file.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except OSError:
        raise
    except Exception as error:  # whatever foreign bytes make safetensors or torch raise
        raise ValueError(one_line(error)) from error


@contextmanager
def file_lock(path: Path, waiting: Callable[[str], None] = lambda message: None) -> Iterator[None]:
    """Hold the lock file ``path``; another process that asks for it waits until the body ends.

    The lock of a killed process is free again. ``waiting`` is told if there is a wait. Of several
    processes of one run the writer holds the lock for all.

    Raises:
        InputError: the folder cannot be written to.
    """
    if not distributed.is_main_process():
        yield
        return
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        waiting(f"another run is at work in {path.parent}; waiting for it")
        lock.acquire()
    except OSError as error:
        raise _explained(path, error) from error
    try:
        yield
    finally:
        lock.release()


def flush_folder(folder: Path) -> None:
    """Have the names of the files in a folder on disk, where the system can say so.

    Raises:
        InputError: the disk is full or gone.
    """
    if os.name == "nt":  # folders cannot be opened there
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise _explained(folder, error) from error


def remove_parts(folder: Path, name: str = "*") -> None:
    """Remove what killed writes of the files of this name (a pattern) left in the folder."""
    if not distributed.is_main_process():
        return
    for part in folder.glob(f".{name}.*.part"):
        part.unlink(missing_ok=True)


def _write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    if not distributed.is_main_process():
        return
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        temporary.chmod(0o666 & ~_umask())
        _flush(temporary)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if isinstance(error, Exception) and _is_no_room(error):
            raise _explained(path, error) from error
        raise


def _umask() -> int:
    """What new files are denied; it can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _explained(path: Path, error: Exception) -> InputError:
    advice = "free some space or name another folder (checkpoint_dir, output)"
    return InputError(f"cannot write {path}: {error}; {advice}")


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _is_no_room(error: Exception) -> bool:
    """Tell a full or closed disk from other failures; safetensors wraps the OS error in text."""
    if isinstance(error, OSError):
        return error.errno in NO_ROOM
    return type(error).__name__ == "SafetensorError" and "os error" in str(error).lower()


def read_lines(path: Path | str, encoding: str = "utf-8") -> list[str]:
    r"""Lines of a text file without their ends (\n or \r\n) and without a byte order mark.

    Only these two end a line: a title may hold U+2028 or a form feed, which `str.splitlines` would
    cut. Blank lines are kept, so that the index + 1 is the line number.

    Raises:
        InputError: no such file, unreadable, or bytes that are not in the encoding.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check the path") from error
    text = _decode(data, path, encoding)
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if not lines[-1] else lines


def _decode(data: bytes, path: Path | str, encoding: str) -> str:
    try:
        if codecs.lookup(encoding).name == "utf-8":
            encoding = "utf-8-sig"
        return data.decode(encoding)
    except LookupError as error:
        raise InputError(f"unknown encoding {encoding!r} for {path}; utf-8 is usual") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}, line {line}: not {encoding.removesuffix('-sig')} text; "
            "convert the file or set its encoding"
        ) from error
