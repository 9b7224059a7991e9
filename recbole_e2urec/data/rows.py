"""The rows of a dataset as plain arrays, and which of them a run trains and tests on.

Row ids are the same for every dataset class that RecBole picks: row ``i`` is the ``i``-th
interaction of the atomic file that survived filtering. Histories, forget requests and splits use
row ids only.

:func:`target_rows` applies the counting rules of published protocols: first keep rows with a
minimum number of earlier rows of their user, then the last so many rows overall. Rows are counted
in the order (time, user, item), where users and items are ordered by their published tokens.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.data.history import UserIndex
from recbole_e2urec.errors import InputError


def without(
    rows: NDArray[np.int64], left_out: NDArray[np.int64]
) -> NDArray[np.int64]:  # [n], [m] -> [at most n]
    """Return the rows that are not left out, sorted; a row occurs once in each array.

    This is ``np.setdiff1d``, which takes a hundred times as long to see whether a row occurs twice.
    """
    return np.sort(rows[~np.isin(rows, left_out)])


@dataclass(frozen=True)
class RowTable:
    """All interactions after filtering and before splitting; an array's index is the row id.

    Attributes:
        user: inner user ids, int64 [n].
        item: inner item ids, int64 [n].
        time: interaction times in the file's unit (usually seconds), float64 [n]; positions in the
            file if the data has no times.
        rating: ratings as published, float64 [n]; None if the data has none.
        label: 1 = liked, 0 = not liked, float32 [n]; None if the data has neither labels nor
            ratings that a threshold turns into labels.
        has_time: whether ``time`` holds times from the data, rather than positions in the file.
        highest: highest rating that prompts name; None: that of the rows.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    time: NDArray[np.float64]
    rating: NDArray[np.float64] | None = None
    label: NDArray[np.float32] | None = None
    has_time: bool = True
    highest: float | None = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.user)

    @property
    def index(self) -> UserIndex | None:
        """Where the rows of each user are; None: all histories are made at once."""
        return None

    def entries(self) -> "Entries":
        """Return the distinct pairs of item and rating, which histories show."""
        ratings = np.zeros(len(self)) if self.rating is None else self.rating
        values, code = np.unique(ratings, return_inverse=True)
        pairs, of_row = np.unique(self.item * max(len(values), 1) + code, return_inverse=True)
        return Entries(values, pairs, of_row.astype(np.int64))

    @property
    def highest_rating(self) -> float | None:
        """The highest rating that prompts name; None: there are no ratings."""
        if self.highest is not None or self.rating is None or np.isnan(self.rating).all():
            return self.highest
        return float(np.nanmax(self.rating))


class Entries(NamedTuple):
    """The distinct pairs of item and rating of a data set.

    Attributes:
        values: the distinct ratings, ascending, float64 [v]; 0 alone if there are none.
        pairs: item times v plus the place of the rating in ``values``, ascending, int64 [m].
        of_row: place in ``pairs`` by row id, [n].
    """

    values: NDArray[np.float64]
    pairs: NDArray[np.int64]
    of_row: NDArray[np.integer[Any]]


@dataclass(frozen=True)
class StoredRows(RowTable):
    """Rows in memory-mapped files, prepared with an index by user, see `data/sharded.py`."""

    stored_index: UserIndex | None = None
    stored_entries: Entries | None = None

    @property
    def index(self) -> UserIndex | None:
        """Where the rows of each user are."""
        return self.stored_index

    def entries(self) -> Entries:
        """Return the distinct pairs of item and rating, as they were prepared."""
        return self.stored_entries or super().entries()


@dataclass(frozen=True)
class IdMap:
    """Maps tokens of the data files to RecBole's inner ids (1 and up; padding is left out).

    Attributes:
        users: inner id of each user token.
        items: inner id of each item token.
    """

    users: dict[str, int]
    items: dict[str, int]


UNCHANGED = -1  # stands for a user or a label that a correction leaves


class Corrections(NamedTuple):
    """What is right instead of what the data files say, in the order in which it was said.

    Attributes:
        rows: row ids, int64 [m]; a row may be corrected several times.
        request: number of the request that corrected it, int64 [m], ascending.
        user: inner id of the right user, int64 [m]; UNCHANGED where the user was right.
        label: the right label, int64 [m]; UNCHANGED where the label was right.
        rating: the right rating, float64 [m]; NaN where the rating was right.
    """

    rows: NDArray[np.int64]
    request: NDArray[np.int64]
    user: NDArray[np.int64]
    label: NDArray[np.int64]
    rating: NDArray[np.float64]

    def of(self, request: int) -> "Corrections":
        """Return the corrections of one request."""
        return Corrections._make(column[self.request == request] for column in self)

    def until(self, request: int) -> "Corrections":
        """Return the corrections of all requests up to this one."""
        return Corrections._make(column[self.request <= request] for column in self)

    def joined(self, later: "Corrections") -> "Corrections":
        """Return these corrections and later ones."""
        return Corrections._make(map(np.concatenate, zip(self, later, strict=True)))

    def applied(self, table: RowTable) -> RowTable:
        """Return the rows as they are right; prompts name the same highest rating as before."""
        if not len(self.rows):
            return table
        columns = {
            name: _assigned(getattr(table, name), self.rows, right, is_new)
            for name, right, is_new in (
                ("user", self.user, self.user != UNCHANGED),
                ("label", self.label, self.label != UNCHANGED),
                ("rating", self.rating, ~np.isnan(self.rating)),
            )
        }
        return replace(table, **columns, highest=table.highest_rating)


def _assigned(
    column: Any, rows: NDArray[np.int64], values: NDArray[Any], is_new: NDArray[np.bool_]
) -> Any:
    """Return a column with new values; of several for a row, the last one counts."""
    if column is None:
        return None
    column = column.copy()
    for row, value in zip(rows[is_new], values[is_new], strict=True):
        column[row] = value
    return column


NO_CORRECTIONS = Corrections._make([*(np.empty(0, np.int64) for _ in range(4)), np.empty(0)])


class Splits(NamedTuple):
    """Row ids of the three parts of a split, int64, each in RecBole's order."""

    train: NDArray[np.int64]
    valid: NDArray[np.int64]
    test: NDArray[np.int64]

    def without(self, user: NDArray[np.int64], left_out: NDArray[np.int64]) -> "Splits":  # [n], [u]
        """Leave the rows of some users out of every part.

        Args:
            user: inner user id by row id.
            left_out: inner ids of the users.
        """
        return Splits(*(rows[~np.isin(user[rows], left_out)] for rows in self))


class Remainder(NamedTuple):
    """What stays as it was for a model, although rows were erased from the data files.

    Without it, fewer rows would give other filters, inner ids, parts and prompts. It holds nothing
    of what was erased.

    Attributes:
        lines: by ``inter``, ``user`` and ``item``: which lines of the file the data have, counted
            from 0 behind the header, in the order of the data.
        sizes: by the same, how many lines the file has.
        users, items: for each inner id that the files alone would give, beginning with 1, the inner
            id that the token has instead.
        parts: the split, control users included.
        control_users: inner ids of users who are in no part of the training.
        control: training rows of those of them whom no request touched.
        erased_training_rows: how many were erased so far.
        highest: the highest rating that prompts name; None: there are no ratings.
        words: vocabulary of an embedded backbone, in the order of its ids; empty for others.
    """

    lines: dict[str, NDArray[np.int64]]
    sizes: dict[str, int]
    users: NDArray[np.int64]
    items: NDArray[np.int64]
    parts: Splits
    control_users: NDArray[np.int64]
    control: NDArray[np.int64]
    erased_training_rows: int
    highest: float | None
    words: tuple[str, ...]


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
    """Return the ids of the rows that take part, [m].

    If no rule is set, all rows take part, in file order. Otherwise rows are in the order
    (time, user, item). Shorter tokens come before longer ones and tokens of equal length are
    ordered as text, so that numeric tokens are in numeric order.

    Args:
        table: all rows.
        ids: maps published tokens to inner ids.
        options: the rules.

    Raises:
        InputError: no row has ``min_history`` earlier rows, or fewer than ``last_rows`` are left.
    """
    if options == TargetOptions():
        return np.arange(len(table))
    user, item = _token_ranks(ids.users)[table.user], _token_ranks(ids.items)[table.item]
    order = np.lexsort((item, user, table.time))
    rows = order[_count_earlier(user[order]) >= options.min_history]
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


def _token_ranks(tokens: dict[str, int]) -> NDArray[np.int64]:
    """Return, by inner id, the rank of its token: shorter tokens first, then text order."""
    ranks = np.zeros(max(tokens.values(), default=0) + 1, dtype=np.int64)
    for rank, token in enumerate(sorted(tokens, key=lambda token: (len(token), token))):
        ranks[tokens[token]] = rank
    return ranks


def _count_earlier(user: NDArray[np.int64]) -> NDArray[np.int64]:  # [n] -> [n]
    """Count, for each entry, the earlier entries with the same value."""
    order = np.argsort(user, kind="stable")
    grouped = user[order]
    first = np.searchsorted(grouped, grouped)
    earlier = np.empty(len(user), dtype=np.int64)
    earlier[order] = np.arange(len(user)) - first
    return earlier
