"""Models over several seeds: how far apart, what is off under all, what is nearer to Retrain."""

import math

import numpy as np
import pytest
from scipy.stats import t as student_t

from recbole_e2urec.evaluator.over_seeds import (
    Nearness,
    apart,
    bias,
    bias_in_floors,
    holm,
    nearer,
    scatter_in_floors,
    verdicts,
)


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
    # Variances .02 and .02, over .02 again.
    assert scatter_in_floors(ours, retrains) == pytest.approx(1)


def test_another_run_of_retrain_scatters_by_one_floor() -> None:
    draws = np.random.default_rng(3).normal(0.5, 0.02, (8, 40_000))
    retrains, others = dict(enumerate(draws[:4])), dict(enumerate(draws[4:]))
    assert scatter_in_floors(others, retrains) == pytest.approx(1, rel=0.02)
    assert scatter_in_floors(retrains, retrains) == 0


def test_there_is_no_bias_without_two_seeds_or_without_a_floor() -> None:
    one, other = np.array([0.2, 0.5]), np.array([0.4, 0.5])
    assert bias_in_floors({1: one}, {1: one, 2: other}) is None
    assert bias_in_floors({1: one, 2: other}, {1: one, 2: one}) is None
    assert scatter_in_floors({1: one}, {1: one, 2: other}) is None
    assert scatter_in_floors({1: one, 2: other}, {1: one, 2: one}) is None


def by_seed(*values: list[float]) -> dict[int, np.ndarray]:
    return {seed: np.array(each) for seed, each in enumerate(values)}


def test_nearer_worked_by_hand() -> None:
    # Original answers .8 and Retrain .4, so .6 is half-way. Of two users the first has two rows.
    originals, retrains = by_seed(*[[0.8] * 3] * 3), by_seed(*[[0.4] * 3] * 3)
    ours = by_seed([0.5, 0.5, 0.6], [0.5, 0.4, 0.6], [0.5, 0.5, 0.5])
    found = nearer(ours, originals, retrains, np.array([7, 7, 9]))
    assert found is not None
    # Steps to Retrain, -(u - .6) times .4, of the users: .04 and 0, .06 and 0, .04 and .04. A pair
    # of seeds adds up two: .10 and 0, .08 and .04, .10 and .04. Means of users 7/75 and 2/75.
    assert found.lead == pytest.approx(0.06)
    # Variance of their mean (1/15)^2 / 4. Without a seed .07, .06 and .05: jackknife 2/3 * .0002.
    quantiles = [student_t.isf(found.p, freedom) for freedom in (1, 2)]
    square = (1 / 15) ** 2 / 4 * quantiles[0] ** 2 + 2 / 3 * 0.0002 * quantiles[1] ** 2
    assert square == pytest.approx(0.06**2)
    assert 0.1 < found.p < 0.2


def test_what_is_as_far_from_both_is_nearer_to_none() -> None:
    originals, retrains = by_seed([0.8, 0.7], [0.6, 0.7], [0.8, 0.8]), by_seed(*[[0.4, 0.2]] * 3)
    halfway = {seed: (originals[seed] + retrains[seed]) / 2 for seed in originals}
    found = nearer(halfway, originals, retrains, np.arange(2))
    assert found == Nearness(0.0, 0.5)


def test_an_exact_difference_leaves_no_doubt_and_its_other_side_too() -> None:
    originals, retrains = by_seed(*[[0.8, 0.8]] * 3), by_seed(*[[0.4, 0.4]] * 3)
    users = np.arange(2)
    assert nearer(retrains, originals, retrains, users) == pytest.approx((0.16, 0), abs=1e-8)
    assert nearer(originals, originals, retrains, users) == pytest.approx((-0.16, 1), abs=1e-8)


def test_nothing_is_nearer_for_two_seeds_or_one_user() -> None:
    three, two = by_seed(*[[0.8, 0.8]] * 3), by_seed(*[[0.4, 0.4]] * 2)
    assert nearer(two, three, three, np.arange(2)) is None
    assert nearer(three, three, three, np.zeros(2, int)) is None


def test_holm_worked_by_hand() -> None:
    # .01 * 4, .02 * 3, .03 * 2 but no less than .06, .5 * 1
    found = holm({"a": 0.03, "b": 0.01, "c": 0.5, "d": 0.02})
    assert found == pytest.approx({"b": 0.04, "d": 0.06, "a": 0.06, "c": 0.5})
    assert holm({"a": 0.6, "b": 0.9}) == {"a": 1.0, "b": 0.9 + 0.1}


def test_verdicts_count_methods_and_not_the_references() -> None:
    draws = np.random.default_rng(3).normal(0, 0.03, (4, 3, 200))
    places = {"Original": 0.8, "Retrain": 0.4, "one": 0.5, "other": 0.8}
    answers = {
        name: by_seed(*(place + draw))
        for (name, place), draw in zip(places.items(), draws, strict=True)
    }
    users = np.arange(200) // 2
    found = verdicts(answers, users)
    assert {name: words.split(",")[0] for name, words in found.items()} == {
        "Original": "no", "Retrain": "yes", "one": "yes", "other": "no"
    }  # fmt: skip
    del answers["other"]
    alone = verdicts(answers, users)
    p_values = [float(words["one"].split()[-1]) for words in (found, alone)]
    assert p_values[0] == pytest.approx(2 * p_values[1], abs=0.0011)
    assert found["Retrain"] == alone["Retrain"]


@pytest.mark.parametrize(
    ("share", "least", "most"), [(0.0, 0, 0.01), (0.5, 0, 0.08), (1.0, 0.5, 1)]
)
def test_size_and_power_where_the_truth_is_known(share: float, least: float, most: float) -> None:
    """Answers of a model that went a share of the way, with what its seed shares with Original.

    Seeds move all rows by a few smooth patterns, as well as each row by itself.
    """
    generator = np.random.default_rng(5)
    users = np.arange(120) // 4
    patterns = generator.normal(size=(3, 120))

    def noise() -> np.ndarray:
        smooth = generator.normal(size=(3, 3)) @ patterns
        return 0.01 * smooth + 0.03 * generator.normal(size=(3, 120))

    found = []
    for _ in range(300):
        way = -0.05 + 0.02 * generator.normal(size=30)[users]
        original, retrain, own = noise(), noise() + way, noise() + way
        ours = (1 - share) * original + share * own
        test = nearer(by_seed(*ours), by_seed(*original), by_seed(*retrain), users)
        found.append(test is not None and test.p <= 0.05)
    assert least <= np.mean(found) <= most
