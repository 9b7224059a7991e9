"""Drawing by a seed: who is forgotten where no request names them, and who is set aside."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec.data.request.identity import ranks
from recbole_e2urec.data.rows import IdMap, RowTable
from recbole_e2urec.errors import InputError

# Streams of one seed, so that those who are drawn for different ends are drawn independently.
FORGET_STREAM, CONTROL_STREAM = 1, 2


def draw_rows(
    by: str, share: float, seed: int, rows: NDArray[np.int64], table: RowTable, ids: IdMap
) -> NDArray[np.bool_]:  # [rows]
    """Draw a share of the users, items or rows, at least one and never all.

    Drawn from their published tokens in sorted order: neither the order of the rows nor that of
    the file changes who is drawn, and a larger share only adds to it.

    Raises:
        InputError: there is only one.
    """
    user, item = table.user[rows], table.item[rows]
    user_rank, item_rank = ranks(ids.users, user), ranks(ids.items, item)
    units = {
        "user": user_rank,
        "item": item_rank,
        "interaction": _position(rows, table.time[rows], item_rank, user_rank),
    }[by]
    distinct = np.unique(units)
    if len(distinct) < 2:
        raise InputError(
            f"the training part has {len(distinct)} {by}s; forgetting needs at least 2"
        )
    count = min(max(1, round(share * len(distinct))), len(distinct) - 1)
    order = np.random.default_rng([seed, FORGET_STREAM]).permutation(len(distinct))
    return np.isin(units, distinct[order[:count]])


def choose_control_users(users: NDArray[np.int64], share: float, seed: int) -> NDArray[np.int64]:
    """A seeded share of users, sorted, that no model is trained on.

    Args:
        users: inner ids, any order, duplicates harmless.
        share: in [0, 1); rounded to whole users, so a small share of few users can be nobody.
        seed: of the choice, at least 0.

    Raises:
        InputError: share outside [0, 1).
    """
    if not 0 <= share < 1:
        raise InputError(f"the share of control users is {share}; give 0 (none) up to below 1")
    unique = np.unique(np.asarray(users, dtype=np.int64))
    order = np.random.default_rng([seed, CONTROL_STREAM]).permutation(len(unique))
    return np.sort(unique[order[: round(share * len(unique))]])


def _position(*keys: NDArray[Any]) -> NDArray[np.int64]:
    """Place of each row when sorted by the keys, the last one first."""
    position = np.empty(len(keys[0]), dtype=np.int64)
    position[np.lexsort(keys)] = np.arange(len(position))
    return position
