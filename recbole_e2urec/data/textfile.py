"""A text file as its lines, exactly as published, or one clear error."""

import codecs
from pathlib import Path

from recbole_e2urec.errors import InputError


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
