"""The digest of a request: it depends on the requested rows and the data, not on the spelling."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec.data.rows import IdMap, RowTable


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
