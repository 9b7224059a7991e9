"""The rows of a dataset as plain arrays, and the names of its users and items.

Whatever dataset class RecBole picks for a model, the row ids are the same: row ``i`` is the
``i``-th interaction of the atomic file that survived filtering. Histories, forget requests and
splits speak of row ids only.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class RowTable:
    """All interactions after filtering and before splitting; an array's index is the row id.

    Attributes:
        user: inner ids of the users, int64 [n].
        item: inner ids of the items, int64 [n].
        time: time of the interaction in the unit of the file (seconds in most), float64 [n]; the
            position in the file when the data has no time.
        rating: rating as published, float64 [n]; None when the data has none.
        label: 1 = liked, 0 = not, float32 [n]; None when the data has neither labels nor a rating
            that a threshold turns into labels.
        has_time: whether times are in the data, rather than positions in the file.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    time: NDArray[np.float64]
    rating: NDArray[np.float64] | None = None
    label: NDArray[np.float32] | None = None
    has_time: bool = True

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.user)


@dataclass(frozen=True)
class IdMap:
    """From the tokens of the data files to RecBole's inner ids (1 and up; padding is left out).

    Attributes:
        users: inner id of each user token.
        items: inner id of each item token.
    """

    users: dict[str, int]
    items: dict[str, int]


class Splits(NamedTuple):
    """Row ids of the three parts, int64, each in RecBole's order."""

    train: NDArray[np.int64]
    valid: NDArray[np.int64]
    test: NDArray[np.int64]
