"""Batches of gradient unlearning: forget rows, paired with retain rows in joint steps.

Also finds forget-only tokens: tokens that prompts of forget rows show and no prompt of a retain row
does.
"""

import time
from math import ceil
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbole_e2urec.data.prompt_table import PromptTable, length_grouped_batches
from recbole_e2urec.trainer.adapter import UnlearningTask
from recbole_e2urec.trainer.loop import Stream, generator_of, steps_until

Rows = NDArray[np.int64]
LEAST_ROWS = 512  # forget rows that a request learns from, if it has as many, whatever the share


class ForgetOnlyTokens(NamedTuple):
    """Tokens whose embeddings are the only weights that learn.

    Attributes:
        tokens: token ids, int64 [m].
        is_small: whether whole batches would be too few steps.
        retain_pool: ids of the retain rows whose prompts show one of the tokens, sorted. The answer
            to any other retain row cannot change.
    """

    tokens: Tensor
    retain_pool: Rows


class RequestRows(NamedTuple):
    """The rows of a request and their prompts.

    Attributes:
        forget, retain: row ids, sorted.
        forget_table, retain_table: prompts of the forget rows and of the retain rows.
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
    """Find tokens through which a small request can be forgotten completely.

    A wholly forgotten user whom prompts name needs a token that all of the user's prompts show.
    The user's number may also be a word of other prompts, such as an age. Then no candidate
    qualifies, and the token that the fewest retain rows show takes its place. For a user who stays,
    or whom prompts do not name, each forget row must show one of the candidates.

    Args:
        sides: the rows and prompts of the request.
        candidates: tokens that no retain row's prompt shows, int64 [m].
        most: largest share of the training rows that a small request may have; also the largest
            share of retain rows that may show a user's token.

    Returns:
        The tokens; None if the request is not small or a token is missing.
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
    """Keep the tokens in ``of`` that all these rows show."""
    first = np.intersect1d(table.tokens(rows[:1]), of)
    return [int(token) for token in first if table.shows(rows, first[first == token]).all()]


def _rarest(sides: RequestRows, rows: Rows) -> tuple[int, int]:
    """Among the tokens that all these rows show, find the one that the fewest retain rows show.

    Returns:
        The token id, and the number of retain rows that show it.
    """
    table = sides.forget_table
    common = _common(table, rows, table.tokens(rows[:1]))
    counts = [
        int(sides.retain_table.shows(sides.retain, np.array([token])).sum()) for token in common
    ]
    place = int(np.argmin(counts))
    return common[place], counts[place]


class Step(NamedTuple):
    """Row ids of one step; ``retain`` is empty in a step on the forget set alone."""

    forget: Rows
    retain: Rows


class ForgetRetainBatches:
    """Divides the rows of a request into the steps of each epoch.

    The steps depend on nothing but the request's seed and the epoch's number.

    Args:
        request: what to forget.
        table: prompts of all rows.
        batch_size: number of forget rows in a step.
        share: share of each wholly forgotten user's forget rows that the steps show. A model
            remembers a user whom prompts name as a whole, so a part of the rows is enough. It
            remembers rows of users who stay, and of users whom prompts do not name, one by one;
            the steps show all of these. The share is raised so that at least ``LEAST_ROWS`` of the
            wholly forgotten users' rows remain, or all if there are fewer: a small request needs
            every step.
        of_all: whether the share applies to the forget rows of all users.
        least: fewest steps of an epoch, so that a small request gets smaller batches, and fewest
            retain rows of a joint step.

    Attributes:
        forget: ids of the forget rows that the steps show, sorted.
        forget_table, retain_table: prompts of the forget rows and of all other rows.
        retain_pool: ids of the retain rows that joint steps may show, sorted; all of them unless
            limited.
    """

    def __init__(
        self,
        request: UnlearningTask,
        table: PromptTable,
        batch_size: int,
        share: float = 1.0,
        of_all: bool = False,
        least: tuple[int, int] = (1, 1),
    ) -> None:
        self.request = request
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
        least_steps, least_retain = least
        self.is_small = least_steps * batch_size > len(self.forget) and least_steps > 1
        if self.is_small:
            batch_size = max(1, ceil(len(self.forget) / least_steps))
        self.batch_size, self.retain_size = batch_size, max(batch_size, least_retain)

    def steps(self, epoch: int, joint: bool) -> list[Step]:
        """Divide the rows of an epoch into steps.

        Args:
            epoch: number of the epoch, from 0.
            joint: whether each step also has a batch of retain rows. Each epoch draws its own
                sample of them, see :meth:`retain_rows`.
        """
        request = self.request
        generator = generator_of(request.seed, Stream.ORDER, epoch)
        lengths = self.forget_table.lengths(self.forget)
        parts = length_grouped_batches(lengths, self.batch_size, generator)
        if not joint or len(self.retain_pool) == 0:
            return [Step(self.forget[part], request.retain[:0]) for part in parts]
        drawn = self.retain_rows(epoch)
        lengths = self.retain_table.lengths(drawn)
        beside = length_grouped_batches(lengths, self.retain_size, generator)
        return [
            Step(self.forget[part], drawn[beside[place % len(beside)]])
            for place, part in enumerate(parts)
        ]

    @property
    def sides(self) -> RequestRows:
        """All rows of the request and their prompts."""
        request = self.request
        tables = self.forget_table, self.retain_table
        return RequestRows(request.forget, request.retain, *tables, request.user)

    def forget_only_tokens(self) -> Tensor:
        """Find the tokens that forget rows' prompts show and no retain row's does, int64 [m].

        What a model stores in the embeddings of these tokens serves forget rows alone.
        """
        forget = self.forget_table.tokens(self.request.forget)
        return torch.from_numpy(self.retain_table.unshown(self.request.retain, forget))

    def reached(self, tokens: Tensor) -> NDArray[np.bool_]:  # [m] -> [f]
        """Mark the forget rows whose prompts show one of these tokens."""
        return self.forget_table.shows(self.request.forget, tokens.numpy())

    def retain_rows(self, epoch: int) -> Rows:
        """Draw the retain rows of a joint epoch, without repetition.

        They are as many as the forget rows, and enough for each step.
        """
        generator = generator_of(self.request.seed, Stream.RETAIN_ROWS, epoch)
        steps = ceil(len(self.forget) / self.batch_size)
        wanted = len(self.forget)
        if self.retain_size > self.batch_size:
            wanted = steps * self.retain_size
        return generator.choice(self.retain_pool, min(wanted, len(self.retain_pool)), replace=False)

    def retain_rows_of(self, first: int, end: float) -> Rows:
        """Collect the retain rows that the steps of some joint epochs show, each once, sorted.

        Args:
            first: number of the first of these epochs.
            end: number of epochs up to their end; a fraction cuts the last one short, see
                :class:`AdapterTrainingPlan`.
        """
        shown = [self.request.retain[:0]]
        for epoch in range(first, ceil(end)):
            steps = self.steps(epoch, joint=True)
            left = steps_until(end, len(steps)) - epoch * len(steps)
            shown += [step.retain for step in steps[: max(0, left)]]
        return np.unique(np.concatenate(shown))


class TokenCoverage(NamedTuple):
    """Tokens that only prompts of forget rows show, and the forget rows that show one.

    Attributes:
        tokens: token ids, int64 [m].
        covered: whether each forget row shows one, bool [f].
        seconds: how long it took to read all prompts.
    """

    tokens: Tensor
    covered: NDArray[np.bool_]
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether there are such tokens, and each forget row shows one."""
        return bool(len(self.tokens) and self.covered.all())


def forget_token_coverage(request: UnlearningTask, table: PromptTable) -> TokenCoverage:
    """Find the tokens that only prompts of forget rows show, and the rows that show one."""
    started = time.perf_counter()
    pairing = ForgetRetainBatches(request, table, 1)
    tokens = pairing.forget_only_tokens()
    covered = pairing.reached(tokens)
    return TokenCoverage(tokens, covered, time.perf_counter() - started)


def share_of_each(
    user: NDArray[np.int64], rows: Rows, share: float, seed: int
) -> Rows:  # [n], [f] -> [<= f]
    """Draw a share of each user's rows at random, rounded up: every user keeps at least one.

    Args:
        user: inner user id by row id, of all rows.
        rows: ids of the rows to draw from, sorted.
        share: share of each user's rows, in (0, 1].
        seed: seed of the draw.

    Returns:
        Row ids, sorted.
    """
    if share == 1:
        return rows
    shuffled = generator_of(seed, Stream.FORGET_SHARE).permutation(rows)
    by_user = shuffled[np.argsort(user[shuffled], kind="stable")]
    _, first, count = np.unique(user[by_user], return_index=True, return_counts=True)
    place = np.arange(len(rows)) - np.repeat(first, count)
    return np.sort(by_user[place < np.repeat(np.ceil(share * count), count)])
