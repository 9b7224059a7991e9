"""Retrains of several seeds: how far apart, and what is off under all of them."""

import math

import numpy as np
import pytest

from recbole_e2urec.evaluator.over_seeds import apart, bias, bias_in_floors


def test_distance_of_two_draws() -> None:
    found = apart({1: np.array([0.2]), 2: np.array([0.4]), 3: np.array([0.9])})
    assert found == pytest.approx(math.sqrt((0.2**2 + 0.7**2 + 0.5**2) / 3))
    assert apart({1: np.array([0.2])}) is None


def test_a_bias_that_is_less_than_chance_is_none() -> None:
    retrains = {1: np.array([0.2, 0.5]), 2: np.array([0.4, 0.5]), 3: np.array([0.9, 0.5])}
    ours = {1: np.array([0.3, 0.6]), 3: np.array([0.6, 0.6])}
    # apart by .1 and -.3, and by .1 twice: in the mean square .03, less a mean variance of .04
    assert bias(ours, retrains) == 0
    assert bias({1: ours[1]}, retrains) is None


def test_the_bias_of_many_draws_is_that_they_were_drawn_with() -> None:
    draws = np.random.default_rng(2).normal(0.5, 0.02, (8, 40_000))
    retrains, ours = dict(enumerate(draws[:4])), dict(enumerate(draws[4:] + 0.05))
    assert bias(ours, retrains) == pytest.approx(0.05, rel=0.02)
    assert apart(retrains) == pytest.approx(0.02 * math.sqrt(2), rel=0.02)


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
