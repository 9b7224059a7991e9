"""A deletion request to the split of the training rows into retain and forget."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec import writer
from recbole_e2urec.data.forget_file import read_forget_file
from recbole_e2urec.data.nearest import nearest
from recbole_e2urec.data.rows import IdMap, RowTable
from recbole_e2urec.errors import InputError

BY = ("user", "interaction", "item")
# Streams of one seed, so that control users and forgotten users are drawn independently.
FORGET_STREAM, CONTROL_STREAM = 1, 2


@dataclass(frozen=True)
class ForgetOptions:
    """Which training rows are to be forgotten.

    Raises:
        InputError: unknown `by`, no file and no ratio in (0, 1), or a negative seed.
    """

    by: str = "user"  # what is forgotten: user, interaction or item
    ratio: float = 0.2  # share of the training users, rows or items, in (0, 1)
    file: str | Path | None = None  # a real request; replaces the ratio
    seed: int = 0  # of the choice by ratio, at least 0

    def __post_init__(self) -> None:
        """Refuse options that no request can have."""
        if self.by not in BY:
            raise InputError(f"forget_by is {self.by!r}; {nearest(str(self.by), BY)}")
        if self.seed < 0:
            raise InputError(f"the seed of the forget choice is {self.seed}; give 0 or more")
        is_share = isinstance(self.ratio, int | float) and 0 < self.ratio < 1
        if self.file is None and not is_share:
            raise InputError(
                f"forget_ratio is {self.ratio!r}; give a share between 0 and 1, as 0.2, "
                "or a forget_file"
            )


class ForgetSplit(NamedTuple):
    """Training rows in two parts: disjoint, together all of them, each sorted."""

    retain: NDArray[np.int64]  # row ids
    forget: NDArray[np.int64]  # row ids


def choose_forget(
    options: ForgetOptions, train_rows: NDArray[np.int64], table: RowTable, ids: IdMap
) -> ForgetSplit:
    """Split the training rows.

    By ratio, the share is of training users, rows or items, at least one and never all, drawn
    from their published tokens in sorted order: neither the order of the rows nor that of the file
    changes who is drawn, and a larger ratio only adds to it.

    Args:
        options: the request.
        train_rows: row ids of the training part, any order.
        table: all rows of the dataset.
        ids: published tokens to inner ids.

    Raises:
        InputError: the file cannot be used (see `read_forget_file`), nobody it names has
            training rows, or nothing would be left to train on.
    """
    rows = np.unique(np.asarray(train_rows, dtype=np.int64))
    if options.file is not None:
        named = partial(_chosen_by_file, options.file, options.by, rows, table, ids)
        chosen = writer.from_writer(named)  # who has the file
    else:
        chosen = _chosen_by_ratio(options, rows, table, ids)
    if chosen.all():
        raise InputError(f"the request names all {len(rows)} training rows; leave some to train on")
    return ForgetSplit(rows[~chosen], rows[chosen])


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


def _chosen_by_file(
    file: str | Path, by: str, rows: NDArray[np.int64], table: RowTable, ids: IdMap
) -> NDArray[np.bool_]:  # [rows]
    named = read_forget_file(file, by, ids)
    user, item = table.user[rows], table.item[rows]
    if set(named) == {"user", "item"}:
        width = int(table.item.max(initial=0)) + 1
        pairs = np.array(named["user"]) * width + np.array(named["item"])
        chosen = np.isin(user * width + item, pairs)
    elif "user" in named:
        chosen = np.isin(user, named["user"])
    else:
        chosen = np.isin(item, named["item"])
    if not chosen.any():
        raise InputError(
            f"forget file {file}: nothing that it names is in the training part; "
            "name users, pairs or items with training rows"
        )
    return chosen


def _chosen_by_ratio(
    options: ForgetOptions, rows: NDArray[np.int64], table: RowTable, ids: IdMap
) -> NDArray[np.bool_]:  # [rows]
    user, item = table.user[rows], table.item[rows]
    user_rank, item_rank = _ranks(ids.users, user), _ranks(ids.items, item)
    units = {
        "user": user_rank,
        "item": item_rank,
        "interaction": _position(rows, table.time[rows], item_rank, user_rank),
    }[options.by]
    distinct = np.unique(units)
    if len(distinct) < 2:
        raise InputError(
            f"the training part has {len(distinct)} {options.by}s; forgetting needs at least 2"
        )
    count = min(max(1, round(options.ratio * len(distinct))), len(distinct) - 1)
    order = np.random.default_rng([options.seed, FORGET_STREAM]).permutation(len(distinct))
    return np.isin(units, distinct[order[:count]])


def _ranks(tokens: dict[str, int], inner: NDArray[np.int64]) -> NDArray[np.int64]:
    """Place of each inner id among the published tokens in sorted order.

    Inner ids follow the order of the file; tokens do not.
    """
    rank = np.zeros(max(tokens.values(), default=-1) + 1, dtype=np.int64)
    for place, token in enumerate(sorted(tokens)):
        rank[tokens[token]] = place
    return rank[inner]


def _position(*keys: NDArray[Any]) -> NDArray[np.int64]:
    """Place of each row when sorted by the keys, the last one first."""
    position = np.empty(len(keys[0]), dtype=np.int64)
    position[np.lexsort(keys)] = np.arange(len(position))
    return position
