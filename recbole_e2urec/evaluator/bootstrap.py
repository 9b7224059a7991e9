"""How certain a measure is: a bootstrap over users, and comparisons of several Retrains.

A perfect unlearner is one more run of the same random training. On each row it therefore differs
from a given Retrain as two runs do: by the square root of 2 times the spread of one run about the
mean.

:func:`apart`, :func:`bias` and :func:`bias_in_floors` take P(yes) on the same rows, [n], by seed.
"""

from collections.abc import Mapping
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
RESAMPLES = 1000
CHUNK = 100  # resamples computed together; bounds the memory


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


def apart(retrains: Mapping[int, Values]) -> float | None:
    """Compute the root mean square distance of two Retrains; None for fewer than two."""
    if len(retrains) < 2:
        return None
    differences = np.stack([one - other for one, other in permutations(retrains.values(), 2)])
    return float(np.sqrt((differences**2).mean()))


def bias(ours: Mapping[int, Values], retrains: Mapping[int, Values]) -> float | None:
    """Compute the root mean square of the difference to Retrain that all seeds share.

    On each row, the differences to Retrain under n seeds have a mean and a variance. The square of
    the mean exceeds the squared bias by 1/n of the variance, which is subtracted.

    Args:
        ours: P(yes) of a model, by seed; each of its seeds has a Retrain.
        retrains: P(yes) of Retrain, by seed.

    Returns:
        The bias; 0 if it is smaller than chance alone makes it look, None for fewer than two seeds.
    """
    if len(ours) < 2:
        return None
    differences = np.stack([yes - retrains[seed] for seed, yes in ours.items()])
    mean_square = float((differences**2).mean())
    variance = float(np.var(differences, axis=0, ddof=1).mean())
    return float(np.sqrt(max(0.0, mean_square - variance)))


def bias_in_floors(ours: Mapping[int, Values], retrains: Mapping[int, Values]) -> float | None:
    """Compute the bias as a share of the distance of two Retrains.

    The numerator is :func:`bias`: the difference to the Retrain of the same seed, averaged over
    seeds, without what chance adds to it, as a root mean square over rows. The denominator is the
    root mean square distance of two Retrains of different seeds. 0 = as Retrain; 1 = as far off as
    another seed takes Retrain itself.

    Args:
        ours: P(yes) of a model, by seed; each of its seeds has a Retrain.
        retrains: P(yes) of Retrain, by seed.

    Returns:
        The share; None for fewer than two seeds, or if all Retrains answer alike.
    """
    shared, floor = bias(ours, retrains), apart(retrains)
    return None if shared is None or not floor else shared / floor
