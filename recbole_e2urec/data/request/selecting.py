"""A request to the rows that it asks for: by a file, by a filter, or by a share."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec import writer
from recbole_e2urec.data.nearest import nearest
from recbole_e2urec.data.request.clauses import Clause, check_id, read_request_file
from recbole_e2urec.data.request.columns import ADVICE, lines_of
from recbole_e2urec.data.request.drawing import draw_rows
from recbole_e2urec.data.request.fields import Fields
from recbole_e2urec.data.request.filter import filter_rows
from recbole_e2urec.data.request.matching import match_clauses, unknown_lines
from recbole_e2urec.data.rows import IdMap, RowTable
from recbole_e2urec.errors import InputError

BY = ("user", "interaction", "item")


@dataclass(frozen=True)
class ForgetOptions:
    """Which training rows are to be forgotten.

    Raises:
        InputError: unknown `by`, no request and no ratio in (0, 1), a negative seed, a file and a
            filter, or an id that does not do.
    """

    by: str = "user"  # what is forgotten: user, interaction or item
    ratio: float = 0.2  # share of the training users, rows or items, in (0, 1)
    file: str | Path | None = None  # a real request; replaces the ratio
    seed: int = 0  # of the choice by ratio, at least 0
    where: str | None = None  # a filter over features; replaces the ratio
    unknown: Literal["refuse", "skip"] = "refuse"  # lines whose user or item the data lacks
    request_id: str | int | None = field(default=None, metadata={"key": "request_id"})  # own name

    def __post_init__(self) -> None:
        """Refuse options that no request can have."""
        if self.by not in BY:
            raise InputError(f"forget_by is {self.by!r}; {nearest(str(self.by), BY)}")
        if self.seed < 0:
            raise InputError(f"the seed of the forget choice is {self.seed}; give 0 or more")
        if self.file is not None and self.where is not None:
            raise InputError("forget_file and forget_where are two requests; give one of them")
        is_share = isinstance(self.ratio, int | float) and 0 < self.ratio < 1
        if self.file is None and self.where is None and not is_share:
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
        return writer.from_writer(lambda: _by_file(options, own, train, table, ids))
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
