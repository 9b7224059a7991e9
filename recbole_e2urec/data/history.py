"""The last K rated items strictly before each interaction; pure NumPy, no RecBole.

Rules, the same for every split and file order:

* only rows of the same user whose time is strictly earlier: rows of equal time never see each
  other;
* only rows that the caller allows;
* never a row of the item that the interaction itself is about;
* among entries of equal time the order is file order (the row id).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec.errors import InputError

ABSENT = -1  # fills the places of a history that is shorter than K


class _Windows(NamedTuple):
    """Places in the list of allowed rows, for every row in time order."""

    order: NDArray[np.int64]  # [n] row ids sorted by (user, time, row id)
    kept: NDArray[np.int64]  # [m] the allowed ones of them
    first: NDArray[np.int64]  # [n] place in `kept` where the row's user begins
    last: NDArray[np.int64]  # [n] place in `kept` of the last strictly earlier entry


def history_rows(
    user: NDArray[np.int64],
    item: NDArray[np.int64],
    time: NDArray[np.float64],
    allowed: NDArray[np.bool_],
    k: int,
) -> NDArray[np.int64]:  # [n], [n], [n], [n] -> [n, k]
    """Row ids of each row's history: oldest first, aligned to the right, -1 = absent.

    Args:
        user: [n] user of each row; the index is the row id.
        item: [n] item of each row.
        time: [n] raw time in any unit.
        allowed: [n] True where a row may appear in a history.
        k: length of the history, at least 0.

    Raises:
        InputError: k is negative, or a time is not a number.
    """
    _check(time, k)
    history = np.full((len(user), k), ABSENT, dtype=np.int64)
    windows = _windows(user, time, np.asarray(allowed, dtype=bool))
    if not len(windows.kept):
        return history
    item = np.asarray(item)
    kept_item, own_item = item[windows.kept], item[windows.order]
    before_run = _place_before_run(kept_item)
    row, place, first = windows.order, windows.last, windows.first
    for column in reversed(range(k)):
        row, own_item, first, place = _drop_finished(row, own_item, first, place)
        same = kept_item[place] == own_item
        place = np.where(same, before_run[place], place)
        found = place >= first
        history[row[found], column] = windows.kept[place[found]]
        place = place - 1
    return history


def _check(time: NDArray[np.float64], k: int) -> None:
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
    kept_before = np.concatenate([[0], np.cumsum(allowed)])[:-1]
    first = kept_before[_starts(new_user)]
    last = kept_before[_starts(new_time)] - 1
    return _Windows(order, order[allowed], first, last)


def _starts(is_new: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Index of the latest True at or before each place."""
    return np.maximum.accumulate(np.where(is_new, np.arange(len(is_new)), 0))


def _place_before_run(kept_item: NDArray[np.int64]) -> NDArray[np.int64]:
    """Place just before the run of equal items that each place belongs to.

    One jump skips any number of repeats, so that the loop above is over K and nothing else.
    """
    is_new = np.ones(len(kept_item), dtype=bool)
    is_new[1:] = kept_item[1:] != kept_item[:-1]
    return _starts(is_new) - 1


def _drop_finished(
    row: NDArray[np.int64],
    own_item: NDArray[np.int64],
    first: NDArray[np.int64],
    place: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Keep the rows that may still find an entry."""
    alive = place >= first
    if alive.all():
        return row, own_item, first, place
    return row[alive], own_item[alive], first[alive], place[alive]
