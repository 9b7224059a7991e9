"""Exact unlearning by shards: each user's rows train one model, and only that one is retrained.

Also combines the shards' answers by attention, and divides users into shards: at random, or by
balanced clusters.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.preprocessing import normalize
from torch import Tensor, nn

from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.model.losses import answer_cross_entropy
from recbole_e2urec.model.scorers import CachedAnswers, ModelOutput
from recbole_e2urec.trainer.adapter import Fit, UnlearningTask
from recbole_e2urec.trainer.loop import StepRule, Stream, adamw, generator_of


@dataclass(frozen=True)
class AttentionPlan:
    """How the attention over shards is trained.

    Attributes:
        size: width of the space in which the shards' states are compared.
        learning_rate: AdamW's learning rate.
        epochs: passes over the rows.
        batch_size: rows in a step.
        seed: seed of the initial weights and of the order of rows.
    """

    size: int
    learning_rate: float
    epochs: int
    batch_size: int
    seed: int


class ShardAttention(nn.Module):
    """Weights shards by ``softmax over shards of h . relu(W_s x_s + b_s)``.

    x_s is the state that the head of shard s reads. Source: Chen et al., WWW 2022. Their aggregator
    weights the shards' embeddings by such an attention, after a transfer into one space; here the
    projection of each shard is this transfer.
    """

    def __init__(self, hidden: int, shards: int, size: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(hidden, size) for _ in range(shards))
        self.direction = nn.Linear(size, 1, bias=False)

    def forward(self, states: Sequence[Tensor]) -> Tensor:  # shards x [n, h] -> [n, shards]
        """Compute the weights of the shards; each row sums to 1."""
        scores = [
            self.direction(torch.relu(project(state.float())))
            for project, state in zip(self.projections, states, strict=True)
        ]
        return torch.softmax(torch.cat(scores, dim=1), dim=1)

    @torch.no_grad()
    def weigh(self, voices: Sequence[ModelOutput]) -> Tensor:  # -> [n, shards]
        """Compute the weights for the outputs of the shards' models."""
        return self([voice.states for voice in voices])


def train_attention(
    answers: CachedAnswers, labels: Tensor, answer_ids: tuple[int, int], plan: AttentionPlan
) -> tuple[ShardAttention, int]:
    """Train the attention on the cross-entropy of the shards' weighted answers.

    Args:
        answers: answers of the shards' models to n rows.
        labels: 1 = yes, 0 = no, [n].
        answer_ids: token ids of (no, yes).
        plan: how to train.

    Returns:
        The attention, and the number of steps.
    """
    voices, steps = answers.voices, 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        attention = ShardAttention(voices[0].states.shape[1], len(voices), plan.size)
        attention.to(voices[0].states.device)
        optimizer = adamw(list(attention.parameters()), StepRule(plan.learning_rate))
        for _ in range(plan.epochs):
            for part in torch.randperm(len(labels)).split(plan.batch_size):
                weights = attention([voice.states[part] for voice in voices])
                with torch.no_grad():
                    heard = torch.stack([voice.head(voice.states[part]) for voice in voices], 1)
                logits = (weights[:, :, None] * heard).sum(dim=1)
                loss = answer_cross_entropy(logits, labels[part], answer_ids).mean()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                steps += 1
    return attention.requires_grad_(False), steps


Rows = NDArray[np.int64]
T = TypeVar("T")


@option_class()
class ShardOptions:
    """How training data is sharded."""

    shards: int = option("Shards of users, each with a model or an adapter of its own.", ge=1)


class Shards(NamedTuple):
    """The models of all shards before and after a request.

    Attributes:
        before: models before the request.
        after: models after the request; a shard without any remaining row has none.
        again: those of ``after`` that were retrained.
    """

    before: list[Fit]
    after: list[Fit]
    again: list[Fit]

    @property
    def prior_costs(self) -> list[dict[str, Any]]:
        """Cost of the training before the request."""
        return [dict(fit.cost) for fit in self.before]

    @property
    def again_costs(self) -> list[dict[str, Any]]:
        """Cost of the retraining."""
        return [dict(fit.cost) for fit in self.again]

    @property
    def digest(self) -> str:
        """Digests of the stages of ``after``, joined."""
        return "-".join(fit.digest for fit in self.after)


def fit_shards(
    request: UnlearningTask,
    name: str,
    users: Sequence[Rows],
    fit: Callable[[str, Rows, Rows], Fit],
) -> Shards:
    """Train every shard on all of its rows; retrain those with forget rows on their retain rows.

    Args:
        request: what to forget.
        name: name of the method, with which the stages' names begin.
        users: inner user ids of each shard.
        fit: trains the model of a shard, such as ``TrainingServices.fit``.
    """
    histories = {False: request.forget_history, True: request.retain_history}
    trained = train_shards(
        [request.user[rows] for rows in (request.train, request.retain)],
        [request.train, request.retain],
        users,
        lambda number, rows, again: fit(f"{name}{number}", rows, histories[again]),
    )
    return Shards(*trained)


def train_shards(
    owners: Sequence[Rows],
    rows: Sequence[Rows],
    users: Sequence[Rows],
    fit: Callable[[int, Rows, bool], T],
) -> tuple[list[T], list[T], list[T]]:
    """Train a model of any kind for each shard, and retrain those that a request touches.

    Args:
        owners: the user of each row in ``rows``.
        rows: ids of the training rows before and after the request.
        users: inner user ids of each shard.
        fit: trains a model, given the number of the shard, its rows and whether it is retrained.

    Returns:
        The models before the request, those after it, and those of the latter that were retrained.
    """
    before: list[T] = []
    after: list[T] = []
    again: list[T] = []
    for number, members in enumerate(users):
        whole, kept = (
            part[np.isin(owner, members)] for owner, part in zip(owners, rows, strict=True)
        )
        before.append(fit(number, whole, False))
        if len(kept) == len(whole):
            after.append(before[-1])
        elif len(kept) > 0:
            again.append(fit(number, kept, True))
            after.append(again[-1])
    return before, after, again


def random_shards(users: NDArray[np.int64], seed: int, count: int) -> list[NDArray[np.int64]]:
    """Divide users into shards of equal size at random, one user more or less.

    Args:
        users: inner user ids in any order; duplicates are allowed.
        seed: seed of the order.
        count: number of shards; with fewer users, each user gets a shard.
    """
    users = np.unique(users)
    order = generator_of(seed, Stream.SHARDS, count).permutation(users)
    return [np.sort(part) for part in np.array_split(order, min(count, len(users)))]


def balanced_clusters(
    points: NDArray[np.floating[Any]], count: int, seed: int, rounds: int = 50
) -> NDArray[np.int64]:  # [n, d] -> [n]
    """Cluster points into parts of equal size, one point more or less: k-means with capacities.

    Points are assigned to centres in order of distance, while the centre has room. The centres then
    move to the mean of their points. Both repeat until nothing changes. Source: Chen et al.,
    "Recommendation Unlearning", WWW 2022, user-based balanced partition.

    Args:
        points: one point in each row.
        count: number of clusters, at most n.
        seed: seed of the first centres.
        rounds: most moves of the centres.
    """
    size = len(points)
    centres = points[generator_of(seed, Stream.CLUSTERS).choice(size, count, replace=False)]
    cluster = np.full(size, -1, dtype=np.int64)
    for _ in range(rounds):
        now = _in_equal_parts(((points[:, None] - centres[None]) ** 2).sum(axis=2))
        if (now == cluster).all():
            break
        cluster = now
        centres = np.stack([points[cluster == centre].mean(axis=0) for centre in range(count)])
    return cluster


def cosine_clusters(
    points: NDArray[np.floating[Any]], count: int, seed: int
) -> NDArray[np.int64]:  # [n, d] -> [n]
    """Cluster points into parts of equal size, one point more or less, by their directions.

    K-means of the directions finds the centres, whatever the sizes of its clusters. The points are
    then assigned to centres once, in order of cosine similarity, while the centre has room. Source:
    Hu et al., arXiv 2404.10327, balanced partition of APA.

    Args:
        points: one point in each row.
        count: number of clusters, at most n.
        seed: seed of the first centres.
    """
    directions = normalize(points)
    clusters = KMeans(count, n_init=1, random_state=seed).fit(directions)
    return _in_equal_parts(-directions @ normalize(clusters.cluster_centers_).T)


def _in_equal_parts(
    distance: NDArray[np.floating[Any]],
) -> NDArray[np.int64]:  # [n, centres] -> [n]
    """Assign each point to a centre, the nearest pairs first, while the centre has room."""
    size, count = distance.shape
    room = np.full(count, size // count)
    room[: size % count] += 1
    cluster = np.full(size, -1, dtype=np.int64)
    for pair in np.argsort(distance, axis=None, kind="stable"):
        point, centre = divmod(int(pair), count)
        if cluster[point] < 0 and room[centre] > 0:
            cluster[point] = centre
            room[centre] -= 1
    return cluster
