"""From a deletion request to the rows that it asks for, and the split into retain and forget."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.data.request.dates import check_seconds
from recbole_e2urec.data.request.file import ADVICE, Clause, check_id, lines_of, read_request_file
from recbole_e2urec.data.request.filter import Fields, filter_rows
from recbole_e2urec.data.request.identity import request_digest
from recbole_e2urec.data.request.sampling import draw_rows
from recbole_e2urec.data.rows import IdMap, RowTable
from recbole_e2urec.errors import InputError, nearest
from recbole_e2urec.utils import distributed

Mask = NDArray[np.bool_]
UNKNOWN = "that the data does not have"


class Match(NamedTuple):
    """Rows that any clause asks for, and what is odd about the clauses."""

    chosen: Mask  # [n], of all rows
    warnings: list[str]  # name lines, never what is on them


class _Asked(NamedTuple):
    """A clause in inner ids; 0 = of anybody."""

    clause: Clause
    user: int
    item: int


def match_clauses(
    path: Path | str, clauses: list[Clause], train: Mask, table: RowTable, ids: IdMap
) -> Match:
    """Find the rows of all clauses.

    Args:
        path: for messages.
        clauses: of the file.
        train: [n] True for training rows, of which each clause should have some.
        table: all rows.
        ids: published tokens to inner ids.

    Raises:
        InputError: times where the data has none, or dates where its times are not seconds.
    """
    _check_times(path, clauses, table)
    unknown = unknown_lines(clauses, ids)
    missing = {number for numbers in unknown.values() for number in numbers}
    known = [
        _Asked(one, ids.users.get(one.user or "", 0), ids.items.get(one.item or "", 0))
        for one in clauses
        if one.number not in missing
    ]
    chosen, idle = _rows_of(known, train, table)
    warnings = [_unknown(kind, numbers) for kind, numbers in unknown.items() if numbers]
    if idle:
        warnings.append(
            f"{lines_of(idle)}: no training row fits, so nothing was learned from what is asked for"
        )
    return Match(chosen, [*warnings, *_repeated(clauses)])


def unknown_lines(clauses: list[Clause], ids: IdMap) -> dict[str, list[int]]:
    """Lines that name users, and lines that name items, that the data does not have."""
    return {
        "user": [one.number for one in clauses if one.user and one.user not in ids.users],
        "item": [one.number for one in clauses if one.item and one.item not in ids.items],
    }


def _unknown(kind: str, numbers: list[int]) -> str:
    named = "names a" if len(numbers) == 1 else "name"
    plural = "" if len(numbers) == 1 else "s"
    return f"{lines_of(numbers)}: {named} {kind}{plural} {UNKNOWN}"


def _check_times(path: Path | str, clauses: list[Clause], table: RowTable) -> None:
    timed = next((one for one in clauses if one.is_timed), None)
    if timed is not None and not table.has_time:
        raise InputError(
            f"forget file {path}, line {timed.number}: a time range, but the data has no times"
        )
    dated = next((one for one in clauses if one.is_dated), None)
    if dated is not None:
        where = f"forget file {path}, line {dated.number}"
        check_seconds(float(table.time.max(initial=0)), where)


def _rows_of(asked: list[_Asked], train: Mask, table: RowTable) -> tuple[Mask, list[int]]:
    """Rows of all clauses, and the lines of clauses without a training row."""
    chosen = np.zeros(len(table), dtype=bool)
    idle: list[int] = []
    named = max((one.item for one in asked), default=0)  # maybe an item without rows
    width = max(int(table.item.max(initial=0)), named) + 1
    pair = table.user * width + table.item
    whole = [one for one in asked if not one.clause.is_timed]
    kinds = (
        (table.user, [(one, one.user) for one in whole if not one.item]),
        (table.item, [(one, one.item) for one in whole if not one.user]),
        (pair, [(one, one.user * width + one.item) for one in whole if one.user and one.item]),
    )
    for key, wanted in kinds:
        if wanted:
            values = np.array([value for _, value in wanted])
            chosen |= np.isin(key, values)
            trained = np.isin(values, key[train])
            idle += [one.clause.number for (one, _), found in zip(wanted, trained, strict=True)
                     if not found]  # fmt: skip
    by_user, by_item = _Grouped(table.user), _Grouped(table.item)
    for one in asked:
        if one.clause.is_timed:
            rows = by_user.rows(one.user) if one.user else by_item.rows(one.item)
            if one.user and one.item:
                rows = rows[table.item[rows] == one.item]
            time = table.time[rows]
            rows = rows[(time >= one.clause.first) & (time <= one.clause.last)]
            chosen[rows] = True
            if not train[rows].any():
                idle.append(one.clause.number)
    return chosen, idle


class _Grouped:
    """Rows by key; all of them for key 0."""

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


def _repeated(clauses: list[Clause]) -> list[str]:
    """Lines that say again what others say, and those that ask for less than others do."""
    warnings = []
    count = Counter(one.content for one in clauses)
    again = _lines(one for one in clauses if count[one.content] > 1)
    if again:
        warnings.append(f"{lines_of(again)}: the same is asked for more than once")
    whole = {one.content for one in clauses if not one.is_timed}
    forever = (-np.inf, np.inf)
    part = [one for one in clauses if one.is_timed or (one.user and one.item)]
    covered = _lines(
        one
        for one in part
        if (one.user and (one.user, None, *forever) in whole)
        or (one.item and (None, one.item, *forever) in whole)
        or (one.user and one.item and one.is_timed and (one.user, one.item, *forever) in whole)
    )
    if covered:
        warnings.append(
            f"{lines_of(covered)}: a part of a user, item or pair that another line asks for as a "
            "whole; the whole is forgotten"
        )
    return warnings


def _lines(clauses: Iterable[Clause]) -> list[int]:
    return [one.number for one in clauses]


BY = ("user", "interaction", "item")


@option_class(prefix="forget_")
class ForgetOptions:
    """Which training rows are to be forgotten."""

    by: str = option("What is forgotten: user, interaction or item.", default="user")
    ratio: float = option(
        "The share of training users (interactions, items) to forget, in (0, 1).", default=0.2
    )
    file: str | Path | None = option(
        "A request from outside instead of a share, as CSV, tab-separated columns or JSON lines: "
        "users, items, user-item pairs, time ranges: docs/requests.md.",
        default=None,
    )
    seed: int = option("The seed that chooses who is forgotten.", ge=0, default=0)
    where: str | None = option(
        "A request by features instead, as in class == 'Horror' and rating < 3: docs/requests.md.",
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
    """What a request asks for, before anything is done about it."""

    chosen: NDArray[np.bool_]  # [n] of all rows, whatever their part
    source: str  # what the request is, for messages
    warnings: tuple[str, ...] = ()  # name lines and fields, never users or items
    request_id: str | None = None  # of its own
    names_nothing: str | None = None  # advice, where there is not a single entry


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
        train_rows: row ids of the training part, any order.
        table: all rows of the dataset.
        ids: published tokens to inner ids.
        fields: what a filter may name.

    Raises:
        InputError: a file or a filter that cannot be used, or names users or items that the data
            does not have, unless they are to be skipped.
    """
    train = np.zeros(len(table), dtype=bool)
    train[np.asarray(train_rows, dtype=np.int64)] = True
    own = None if options.request_id is None else str(options.request_id)
    if options.file is not None:
        return distributed.on_main_process(lambda: _by_file(options, own, train, table, ids))
    if options.where is None:
        rows, chosen = np.flatnonzero(train), np.zeros(len(table), dtype=bool)
        drawn = draw_rows(options.by, options.ratio, options.seed, rows, table, ids)
        chosen[rows[drawn]] = True
        return Selection(chosen, "the request", (), own)
    if fields is None:
        raise InputError("forget_where needs the fields of a data set")
    filtered = filter_rows(options.where, fields)
    return Selection(filtered.chosen, "forget_where", tuple(filtered.warnings), own)


def _by_file(
    options: ForgetOptions,
    own: str | None,
    train: NDArray[np.bool_],
    table: RowTable,
    ids: IdMap,
) -> Selection:
    source = f"forget file {options.file}"
    tokens = {"user": ids.users, "item": ids.items}
    written = read_request_file(str(options.file), options.by, tokens)
    if own and written.request_id and own != written.request_id:
        raise InputError(f"{source} has another request_id than the settings; give one of them")
    if options.unknown == "refuse":
        _refuse_unknown(source, written.clauses, ids)
    match = match_clauses(str(options.file), written.clauses, train, table, ids)
    warnings = list(match.warnings)
    if written.passed_over:
        warnings.append(f"columns or keys that mean nothing here: {written.passed_over}")
    advice = None if written.clauses else ADVICE[options.by]
    return Selection(
        match.chosen, source, tuple(warnings), own or written.request_id, names_nothing=advice
    )


def _refuse_unknown(source: str, clauses: list[Clause], ids: IdMap) -> None:
    for kind, numbers in unknown_lines(clauses, ids).items():
        if numbers:
            raise InputError(
                f"{source}: {len(numbers)} of {len(clauses)} lines name {kind}s that the data does "
                f"not have ({lines_of(numbers)}); remove them, check the filters of the dataset "
                "and the header (user_id, item_id), or set forget_unknown to skip"
            )


def skipping(options: ForgetOptions) -> ForgetOptions:
    """The same request, whose unknown users and items are only warned of."""
    return replace(options, unknown="skip")


# Keys that say in which words a request is made; what it asks for is in its digest.
WORDING = ("forget_file", "forget_where", "forget_unknown", "request_id", "retrain_share")


class ForgetSplit(NamedTuple):
    """Training rows in two parts: disjoint, together all of them, each sorted."""

    retain: NDArray[np.int64]  # row ids
    forget: NDArray[np.int64]  # row ids


class ForgetRequest(NamedTuple):
    """A request that can be carried out."""

    split: ForgetSplit
    rows: NDArray[np.int64]  # row ids asked for, of training or not, sorted
    digest: str  # what is asked for on which data, however it was written
    request_id: str  # its own, or the digest
    warnings: tuple[str, ...]


def read_request(
    options: ForgetOptions, train_rows: NDArray[np.int64], dataset: Any
) -> ForgetRequest:
    """Read a request and name it.

    Raises:
        InputError: as :func:`select` and :func:`split_of`.
    """
    table, ids = dataset.rows, dataset.ids
    found = select(options, train_rows, table, ids, Fields(dataset))
    split = split_of(found, train_rows)
    digest = request_digest(dataset.dataset_name, table, ids, found.chosen)
    own = found.request_id or digest
    return ForgetRequest(split, np.flatnonzero(found.chosen), digest, own, found.warnings)


def split_of(found: Selection, train_rows: NDArray[np.int64]) -> ForgetSplit:
    """Take the training rows apart.

    Raises:
        InputError: nothing is asked for, none of it is in training, or all of training is.
    """
    train = np.zeros(len(found.chosen), dtype=bool)
    train[np.asarray(train_rows, dtype=np.int64)] = True
    rows = np.flatnonzero(train)
    chosen = found.chosen[rows]
    if found.names_nothing:
        raise InputError(f"{found.source} names nobody; {found.names_nothing}")
    if not chosen.any():
        raise InputError(
            f"{found.source}: nothing that it names is in the training part; "
            "name users, pairs, items or times with training rows"
        )
    if chosen.all():
        raise InputError(f"the request names all {len(rows)} training rows; leave some to train on")
    return ForgetSplit(rows[~chosen], rows[chosen])
