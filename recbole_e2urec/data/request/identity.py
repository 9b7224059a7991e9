"""The id of a request: what it asks for on which data, however it was written."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec.data.rows import IdMap, RowTable


def ranks(tokens: dict[str, int], inner: NDArray[np.int64]) -> NDArray[np.int64]:
    """Place of each inner id among the published tokens in sorted order.

    Inner ids follow the order of the file; tokens do not.
    """
    rank = np.zeros(max(tokens.values(), default=-1) + 1, dtype=np.int64)
    for place, token in enumerate(sorted(tokens)):
        rank[tokens[token]] = place
    return rank[inner]


def request_digest(name: str, table: RowTable, ids: IdMap, chosen: NDArray[np.bool_]) -> str:
    """Hash the rows of the data, sorted, with what is asked for among them; 16 hex digits.

    Neither the format and order of a request nor the order of the data's files plays a part.
    """
    nothing = np.zeros(len(table))
    columns: list[NDArray[Any]] = [
        ranks(ids.users, table.user),
        ranks(ids.items, table.item),
        table.time if table.has_time else nothing,
        nothing if table.rating is None else table.rating,
        chosen,
    ]
    order = np.lexsort(columns[::-1])
    digest = hashlib.sha256()
    for text in (name, *sorted(ids.users), "\n", *sorted(ids.items)):
        digest.update(text.encode() + b"\0")
    for column in columns:
        digest.update(np.ascontiguousarray(column[order]).tobytes())
    return digest.hexdigest()[:16]
