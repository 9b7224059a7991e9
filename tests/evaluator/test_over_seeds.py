"""Retrains of several seeds: how far apart, and what is off under all of them."""

import math

import numpy as np
import pytest

from recbole_e2urec.evaluator.over_seeds import apart, bias_in_floors, left_out, off


def test_the_reference_of_a_seed_is_the_mean_of_the_others() -> None:
    said = {1: np.array([0.2, 0.4]), 2: np.array([0.4, 0.4]), 3: np.array([0.6, 0.1])}
    assert left_out(said)[1] == pytest.approx([0.5, 0.25])
    assert left_out(said)[3] == pytest.approx([0.3, 0.4])
    assert left_out({1: said[1]}) == {}


def test_distances_of_two_draws_and_to_the_mean_of_others() -> None:
    found = apart({1: np.array([0.2]), 2: np.array([0.4]), 3: np.array([0.9])})
    assert found is not None
    assert found.pair == pytest.approx((0.2 + 0.7 + 0.5) / 3)
    assert found.mean == pytest.approx((0.45 + 0.15 + 0.6) / 3)  # from .65, .55, .3
    assert found.spread_rms == pytest.approx(math.sqrt(0.13))  # (.09 + .01 + .16) / 2
    assert found.pair_rms == pytest.approx(math.sqrt(2 * 0.13))
    assert found.mean_rms == pytest.approx(math.sqrt(1.5 * 0.13))
    assert found.expected == pytest.approx(math.sqrt(4 / 3))
    assert apart({1: np.array([0.2])}) is None


def test_a_distance_is_made_of_bias_and_scatter() -> None:
    retrains = {1: np.array([0.2, 0.5]), 2: np.array([0.4, 0.5]), 3: np.array([0.9, 0.5])}
    ours = {1: np.array([0.3, 0.6]), 3: np.array([0.6, 0.6])}
    found = off(ours, retrains)  # apart by .1 and -.3, and by .1 twice
    assert found is not None
    assert found.whole == pytest.approx(math.sqrt((0.01 + 0.09 + 0.01 + 0.01) / 4))
    assert found.scatter == pytest.approx(math.sqrt(0.08 / 2))  # variance .08 and 0
    assert found.bias == 0  # .03 - .04 is less than none
    assert off({1: ours[1]}, retrains) is None


def test_bias_and_scatter_of_many_draws_are_those_they_were_drawn_with() -> None:
    draws = np.random.default_rng(2).normal(0.5, 0.02, (8, 40_000))
    retrains, ours = dict(enumerate(draws[:4])), dict(enumerate(draws[4:] + 0.05))
    found, floor = off(ours, retrains), apart(retrains)
    assert found is not None
    assert floor is not None
    assert found.bias == pytest.approx(0.05, rel=0.02)
    assert found.scatter == pytest.approx(floor.pair_rms, rel=0.02)
    assert found.whole**2 == pytest.approx(found.bias**2 + found.scatter**2)


def test_a_perfect_unlearner_is_root_two_spreads_from_a_retrain() -> None:
    draws = np.random.default_rng(1).normal(0.5, 0.02, (6, 40_000))
    perfect, retrains = draws[0], dict(enumerate(draws[1:]))
    found = apart(retrains)
    assert found is not None
    assert found.pair / found.mean == pytest.approx(found.expected, rel=0.01)  # 1.265
    spread = np.abs(draws - 0.5).mean()
    assert found.pair / math.sqrt(2) == pytest.approx(spread, rel=0.01)
    assert np.abs(perfect - retrains[0]).mean() == pytest.approx(math.sqrt(2) * spread, rel=0.02)
    to_mean = np.abs(perfect - np.mean([*retrains.values()], axis=0)).mean()
    assert to_mean == pytest.approx(math.sqrt(1 + 1 / 5) * spread, rel=0.02)


def test_the_bias_in_floors_worked_by_hand() -> None:
    retrains = {1: np.array([0.2, 0.5]), 2: np.array([0.4, 0.5])}
    ours = {1: np.array([0.6, 0.5]), 2: np.array([0.6, 0.7])}
    # Differences .4 and .2, 0 and .2: means .3 and .1, variances .02 and .02. Squares of the means
    # .09 and .01, less half a variance each: .08 and 0, .04 in the mean. Two Retrains are apart by
    # .2 and 0: .02 in the mean square.
    assert bias_in_floors(ours, retrains) == pytest.approx(math.sqrt(0.04 / 0.02))
    assert bias_in_floors(retrains, retrains) == 0


def test_there_is_no_bias_without_two_seeds_or_without_a_floor() -> None:
    one, other = np.array([0.2, 0.5]), np.array([0.4, 0.5])
    assert bias_in_floors({1: one}, {1: one, 2: other}) is None
    assert bias_in_floors({1: one, 2: other}, {1: one, 2: one}) is None
