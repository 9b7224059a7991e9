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

    A user's number may be a word that others' prompts show as well, such as an age. Rows without a
    token of ``own`` then get, for each user who leaves wholly, that token of all of the user's
    prompts which fewest retain rows show.

    Args:
        sides: the request.
        own: tokens that no retain row's prompt shows, int64 [m].
        most: share of the training rows up to which a request is small; also the share of retain
            rows that may show such a token.

    Returns:
        None where it is not small, or where a row has no such token.
    """
    forget, retain, user = sides.forget, sides.retain, sides.user
    if len(forget) > most * (len(forget) + len(retain)):
        return None
    lacking = forget[~sides.forget_table.shows(forget, own.numpy())]
    if (
        np.isin(user[lacking], user[retain]).any()
        or not sides.forget_table.named(user[lacking]).all()
    ):
        return None
    rarest = [_rarest(sides, lacking[user[lacking] == one]) for one in np.unique(user[lacking])]
    if any(shown > most * len(retain) for _, shown in rarest):
        return None
    shared = np.array([token for token, _ in rarest], dtype=np.int64)
    tokens = torch.from_numpy(np.union1d(own.numpy(), shared))
    return OwnTokens(tokens, retain[sides.retain_table.shows(retain, shared)])


def _rarest(sides: RequestRows, rows: Rows) -> tuple[int, int]:
    """Of the tokens that all these rows show, the one in fewest retain rows, and in how many."""
    common = [
        int(token)
        for token in sides.forget_table.tokens(rows[:1])
        if sides.forget_table.shows(rows, np.array([token])).all()
    ]
    counts = [
        int(sides.retain_table.shows(sides.retain, np.array([token])).sum()) for token in common
    ]
    place = int(np.argmin(counts))
    return common[place], counts[place]
