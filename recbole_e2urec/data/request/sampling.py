"""Draws by seed, and digests of requests: both the same however files are ordered or written."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec.data.rows import IdMap, RowTable
from recbole_e2urec.errors import InputError


def ranks(tokens: dict[str, int], inner: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rank of each inner id's token among all published tokens, in text order.

    Inner ids depend on the order of the file; these ranks do not.

    Args:
        tokens: inner id of each token.
        inner: inner ids.
    """
    rank_of_id = np.zeros(max(tokens.values(), default=-1) + 1, dtype=np.int64)
    for rank, token in enumerate(sorted(tokens)):
        rank_of_id[tokens[token]] = rank
    return rank_of_id[inner]


def request_digest(name: str, table: RowTable, ids: IdMap, chosen: NDArray[np.bool_]) -> str:
    """Hash all rows of the data in sorted order, and which of them are requested.

    The result does not depend on the format and order of a request or the order of the data files.

    Args:
        name: name of the data set.
        table: all rows.
        ids: maps published tokens to inner ids.
        chosen: [n] True for the requested rows.

    Returns:
        16 hex digits.
    """
    zeros = np.zeros(len(table))
    columns: list[NDArray[Any]] = [
        ranks(ids.users, table.user),
        ranks(ids.items, table.item),
        table.time if table.has_time else zeros,
        zeros if table.rating is None else table.rating,
        chosen,
    ]
    order = np.lexsort(columns[::-1])
    digest = hashlib.sha256()
    for text in (name, *sorted(ids.users), "\n", *sorted(ids.items)):
        digest.update(text.encode() + b"\0")
    for column in columns:
        digest.update(np.ascontiguousarray(column[order]).tobytes())
    return digest.hexdigest()[:16]


# One random stream for each purpose, so that draws with the same seed are independent.
FORGET_STREAM, CONTROL_STREAM = 1, 2


def draw_rows(
    by: str, share: float, seed: int, rows: NDArray[np.int64], table: RowTable, ids: IdMap
) -> NDArray[np.bool_]:  # [rows]
    """Draw a share of the users, items or rows: at least one and never all.

    The draw is from their published tokens in sorted order. It therefore depends neither on the
    order of the rows nor on that of the file. A larger share only adds to the draw.

    Args:
        by: ``user``, ``item`` or ``interaction``.
        share: share of them to draw.
        seed: seed of the draw.
        rows: row ids to draw from.
        table: all rows.
        ids: maps published tokens to inner ids.

    Returns:
        True for the drawn rows among ``rows``.

    Raises:
        InputError: there are fewer than two to draw from.
    """
    user, item = table.user[rows], table.item[rows]
    user_rank, item_rank = ranks(ids.users, user), ranks(ids.items, item)
    units = {
        "user": user_rank,
        "item": item_rank,
        "interaction": _sorted_positions(rows, table.time[rows], item_rank, user_rank),
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
    """Draw the control users, on whom no model is trained.

    Args:
        users: inner user ids in any order; duplicates are allowed.
        share: share of the users, in [0, 1); rounded to whole users, so that a small share of few
            users can give none.
        seed: seed of the draw, at least 0.

    Returns:
        Sorted inner user ids.

    Raises:
        InputError: the share is outside [0, 1).
    """
    if not 0 <= share < 1:
        raise InputError(f"the share of control users is {share}; give 0 (none) up to below 1")
    unique = np.unique(np.asarray(users, dtype=np.int64))
    order = np.random.default_rng([seed, CONTROL_STREAM]).permutation(len(unique))
    return np.sort(unique[order[: round(share * len(unique))]])


def _sorted_positions(*keys: NDArray[Any]) -> NDArray[np.int64]:
    """Return the position of each row after sorting by the keys; the last key counts first."""
    position = np.empty(len(keys[0]), dtype=np.int64)
    position[np.lexsort(keys)] = np.arange(len(position))
    return position
