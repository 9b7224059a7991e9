"""What the columns of a request mean, and which of them a request may have."""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from recbole_e2urec.errors import InputError

NAMES = {
    "user": ("user_id", "userid", "user", "uid"),
    "item": ("item_id", "itemid", "item", "iid"),
    "from": ("from", "since"),
    "until": ("until", "to"),
    "request_id": ("request_id",),
}
_MEANINGS = {name: meaning for meaning, names in NAMES.items() for name in names}
_SHOWN = 10  # line numbers in a message
ADVICE = {
    "user": "give one user token a line, or user_id,item_id pairs",
    "interaction": "give user_id,item_id pairs",
    "item": "give one item token a line",
}


class Record(NamedTuple):
    """One entry of a request, as text."""

    number: int  # of the line where it begins
    cells: dict[str, str]  # by meaning: user, item, from, until, request_id


class Records(NamedTuple):
    """All entries of a request, and how many columns or keys of it mean nothing here."""

    entries: list[Record]
    passed_over: int


def place(path: Path | str, number: int) -> str:
    """Where something is, for a message."""
    return f"forget file {path}, line {number}"


def lines_of(numbers: Iterable[int]) -> str:
    """Name lines without what is on them: ``lines 2, 5 and 9``."""
    found = [str(number) for number in sorted(set(numbers))]
    if len(found) == 1:
        return f"line {found[0]}"
    if len(found) > _SHOWN:
        return f"lines {', '.join(found[:_SHOWN])} and {len(found) - _SHOWN:,} more"
    return f"lines {', '.join(found[:-1])} and {found[-1]}"


def meaning_of(name: str) -> str | None:
    """What a column of this name means; RecBole's type may follow, as in ``user_id:token``."""
    return _MEANINGS.get(_plain(name))


def meanings(path: Path | str, number: int, names: Iterable[str]) -> dict[str, int]:
    """Place of each meaning among the columns or keys.

    Raises:
        InputError: two of them mean the same, or one is a known name with a slip in it.
    """
    found: dict[str, int] = {}
    for at, name in enumerate(names):
        meaning = meaning_of(name)
        if meaning is None:
            close = difflib.get_close_matches(_plain(name)[:40], _MEANINGS, n=1, cutoff=0.75)
            if close:
                raise InputError(
                    f"{place(path, number)}, column {at + 1}: no such column; did you mean "
                    f"{close[0]!r}? Rename it if it is something else"
                )
        elif meaning in found:
            raise InputError(
                f"{place(path, number)}: columns {found[meaning] + 1} and {at + 1} both give the "
                f"{meaning}; keep one"
            )
        else:
            found[meaning] = at
    return found


def check_meanings(path: Path | str, number: int, found: Mapping[str, object], by: str) -> None:
    """Refuse columns that ask for something else than ``forget_by`` says.

    ``user``, the default, takes whatever the columns name.

    Raises:
        InputError: says what would do.
    """
    asked = set(found) - {"request_id"}
    named = asked & {"user", "item"}
    fits = {
        "user": bool(asked),
        "interaction": named == {"user", "item"},
        "item": named == {"item"},
    }
    if not fits[by]:
        raise InputError(
            f"{place(path, number)}: columns do not fit forget_by {by!r}; {ADVICE[by]} "
            "(other columns need a header)"
        )


def _plain(name: str) -> str:
    return name.split(":")[0].strip().lower()
