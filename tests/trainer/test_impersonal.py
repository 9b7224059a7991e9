"""A recommender that remembers nobody."""

import numpy as np
import pytest

from recbole_e2urec.trainer.strength import ImpersonalModel, RowFacts

GENERATOR = np.random.default_rng(0)


def facts(label: np.ndarray, item: np.ndarray | None = None) -> RowFacts:
    item = np.ones(len(label), dtype=np.int64) if item is None else item
    return RowFacts(item, label.astype(np.float32), np.full((len(label), 2), -1))


def test_impersonal_numbers_of_a_fitted_row_are_those_of_other_folds():
    # Three rows of one item, two liked, in three folds: the mean is 2/3. Without its fold a liked
    # row's item has 1 like in 2 rows: (1 + 5 * 2/3) / (2 + 5) = 13/21, log odds of log(13/8).
    model = ImpersonalModel(facts(np.array([1, 1, 0])), np.arange(3))
    assert model._numbers(np.array([0]), True)[0] == pytest.approx(
        [np.log(13 / 8), np.log(2), 0.0, np.log(4)]
    )


def test_impersonal_numbers_of_a_history():
    # Row 2 shows rows 0 (liked) and 1 (not): mean 1/2 of two fitted rows; (1 + .5) / (2 + 1) = 1/2.
    history = np.array([[-1, -1], [-1, -1], [0, 1]])
    known = RowFacts(np.array([1, 2, 3]), np.array([1, 0, 1], dtype=np.float32), history)
    model = ImpersonalModel(known, np.array([0, 1]))
    found = model._numbers(np.array([2]), False)[0]
    assert found == pytest.approx([0.0, 0.0, np.log(2), np.log(1)], abs=1e-12)


def test_impersonal_labels_of_one_kind_cost_what_their_share_says():
    model = ImpersonalModel(facts(np.array([1, 1, 0])), np.array([0, 1]))
    assert model.losses(np.array([1, 2])) == pytest.approx([0.0, 7 * np.log(10)], abs=1e-6)


def test_impersonal_model_tells_liked_items_from_others():
    item = GENERATOR.integers(1, 3, 2000)
    label = (GENERATOR.random(2000) < np.where(item == 1, 0.9, 0.2)).astype(np.float32)
    model = ImpersonalModel(facts(label, item), np.arange(1000))
    least = -(
        0.5 * (0.9 * np.log(0.9) + 0.1 * np.log(0.1))
        + 0.5 * (0.2 * np.log(0.2) + 0.8 * np.log(0.8))
    )
    assert model.losses(np.arange(1000, 2000)).mean() == pytest.approx(least, abs=0.05)
