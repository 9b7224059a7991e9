"""Times in requests and filters: numbers in the data's unit, or ISO 8601 dates and times."""

import math
import re
from datetime import datetime, timezone
from typing import NamedTuple

from recbole_e2urec.errors import InputError

_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_ISO = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[T ]([0-9]{2}:[0-9]{2})(:[0-9]{2})?(?:\.([0-9]{1,6}))?(Z|[-+][0-9]{2}:[0-9]{2})?)?"
)
_DAY = 24 * 60 * 60
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# Seconds since 1970 reach this value in the year 5138; milliseconds reached it in 1973.
_NOT_SECONDS = 1e11


class Moment(NamedTuple):
    """The first and last instant that a text stands for; they differ only for a whole day."""

    first: float
    last: float
    is_iso: bool


def moment(text: str) -> Moment:
    """Read a number in the data's unit, a date, or a date with a time.

    A time without an offset is in UTC. A date stands for the whole day, in seconds since 1970 from
    its first instant to its last.

    Raises:
        InputError: the text is none of these, or the number is not finite; says which forms are
            valid, but not what the text was.
    """
    if len(text) <= 64 and _NUMBER.fullmatch(text) and math.isfinite(float(text)):
        return Moment(float(text), float(text), is_iso=False)
    match = _ISO.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        seconds = _seconds(*match.groups())
    except ValueError as error:
        raise InputError(
            "no moment; a number of the data, 1998-04-20 or 1998-04-20T10:30:00+02:00 does"
        ) from error
    if match[2] is None:
        return Moment(seconds, math.nextafter(seconds + _DAY, -math.inf), is_iso=True)
    return Moment(seconds, seconds, is_iso=True)


def check_seconds(latest: float, what: str) -> None:
    """Refuse a date if the times of the data cannot be seconds since 1970.

    Args:
        latest: the latest time in the data.
        what: where the date was given, for the message.

    Raises:
        InputError: the times are too large.
    """
    if latest > _NOT_SECONDS:
        raise InputError(
            f"{what}: dates need times in seconds since 1970; these reach {latest:.0f}; give "
            "numbers in the unit of the data"
        )


def _seconds(
    day: str, time: str | None, second: str | None, fraction: str | None, offset: str | None
) -> float:
    if fraction is not None and second is None:
        raise ValueError("a fraction of a minute")
    zone = "+00:00" if offset in (None, "Z") else offset
    text = f"{day}T{time or '00:00'}{second or ':00'}.{(fraction or '').ljust(6, '0')}{zone}"
    return (datetime.fromisoformat(text) - _EPOCH).total_seconds()
