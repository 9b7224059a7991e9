"""Reading and writing files: atomic writes, locks, and text files read exactly as published.

A file is written under a temporary name in its own folder, flushed to disk and then moved into
place, so it is either complete or absent. Tensors are stored as safetensors, everything else as
JSON or text; nothing here pickles or unpickles. If there are several processes, only the main
process writes. It alone also reads stages (see ``Stage``).
"""

import codecs
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import safe_open
from safetensors.torch import save, save_file
from torch import Tensor

from recbole_e2urec.errors import DISK_ERRORS, InputError, one_line
from recbole_e2urec.utils import distributed

RUN_SUFFIX = ".e2urec-run"  # of the folders of runs; a purge removes such a folder as a whole


def run_folder(checkpoint_dir: Path | str, dataset: str) -> Path:
    """Return the folder of all that runs on a data set write, except their results.

    Comparisons and requests on one data set share stages, so they share the folder. A folder that
    is a run's folder, or lies in one, is returned as it is.
    """
    folder = Path(checkpoint_dir)
    if any(part.endswith(RUN_SUFFIX) for part in folder.parts):
        return folder
    return folder / (re.sub(r"[^\w.-]", "_", dataset) + RUN_SUFFIX)


def outside_run_folder(path: Path) -> Path:
    """Return a path without the run's folder, to which version 0.7 and earlier wrote."""
    return Path(*(part for part in path.parts if not part.endswith(RUN_SUFFIX)))


def make_folder(path: Path, key: str) -> None:
    """Make a folder that a setting names, unless it is there.

    Raises:
        InputError: it cannot be made, as where a file has its name; names the key.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "it is a file" if os.path.isfile(path) else error.strerror
        raise InputError(f"{key}: cannot make the folder {path}: {reason}; name another") from error


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; creates the folder if needed.

    What has no UTF-8 form, such as half of a surrogate pair, is written as an escape.

    Raises:
        InputError: the disk is full, or the folder cannot be written to.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically; creates the folder if needed.

    Raises:
        InputError: as in :func:`write_text`.
    """
    _write_atomically(path, lambda temporary: temporary.write_bytes(content))


def write_json(path: Path, value: Any) -> None:
    """Write one JSON document atomically.

    Raises:
        InputError: as in :func:`write_text`.
        ValueError: the value has NaN or an infinity.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read one JSON document."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named tensors and text metadata to one safetensors file, atomically.

    Raises:
        InputError: as in :func:`write_text`.
    """
    if not distributed.is_main_process():
        return
    copies = _cpu_copies(tensors)
    _write_atomically(path, lambda temporary: save_file(copies, temporary, dict(metadata or {})))


def link_or_copy(source: Path, path: Path) -> None:
    """Give a file another name; copy it where the file system has no hard links.

    Raises:
        InputError: as in :func:`write_text`.
    """
    if not distributed.is_main_process():
        return
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, path)
        return
    _write_atomically(path, lambda temporary: shutil.copyfile(source, temporary))


def hash_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256, in hex, of a file with these tensors and no metadata."""
    return hashlib.sha256(save(_cpu_copies(tensors), {})).hexdigest()


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file written by :func:`write_tensors`.

    Returns:
        The tensors on the CPU, and the metadata.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no safetensors file.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except OSError:
        raise
    except Exception as error:  # safetensors and torch can raise anything on foreign bytes
        raise ValueError(one_line(error)) from error


def read_lines(path: Path | str, encoding: str = "utf-8") -> list[str]:
    r"""Read the lines of a text file, without their ends (\n or \r\n) and a byte order mark.

    Only \n and \r\n end a line: a title may hold U+2028 or a form feed, where `str.splitlines`
    would cut it. Blank lines are kept, so the line number is the index + 1.

    Raises:
        InputError: the file does not exist, cannot be read, or has bytes that are not in the
            encoding.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check the path") from error
    text = _decode(data, path, encoding)
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if not lines[-1] else lines


def iter_lines(path: Path | str, encoding: str = "utf-8") -> Iterator[str]:
    """Yield the lines that :func:`read_lines` returns, without holding the file in memory.

    Raises:
        InputError: as in :func:`read_lines`.
    """
    try:
        with open(path, encoding=codec(encoding), newline="\n") as file:
            for line in file:
                yield line.removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check the path") from error
    except (LookupError, UnicodeDecodeError):
        _decode(Path(path).read_bytes(), path, encoding)  # says where
        raise


def ends_in_line_end(path: Path) -> bool:
    """Return whether the last line of a file is ended; an empty file has no lines."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        return file.read() in (b"", b"\n")


@contextmanager
def file_lock(path: Path, waiting: Callable[[str], None] = lambda message: None) -> Iterator[None]:
    """Hold a lock file; another process that wants the lock waits until the block ends.

    The lock of a killed process becomes free again. If a run has several processes, the main
    process holds the lock for all.

    Args:
        path: the lock file.
        waiting: called with a message if this process must wait.

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
        raise _cannot_write(path, error) from error
    try:
        yield
    finally:
        lock.release()


def flush_folder(folder: Path) -> None:
    """Flush the names of the files in a folder to disk, where the system allows it.

    Raises:
        InputError: the disk is full or not available.
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
        raise _cannot_write(folder, error) from error


def remove_parts(folder: Path, name: str = "*") -> None:
    """Remove temporary files that killed processes left; ``name`` is a pattern of the files."""
    if not distributed.is_main_process():
        return
    for part in folder.glob(f".{name}.*.part"):
        part.unlink(missing_ok=True)


def umask() -> int:
    """Return the file mode mask of this process, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


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
        temporary.chmod(0o666 & ~umask())
        _flush(temporary)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if isinstance(error, Exception) and _is_disk_error(error):
            raise _cannot_write(path, error) from error
        raise


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _is_disk_error(error: Exception) -> bool:
    """Whether the disk is full or not writable; safetensors gives the OS error as text only."""
    if isinstance(error, OSError):
        return error.errno in DISK_ERRORS
    return type(error).__name__ == "SafetensorError" and "os error" in str(error).lower()


def _cannot_write(path: Path, error: Exception) -> InputError:
    advice = "free some space or name another folder (checkpoint_dir, output)"
    return InputError(f"cannot write {path}: {error}; {advice}")


def _cpu_copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def codec(encoding: str) -> str:
    """Return the encoding that also leaves out a byte order mark."""
    return "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding


def _decode(data: bytes, path: Path | str, encoding: str) -> str:
    try:
        return data.decode(codec(encoding))
    except LookupError as error:
        raise InputError(f"unknown encoding {encoding!r} for {path}; utf-8 is usual") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}, line {line}: not {encoding.removesuffix('-sig')} text; "
            "convert the file or set its encoding"
        ) from error
