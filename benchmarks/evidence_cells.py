"""The evidence that is there, put together by setup and size."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.evidence_rows import ORIGINAL, RETRAIN, wanted_rows
from benchmarks.evidence_store import Labelled, Place, Said, Store


class Cell(NamedTuple):
    """All that is known of a setup and a size.

    Attributes:
        setup: its short name.
        size: share of the training users.
        labelled: rows of the request.
        rows: what was measured, by name and seed.
        said: answers, by name and seed.
    """

    setup: str
    size: float
    labelled: Labelled
    rows: dict[str, dict[int, dict[str, Any]]]
    said: dict[str, dict[int, Said]]


def cells_of(
    store: Store,
    setups: Iterable[str],
    sizes: Sequence[float],
    seeds: Sequence[int],
    only: Sequence[str] | None,
) -> list[Cell]:
    """Collect what is there of these; seeds without an Original and a Retrain are left out."""
    known = store.rows()
    names = wanted_rows(only)
    found = []
    for setup in setups:
        for size in sizes:

            def place(seed: int, name: str, setup: str = setup, size: float = size) -> Place:
                return Place(setup, size, seed, name)

            rows, said = _collected(store, known, place, names, seeds)
            if rows:
                found.append(Cell(setup, size, store.asked(setup, size), rows, said))
    return found


def is_there(row: Mapping[str, Any] | None) -> bool:
    """Whether a row was measured, and not refused."""
    return row is not None and "refused" not in row


def _collected(
    store: Store,
    known: Mapping[Place, dict[str, Any]],
    wanted: Callable[[int, str], Place],
    names: Sequence[str],
    seeds: Sequence[int],
) -> tuple[dict[str, dict[int, dict[str, Any]]], dict[str, dict[int, Said]]]:
    """Rows and answers by name and seed."""
    rows: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in names}
    said: dict[str, dict[int, Said]] = {name: {} for name in names}
    for seed in seeds:
        places = {name: wanted(seed, name) for name in names}
        here = [name for name in names if is_there(known.get(places[name]))]
        for name in here if {ORIGINAL, RETRAIN} <= set(here) else ():
            rows[name][seed] = known[places[name]]
            said[name][seed] = store.said(places[name])
    return {k: v for k, v in rows.items() if v}, {k: v for k, v in said.items() if v}
