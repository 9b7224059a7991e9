"""Whoever asks for recommendations, as rows of a small table: a history, and a question at its end.

A recommender's prompts are made of rows of its data. Somebody who asks now has no row there, and
somebody new has none at all, so each gets rows of their own, beside nobody else's.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec.data.rows import RowTable


class Visitor(NamedTuple):
    """Somebody who asks.

    Attributes:
        items: inner ids of the items of the history, oldest first, [m].
        ratings: of these, as published, NaN where there is none, [m].
        features: what is known besides; empty for strangers.
        seen: inner ids of items not to be recommended.
        user: token in the data; empty for strangers.
    """

    items: NDArray[np.int64]
    ratings: NDArray[np.float64]
    features: Mapping[str, str]
    seen: NDArray[np.int64]
    user: str = ""


class Visit(NamedTuple):
    """The table of some visitors.

    Attributes:
        rows: the table; visitor ``i`` is user ``i + 1`` of it.
        history: of each row of the table, [n, k].
        asking: the row of each visitor's question.
        features: by user of the table.
        tokens: the same.
    """

    rows: RowTable
    history: NDArray[np.int64]
    asking: NDArray[np.int64]
    features: list[Mapping[str, str]]
    tokens: list[str]


def visit(visitors: Sequence[Visitor], length: int, highest: float | None) -> Visit:
    """Put visitors into a table.

    Args:
        visitors: who asks.
        length: most entries that a history shows, the newest ones.
        highest: the highest rating of the data, which prompts may show; None: it has no ratings.
    """
    shown = [visitor.items[max(0, len(visitor.items) - length) :] for visitor in visitors]
    counts = np.array([len(items) for items in shown], dtype=np.int64)
    # Row 0 is nobody's and holds the highest rating; then each visitor's history and question.
    asking = np.cumsum(counts + 1)
    rated = [v.ratings[len(v.ratings) - n :] for v, n in zip(visitors, counts, strict=True)]
    user = np.repeat(np.arange(len(visitors) + 1), np.concatenate([[1], counts + 1]))
    item, rating = np.zeros(len(user), np.int64), np.full(len(user), np.nan)
    history = np.full((len(user), length), -1, dtype=np.int64)
    for row, items, ratings in zip(asking, shown, rated, strict=True):
        own = np.arange(row - len(items), row)
        item[own], rating[own] = items, ratings
        history[row, length - len(own) :] = own
    rating[0] = np.nan if highest is None else highest
    rows = RowTable(user, item, np.zeros(len(user)), None if highest is None else rating)
    features = [{}, *(visitor.features for visitor in visitors)]
    return Visit(rows, history, asking, features, ["", *(visitor.user for visitor in visitors)])
