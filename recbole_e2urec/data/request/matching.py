"""Clauses of a request to the rows that they ask for."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec.data.request.clauses import Clause
from recbole_e2urec.data.request.columns import lines_of
from recbole_e2urec.data.request.moments import check_seconds
from recbole_e2urec.data.rows import IdMap, RowTable
from recbole_e2urec.errors import InputError

Mask = NDArray[np.bool_]
UNKNOWN = "that the data does not have"


class Match(NamedTuple):
    """Rows that any clause asks for, and what is odd about the clauses."""

    chosen: Mask  # [n], of all rows
    warnings: list[str]  # name lines, never what is on them


class _Asked(NamedTuple):
    """A clause in inner ids; 0 = of anybody."""

    clause: Clause
    user: int
    item: int


def match_clauses(
    path: Path | str, clauses: list[Clause], train: Mask, table: RowTable, ids: IdMap
) -> Match:
    """Find the rows of all clauses.

    Args:
        path: for messages.
        clauses: of the file.
        train: [n] True for training rows, of which each clause should have some.
        table: all rows.
        ids: published tokens to inner ids.

    Raises:
        InputError: times where the data has none, or dates where its times are not seconds.
    """
    _check_times(path, clauses, table)
    unknown = unknown_lines(clauses, ids)
    missing = {number for numbers in unknown.values() for number in numbers}
    known = [
        _Asked(one, ids.users.get(one.user or "", 0), ids.items.get(one.item or "", 0))
        for one in clauses
        if one.number not in missing
    ]
    chosen, idle = _rows_of(known, train, table)
    warnings = [_unknown(kind, numbers) for kind, numbers in unknown.items() if numbers]
    if idle:
        warnings.append(
            f"{lines_of(idle)}: no training row fits, so nothing was learned from what is asked for"
        )
    return Match(chosen, [*warnings, *_repeated(clauses)])


def unknown_lines(clauses: list[Clause], ids: IdMap) -> dict[str, list[int]]:
    """Lines that name users, and lines that name items, that the data does not have."""
    return {
        "user": [one.number for one in clauses if one.user and one.user not in ids.users],
        "item": [one.number for one in clauses if one.item and one.item not in ids.items],
    }


def _unknown(kind: str, numbers: list[int]) -> str:
    named = "names a" if len(numbers) == 1 else "name"
    plural = "" if len(numbers) == 1 else "s"
    return f"{lines_of(numbers)}: {named} {kind}{plural} {UNKNOWN}"


def _check_times(path: Path | str, clauses: list[Clause], table: RowTable) -> None:
    timed = next((one for one in clauses if one.is_timed), None)
    if timed is not None and not table.has_time:
        raise InputError(
            f"forget file {path}, line {timed.number}: a time range, but the data has no times"
        )
    dated = next((one for one in clauses if one.is_dated), None)
    if dated is not None:
        where = f"forget file {path}, line {dated.number}"
        check_seconds(float(table.time.max(initial=0)), where)


def _rows_of(asked: list[_Asked], train: Mask, table: RowTable) -> tuple[Mask, list[int]]:
    """Rows of all clauses, and the lines of clauses without a training row."""
    chosen = np.zeros(len(table), dtype=bool)
    idle: list[int] = []
    named = max((one.item for one in asked), default=0)  # maybe an item without rows
    width = max(int(table.item.max(initial=0)), named) + 1
    pair = table.user * width + table.item
    whole = [one for one in asked if not one.clause.is_timed]
    kinds = (
        (table.user, [(one, one.user) for one in whole if not one.item]),
        (table.item, [(one, one.item) for one in whole if not one.user]),
        (pair, [(one, one.user * width + one.item) for one in whole if one.user and one.item]),
    )
    for key, wanted in kinds:
        if wanted:
            values = np.array([value for _, value in wanted])
            chosen |= np.isin(key, values)
            trained = np.isin(values, key[train])
            idle += [one.clause.number for (one, _), found in zip(wanted, trained, strict=True)
                     if not found]  # fmt: skip
    by_user, by_item = _Grouped(table.user), _Grouped(table.item)
    for one in asked:
        if one.clause.is_timed:
            rows = by_user.rows(one.user) if one.user else by_item.rows(one.item)
            if one.user and one.item:
                rows = rows[table.item[rows] == one.item]
            time = table.time[rows]
            rows = rows[(time >= one.clause.first) & (time <= one.clause.last)]
            chosen[rows] = True
            if not train[rows].any():
                idle.append(one.clause.number)
    return chosen, idle


class _Grouped:
    """Rows by key; all of them for key 0."""

    def __init__(self, key: NDArray[np.int64]) -> None:
        self.key = key
        self.order: NDArray[np.int64] | None = None

    def rows(self, value: int) -> NDArray[np.int64]:
        if not value:
            return np.arange(len(self.key))
        if self.order is None:
            self.order = np.argsort(self.key, kind="stable")
            self.sorted = self.key[self.order]
        low, high = np.searchsorted(self.sorted, [value, value + 1])
        return self.order[low:high]


def _repeated(clauses: list[Clause]) -> list[str]:
    """Lines that say again what others say, and those that ask for less than others do."""
    warnings = []
    count = Counter(one.content for one in clauses)
    again = _lines(one for one in clauses if count[one.content] > 1)
    if again:
        warnings.append(f"{lines_of(again)}: the same is asked for more than once")
    whole = {one.content for one in clauses if not one.is_timed}
    forever = (-np.inf, np.inf)
    part = [one for one in clauses if one.is_timed or (one.user and one.item)]
    covered = _lines(
        one
        for one in part
        if (one.user and (one.user, None, *forever) in whole)
        or (one.item and (None, one.item, *forever) in whole)
        or (one.user and one.item and one.is_timed and (one.user, one.item, *forever) in whole)
    )
    if covered:
        warnings.append(
            f"{lines_of(covered)}: a part of a user, item or pair that another line asks for as a "
            "whole; the whole is forgotten"
        )
    return warnings


def _lines(clauses: Iterable[Clause]) -> list[int]:
    return [one.number for one in clauses]
