"""Membership inference by the loss of the true answer: a pure function of probabilities."""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score


def answer_losses(
    yes: NDArray[np.float64], labels: NDArray[np.float32]
) -> NDArray[np.float64]:  # [n], [n] -> [n]
    """Cross-entropy of the true answer in nats, from P(yes)."""
    true = np.where(labels == 1, yes, 1 - yes)
    return -np.log(np.clip(true, np.finfo(np.float64).tiny, None))


def membership_auc(
    member_losses: NDArray[np.float64], other_losses: NDArray[np.float64]
) -> float:  # [m], [k] -> number
    """AUC of an attack that calls rows with a small loss members (Yeom et al., 2018).

    0.5 = members cannot be told apart. For an unlearned model the target is Retrain's value: far
    below it means that too much was forgotten. NaN when a side has no rows.
    """
    if len(member_losses) == 0 or len(other_losses) == 0:
        return float("nan")
    truth = np.r_[np.ones(len(member_losses)), np.zeros(len(other_losses))]
    return float(roc_auc_score(truth, -np.r_[member_losses, other_losses]))


def membership_tpr(
    member_losses: NDArray[np.float64], other_losses: NDArray[np.float64], fpr: float = 0.01
) -> float:  # [m], [k] -> number
    """Share of members that the attack finds when it accuses at most this share of the others.

    Carlini et al., IEEE S&P 2022: an attack that is sure about a few is worse than an AUC shows.
    ``fpr`` itself = no better than chance. NaN when a side has no rows.
    """
    if len(member_losses) == 0 or len(other_losses) == 0:
        return float("nan")
    allowed = int(np.floor(fpr * len(other_losses)))
    ranked = np.sort(other_losses)
    bound = ranked[allowed] if allowed < len(ranked) else np.inf
    return float((member_losses < bound).mean())
