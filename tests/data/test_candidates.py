import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_e2urec.data.loaders import draw_candidates
from recbole_e2urec.errors import InputError

NONE = np.empty(0, dtype=np.int64)
EVEN = np.array([0.0, 1, 1, 1, 1])  # item 0 is padding


def draw(rows, users, used=NONE, weights=EVEN, count=6, seed=1):
    rows, users = np.array(rows, dtype=np.int64), np.array(users, dtype=np.int64)
    return draw_candidates(rows, users, used, weights, count, seed)


@given(st.permutations(range(8)), st.integers(0, 2**31))
def test_draw_gives_a_row_the_same_candidates_in_any_company(order, seed):
    together = draw(range(8), [1] * 8, seed=seed)
    assert (draw(order, [1] * 8, seed=seed) == together[list(order)]).all()
    assert (draw([order[0]], [1], seed=seed)[0] == together[order[0]]).all()


@given(st.sets(st.integers(1, 4), max_size=3), st.integers(0, 100))
def test_draw_never_gives_padding_or_what_the_user_used(items, seed):
    used = np.array([2 * 5 + item for item in items], dtype=np.int64)
    drawn = draw(range(20), [2] * 20, used, seed=seed)
    assert set(drawn.ravel()) <= {1, 2, 3, 4} - items


def test_draw_ignores_what_other_users_used():
    used = np.array([2 * 5 + item for item in (1, 2, 3)])
    assert (draw([0], [1], used) == draw([0], [1])).all()


def test_draw_depends_on_the_seed():
    assert not (draw(range(9), [1] * 9, seed=1) == draw(range(9), [1] * 9, seed=2)).all()


def test_draw_is_even_over_items():
    counts = np.bincount(draw(range(4000), [1] * 4000, count=10).ravel(), minlength=5)
    # 40,000 draws over 4 items: expected 10,000 each, standard deviation 87
    assert np.abs(counts[1:] - 10_000).max() < 5 * 87


def test_draw_follows_weights():
    drawn = draw(range(4000), [1] * 4000, weights=np.array([0.0, 3, 1, 0, 0]), count=10)
    assert set(drawn.ravel()) == {1, 2}
    assert abs((drawn == 1).mean() - 0.75) < 0.01


def test_draw_of_nothing_is_empty():
    assert draw([], []).shape == (0, 6)
    assert draw([3], [1], count=0).shape == (1, 0)


def test_draw_refuses_a_user_who_used_everything():
    with pytest.raises(InputError, match="a user has interacted with every item"):
        draw([0], [2], np.array([2 * 5 + item for item in (1, 2, 3, 4)]))
