"""Shards are balanced and disjoint, and a request trains those again that it touches, no other."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_e2urec.errors import InputError
from recbole_e2urec.model.scorers import Adapted, CachedAnswers, ModelOutput
from recbole_e2urec.trainer.adapter import Fit, TrainingServices, UnlearningTask
from recbole_e2urec.trainer.checkpoint import Stage
from recbole_e2urec.trainer.shards import (
    AttentionPlan,
    ShardAttention,
    ShardOptions,
    balanced_clusters,
    cosine_clusters,
    fit_shards,
    random_shards,
    train_attention,
)

USER = np.array([1, 1, 2, 2, 3, 3, 4, 4])


class NotedServices(TrainingServices):
    """Trains nothing, and notes in ``calls`` what it was asked to train."""

    def __init__(self, calls: list[tuple[str, list[int]]]) -> None:
        self.calls = calls

    def fit(self, name: str, rows: Any, history: Any) -> Fit:
        self.calls.append((name, rows.tolist()))
        return Fit(Adapted(f"{name} {rows.tolist()}"), {"seconds": 1.0}, name, dict)

    def fit_adapter(self, name: str, rows: Any, history: Any) -> Fit:
        return self.fit(name, rows, history)

    def stage(self, name: str, settings: Any) -> Stage:
        return Stage(Path("stages"), name, settings)

    def embed(self, rows: Any) -> Any:
        return np.zeros((5, 1), np.float32)


def request(forget: list[int], calls: list[tuple[str, list[int]]]) -> UnlearningTask:
    """Rows of four users; what is fitted is noted in ``calls``."""
    nothing = np.empty((8, 0), np.int64)
    gone = np.array(forget, dtype=np.int64)
    stays = np.setdiff1d(np.arange(8), gone)
    services = NotedServices(calls)
    return UnlearningTask(
        gone, stays, gone[:0], gone[:0], USER, USER, nothing, nothing, services, seed=3
    )


def test_a_request_trains_only_the_touched_shard_again() -> None:
    calls: list[tuple[str, list[int]]] = []
    given = request([2], calls)
    made = fit_shards(given, "S", [np.array([1, 3]), np.array([2, 4])], given.services.fit)
    assert calls == [("S0", [0, 1, 4, 5]), ("S1", [2, 3, 6, 7]), ("S1", [3, 6, 7])]
    assert made.after[0] is made.before[0]
    assert made.again == [made.after[1]]


def test_a_shard_without_a_row_left_answers_no_more() -> None:
    calls: list[tuple[str, list[int]]] = []
    given = request([0, 1], calls)
    made = fit_shards(given, "S", [np.array([1]), np.array([2, 3, 4])], given.services.fit)
    assert [name for name, _ in calls] == ["S0", "S1"]
    assert made.after == made.before[1:]


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_random_shards_hold_every_user_once(count: int) -> None:
    shards = random_shards(USER, 3, count)
    assert sorted(np.concatenate(shards).tolist()) == [1, 2, 3, 4]
    sizes = [len(shard) for shard in shards]
    assert len(sizes) == min(count, 4)
    assert max(sizes) - min(sizes) <= 1


def test_no_shards_are_refused() -> None:
    with pytest.raises(InputError, match="shards is 0"):
        ShardOptions(0)


@given(st.integers(1, 4), st.integers(4, 12), st.integers(0, 9))
def test_balanced_clusters_differ_by_one_point_at_most(count: int, size: int, seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(size, 2))
    sizes = np.bincount(balanced_clusters(points, count, seed), minlength=count)
    assert sizes.max() - sizes.min() <= 1


def test_balanced_clusters_find_two_groups() -> None:
    points = np.array([[0.0], [10.0], [0.1], [10.1], [0.2], [10.2]])
    cluster = balanced_clusters(points, 2, seed=0)
    assert set(cluster[::2].tolist()) != set(cluster[1::2].tolist())
    assert len(set(cluster[::2].tolist())) == 1


def at(*degrees: float) -> Any:
    """Points in these directions, each further out than the one before."""
    angles, length = np.deg2rad(degrees), np.arange(1, len(degrees) + 1) ** 3
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * length[:, None]


def test_cosine_clusters_look_at_directions_alone() -> None:
    cluster = cosine_clusters(at(0, 80, 10, 90), 2, seed=0)
    assert cluster[0] == cluster[2] != cluster[1] == cluster[3]
    apart = balanced_clusters(at(0, 80, 10, 90), 2, seed=0)
    assert apart[0] != apart[2]  # which are 26 apart, and the first is 7 from the second


def test_cosine_clusters_pair_the_most_similar_first_and_once() -> None:
    # K-means finds 0, 10 and 30 degrees with a centre at 13, and 90 degrees. Each has room for
    # two: 90 goes to its own, 10 and 0 to the other, which then is full, so 30 goes to 90's.
    cluster = cosine_clusters(at(90, 0, 10, 30), 2, seed=0)
    assert cluster[1] == cluster[2] != cluster[0] == cluster[3]


@given(st.integers(1, 4), st.integers(4, 12), st.integers(0, 9))
def test_cosine_clusters_differ_by_one_point_at_most(count: int, size: int, seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(size, 2))
    sizes = np.bincount(cosine_clusters(points, count, seed), minlength=count)
    assert sizes.max() - sizes.min() <= 1


def voice(answers: list[list[float]]) -> ModelOutput:
    """A model whose head is the identity: its states are its logits."""
    return ModelOutput(torch.tensor(answers), lambda states: states)


def test_an_ensemble_answers_with_the_mean_of_its_logits() -> None:
    asked = CachedAnswers([voice([[0.0, 2.0]]), voice([[4.0, 0.0]])])
    assert asked.logits().tolist() == [[2.0, 1.0]]


def test_weights_count_row_by_row() -> None:
    weights = torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    asked = CachedAnswers([voice([[0.0, 4.0]] * 2), voice([[8.0, 0.0]] * 2)], weights)
    assert asked.logits().tolist() == [[6.0, 1.0], [0.0, 4.0]]
    assert asked.logits(slice(1, 2)).tolist() == [[0.0, 4.0]]


def test_attention_weights_of_a_row_sum_to_one() -> None:
    attention = ShardAttention(hidden=2, shards=3, size=4)
    weights = attention([torch.randn(5, 2) for _ in range(3)])
    assert weights.shape == (5, 3)
    assert torch.allclose(weights.sum(dim=1), torch.ones(5))


def test_attention_learns_whom_to_believe() -> None:
    labels = torch.tensor([1.0, 0.0] * 20)
    right = [[0.0, 3.0] if label else [3.0, 0.0] for label in labels.tolist()]
    wrong = [line[::-1] for line in right]
    plan = AttentionPlan(size=4, learning_rate=0.05, epochs=20, batch_size=8, seed=1)
    asked = CachedAnswers([voice(wrong), voice(right)])
    attention, steps = train_attention(asked, labels, (0, 1), plan)
    assert steps == 100
    assert (attention.weigh(asked.voices)[:, 1] > 0.9).all()
