"""Exact unlearning by shards: each user's rows train one model, and only that is trained again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec.errors import InputError
from recbole_e2urec.model.scorers import Scorer
from recbole_e2urec.trainer.unlearning import Fit, Request


@dataclass(frozen=True)
class ShardOptions:
    """How training data is sharded.

    Attributes:
        shards: number of shards, at least 1; each user's rows are in one of them.
    """

    shards: int

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        if self.shards < 1:
            raise InputError(f"shards is {self.shards}; give 1 or more")


class Shards(NamedTuple):
    """Models of all shards before and after a request.

    Attributes:
        before: who answered before it, by shard.
        after: who answers after it; a shard without any row left is out.
        prior: costs of training all shards before the request.
        again: costs of training the touched ones again.
        digest: names the stages of ``after``.
    """

    before: list[Scorer]
    after: list[Scorer]
    prior: list[dict[str, Any]]
    again: list[dict[str, Any]]
    digest: str


def fit_shards(request: Request, name: str, users: Sequence[NDArray[np.int64]]) -> Shards:
    """Train every shard on all its rows, then those that the request touches on what stays.

    Args:
        request: what to forget.
        name: of the method, the start of the stages' names.
        users: inner user ids of each shard.
    """
    prior: list[Fit] = []
    after: list[Fit] = []
    again: list[Fit] = []
    for number, members in enumerate(users):
        whole, kept, lost = (
            rows[np.isin(request.user[rows], members)]
            for rows in (request.train, request.retain, request.forget)
        )
        prior.append(request.tools.fit(f"{name}{number}", whole, request.forget_history))
        if len(lost) == 0:
            after.append(prior[-1])
        elif len(kept) > 0:
            again.append(request.tools.fit(f"{name}{number}", kept, request.retain_history))
            after.append(again[-1])
    return Shards(
        [fit.scorer for fit in prior],
        [fit.scorer for fit in after],
        [dict(fit.cost) for fit in prior],
        [dict(fit.cost) for fit in again],
        "-".join(fit.digest for fit in after),
    )


def random_shards(request: Request, count: int) -> list[NDArray[np.int64]]:
    """Users of the training set in shards of equal size, at random; at most one shard a user."""
    users = np.unique(request.user[request.train])
    order = np.random.default_rng([request.seed, count]).permutation(users)
    return [np.sort(part) for part in np.array_split(order, min(count, len(users)))]


def balanced_clusters(
    points: NDArray[np.floating[Any]], count: int, seed: int, rounds: int = 50
) -> NDArray[np.int64]:  # [n, d] -> [n]
    """Cluster points into parts of equal size, one point more or less: k-means with capacities.

    Point and centre are paired in order of their distance while the centre has room; centres move
    to the mean of their points until nothing changes. Source: Chen et al., "Recommendation
    Unlearning", WWW 2022, user-based balanced partition.

    Args:
        points: one line a point.
        count: number of clusters, at most n.
        seed: of the first centres.
        rounds: most moves of the centres.
    """
    size = len(points)
    room = np.full(count, size // count)
    room[: size % count] += 1
    centres = points[np.random.default_rng(seed).choice(size, count, replace=False)]
    cluster = np.full(size, -1, dtype=np.int64)
    for _ in range(rounds):
        distance = ((points[:, None] - centres[None]) ** 2).sum(axis=2)
        now, left = np.full(size, -1, dtype=np.int64), room.copy()
        for pair in np.argsort(distance, axis=None, kind="stable"):
            point, centre = divmod(int(pair), count)
            if now[point] < 0 and left[centre] > 0:
                now[point] = centre
                left[centre] -= 1
        if (now == cluster).all():
            break
        cluster = now
        centres = np.stack([points[cluster == centre].mean(axis=0) for centre in range(count)])
    return cluster
