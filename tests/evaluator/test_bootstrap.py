import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from recbole_e2urec.evaluator.metrics import UserBootstrap, interval


@given(st.integers(0, 50))
def test_auc_of_a_resample_is_that_of_its_rows_repeated(seed):
    generator = np.random.default_rng(seed)
    users, labels = generator.integers(0, 5, 40), generator.integers(0, 2, 40)
    scores = generator.integers(0, 6, 40) / 5  # ties
    bootstrap = UserBootstrap(users, labels, seed, resamples=3)
    for times, found in zip(bootstrap._counts, bootstrap.auc(scores), strict=True):
        rows = np.repeat(np.arange(40), times[np.searchsorted(np.unique(users), users)])
        if len(set(labels[rows])) == 2:
            assert found == pytest.approx(roc_auc_score(labels[rows], scores[rows]))
        else:
            assert np.isnan(found)


def test_one_user_has_the_same_auc_in_every_resample():
    bootstrap = UserBootstrap(np.zeros(4, int), np.array([1, 0, 1, 0]), 1, resamples=5)
    # Pairs won: .9 over both, .4 over the lower of (.5, .3).
    assert bootstrap.auc(np.array([0.9, 0.5, 0.4, 0.3])).tolist() == [0.75] * 5


def test_a_label_alone_gives_no_interval():
    bootstrap = UserBootstrap(np.arange(3), np.ones(3), 1, resamples=5)
    assert interval(bootstrap.auc(np.array([0.1, 0.2, 0.3]))) is None


def test_interval_holds_the_middle_95_percent():
    assert interval(np.arange(101.0)) == pytest.approx([2.5, 97.5])


def test_the_same_seed_gives_the_same_resamples():
    users, labels = np.arange(30) % 7, np.arange(30) % 2
    scores = np.random.default_rng(1).random(30)
    first, again, other = (UserBootstrap(users, labels, seed).auc(scores) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
