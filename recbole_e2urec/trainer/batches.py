"""What gradient unlearning walks through: forget rows, with retain rows beside them."""

from math import ceil
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbole_e2urec.data.prompt_table import PromptTable, length_grouped_batches
from recbole_e2urec.trainer.adapter import UnlearningTask
from recbole_e2urec.trainer.loop import epoch_seed, steps_until

Rows = NDArray[np.int64]


class ForgetOnlyTokens(NamedTuple):
    """Tokens whose embeddings alone are to learn.

    Attributes:
        tokens: int64 [m].
        retain_pool: retain rows whose prompts show one of them, sorted; no other row's answer can
            change.
    """

    tokens: Tensor
    retain_pool: Rows


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


def forget_only_tokens_of(
    sides: RequestRows, candidates: Tensor, most: float
) -> ForgetOnlyTokens | None:
    """Tokens by which every forget row can be forgotten, if the request is small.

    A user who leaves wholly needs a token that all of the user's prompts show. Where no candidate
    is one, since the user's number is a word that others' prompts show as well, such as an age, it
    is the token that fewest retain rows show. Of a user who stays, or whom prompts do not name,
    each row needs one of the candidates.

    Args:
        sides: the request.
        candidates: tokens that no retain row's prompt shows, int64 [m].
        most: share of the training rows up to which a request is small; also the share of retain
            rows that may show a user's token.

    Returns:
        None where it is not small, or where a token is missing.
    """
    forget, retain, table = sides.forget, sides.retain, sides.forget_table
    if len(forget) > most * (len(forget) + len(retain)):
        return None
    mine, user = candidates.numpy(), sides.user[forget]
    leaves = table.named(user) & ~np.isin(user, sides.user[retain])
    if not table.shows(forget[~leaves], mine).all():
        return None
    of_users = [forget[leaves & (user == leaver)] for leaver in np.unique(user[leaves])]
    rarest = [_rarest(sides, rows) for rows in of_users if len(_common(table, rows, mine)) == 0]
    if any(shown > most * len(retain) for _, shown in rarest):
        return None
    shared = np.array([token for token, _ in rarest], dtype=np.int64)
    tokens = torch.from_numpy(np.union1d(mine, shared))
    return ForgetOnlyTokens(tokens, retain[sides.retain_table.shows(retain, shared)])


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


LEAST_ROWS = 512  # forget rows that a request learns from, if it has them, whatever the share


class Step(NamedTuple):
    """Row ids of one step; without retain rows in a step on the forget set alone."""

    forget: Rows
    retain: Rows


class ForgetRetainBatches:
    """The steps of a request's epochs; they depend on its seed and the epoch's number alone.

    Args:
        request: what to forget.
        table: prompts of all rows.
        batch_size: forget rows a step.
        share: of the forget rows of each user who leaves wholly that the steps show. A user whom
            prompts name is remembered as a whole. Rows of users who stay are remembered one by
            one, and so are those of users without a name: none of them is left out. Nor is any of
            the first ``LEAST_ROWS``: a small request can spare no step.
        of_all: whether the share is of every user's forget rows alike.

    Attributes:
        forget: row ids of the forget rows that the steps show, sorted.
        forget_table, retain_table: prompts of the forget rows and of the others.
        retain_pool: retain rows that joint steps may show, sorted; all of them unless limited.
    """

    def __init__(
        self,
        request: UnlearningTask,
        table: PromptTable,
        batch_size: int,
        share: float = 1.0,
        of_all: bool = False,
    ) -> None:
        self.request, self.batch_size = request, batch_size
        user, forget = request.user, request.forget
        alone = np.isin(user[forget], user[request.retain]) | ~table.named(user[forget])
        alone &= not of_all
        whole = forget[~alone]
        share = max(share, min(1.0, LEAST_ROWS / max(1, len(whole))))
        drawn = share_of_each(user, whole, share, request.seed)
        self.forget = np.union1d(drawn, forget[alone])
        self.forget_table = table.with_history(request.forget_history)
        self.retain_table = table.with_history(request.retain_history)
        self.retain_pool = request.retain

    def steps(self, epoch: int, joint: bool) -> list[Step]:
        """Its forget rows in batches; if joint, as many retain rows, drawn anew, beside them."""
        request, size = self.request, self.batch_size
        generator = np.random.default_rng(epoch_seed(request.seed, epoch))
        lengths = self.forget_table.lengths(self.forget)
        parts = length_grouped_batches(lengths, size, generator)
        if not joint or len(self.retain_pool) == 0:
            return [Step(self.forget[part], request.retain[:0]) for part in parts]
        drawn = self.retain_rows(epoch)
        beside = length_grouped_batches(self.retain_table.lengths(drawn), size, generator)
        return [
            Step(self.forget[part], drawn[beside[place % len(beside)]])
            for place, part in enumerate(parts)
        ]

    @property
    def sides(self) -> RequestRows:
        """All rows of the request, and their prompts."""
        request = self.request
        tables = self.forget_table, self.retain_table
        return RequestRows(request.forget, request.retain, *tables, request.user)

    def forget_only_tokens(self) -> Tensor:
        """Tokens that prompts of forget rows show and no prompt of a retain row does, int64 [m].

        What a model keeps in their embeddings is of use to forget rows alone.
        """
        forget = self.forget_table.tokens(self.request.forget)
        others = self.retain_table.tokens(self.request.retain)
        return torch.from_numpy(np.setdiff1d(forget, others, assume_unique=True))

    def reached(self, tokens: Tensor) -> NDArray[np.bool_]:  # [m] -> [f]
        """Whether each forget row's prompt shows one of these tokens."""
        return self.forget_table.shows(self.request.forget, tokens.numpy())

    def retain_rows(self, epoch: int) -> Rows:
        """Retain rows of a joint epoch, as many as there are forget rows, without repetition."""
        seed = np.random.SeedSequence([self.request.seed, epoch, 1])
        count = min(len(self.forget), len(self.retain_pool))
        return np.random.default_rng(seed).choice(self.retain_pool, count, replace=False)

    def retain_rows_of(self, first: int, end: float) -> Rows:
        """Retain rows of the steps of joint epochs, each once, sorted.

        Args:
            first: number of the first of these epochs.
            end: where they end; a fraction cuts the last of them, see :class:`AdapterTrainingPlan`.
        """
        shown = [self.request.retain[:0]]
        for epoch in range(first, ceil(end)):
            steps = self.steps(epoch, joint=True)
            left = steps_until(end, len(steps)) - epoch * len(steps)
            shown += [step.retain for step in steps[: max(0, left)]]
        return np.unique(np.concatenate(shown))


def share_of_each(
    user: NDArray[np.int64], rows: Rows, share: float, seed: int
) -> Rows:  # [n], [f] -> [<= f]
    """A share of each user's rows, drawn at random, rounded up: no user goes without.

    Args:
        user: of all rows, by row id.
        rows: to draw from, sorted.
        share: in (0, 1].
        seed: of the draw.
    """
    if share == 1:
        return rows
    shuffled = np.random.default_rng([seed, 2]).permutation(rows)
    by_user = shuffled[np.argsort(user[shuffled], kind="stable")]
    _, first, count = np.unique(user[by_user], return_index=True, return_counts=True)
    place = np.arange(len(rows)) - np.repeat(first, count)
    return np.sort(by_user[place < np.repeat(np.ceil(share * count), count)])
