import math

import numpy as np
import pytest
import torch

from recbole_e2urec.evaluator.attacks import (
    FALSE_POSITIVE_RATES,
    LOSS_EDGES,
    histogram,
    membership_auc,
    membership_roc,
    membership_tpr,
)
from recbole_e2urec.evaluator.metrics import (
    euclidean,
    jeffreys_half,
    jensen_shannon,
    log_probabilities,
    residual,
)
from recbole_e2urec.model.losses import log_losses

P = torch.log(torch.tensor([[0.5, 0.5]]))
Q = torch.log(torch.tensor([[0.25, 0.75]]))


def test_jensen_shannon_of_a_worked_pair():
    middle = (0.375, 0.625)
    to_p = sum(0.5 * math.log(0.5 / m) for m in middle)
    to_q = 0.25 * math.log(0.25 / middle[0]) + 0.75 * math.log(0.75 / middle[1])
    assert float(jensen_shannon(P, Q)) == pytest.approx((to_p + to_q) / 2, abs=1e-7)


def test_jensen_shannon_of_disjoint_answers_is_ln_2():
    sure = torch.tensor([[1e4, 0.0]])
    sure, other = log_probabilities(sure), log_probabilities(sure.flip(1))
    assert float(jensen_shannon(sure, other)) == pytest.approx(math.log(2))


def test_jeffreys_half_of_a_worked_pair():
    # 1/2 of sum (p - q) log(p / q)
    expected = (0.25 * math.log(2) - 0.25 * math.log(2 / 3)) / 2
    assert float(jeffreys_half(P, Q)) == pytest.approx(expected, abs=1e-7)


def test_euclidean_of_a_worked_pair():
    assert float(euclidean(P, Q)) == pytest.approx(math.sqrt(2) / 4, abs=1e-7)


def test_distances_of_an_answer_to_itself_are_nothing():
    answers = log_probabilities(torch.randn(64, 500, generator=torch.manual_seed(0)))
    for distance in (jensen_shannon, jeffreys_half, euclidean):
        assert torch.equal(distance(answers, answers), torch.zeros(64, dtype=torch.float64))


def test_residual_is_one_for_original_and_zero_for_retrain():
    original, retrain = torch.tensor([0.9, 0.2]), torch.tensor([0.6, 0.4])
    assert residual(original, original, retrain) == pytest.approx(1)
    assert residual(retrain, original, retrain) == 0


def test_membership_auc_counts_pairs_in_which_the_member_has_the_smaller_loss():
    losses = log_losses(torch.tensor([0.9, 0.5, 0.4, 0.8]).numpy(), torch.ones(4).numpy())
    # members 0.9 and 0.5 against 0.4 and 0.8: three of four pairs
    assert membership_auc(losses[:2], losses[2:]) == pytest.approx(0.75)


def test_membership_tpr_at_a_false_positive_rate_counts_members_below_the_bound():
    others = np.arange(100.0)  # 1 % of them may be accused: the one with loss 0
    assert membership_tpr(np.array([-1.0, 0.5, 1.0, 7.0]), others) == 0.5
    assert membership_tpr(np.array([-1.0, 7.0]), others, fpr=1.0) == 1.0
    assert np.isnan(membership_tpr(np.array([]), others))


def test_membership_roc_is_the_rate_at_each_false_positive_rate():
    roc = membership_roc(np.array([-1.0, 0.5, 10.5, 7e3]), np.arange(1000.0))
    at = dict(zip(FALSE_POSITIVE_RATES, roc, strict=True))
    assert (at[0.001], at[0.01], at[0.02], at[1.0]) == (0.5, 0.5, 0.75, 1.0)


def test_loss_histogram_counts_shares_and_keeps_what_is_beyond_the_last_edge():
    shares = dict(zip(LOSS_EDGES, histogram(np.array([0.05, 0.12, 0.12, 9.0])), strict=True))
    assert (shares[0.0], shares[0.1], shares[3.0], sum(shares.values())) == (0.25, 0.5, 0.25, 1)
