"""Attacks with numbers worked by hand: rounding, and seeing the models before and after."""

import numpy as np
import pytest
import torch
from test_relearnsteps import run_of

from recbole_e2urec.evaluator.attacks import (
    ROUNDED_BITS,
    change_of_logit,
    rounded,
    rounded_answers,
    told_apart,
    way_back,
)
from recbole_e2urec.model.llmrec import ORIGINAL


def test_a_matrix_is_rounded_to_multiples_of_each_rows_own_step() -> None:
    weight = torch.tensor([[0.7, -0.26, 0.04], [14.0, 1.1, -3.2], [0.0, 0.0, 0.0]])
    wanted = torch.tensor([[0.7, -0.3, 0.0], [14.0, 2.0, -4.0], [0.0, 0.0, 0.0]])
    assert torch.allclose(rounded(weight, 4), wanted)  # steps of .1 and 2: 7 of them
    fine = rounded(weight, 8)  # steps of .7 / 127 and 14 / 127
    assert (fine - weight).abs().amax(dim=1).tolist() <= [0.7 / 254 + 1e-6, 14 / 254 + 1e-6, 0]
    assert torch.allclose(rounded(fine, 8), fine)
    assert rounded(weight.half(), 4).dtype == torch.float16


def test_the_way_back_is_a_share_of_the_way_to_the_rounded_original() -> None:
    # Forgotten rows are .02 harder than unseen ones, and .08 easier for the rounded Original.
    after, rounded_original = np.full(4, 0.02), np.full(4, -0.08)
    found = way_back(after, np.array([0.02, -0.03, -0.08, 0.04]), rounded_original)
    assert found == pytest.approx([0.0, 0.5, 1.0, -0.2])
    assert np.isnan(way_back(np.zeros(1), np.ones(1), np.zeros(1)))


def test_the_change_of_a_logit() -> None:
    before, after = np.array([0.5, 0.8, 0.0]), np.array([0.8, 0.2, 0.0])
    assert change_of_logit(before, after) == pytest.approx([np.log(4), 2 * np.log(4), 0.0])


def test_users_are_told_apart_by_their_rows_mean() -> None:
    # Means: user 1 has 2, user 2 has 3, user 3 has 1, user 4 has 2.
    scores = np.array([1.0, 3.0, 3.0, 0.0, 2.0, 2.0])
    users = np.array([1, 1, 2, 3, 3, 4])
    found = told_apart(scores, users, np.isin(users, [1, 2]))
    assert found is not None
    assert found["auc"] == pytest.approx((0.5 + 1 + 1 + 1) / 4)  # 2 = 2; 2 > 1; 3 > 1; 3 > 2
    low, high = found["interval"]
    assert low <= found["auc"] <= high
    assert told_apart(scores, users, np.ones(6, dtype=bool)) is None
    assert told_apart(scores[:0], users[:0], np.ones(0, dtype=bool)) is None


def test_rounded_answers_leave_the_weights_as_they_were(small_config) -> None:
    run = run_of(small_config)
    rows, history = np.arange(10, 37), run.history(np.empty(0, np.int64))
    before = run.model.bank.state(None)
    answers = rounded_answers(run.model, rows, history)
    after = run.model.bank.state(None)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert list(answers) == list(ROUNDED_BITS)
    by_hand = {name: rounded(w, 4) if w.dim() > 1 else w for name, w in before.items()}
    run.model.bank.load(None, by_hand)
    with run.model.using_history(history):
        wanted = run.model.answer(rows, None).numpy()
    assert answers[4][rows] == pytest.approx(wanted, abs=1e-6)
    assert np.isnan(answers[4][:10]).all()


@pytest.mark.parametrize("layers", [[], ["q", "v"]])
def test_an_adapter_is_merged_before_it_is_rounded(layers: list[str], small_config) -> None:
    """By default the word embeddings are adapted, whose matrix is also the head."""
    run = run_of(small_config, tuning="lora", lora_target_modules=layers)
    rows, history = np.arange(10, 37), run.history(np.empty(0, np.int64))
    bank = run.model.bank
    bank.load(ORIGINAL, {key: torch.full_like(w, 0.1) for key, w in bank.state(ORIGINAL).items()})
    before, backbone = bank.state(ORIGINAL), bank.state(None)
    answers = rounded_answers(run.model, rows, history)
    assert all(torch.equal(before[key], w) for key, w in bank.state(ORIGINAL).items())
    assert all(torch.equal(backbone[key], w) for key, w in bank.state(None).items())
    bank.merge(ORIGINAL)
    run.model.adapter = None
    for bits, yes in rounded_answers(run.model, rows, history).items():
        assert answers[bits][rows] == pytest.approx(yes[rows], abs=1e-6)
