"""What a small request is carried out by: tokens that its prompts show, and hardly any other."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbole_e2urec.data.tokens import PromptTable

Rows = NDArray[np.int64]


class OwnTokens(NamedTuple):
    """Tokens whose embeddings alone are to learn.

    Attributes:
        tokens: int64 [m].
        beside: retain rows whose prompts show one of them, sorted: no other's answer can change.
    """

    tokens: Tensor
    beside: Rows


class RequestRows(NamedTuple):
    """Rows of a request, and their prompts.

    Attributes:
        forget, retain: row ids, sorted.
        forget_table, retain_table: their prompts.
        user: inner user id by row id.
    """

    forget: Rows
    retain: Rows
    forget_table: PromptTable
    retain_table: PromptTable
    user: NDArray[np.int64]


def own_tokens_of(sides: RequestRows, own: Tensor, most: float) -> OwnTokens | None:
    """Tokens by which every forget row can be forgotten, if the request is small.

    A user who leaves wholly needs a token that all of the user's prompts show. Where none of
    ``own`` is one, since the user's number is a word that others' prompts show as well, such as an
    age, it is the token that fewest retain rows show. Of a user who stays, or whom prompts do not
    name, each row needs a token of ``own``.

    Args:
        sides: the request.
        own: tokens that no retain row's prompt shows, int64 [m].
        most: share of the training rows up to which a request is small; also the share of retain
            rows that may show a user's token.

    Returns:
        None where it is not small, or where a token is missing.
    """
    forget, retain, table = sides.forget, sides.retain, sides.forget_table
    if len(forget) > most * (len(forget) + len(retain)):
        return None
    mine, user = own.numpy(), sides.user[forget]
    leaves = table.named(user) & ~np.isin(user, sides.user[retain])
    if not table.shows(forget[~leaves], mine).all():
        return None
    of_users = [forget[leaves & (user == one)] for one in np.unique(user[leaves])]
    rarest = [_rarest(sides, rows) for rows in of_users if len(_common(table, rows, mine)) == 0]
    if any(shown > most * len(retain) for _, shown in rarest):
        return None
    shared = np.array([token for token, _ in rarest], dtype=np.int64)
    tokens = torch.from_numpy(np.union1d(mine, shared))
    return OwnTokens(tokens, retain[sides.retain_table.shows(retain, shared)])


def _common(table: PromptTable, rows: Rows, of: NDArray[np.int64]) -> list[int]:
    """Those of some tokens that all these rows show."""
    first = np.intersect1d(table.tokens(rows[:1]), of)
    return [int(token) for token in first if table.shows(rows, first[first == token]).all()]


def _rarest(sides: RequestRows, rows: Rows) -> tuple[int, int]:
    """Of the tokens that all these rows show, the one in fewest retain rows, and in how many."""
    table = sides.forget_table
    common = _common(table, rows, table.tokens(rows[:1]))
    counts = [
        int(sides.retain_table.shows(sides.retain, np.array([token])).sum()) for token in common
    ]
    place = int(np.argmin(counts))
    return common[place], counts[place]
