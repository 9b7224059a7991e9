"""How strongly to forget: the search, and the error of a mean over users."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from recbole_e2urec.trainer.strength import (
    ASKED,
    CLOSE,
    ROUGH,
    TargetLoss,
    error_of_few,
    mean_over_users,
    shrunken_gap,
    some_of,
    strength_for,
    strength_reaching,
)


def test_mean_over_users_counts_users_not_rows():
    # Mean 2; user 1 has 1 - 2 + 1 - 2 = -2, user 2 has 4 - 2 = 2: sqrt(4 + 4) / 3.
    mean, error = mean_over_users(np.array([1.0, 1.0, 4.0]), np.array([1, 1, 2]))
    assert (mean, error) == (2.0, pytest.approx(np.sqrt(8) / 3))


def test_mean_over_users_of_one_user_or_none():
    mean, error = mean_over_users(np.array([1.0, 3.0]), np.array([5, 5]))
    assert (mean, error) == (2.0, pytest.approx(np.sqrt(2) / 2))
    assert mean_over_users(np.zeros(0), np.zeros(0, dtype=np.int64)) == (0.0, 0.0)


def test_the_error_of_few_users_is_how_others_differ():
    # Means 2 and 6 around 4: within (2 + 2) / (4 - 2) = 2, between (2 * 4 + 2 * 4) / 1 = 16, rows a
    # user (4 - 8 / 4) / 1 = 2, so users differ by (16 - 2) / 2 = 7. The request has 2 and 1 rows:
    # (2 * 3 + 7 * (4 + 1)) / 9.
    values, user = np.array([1.0, 3.0, 5.0, 7.0]), np.array([4, 4, 9, 9])
    error = error_of_few(np.array([2, 2, 3]), values, user)
    assert error == pytest.approx(np.sqrt(41 / 9))
    alike = error_of_few(np.array([2, 2, 3]), np.array([1.0, 7.0, 3.0, 5.0]), user)
    assert alike == pytest.approx(np.sqrt(10 / 3))  # within (18 + 2) / 2, and users do not differ


def test_the_error_of_few_users_needs_others_that_can_tell_it():
    values = np.array([1.0, 3.0])
    assert error_of_few(np.array([2]), values, np.array([4, 4])) is None
    assert error_of_few(np.array([2]), values, np.array([4, 9])) is None


def target(loss: float, original: float = 0.0) -> TargetLoss:
    return TargetLoss(np.arange(3), loss, 0.0, np.full(3, original))


@pytest.mark.parametrize("wanted", [0.3, 0.7, 1.0, 3.3, 15.0])
def test_strength_for_finds_where_a_loss_reaches_the_target(wanted):
    asked = []

    def loss(strength):
        asked.append(strength)
        return strength**2

    found = strength_for(loss, target(wanted**2), 16.0)
    assert found**2 == pytest.approx(wanted**2, rel=0.02)  # of the gap, as the loss begins at 0
    assert len(asked) == len(set(asked)) <= 7  # 1, 2, 4, 8, 16 and two between the last of them
    assert 0.0 not in asked  # known from the start


def test_strength_for_is_nothing_where_nothing_is_remembered():
    assert strength_for(lambda c: 0.6 + c, target(0.5, 0.6), 16.0) == 0.0


def test_strength_for_ends_at_the_greatest_strength():
    assert strength_for(lambda c: 0.1, target(0.5, 0.1), 16.0) == 16.0
    assert strength_for(lambda c: 0.1, target(0.5, 0.1), 0.5) == 0.5


@pytest.mark.parametrize("exact", [True, False])
def test_all_rows_correct_what_a_sample_of_them_says(monkeypatch: pytest.MonkeyPatch, exact: bool):
    rows = np.arange(4 * ASKED)
    sample, asked = some_of(rows, 1), []
    rise = np.where(np.isin(rows, sample), 0.8, 1.1)  # of each row, at a strength of 1; mean 1.025

    def loss_of(model: object, strength: float, some: np.ndarray) -> np.ndarray:
        asked.append(len(some))
        return 0.5 + strength**2 * rise[some]  # on which the rough search ends 6 % off

    monkeypatch.setattr("recbole_e2urec.trainer.strength.loss_of", loss_of)
    model = SimpleNamespace(using_history=lambda history: nullcontext())
    request = SimpleNamespace(seed=1, forget_history=None)
    wanted = TargetLoss(rows, 1.5, 0.0, np.full(len(rows), 0.5))
    found = strength_reaching(model, request, wanted, lambda strength: strength, 16.0, exact)
    reached = found**2 * (1.025 if exact else 0.8)
    assert reached == pytest.approx(1.0, abs=CLOSE if exact else ROUGH)
    assert asked.count(len(rows)) == exact


def test_the_gap_of_a_target_is_what_it_asks_for_beyond_original():
    target = TargetLoss(np.arange(2), 0.7, 0.1, np.array([0.4, 0.6]))
    assert (target.original, target.gap) == (0.5, pytest.approx(0.2))
    assert target.findings == {
        "target_logloss": 0.7, "target_error": 0.1, "original_logloss": 0.5
    }  # fmt: skip


def test_some_of_draws_each_row_once_and_always_the_same():
    rows = np.arange(10_000) * 3
    drawn = some_of(rows, 1)
    assert len(drawn) == len(np.unique(drawn)) == 2048
    assert np.array_equal(drawn, some_of(rows, 1))
    assert np.isin(drawn, rows).all()
    assert np.array_equal(some_of(rows[:50], 1), rows[:50])


def test_those_who_stay_keep_their_place_in_line():
    rows = np.arange(10, 4 * ASKED)
    drawn = some_of(rows, 1)
    left = np.setdiff1d(rows, drawn[:5])
    again = some_of(left, 1)
    assert len(again) == ASKED
    assert np.array_equal(np.setdiff1d(drawn, again), drawn[:5])
    assert not np.array_equal(drawn, some_of(rows, 2))


def test_weighed_counts_each_guess_by_the_variance_of_the_other():
    # Between requests .5 * .04 = .02, by chance .02: both count alike, and the error is a root 2nd.
    mean, error = shrunken_gap(0.10, 0.02, 0.04)
    assert (mean, error) == (pytest.approx(0.07), pytest.approx(0.02 / np.sqrt(2)))


def test_weighed_of_an_exact_request_is_its_own_and_never_below_nothing():
    assert shrunken_gap(0.10, 0.0, 0.04) == (pytest.approx(0.10), 0.0)
    assert shrunken_gap(-0.10, 0.0, 0.04) == (0.0, 0.0)
    assert shrunken_gap(0.0, 0.0, 0.0) == (0.0, 0.0)
