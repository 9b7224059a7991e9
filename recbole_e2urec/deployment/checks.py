"""Outcomes of checks, a line each."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

OK, FAILED, UNKNOWN = "ok", "FAILED", "cannot be checked"
SHOWN = 3  # places that differ, in a line


class Check(NamedTuple):
    """What was looked at, and what came of it."""

    outcome: str
    what: str
    why: str = ""

    @property
    def line(self) -> str:
        """The same for a person."""
        told = f"{self.what} ({self.why})" if self.why else self.what
        return f"{self.outcome:<{len(UNKNOWN)}}  {told}"


def same(what: str, found: Any, wanted: Any, tolerance: float = 0.0) -> Check:
    """Compare JSON values; where they differ, the check names the places."""
    places = list(differing(found, wanted, tolerance))
    if not places:
        return Check(OK, what)
    more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    return Check(FAILED, what, f"different: {', '.join(places[:SHOWN])}{more}")


def differing(found: Any, wanted: Any, tolerance: float = 0.0, place: str = "") -> Iterator[str]:
    """Places in which JSON values differ, numbers by more than the tolerance."""
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        for key in sorted({*found, *wanted}):
            at = f"{place}.{key}" if place else str(key)
            if key not in found or key not in wanted:
                yield at
            else:
                yield from differing(found[key], wanted[key], tolerance, at)
    elif _both(found, wanted, list):
        if len(found) != len(wanted):
            yield place or "all of it"
            return
        for number, pair in enumerate(zip(found, wanted, strict=True)):
            yield from differing(*pair, tolerance, f"{place}[{number}]")
    elif not _alike(found, wanted, tolerance):
        yield place or "all of it"


def _alike(found: Any, wanted: Any, tolerance: float) -> bool:
    if _both(found, wanted, int | float) and bool not in (type(found), type(wanted)):
        return bool(abs(found - wanted) <= tolerance)
    return type(found) is type(wanted) and bool(found == wanted)


def _both(found: Any, wanted: Any, kind: Any) -> bool:
    return isinstance(found, kind) and isinstance(wanted, kind)
