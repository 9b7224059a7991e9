"""Metrics that RecBole lacks: unrounded ones with a bootstrap over users, and distances.

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

RESAMPLES = 1000
CHUNK = 100  # resamples computed together; bounds the memory


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


class UserBootstrap:
    """Resamples of the users of some rows, the same for everything measured on these rows.

    Users are drawn with replacement, each with all its rows, because the rows of a user are not
    independent (cluster bootstrap, Efron and Tibshirani 1993).

    Args:
        users: inner user id of each row, [n].
        labels: label of each row, 1 or 0, [n].
        seed: seed of the resamples.
        resamples: number of resamples.
    """

    def __init__(
        self,
        users: NDArray[np.int64],
        labels: NDArray[np.floating],
        seed: int,
        resamples: int = RESAMPLES,
    ) -> None:
        distinct_users, self._user_index = np.unique(users, return_inverse=True)
        self._labels = np.asarray(labels) > 0
        generator = np.random.default_rng(seed)
        uniform = np.full(len(distinct_users), 1 / max(1, len(distinct_users)))
        # [resamples, users], how often each user was drawn
        self._counts = generator.multinomial(len(distinct_users), uniform, size=resamples)

    def auc(self, scores: NDArray[np.floating]) -> NDArray[np.float64]:  # [n] -> [resamples]
        """Compute the AUC of every resample; NaN where only one label was drawn."""
        order = np.argsort(scores, kind="stable")
        ranked, user, is_liked = scores[order], self._user_index[order], self._labels[order]
        starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])  # of equal scores
        aucs = []
        for first in range(0, len(self._counts), CHUNK):
            weight = self._counts[first : first + CHUNK, user].astype(np.float64)
            likes, dislikes = (
                np.add.reduceat(weight * mask, starts, axis=1) for mask in (is_liked, ~is_liked)
            )
            dislikes_below = np.cumsum(dislikes, axis=1) - dislikes
            wins = (likes * (dislikes_below + dislikes / 2)).sum(axis=1)
            pairs = likes.sum(axis=1) * dislikes.sum(axis=1)
            aucs.append(np.divide(wins, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0))
        return np.concatenate(aucs)

    def mean(self, values: NDArray[np.floating]) -> NDArray[np.float64]:  # [n] -> [resamples]
        """Compute the mean over the rows of every resample."""
        users = self._counts.shape[1]
        sums, rows = (
            self._counts @ np.bincount(self._user_index, weights, users)
            for weights in (values, None)
        )
        return np.asarray(sums / rows, dtype=np.float64)


def interval(values: NDArray[np.float64]) -> list[float] | None:
    """Return the bounds of the middle 95 % of resampled values; None if all are NaN."""
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return None
    return [float(bound) for bound in np.percentile(known, [2.5, 97.5])]
