"""A request as JSON lines: one object a line, so that lines may ask for different things."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from recbole_e2urec.data.request.columns import (
    Record,
    Records,
    check_meanings,
    meanings,
    place,
)
from recbole_e2urec.errors import InputError


def read_json_lines(path: Path | str, lines: list[str], by: str) -> Records:
    """Entries of the objects; numbers are taken as they are written.

    Raises:
        InputError: a line that is no JSON object, a value that is neither text nor a number, a key
            that comes twice, or keys that do not fit ``forget_by``.
    """
    entries = []
    passed_over: set[str] = set()
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        pairs = _pairs(path, number, text)
        names = [name for name, _ in pairs]
        found = meanings(path, number, names)
        check_meanings(path, number, found, by)
        passed_over.update(name for at, name in enumerate(names) if at not in found.values())
        cells = {meaning: pairs[at][1] for meaning, at in found.items()}
        entries.append(Record(number, _as_text(path, number, cells)))
    return Records(entries, len(passed_over))


def _pairs(path: Path | str, number: int, text: str) -> list[tuple[str, Any]]:
    """Keys and values of one object, a key that comes twice as two pairs."""
    refuse = _refusing("NaN and Infinity are no values")
    try:
        found = json.loads(
            text,
            parse_int=str,
            parse_float=str,
            parse_constant=refuse,
            object_pairs_hook=lambda pairs: _Object(pairs),
        )
    except json.JSONDecodeError as error:
        raise InputError(
            f"{place(path, number)}: not valid JSON, {error.msg} at column {error.colno}; "
            'write one object a line, as {"user_id": "7"}'
        ) from error
    except (ValueError, RecursionError) as error:
        reason = "too deeply nested" if isinstance(error, RecursionError) else str(error)
        raise InputError(f"{place(path, number)}: {reason}; correct the line") from error
    if not isinstance(found, _Object):
        raise InputError(
            f'{place(path, number)}: no JSON object; write one a line, as {{"user_id": "7"}}'
        )
    return found


class _Object(list[tuple[str, Any]]):
    """Keys and values of a JSON object, apart from a JSON list."""


def _refusing(message: str) -> Callable[[str], NoReturn]:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(message)

    return refuse


def _as_text(path: Path | str, number: int, cells: dict[str, Any]) -> dict[str, str]:
    for meaning, value in cells.items():
        if not isinstance(value, str):
            raise InputError(
                f"{place(path, number)}: the {meaning} is neither text nor a number; correct the "
                "line or leave the key out"
            )
    return cells
