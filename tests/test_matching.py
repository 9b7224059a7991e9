"""The objective and the search of a rehearsal, by numbers worked by hand."""

import math
from collections.abc import Mapping

import pytest

from recbole_e2urec.calibration import Remembered, ratio_of
from recbole_e2urec.matching import Point, Search, next_strength, share_closed


def point(
    loss: float, auc: float, lost: float = 0.0, settings: Mapping[str, float] | None = None
) -> Point:
    return Point(settings or {}, 1.0, loss, auc, lost, 0.9, {})


def test_the_share_closed_is_of_the_way_to_retrain() -> None:
    assert share_closed(0.7, 0.8, 0.6) == pytest.approx(0.5)
    assert share_closed(0.7, 0.8, 0.8) is share_closed(None, 0.8, 0.6) is None


def test_badness_counts_both_gaps_and_what_is_lost_beyond_the_tolerance() -> None:
    assert point(0.0, 0.0).badness == 2  # did nothing
    assert point(1.0, 1.0, 0.005).badness == 0
    assert point(0.8, 0.9, 0.02).badness == pytest.approx(0.2 + 0.1 + (0.02 - 0.005) / 0.005)
    assert point(1.0, 1.0, -0.1).badness == 0  # a gain buys nothing


def test_badness_is_the_same_beyond_retrain_as_before_it() -> None:
    assert point(0.7, 0.6).badness == pytest.approx(point(1.3, 1.4).badness)
    assert point(0.7, 0.6).excess == pytest.approx(-point(1.3, 1.4).excess) == pytest.approx(-0.35)


def test_the_next_strength_lies_between_too_weak_and_too_strong() -> None:
    known = [(0.1, -0.5), (0.4, 0.5), (0.05, -0.9)]
    assert next_strength(known, (0.01, 10)) == pytest.approx(0.2)  # the middle in logarithms
    nearer = next_strength([(0.1, -0.02 - 1e-9), (0.4, 2.0)], (0.01, 10))
    assert nearer == pytest.approx(0.1 * 4**0.1)  # a tenth of the way at least


def test_the_next_strength_steps_outwards_while_all_are_on_one_side() -> None:
    assert next_strength([(0.1, -0.5), (0.2, -0.4)], (0.01, 1)) == pytest.approx(0.32)
    assert next_strength([(0.1, 0.5), (0.2, 0.6)], (0.01, 1)) == pytest.approx(0.1 / 1.6)
    assert next_strength([(0.9, -0.5)], (0.01, 1)) is None  # the bound is reached
    assert next_strength([(0.02, 0.5)], (0.015, 1)) is None


def test_a_search_ends_where_one_is_near_enough_or_order_is_lost_in_noise() -> None:
    assert next_strength([(0.1, -0.5), (0.2, 0.019)], (0.01, 1)) is None
    assert next_strength([(0.2, -0.1), (0.1, 0.1)], (0.01, 1)) is None


def searched(trials: int, loses: float = 0.0) -> tuple[Search, list[Point]]:
    """On a made-up method: forgets log2(strength / .1), and loses where b is not .4."""

    def ask(settings: Mapping[str, float]) -> list[Point]:
        closed = math.log2(settings["s"] / 0.1)
        lost = loses * abs(math.log(settings["b"] / 0.4))
        early = Point(dict(settings), 0.5, closed / 2, closed / 2, lost / 2, 1.0, {})
        return [early, Point(dict(settings), 1.0, closed, closed, lost, 1.0, {})]

    search = Search(ask, "s", {"s": (0.05, 2.0), "b": (0.2, 0.8)}, {"s": 0.11, "b": 0.2}, trials)
    return search, search.run()


def test_a_search_finds_the_strength_that_matches() -> None:
    search, curve = searched(12)
    assert search.best.settings["s"] == pytest.approx(0.2, rel=0.03)
    assert search.best.stop == 1.0
    assert search.best.badness < 0.05
    assert len({(one.settings["s"], one.settings["b"]) for one in curve}) <= 12


def test_a_search_goes_aside_where_that_loses_less() -> None:
    search, curve = searched(12, loses=0.05)
    assert {one.settings["b"] for one in curve} == {0.2, 0.4}  # from .2: sqrt(.2 * .8)
    assert search.best.settings["b"] == 0.4
    assert search.best.lost < 0.005


def test_a_search_makes_no_more_trials_than_it_may() -> None:
    assert len(searched(3)[1]) == 2 * 3


def test_a_request_that_is_remembered_more_is_forgotten_more_strongly() -> None:
    rehearsed = Remembered(0.10, 1700)
    assert ratio_of(Remembered(0.10, 1000), rehearsed) == 1
    assert ratio_of(Remembered(0.12, 1000), rehearsed) == pytest.approx(1.1)  # half of 1.2 - 1
    assert ratio_of(Remembered(0.12, 250), rehearsed) == pytest.approx(1.04)  # a fifth of it
    assert ratio_of(Remembered(0.05, 3000), rehearsed) == pytest.approx(0.625)


def test_a_ratio_stays_in_bounds_and_needs_something_to_compare() -> None:
    rehearsed = Remembered(0.10, 1700)
    assert ratio_of(Remembered(9.0, 10**6), rehearsed) == 2
    assert ratio_of(Remembered(-9.0, 10**6), rehearsed) == 0.5
    assert ratio_of(Remembered(0.0, 0), rehearsed) == 1
    assert ratio_of(Remembered(0.2, 1000), Remembered(-0.01, 1700)) == 1
