import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_e2urec.data.prompt_table import length_grouped_batches, pieces
from recbole_e2urec.errors import InputError


@given(st.lists(st.integers(1, 99), max_size=200), st.integers(1, 20), st.integers(0, 9))
def test_length_grouped_batches_cover_every_index_once(lengths, batch_size, seed):
    for generator in (None, np.random.default_rng(seed)):
        batches = length_grouped_batches(np.array(lengths), batch_size, generator)
        assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
        assert all(0 < len(batch) <= batch_size for batch in batches)
        assert len(batches) == -(-len(lengths) // batch_size)


def test_length_grouped_batches_repeat_for_a_seed_and_change_with_it():
    lengths = np.random.default_rng(0).integers(1, 99, 500)
    first, again, other = (
        [batch.tolist() for batch in length_grouped_batches(lengths, 8, np.random.default_rng(s))]
        for s in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_length_grouped_batches_without_generator_are_sorted():
    batches = length_grouped_batches(np.array([5, 1, 5, 2]), 3, None)
    assert [batch.tolist() for batch in batches] == [[1, 3, 0], [2]]


def test_length_grouped_batches_pad_far_less_than_random_ones():
    lengths = np.random.default_rng(0).integers(20, 100, 6400)

    def padded(batches):
        return sum(lengths[batch].max() * len(batch) for batch in batches) / lengths.sum()

    grouped = length_grouped_batches(lengths, 32, np.random.default_rng(0))
    assert padded(grouped) < 1.05
    assert padded(np.split(np.arange(6400), 200)) > 1.5


def test_length_grouped_batches_refuse_a_batch_size_of_none():
    with pytest.raises(InputError, match="batch size 0"):
        length_grouped_batches(np.ones(3), 0, None)


@given(st.lists(st.integers(1, 99), max_size=60), st.integers(1, 400))
def test_pieces_cover_every_index_once_within_the_tokens(lengths, tokens):
    lengths = np.array(lengths, dtype=np.int64)
    found = list(pieces(lengths, tokens))
    assert sorted(index for piece in found for index in piece) == list(range(len(lengths)))
    for piece in found:
        padded = len(piece) * lengths[piece].max(initial=0)
        assert padded <= tokens or len(piece) == 1


def test_a_batch_that_fits_is_one_piece_in_its_own_order():
    (whole,) = pieces(np.array([3, 1, 2]), 9)
    assert whole.tolist() == [0, 1, 2]


def test_pieces_hold_similar_lengths():
    found = [piece.tolist() for piece in pieces(np.array([9, 2, 9, 2, 2]), 18)]
    assert found == [[1, 3, 4], [0, 2]]


def test_no_prompt_at_all_is_one_empty_piece():
    assert [piece.tolist() for piece in pieces(np.zeros(0, dtype=np.int64), 8)] == [[]]
