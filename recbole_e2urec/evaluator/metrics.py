"""Metrics that RecBole lacks: unrounded metrics of labelled rows, and distances between answers.

Distances compare distributions over the vocabulary at the answer position, and give one value a
row; divergences are in nats. They take log probabilities, so that several measures of the same
answers share one softmax.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.evaluator.metrics import AUC, LogLoss
from torch import Tensor
from torch.nn import functional as F

from recbole_e2urec.config.evaluation_mode import accuracy


def labelled_metrics(
    config: Any, yes: NDArray[np.float64], labels: NDArray[np.float32]
) -> dict[str, float | None]:  # [n], [n] -> metrics
    """Compute ``auc``, ``acc``, ``logloss`` and the number of ``rows``.

    A metric that is not defined is None: every metric if there are no rows, and AUC if all labels
    are equal.
    """
    if len(labels) == 0:
        return {"auc": None, "acc": None, "logloss": None, "rows": 0}
    two_classes = 0 < labels.mean() < 1
    return {
        "auc": float(AUC(config).metric_info(yes, labels)) if two_classes else None,
        "acc": accuracy(yes, labels),
        "logloss": float(LogLoss(config).metric_info(yes, labels)),
        "rows": len(labels),
    }


def log_probabilities(logits: Tensor) -> Tensor:  # [batch, vocab] -> [batch, vocab]
    """Compute the log-softmax in float64, as distances may be smaller than float32 resolves."""
    return F.log_softmax(logits.double(), dim=-1)


def kl(p: Tensor, q: Tensor) -> Tensor:  # log probabilities [batch, vocab] twice -> [batch]
    """KL(p || q)."""
    return (p.exp() * (p - q)).sum(dim=-1)


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:  # log probabilities twice -> [batch]
    """1/2 KL(p || m) + 1/2 KL(q || m), where m is the mean distribution; between 0 and ln 2."""
    middle = torch.logaddexp(p, q) - math.log(2)
    return ((kl(p, middle) + kl(q, middle)) / 2).clamp_min(0)


def jeffreys_half(p: Tensor, q: Tensor) -> Tensor:  # log probabilities twice -> [batch]
    """1/2 KL(p || q) + 1/2 KL(q || p), unbounded; the public E2URec code calls it "JSD"."""
    return ((p.exp() - q.exp()) * (p - q)).sum(dim=-1) / 2


def euclidean(p: Tensor, q: Tensor) -> Tensor:  # log probabilities twice -> [batch]
    """Euclidean norm of the difference of the two distributions; at most the square root of 2."""
    return (p.exp() - q.exp()).norm(dim=-1)


def residual(
    unlearned: Tensor, original: Tensor, retrained: Tensor
) -> float:  # P(yes) [n] each -> number
    """Mean distance to Retrain as a share of Original's: 1 = did nothing, above 1 = did harm.

    The result is NaN if Original and Retrain answer alike, as there is nothing to compare with.
    """
    gap = (original - retrained).abs().mean()
    return float((unlearned - retrained).abs().mean() / gap) if gap > 0 else float("nan")
