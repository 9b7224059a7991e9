"""Turns a deletion request into rows: which rows it asks for, and the split into retain and forget.

:func:`read_request` is the way in. :func:`select` finds the requested rows, :func:`match_clauses`
does so for the clauses of a file, and :func:`split_of` divides the training rows. Draws by seed and
digests of requests are the same however files are ordered or written.
"""

import hashlib
from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.data.request.file import (
    ADVICE,
    Clause,
    check_id,
    check_seconds,
    lines_of,
    location,
    read_request_file,
)
from recbole_e2urec.data.request.filter import Fields, filter_rows
from recbole_e2urec.data.rows import IdMap, RowTable
from recbole_e2urec.errors import InputError, nearest
from recbole_e2urec.utils import distributed

Mask = NDArray[np.bool_]
BY = ("user", "interaction", "item")
# Keys that decide how a request is worded; what it asks for is in its digest.
WORDING = ("forget_file", "forget_where", "forget_unknown", "request_id", "retrain_share")
UNKNOWN = "that the data does not have"  # in every warning about an unknown user or item
# One random stream for each purpose, so that draws with the same seed are independent.
FORGET_STREAM, CONTROL_STREAM = 1, 2


@option_class(prefix="forget_")
class ForgetOptions:
    """Which training rows are to be forgotten."""

    by: str = option("What is forgotten: user, interaction or item.", default="user")
    ratio: float = option(
        "The share of training users (interactions, items) to forget, in (0, 1).", default=0.2
    )
    file: str | Path | None = option(
        "A request from outside instead of a share, as CSV, tab-separated columns or JSON lines: "
        "users, items, user-item pairs, time ranges: docs/how-to/forget-data.md.",
        default=None,
    )
    seed: int = option("The seed that chooses who is forgotten.", ge=0, default=0)
    where: str | None = option(
        "A request by features instead, as in class == 'Horror' and rating < 3: "
        "docs/how-to/forget-data.md.",
        default=None,
    )
    unknown: Literal["refuse", "skip"] = option(
        "If a request names users or items which the data does not have: refuse it, or skip those "
        "lines with a warning.",
        default="refuse",
    )
    request_id: str | int | None = option(
        "A name for the request; ~ = the file's own, or a hash of what is asked for and of the "
        "data.",
        default=None,
        key="request_id",
    )

    def __post_init__(self) -> None:
        """Refuse options that no request can have."""
        if self.by not in BY:
            raise InputError(f"forget_by is {self.by!r}; {nearest(str(self.by), BY)}")
        if self.file is not None and self.where is not None:
            raise InputError("forget_file and forget_where are two requests; give one of them")
        if self.file is None and self.where is None and not 0 < self.ratio < 1:
            raise InputError(
                f"forget_ratio is {self.ratio!r}; give a share between 0 and 1, as 0.2, "
                "or a forget_file"
            )
        if self.request_id is not None:
            check_id(str(self.request_id), "request_id")


class Selection(NamedTuple):
    """The rows that a request asks for."""

    chosen: Mask  # [n] True for requested rows of any part
    source: str  # where the request comes from, for messages
    warnings: tuple[str, ...] = ()  # name lines and fields, never users or items
    request_id: str | None = None  # id from the settings or the file, if any
    names_nothing: str | None = None  # advice for a request without entries; None for others


class ForgetSplit(NamedTuple):
    """The training rows in two disjoint, sorted parts, which together are all of them."""

    retain: NDArray[np.int64]  # row ids
    forget: NDArray[np.int64]  # row ids


class ForgetRequest(NamedTuple):
    """A request that can be carried out."""

    split: ForgetSplit
    rows: NDArray[np.int64]  # sorted ids of requested rows, in training or not
    digest: str  # hash of what is requested on which data, however the request was written
    request_id: str  # id from the settings or the file, or else the digest
    warnings: tuple[str, ...]


def read_request(
    options: ForgetOptions, train_rows: NDArray[np.int64], dataset: Any
) -> ForgetRequest:
    """Read a request, split the training rows and compute the request's digest.

    Args:
        options: the request.
        train_rows: row ids of the training part, in any order.
        dataset: the loaded dataset.

    Raises:
        InputError: as in :func:`select` and :func:`split_of`.
    """
    table, ids = dataset.rows, dataset.ids
    selection = select(options, train_rows, table, ids, Fields(dataset))
    split = split_of(selection, train_rows)
    digest = request_digest(dataset.dataset_name, table, ids, selection.chosen)
    request_id = selection.request_id or digest
    rows = np.flatnonzero(selection.chosen)
    return ForgetRequest(split, rows, digest, request_id, selection.warnings)


def select(
    options: ForgetOptions,
    train_rows: NDArray[np.int64],
    table: RowTable,
    ids: IdMap,
    fields: Fields | None = None,
) -> Selection:
    """Find the rows that a request asks for.

    Args:
        options: the request.
        train_rows: row ids of the training part, in any order.
        table: all rows of the dataset.
        ids: maps published tokens to inner ids.
        fields: fields that a filter may use; None if the request is no filter.

    Raises:
        InputError: a file or a filter cannot be used, or it names users or items that the data does
            not have and that are not to be skipped.
    """
    is_train = np.zeros(len(table), dtype=bool)
    is_train[np.asarray(train_rows, dtype=np.int64)] = True
    request_id = None if options.request_id is None else str(options.request_id)
    if options.file is not None:
        return distributed.on_main_process(
            lambda: _select_by_file(options, request_id, is_train, table, ids)
        )
    if options.where is None:
        rows, chosen = np.flatnonzero(is_train), np.zeros(len(table), dtype=bool)
        is_drawn = draw_rows(options.by, options.ratio, options.seed, rows, table, ids)
        chosen[rows[is_drawn]] = True
        return Selection(chosen, "the request", (), request_id)
    if fields is None:
        raise InputError("forget_where needs the fields of a data set")
    filtered = filter_rows(options.where, fields)
    return Selection(filtered.chosen, "forget_where", tuple(filtered.warnings), request_id)


def _select_by_file(
    options: ForgetOptions,
    request_id: str | None,
    is_train: Mask,
    table: RowTable,
    ids: IdMap,
) -> Selection:
    source = f"forget file {options.file}"
    tokens = {"user": ids.users, "item": ids.items}
    request_file = read_request_file(str(options.file), options.by, tokens)
    if request_id and request_file.request_id and request_id != request_file.request_id:
        raise InputError(f"{source} has another request_id than the settings; give one of them")
    if options.unknown == "refuse":
        _refuse_unknown(source, request_file.clauses, ids)
    match = match_clauses(str(options.file), request_file.clauses, is_train, table, ids)
    warnings = list(match.warnings)
    if request_file.ignored_columns:
        warnings.append(f"columns or keys that mean nothing here: {request_file.ignored_columns}")
    advice = None if request_file.clauses else ADVICE[options.by]
    return Selection(
        match.chosen,
        source,
        tuple(warnings),
        request_id or request_file.request_id,
        names_nothing=advice,
    )


def _refuse_unknown(source: str, clauses: list[Clause], ids: IdMap) -> None:
    for kind, numbers in unknown_lines(clauses, ids).items():
        if numbers:
            raise InputError(
                f"{source}: {len(numbers)} of {len(clauses)} lines name {kind}s that the data does "
                f"not have ({lines_of(numbers)}); remove them, check the filters of the dataset "
                "and the header (user_id, item_id), or set forget_unknown to skip"
            )


def split_of(selection: Selection, train_rows: NDArray[np.int64]) -> ForgetSplit:
    """Split the training rows into those to retain and those to forget.

    Args:
        selection: the requested rows.
        train_rows: row ids of the training part, in any order.

    Raises:
        InputError: nothing is requested, none of it is in the training part, or all training rows
            are requested.
    """
    is_train = np.zeros(len(selection.chosen), dtype=bool)
    is_train[np.asarray(train_rows, dtype=np.int64)] = True
    rows = np.flatnonzero(is_train)
    chosen = selection.chosen[rows]
    if selection.names_nothing:
        raise InputError(f"{selection.source} names nobody; {selection.names_nothing}")
    if not chosen.any():
        raise InputError(
            f"{selection.source}: nothing that it names is in the training part; "
            "name users, pairs, items or times with training rows"
        )
    if chosen.all():
        raise InputError(f"the request names all {len(rows)} training rows; leave some to train on")
    return ForgetSplit(rows[~chosen], rows[chosen])


def skip_unknown(options: ForgetOptions) -> ForgetOptions:
    """Return the same request with warnings, not errors, about unknown users and items."""
    return replace(options, unknown="skip")


class ClauseMatch(NamedTuple):
    """The rows that any clause asks for, and warnings about the clauses."""

    chosen: Mask  # [n] of all rows
    warnings: list[str]  # name lines, never what is on them


class _InnerClause(NamedTuple):
    """A clause with inner ids; 0 = any user or any item."""

    clause: Clause
    user: int
    item: int


def match_clauses(
    path: Path | str, clauses: list[Clause], is_train: Mask, table: RowTable, ids: IdMap
) -> ClauseMatch:
    """Find the rows of all clauses.

    Args:
        path: the file, for messages.
        clauses: clauses of the file.
        is_train: [n] True for training rows; a clause that matches none of them gets a warning.
        table: all rows.
        ids: maps published tokens to inner ids.

    Raises:
        InputError: a clause has a time but the data has none, or a date but the data's times are
            not in seconds.
    """
    _check_times(path, clauses, table)
    unknown = unknown_lines(clauses, ids)
    unknown_numbers = {number for numbers in unknown.values() for number in numbers}
    known = [
        _InnerClause(
            clause, ids.users.get(clause.user or "", 0), ids.items.get(clause.item or "", 0)
        )
        for clause in clauses
        if clause.number not in unknown_numbers
    ]
    chosen, untrained = _match_known(known, is_train, table)
    warnings = [_unknown_warning(kind, numbers) for kind, numbers in unknown.items() if numbers]
    if untrained:
        warnings.append(
            f"{lines_of(untrained)}: no training row fits, so nothing was learned from what is "
            "asked for"
        )
    return ClauseMatch(chosen, [*warnings, *_overlap_warnings(clauses)])


def unknown_lines(clauses: list[Clause], ids: IdMap) -> dict[str, list[int]]:
    """Return the lines with users, and the lines with items, that the data does not have."""
    return {
        "user": _numbers(
            clause for clause in clauses if clause.user and clause.user not in ids.users
        ),
        "item": _numbers(
            clause for clause in clauses if clause.item and clause.item not in ids.items
        ),
    }


def _unknown_warning(kind: str, numbers: list[int]) -> str:
    verb = "names a" if len(numbers) == 1 else "name"
    plural = "" if len(numbers) == 1 else "s"
    return f"{lines_of(numbers)}: {verb} {kind}{plural} {UNKNOWN}"


def _check_times(path: Path | str, clauses: list[Clause], table: RowTable) -> None:
    timed = next((clause for clause in clauses if clause.is_timed), None)
    if timed is not None and not table.has_time:
        raise InputError(f"{location(path, timed.number)}: a time range, but the data has no times")
    dated = next((clause for clause in clauses if clause.is_dated), None)
    if dated is not None:
        check_seconds(float(table.time.max(initial=0)), location(path, dated.number))


def _match_known(
    clauses: list[_InnerClause], is_train: Mask, table: RowTable
) -> tuple[Mask, list[int]]:
    """Return the rows of all clauses, and the lines of clauses without a training row."""
    chosen = np.zeros(len(table), dtype=bool)
    untrained: list[int] = []
    largest_item = max((clause.item for clause in clauses), default=0)  # may have no rows
    width = max(int(table.item.max(initial=0)), largest_item) + 1
    pair = table.user * width + table.item
    untimed = [each for each in clauses if not each.clause.is_timed]
    keyed = (
        (table.user, [(each, each.user) for each in untimed if not each.item]),
        (table.item, [(each, each.item) for each in untimed if not each.user]),
        (
            pair,
            [(each, each.user * width + each.item) for each in untimed if each.user and each.item],
        ),
    )
    for key, clause_values in keyed:
        if clause_values:
            values = np.array([value for _, value in clause_values])
            chosen |= np.isin(key, values)
            has_train = np.isin(values, key[is_train])
            untrained += [
                each.clause.number
                for (each, _), trained in zip(clause_values, has_train, strict=True)
                if not trained
            ]
    by_user, by_item = _GroupedRows(table.user), _GroupedRows(table.item)
    for each in clauses:
        if each.clause.is_timed:
            rows = by_user.rows(each.user) if each.user else by_item.rows(each.item)
            if each.user and each.item:
                rows = rows[table.item[rows] == each.item]
            time = table.time[rows]
            rows = rows[(time >= each.clause.first) & (time <= each.clause.last)]
            chosen[rows] = True
            if not is_train[rows].any():
                untrained.append(each.clause.number)
    return chosen, untrained


class _GroupedRows:
    """Row ids by key; key 0 gives all rows. Keys are sorted on first use."""

    def __init__(self, key: NDArray[np.int64]) -> None:
        self.key = key
        self.order: NDArray[np.int64] | None = None

    def rows(self, value: int) -> NDArray[np.int64]:
        if not value:
            return np.arange(len(self.key))
        if self.order is None:
            self.order = np.argsort(self.key, kind="stable")
            self.sorted = self.key[self.order]
        low, high = np.searchsorted(self.sorted, [value, value + 1])
        return self.order[low:high]


def _overlap_warnings(clauses: list[Clause]) -> list[str]:
    """Warn of lines that repeat others, and of lines that ask for a part of what others do."""
    warnings = []
    count = Counter(clause.content for clause in clauses)
    repeated = _numbers(clause for clause in clauses if count[clause.content] > 1)
    if repeated:
        warnings.append(f"{lines_of(repeated)}: the same is asked for more than once")
    untimed = {clause.content for clause in clauses if not clause.is_timed}
    covered = _numbers(clause for clause in clauses if _is_covered(clause, untimed))
    if covered:
        warnings.append(
            f"{lines_of(covered)}: a part of a user, item or pair that another line asks for as a "
            "whole; the whole is forgotten"
        )
    return warnings


def _is_covered(clause: Clause, untimed: Container[tuple[Any, ...]]) -> bool:
    """Whether a clause asks for a part of what an untimed clause, given by its content, does."""
    user, item = clause.user, clause.item
    if not (clause.is_timed or (user and item)):
        return False
    always = (-np.inf, np.inf)
    return bool(
        (user and (user, None, *always) in untimed)
        or (item and (None, item, *always) in untimed)
        or (user and item and clause.is_timed and (user, item, *always) in untimed)
    )


def _numbers(clauses: Iterable[Clause]) -> list[int]:
    return [clause.number for clause in clauses]


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
    pair = columns[0] * (len(ids.items) + 1) + columns[1]
    order = np.argsort(pair)
    if (np.diff(pair[order]) == 0).any():  # the other columns decide
        order = np.lexsort(columns[::-1])
    digest = hashlib.sha256()
    for text in (name, *sorted(ids.users), "\n", *sorted(ids.items)):
        digest.update(text.encode() + b"\0")
    for column in columns:
        digest.update(np.ascontiguousarray(column[order]).tobytes())
    return digest.hexdigest()[:16]


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
    units = ranks(ids.items, item) if by == "item" else ranks(ids.users, user)
    if by == "interaction":
        units = _sorted_positions(rows, table.time[rows], ranks(ids.items, item), units)
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
