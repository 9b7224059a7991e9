"""Membership inference by the loss of the true answer: a pure function of probabilities."""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

# Where a ROC curve is written down: few points, and as many below 1 % as between 1 % and 10 %.
FALSE_POSITIVE_RATES = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0
)  # fmt: skip
LOSS_EDGES = tuple(round(0.1 * place, 1) for place in range(31))  # nats, 0 to 3


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


def membership_roc(
    member_losses: NDArray[np.float64], other_losses: NDArray[np.float64]
) -> list[float]:  # [m], [k] -> [len(FALSE_POSITIVE_RATES)]
    """Share of members that the attack finds at each of ``FALSE_POSITIVE_RATES``."""
    return [membership_tpr(member_losses, other_losses, fpr) for fpr in FALSE_POSITIVE_RATES]


def histogram(losses: NDArray[np.float64]) -> list[float]:  # [n] -> [len(LOSS_EDGES)]
    """Share of the losses from each of ``LOSS_EDGES`` to the next; the last part is open."""
    counts = np.histogram(losses, [*LOSS_EDGES, np.inf])[0]
    return [float(count) for count in counts / max(1, len(losses))]


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
