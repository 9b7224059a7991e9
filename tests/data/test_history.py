import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from recbole_e2urec.data.history import history_rows
from recbole_e2urec.data.rows import RowTable, Splits
from recbole_e2urec.errors import InputError
from recbole_e2urec.model.prompting import hiding_more, shown_histories


def reference(user, item, when, allowed, k):
    """The rules of the module, one row at a time."""
    histories = []
    for row in range(len(user)):
        earlier = [
            other
            for other in range(len(user))
            if user[other] == user[row]
            and when[other] < when[row]
            and allowed[other]
            and item[other] != item[row]
        ]
        earlier.sort(key=lambda other: (when[other], other))
        last = earlier[len(earlier) - min(k, len(earlier)) :]
        histories.append([-1] * (k - len(last)) + last)
    return np.array(histories, dtype=np.int64).reshape(len(user), k)


@st.composite
def interactions(draw):
    n = draw(st.integers(0, 40))

    def column(values, dtype):
        return draw(arrays.arrays(dtype, n, elements=values))

    return (
        column(st.integers(1, 3), np.int64),
        column(st.integers(1, 4), np.int64),
        column(st.sampled_from([-1.0, 0.0, 0.25, 7.0, 1.6e9, 1.6e9 + 1, np.inf]), np.float64),
        column(st.booleans(), np.bool_),
        draw(st.integers(0, 6)),
    )


@settings(max_examples=300, deadline=None)
@given(interactions())
def test_history_rows_equal_the_plain_loop(case):
    np.testing.assert_array_equal(history_rows(*case), reference(*case))


@settings(max_examples=200, deadline=None)
@given(interactions())
def test_history_rows_never_leak(case):
    user, item, when, allowed, _ = case
    history = history_rows(*case)
    row, column = np.nonzero(history >= 0)
    entry = history[row, column]
    assert (user[entry] == user[row]).all()
    assert (when[entry] < when[row]).all()
    assert (item[entry] != item[row]).all()
    assert allowed[entry].all()


@settings(max_examples=100, deadline=None)
@given(interactions(), st.randoms(use_true_random=False))
def test_history_rows_do_not_depend_on_file_order_when_times_differ(case, random):
    user, item, _, allowed, k = case
    when = np.arange(len(user), dtype=np.float64)
    order = np.array(random.sample(range(len(user)), len(user)), dtype=np.int64)
    shuffled = history_rows(user[order], item[order], when[order], allowed[order], k)
    translated = np.where(shuffled >= 0, np.append(order, 0)[shuffled], -1)
    np.testing.assert_array_equal(translated, history_rows(user, item, when, allowed, k)[order])


def test_history_rows_worked_example():
    user = np.array([1, 1, 1, 2, 1])
    item = np.array([10, 11, 12, 10, 13])
    when = np.array([3.0, 1.0, 2.0, 0.0, 3.0])
    history = history_rows(user, item, when, np.ones(5, dtype=bool), 2)
    assert history.tolist() == [[1, 2], [-1, -1], [-1, 1], [-1, -1], [1, 2]]


def test_history_rows_of_equal_time_keep_file_order():
    history = history_rows(
        np.ones(4, dtype=int), np.arange(4), np.array([9.0, 1, 1, 1]), np.ones(4, dtype=bool), 2
    )
    assert history[0].tolist() == [2, 3]


def test_history_rows_refill_behind_the_same_item():
    item = np.array([5, 6, 7, 7, 7])
    history = history_rows(np.ones(5, dtype=int), item, np.arange(5.0), np.ones(5, dtype=bool), 2)
    assert history[4].tolist() == [0, 1]


def test_history_rows_tell_times_apart_that_float32_cannot():
    when = np.array([1.6e9 + 1, 1.6e9])
    history = history_rows(np.ones(2, dtype=int), np.arange(2), when, np.ones(2, dtype=bool), 1)
    assert history.tolist() == [[1], [-1]]


def test_history_rows_of_no_rows():
    empty = np.zeros(0, dtype=np.int64)
    assert history_rows(empty, empty, np.zeros(0), np.zeros(0, dtype=bool), 3).shape == (0, 3)


def test_history_rows_refuse_a_missing_time():
    one = np.ones(2, dtype=np.int64)
    with pytest.raises(InputError, match="time of row 1 is not a number"):
        history_rows(one, one, np.array([0.0, np.nan]), one.astype(bool), 3)


def test_history_rows_refuse_a_negative_length():
    one = np.ones(2, dtype=np.int64)
    with pytest.raises(InputError, match="-1 is negative"):
        history_rows(one, one, np.zeros(2), one.astype(bool), -1)


@pytest.mark.slow
def test_history_rows_take_seconds_for_a_million():
    random = np.random.default_rng(0)
    n = 1_000_000
    columns = random.integers(0, 6000, n), random.integers(0, 4000, n), random.random(n)
    start = time.perf_counter()
    history_rows(*columns, random.random(n) < 0.8, 10)
    assert time.perf_counter() - start < 10


@given(interactions(), st.integers(0, 2**32 - 1))
def test_histories_without_more_rows_are_those_made_anew(case, seed):
    user, item, when, _, k = case
    rows, draw = RowTable(user, item, when), np.random.default_rng(seed)
    part, hides = draw.integers(0, 4, len(user)), draw.integers(0, 3, len(user))
    parts = Splits(*(np.flatnonzero(part == number) for number in range(3)))
    earlier, hidden = np.flatnonzero(hides == 2), np.flatnonzero(hides > 0)
    before = shown_histories(rows, parts, earlier, k)
    kept = before.copy()
    after = hiding_more(before, rows, parts, hidden, np.flatnonzero(hides == 1))
    np.testing.assert_array_equal(after, shown_histories(rows, parts, hidden, k))
    np.testing.assert_array_equal(before, kept)
