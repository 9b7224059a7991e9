import math

import numpy as np
import pytest
import torch

from recbole_e2urec.model.losses import (
    answer_cross_entropy,
    e2urec_loss,
    forgetting_teacher,
    kl_divergence,
    log_losses,
    npo_loss,
    simnpo_loss,
    yes_probability,
)


def test_forgetting_teacher_pushes_down_only_what_the_augmented_model_says_louder():
    # 1 - 2 * max(0, 1.5 - 1) = 0; the second logit fell, so it stays
    teacher = forgetting_teacher(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.5, 1.0]]), alpha=2)
    assert teacher.tolist() == [[0.0, 2.0]]


def test_log_losses_of_worked_answers() -> None:
    yes, labels = np.array([0.25, 0.25, 0.0]), np.array([1, 0, 1], dtype=np.float32)
    assert log_losses(yes, labels, 1e-7) == pytest.approx([np.log(4), np.log(4 / 3), np.log(1e7)])
    assert np.isfinite(log_losses(yes, labels)).all()


def test_kl_divergence_of_a_worked_pair():
    teacher, student = torch.log(torch.tensor([[0.5, 0.5], [0.25, 0.75]]))
    expected = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert float(kl_divergence(teacher[None], student[None])) == pytest.approx(expected)


def test_answer_cross_entropy_is_minus_the_log_of_the_true_answers_share():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]))
    found = answer_cross_entropy(logits, torch.tensor([1.0, 0.0]), (1, 2))
    assert (-found).exp().tolist() == pytest.approx([0.25, 0.2])


def test_e2urec_loss_weighs_forgetting_by_beta():
    assert float(e2urec_loss(torch.tensor(2.0), torch.tensor(1.0), 0.4)) == pytest.approx(1.4)


def test_yes_probability_looks_at_the_two_answers_only():
    logits = torch.log(torch.tensor([[0.1, 0.6, 0.3]]))
    assert float(yes_probability(logits, (0, 2))) == pytest.approx(0.75)


def test_npo_loss_of_a_worked_row():
    # Twice as likely as the reference says: 2/2 * log(1 + 2**2) = ln 5.
    student, reference = torch.tensor([0.5]).log(), torch.tensor([0.25]).log()
    assert float(npo_loss(student, reference, beta=2.0)) == pytest.approx(math.log(5))


def test_npo_loss_towards_beta_zero_has_the_gradient_of_gradient_ascent():
    student = torch.tensor([-0.3, -1.2], requires_grad=True)
    npo_loss(student, torch.tensor([-2.0, -0.1]), beta=1e-6).mean().backward()
    assert student.grad.tolist() == pytest.approx([0.5, 0.5], rel=1e-4)  # of the mean


def test_simnpo_loss_of_a_worked_row():
    # P = 1/2, beta 2, gamma 0: log(1 + (1/2)**2) = ln 1.25; gamma moves the exponent.
    half = torch.tensor([0.5]).log()
    assert float(simnpo_loss(half, beta=2.0, gamma=0.0)) == pytest.approx(math.log(1.25))
    moved = float(simnpo_loss(half, beta=2.0, gamma=math.log(4)))
    assert moved == pytest.approx(math.log(2))
