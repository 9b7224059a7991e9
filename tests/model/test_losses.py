import math

import pytest
import torch

from recbole_e2urec.model.losses import (
    answer_loss,
    e2urec_loss,
    forgetting_teacher,
    kl_divergence,
    yes_probability,
)


def test_forgetting_teacher_pushes_down_only_what_the_augmented_model_says_louder():
    # 1 - 2 * max(0, 1.5 - 1) = 0; the second logit fell, so it stays
    teacher = forgetting_teacher(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.5, 1.0]]), alpha=2)
    assert teacher.tolist() == [[0.0, 2.0]]


def test_kl_divergence_of_a_worked_pair():
    teacher, student = torch.log(torch.tensor([[0.5, 0.5], [0.25, 0.75]]))
    expected = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert float(kl_divergence(teacher[None], student[None])) == pytest.approx(expected)


def test_answer_loss_is_the_log_of_the_answers_share():
    logits = torch.log(torch.tensor([[0.2, 0.3, 0.5]]))
    assert float(answer_loss(logits, torch.ones(1), (0, 2))) == pytest.approx(-math.log(0.5))


def test_e2urec_loss_weighs_forgetting_by_beta():
    assert float(e2urec_loss(torch.tensor(2.0), torch.tensor(1.0), 0.4)) == pytest.approx(1.4)


def test_yes_probability_looks_at_the_two_answers_only():
    logits = torch.log(torch.tensor([[0.1, 0.6, 0.3]]))
    assert float(yes_probability(logits, (0, 2))) == pytest.approx(0.75)
