"""Sampled candidates that are a property of the evaluation row, not of the moment.

RecBole draws negatives anew at each evaluation, and sequential models may meet seen items while
others do not. Here candidate ``j`` of a row is a hash of (seed, row id, j): the same for every
model, evaluation and batch size, whatever other rows are evaluated.
"""

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec.errors import InputError

_SPAN = np.uint64(1 << 20)  # draws per row: the most that a row can redraw


def draw_candidates(
    rows: NDArray[np.int64],
    users: NDArray[np.int64],
    used: NDArray[np.int64],
    weights: NDArray[np.float64],
    count: int,
    seed: int,
) -> NDArray[np.int64]:
    """Draw items that the row's user has not used, with replacement as RecBole does.

    Args:
        rows: row ids, [n].
        users: inner user ids of the rows, [n].
        used: pairs ``user * len(weights) + item`` that must not be drawn, [m].
        weights: of each inner item id, [items]; 0 is never drawn (padding).
        count: candidates per row.
        seed: of the run.

    Returns:
        Inner item ids, [n, count].

    Raises:
        InputError: a user has used every item, so nothing can be drawn.
    """
    items = len(weights)
    used = np.unique(used)
    _check_room(users, used, weights)
    bound = np.cumsum(weights) / np.sum(weights)
    start = (_mix(rows.astype(np.uint64) ^ _mix(np.array([seed]))) // _SPAN) * _SPAN
    drawn = np.zeros((len(rows), count), dtype=np.int64)
    open_row, open_slot = (index.ravel() for index in np.indices(drawn.shape))
    tries = open_slot.astype(np.uint64)
    while len(open_row):
        share = _mix(start[open_row] + tries) / np.float64(2**64)
        found = np.minimum(np.searchsorted(bound, share, side="right"), items - 1)
        drawn[open_row, open_slot] = found
        again = _contains(used, users[open_row] * items + found)
        open_row, open_slot = open_row[again], open_slot[again]
        tries = tries[again] + np.uint64(count)
    return drawn


def _check_room(
    users: NDArray[np.int64], used: NDArray[np.int64], weights: NDArray[np.float64]
) -> None:
    items = len(weights)
    drawable = used[weights[used % items] > 0]
    per_user = np.bincount(drawable // items, minlength=int(users.max(initial=0)) + 1)
    if np.any(per_user[users] >= np.count_nonzero(weights)):
        raise InputError(
            "a user has interacted with every item, so no candidate can be sampled; set eval_mode "
            "to full, or user_inter_num_interval to leave such users out"
        )


def _contains(ordered: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.bool_]:
    if len(ordered) == 0:
        return np.zeros(len(values), dtype=bool)
    place = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return ordered[place] == values


def _mix(value: NDArray[np.integer]) -> NDArray[np.uint64]:
    """Hash integers, every bit as if random: the finaliser of SplitMix64 (Steele et al. 2014)."""
    mixed = value.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
