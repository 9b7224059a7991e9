"""The rows of a dataset as plain arrays, and which of them a run learns from and is tested on.

Whatever dataset class RecBole picks for a model, the row ids are the same: row ``i`` is the
``i``-th interaction of the atomic file that survived filtering. Histories, forget requests and
splits speak of row ids only.

The counting rules of published protocols: at least so many earlier rows of the user, then the last
so many rows of all. Rows count in the order (time, user, item), by published tokens.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.errors import InputError


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


@option_class()
class TargetOptions:
    """Which rows take part."""

    min_history: int = option(
        "Rows with fewer earlier rows of their user are in no part; histories show them. Rows "
        "count in the order of time, user, item.",
        ge=0,
        default=0,
    )
    last_rows: int | None = option(
        "Split only so many rows at the end of time into parts; histories show the earlier ones. "
        "~ = all.",
        ge=1,
        default=None,
    )


def target_rows(table: RowTable, ids: IdMap, options: TargetOptions) -> NDArray[np.int64]:
    """Row ids that take part, [m]; all of them, in the order of the file, when no rule is set.

    With a rule they are in the order (time, user, item). Users and items of equal length of token
    are ordered as text and shorter tokens come first, so that numbers are in the order of numbers.

    Args:
        table: all rows.
        ids: published tokens to inner ids.
        options: the rules.

    Raises:
        InputError: no row has so many before it, or fewer than ``last_rows`` are left.
    """
    if options == TargetOptions():
        return np.arange(len(table))
    user, item = _ranks(ids.users)[table.user], _ranks(ids.items)[table.item]
    order = np.lexsort((item, user, table.time))
    rows = order[_earlier(user[order]) >= options.min_history]
    if not len(rows):
        raise InputError(f"min_history: no row has {options.min_history} earlier rows of its user")
    if options.last_rows is None:
        return rows
    if options.last_rows > len(rows):
        raise InputError(
            f"last_rows: {options.last_rows} of {len(rows)} rows (those with min_history earlier "
            "ones); give fewer, or ~ for all"
        )
    return rows[-options.last_rows :]


def _ranks(tokens: dict[str, int]) -> NDArray[np.int64]:
    """Place of each inner id in the order of the tokens."""
    ranks = np.zeros(max(tokens.values(), default=0) + 1, dtype=np.int64)
    for place, token in enumerate(sorted(tokens, key=lambda token: (len(token), token))):
        ranks[tokens[token]] = place
    return ranks


def _earlier(user: NDArray[np.int64]) -> NDArray[np.int64]:  # [n] -> [n]
    """How often each entry's value stands before it."""
    order = np.argsort(user, kind="stable")
    grouped = user[order]
    first = np.searchsorted(grouped, grouped)
    earlier = np.empty(len(user), dtype=np.int64)
    earlier[order] = np.arange(len(user)) - first
    return earlier
