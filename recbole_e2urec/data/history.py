"""The last K rated items strictly before each interaction, in pure NumPy without RecBole.

The rules are the same for every split and file order:

* A history holds only rows of the same user with a strictly earlier time. Rows of equal time never
  see each other.
* It holds only rows that the caller allows.
* It never holds a row of the interaction's own item.
* Entries of equal time are in file order (by row id).

:func:`history_rows` makes all histories at once. :class:`Histories` stands for the same array, and
makes only those that are asked for, by an index of the rows of each user.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec.errors import InputError

ABSENT = -1  # fills up a history that is shorter than K


class _Windows(NamedTuple):
    """For every row in time order, which slice of the allowed rows its history comes from."""

    order: NDArray[np.int64]  # [n] row ids sorted by (user, time, row id)
    allowed_rows: NDArray[np.int64]  # [m] the allowed rows among `order`
    first: NDArray[np.int64]  # [n] index into `allowed_rows` where the row's user begins
    last: NDArray[np.int64]  # [n] index into `allowed_rows` of the last strictly earlier entry


def history_rows(
    user: NDArray[np.int64],
    item: NDArray[np.int64],
    time: NDArray[np.float64],
    allowed: NDArray[np.bool_],
    k: int,
) -> NDArray[np.int64]:  # [n], [n], [n], [n] -> [n, k]
    """Return the row ids of each row's history: oldest first, right-aligned, -1 = absent.

    Args:
        user: [n] user of each row; the index is the row id.
        item: [n] item of each row.
        time: [n] raw time in any unit.
        allowed: [n] True where a row may appear in a history.
        k: length of the history, at least 0.

    Raises:
        InputError: k is negative, or a time is not a number.
    """
    _check_inputs(time, k)
    history = np.full((len(user), k), ABSENT, dtype=np.int64)
    windows = _windows(user, time, np.asarray(allowed, dtype=bool))
    if not len(windows.allowed_rows):
        return history
    item = np.asarray(item)
    allowed_item, own_item = item[windows.allowed_rows], item[windows.order]
    before_run = _index_before_run(allowed_item)
    row, index, first = windows.order, windows.last, windows.first
    for column in reversed(range(k)):
        row, own_item, first, index = _drop_finished(row, own_item, first, index)
        is_own_item = allowed_item[index] == own_item
        index = np.where(is_own_item, before_run[index], index)
        has_entry = index >= first
        history[row[has_entry], column] = windows.allowed_rows[index[has_entry]]
        index = index - 1
    return history


def _check_inputs(time: NDArray[np.float64], k: int) -> None:
    if k < 0:
        raise InputError(f"history length {k} is negative; give 0 or more")
    missing = np.flatnonzero(np.isnan(time))
    if len(missing):
        raise InputError(
            f"the time of row {missing[0]} is not a number ({len(missing)} such rows); "
            "remove them or give them a time"
        )


def _windows(
    user: NDArray[np.int64], time: NDArray[np.float64], allowed: NDArray[np.bool_]
) -> _Windows:
    order = np.lexsort((time, user))  # stable: ties keep file order
    user, time, allowed = np.asarray(user)[order], np.asarray(time)[order], allowed[order]
    new_user = np.ones(len(order), dtype=bool)
    new_user[1:] = user[1:] != user[:-1]
    new_time = new_user.copy()
    new_time[1:] |= time[1:] != time[:-1]
    allowed_before = np.concatenate([[0], np.cumsum(allowed)])[:-1]
    first = allowed_before[_run_starts(new_user)]
    last = allowed_before[_run_starts(new_time)] - 1
    return _Windows(order, order[allowed], first, last)


def _run_starts(is_new: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return, for each index, the latest index at or before it that is True."""
    return np.maximum.accumulate(np.where(is_new, np.arange(len(is_new)), 0))


def _index_before_run(allowed_item: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return, for each index, the index just before its run of equal items.

    One jump skips any number of repeats, so the loop in :func:`history_rows` takes K steps only.
    """
    is_new = np.ones(len(allowed_item), dtype=bool)
    is_new[1:] = allowed_item[1:] != allowed_item[:-1]
    return _run_starts(is_new) - 1


def _drop_finished(
    row: NDArray[np.int64],
    own_item: NDArray[np.int64],
    first: NDArray[np.int64],
    index: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Drop the rows that have no earlier entries left."""
    active = index >= first
    if active.all():
        return row, own_item, first, index
    return row[active], own_item[active], first[active], index[active]


class UserIndex(NamedTuple):
    """Where the rows of each user are.

    Attributes:
        order: [n] row ids by user, time and row id.
        start: [users + 1] where each user begins in ``order``, by user.
        digest: identifies users, times and order.
    """

    order: NDArray[np.int64]
    start: NDArray[np.int64]
    digest: str


SHOWN, SHOWN_TO_TEST, IS_TEST = np.uint8(1), np.uint8(2), np.uint8(4)


class Histories:
    """Stands for an array [n, k] of histories, and makes those of it that are asked for.

    It takes one byte a row of the data.

    Args:
        columns: user, item and time of each row, as in :func:`history_rows`.
        index: where the rows of each user are.
        marks: [n] uint8, by row id: SHOWN if histories show the row, SHOWN_TO_TEST if those of test
            rows do, IS_TEST if it is a test row. Marks add up.
        k: length of the history.
    """

    def __init__(
        self,
        columns: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]],
        index: UserIndex,
        marks: NDArray[np.uint8],
        k: int,
    ) -> None:
        self._user, self._item, self._time = columns
        self._index, self._marks, self._k = index, marks, k

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._user)

    def __getitem__(self, rows: NDArray[np.int64] | int) -> NDArray[np.int64]:  # [b] -> [b, k]
        """Return the histories of these rows, or of one row [k]."""
        if isinstance(rows, int | np.integer):
            return self[np.array([rows])][0]
        first, index = self._window(rows)
        item = self._item[rows]
        mark = np.where(self._marks[rows] & IS_TEST, SHOWN_TO_TEST, SHOWN)
        history = np.full((len(rows), self._k), ABSENT, dtype=np.int64)
        place, column = np.arange(len(rows)), np.full(len(rows), self._k)
        while True:  # one entry of every row at a time, the latest first
            active = (index >= first) & (column > 0)
            state = (place, column, first, index, item, mark)
            place, column, first, index, item, mark = (part[active] for part in state)
            if not len(place):
                return history
            entry = self._index.order[index]
            is_shown = ((self._marks[entry] & mark) > 0) & (self._item[entry] != item)
            column = column - is_shown
            history[place[is_shown], column[is_shown]] = entry[is_shown]
            index = index - 1

    def _window(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return, for each row, where its user and the last strictly earlier row are in `order`."""
        user, time, order = self._user[rows], self._time[rows], self._index.order
        first, end = self._index.start[user], self._index.start[user + 1]
        low = first
        while (low < end).any():  # a binary search in all rows at once
            middle = np.minimum((low + end) // 2, len(order) - 1)
            is_earlier = (self._time[order[middle]] < time) & (low < end)
            end = np.where(is_earlier | (low == end), end, middle)
            low = np.where(is_earlier, middle + 1, low)
        return first, low - 1

    def identity(self) -> Iterator[bytes]:
        """Yield what decides the histories."""
        yield f"{self._k} {self._index.digest}".encode()
        yield self._marks.tobytes()


def identity_of(values: NDArray[Any] | Histories) -> Iterator[bytes]:
    """Yield what identifies an array, or the histories that stand for one."""
    if isinstance(values, Histories):
        yield from values.identity()
    else:
        yield np.ascontiguousarray(values).tobytes()
