"""Targets from a model that never saw a user, by numbers worked by hand."""

import math

import numpy as np
import pytest
import torch

from recbole_e2urec.model.losses import forgetting_teacher
from recbole_e2urec.model.references import (
    SAME,
    Line,
    calibration,
    carried,
    margin_of,
    meeting_alpha,
    mixed_target,
    with_margin,
)

NO, YES = ANSWERS = (2, 0)


def test_a_margin_is_yes_minus_no() -> None:
    assert margin_of(torch.tensor([[3.0, 9.0, 1.0]]), ANSWERS).tolist() == [2.0]


def test_a_mixed_target_is_the_weighted_mean_of_probabilities() -> None:
    stranger = torch.tensor([[0.5, 0.25, 0.25]]).log() + 7  # a shift of logits says nothing
    original = torch.tensor([[0.9, 0.05, 0.05]]).log()
    found = mixed_target(stranger, original, 0.75).exp()
    assert found.tolist()[0] == pytest.approx([0.6, 0.2, 0.2])  # .75 * .5 + .25 * .9 and so on
    for weight, whole in ((1.0, stranger), (0.0, original)):
        torch.testing.assert_close(mixed_target(stranger, original, weight), whole.log_softmax(-1))


def test_another_margin_shares_the_mass_of_the_answer_words_anew() -> None:
    logits = torch.tensor([[0.4, 0.2, 0.4]]).log()
    found = with_margin(logits, torch.tensor([math.log(3)]), ANSWERS).softmax(dim=-1)
    assert found.tolist()[0] == pytest.approx([0.6, 0.2, 0.2])  # .8 as 3 to 1
    same = with_margin(logits, margin_of(logits, ANSWERS), ANSWERS)
    torch.testing.assert_close(same, logits)


def test_alpha_of_a_row_meets_the_margin_of_the_reference() -> None:
    original = torch.tensor([[2.0, 0.0, -1.0]] * 4)  # margin 3
    augmented = torch.tensor(
        [[2.5, 0.0, -2.0], [2.5, 0.0, -2.0], [2.0, 0.0, -0.5], [2.0, 9.0, -1.0]]
    )  # what rose: yes by .5, the same, no by .5, neither
    wanted = torch.tensor([1.0, -30.0, 1.0, 1.0])
    alpha = meeting_alpha(original, augmented, wanted, ANSWERS, most=10)
    assert alpha.tolist() == [4.0, 10.0, 0.0, 0.0]  # (3 - 1) / .5; 66 is too much; never below 0
    met = margin_of(forgetting_teacher(original, augmented, alpha[:, None]), ANSWERS)
    assert met.tolist() == [1.0, -2.0, 3.0, 3.0]


def test_a_calibration_is_the_line_of_least_log_loss() -> None:
    margins = np.repeat([-1.0, 1.0], 10)  # of those at -1 one in ten is liked, at 1 three in five
    labels = np.r_[np.ones(1), np.zeros(9), np.ones(6), np.zeros(4)].astype(np.float32)
    low, high = math.log(1 / 9), math.log(6 / 4)
    line = calibration(margins, labels)
    assert line == pytest.approx(((high - low) / 2, (high + low) / 2), abs=1e-3)


def test_a_calibration_that_tells_nothing_is_the_identity() -> None:
    margins = np.array([-1.0, 1.0, -1.0, 1.0])
    assert calibration(margins, np.ones(4, np.float32)) == SAME
    assert calibration(margins, np.array([1, 0, 1, 0], np.float32)) == SAME
    assert calibration(margins[:0], np.ones(0, np.float32)) == SAME


def test_a_carried_line_leads_to_originals_calibration() -> None:
    strangers, original = Line(0.6, 0.1), Line(0.8, -0.1)
    line = carried(strangers, original)
    assert line == pytest.approx((0.75, 0.25))  # .6 / .8 and .2 / .8
    met = original.slope * (line.slope * 2.0 + line.bias) + original.bias
    assert met == pytest.approx(strangers.slope * 2.0 + strangers.bias)
