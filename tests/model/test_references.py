"""Targets from a model that never saw a user, by numbers worked by hand."""

import torch

from recbole_e2urec.model.losses import forgetting_teacher, margin_of, meeting_alpha

NO, YES = ANSWERS = (2, 0)


def test_a_margin_is_yes_minus_no() -> None:
    assert margin_of(torch.tensor([[3.0, 9.0, 1.0]]), ANSWERS).tolist() == [2.0]


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
