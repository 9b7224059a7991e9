"""How certain a measure is: a bootstrap over users, and what several Retrains tell.

A perfect unlearner is one more draw of the same training, so on each row it differs from a given
Retrain by the difference of two draws: root of 2 times the spread of one draw about the mean.

All take P(yes) on the same rows, [n], by seed.
"""

from collections.abc import Mapping
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
CHUNK = 100  # resamples at once: bounds memory


class UserBootstrap:
    """Resamples of the users of some rows, the same for everything that is measured on these.

    Users are drawn with repetition, each with all its rows, because rows of a user are no
    independent draws (Efron and Tibshirani 1993, cluster bootstrap).

    Args:
        users: inner user id of each row, [n].
        labels: 1 or 0, [n].
        seed: of the resamples.
        resamples: how many.
    """

    def __init__(
        self,
        users: NDArray[np.int64],
        labels: NDArray[np.floating],
        seed: int,
        resamples: int = RESAMPLES,
    ) -> None:
        distinct, self._place = np.unique(users, return_inverse=True)
        self._labels = np.asarray(labels) > 0
        generator = np.random.default_rng(seed)
        even = np.full(len(distinct), 1 / max(1, len(distinct)))
        self._times = generator.multinomial(len(distinct), even, size=resamples)

    def auc(self, scores: NDArray[np.floating]) -> NDArray[np.float64]:  # [n] -> [resamples]
        """AUC of every resample; NaN where one label only was drawn."""
        order = np.argsort(scores, kind="stable")
        ranked, place, likes = scores[order], self._place[order], self._labels[order]
        starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
        found = []
        for first in range(0, len(self._times), CHUNK):
            weight = self._times[first : first + CHUNK, place].astype(np.float64)
            likes_of, dislikes_of = (
                np.add.reduceat(weight * which, starts, axis=1) for which in (likes, ~likes)
            )
            below = np.cumsum(dislikes_of, axis=1) - dislikes_of
            wins = (likes_of * (below + dislikes_of / 2)).sum(axis=1)
            pairs = likes_of.sum(axis=1) * dislikes_of.sum(axis=1)
            found.append(np.divide(wins, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0))
        return np.concatenate(found)

    def mean(self, values: NDArray[np.floating]) -> NDArray[np.float64]:  # [n] -> [resamples]
        """Mean over the rows of every resample."""
        count = self._times.shape[1]
        sums, rows = (
            self._times @ np.bincount(self._place, weights, count) for weights in (values, None)
        )
        return np.asarray(sums / rows, dtype=np.float64)


def interval(values: NDArray[np.float64]) -> list[float] | None:
    """Where the middle 95 % of resampled values begin and end; None if there are none."""
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return None
    return [float(bound) for bound in np.percentile(known, [2.5, 97.5])]


Values = NDArray[np.float64]


def apart(retrains: Mapping[int, Values]) -> float | None:
    """Root mean square distance of two Retrains; None for fewer than two."""
    if len(retrains) < 2:
        return None
    pairs = np.stack([one - other for one, other in permutations(retrains.values(), 2)])
    return float(np.sqrt((pairs**2).mean()))


def bias(ours: Mapping[int, Values], retrains: Mapping[int, Values]) -> float | None:
    """What is off by the same under every seed, root mean square; None for fewer than two seeds.

    Differences to Retrain of n seeds have a mean and a variance on each row of data. The mean's
    square is greater than the bias squared by an nth of the variance, which is taken off; 0 where
    the bias is less than chance makes it look.
    """
    if len(ours) < 2:
        return None
    apart_by = np.stack([said - retrains[seed] for seed, said in ours.items()])
    whole = float((apart_by**2).mean())
    scatter = float(np.var(apart_by, axis=0, ddof=1).mean())
    return float(np.sqrt(max(0.0, whole - scatter)))


def bias_in_floors(ours: Mapping[int, Values], retrains: Mapping[int, Values]) -> float | None:
    """What is off under every seed, as a share of how far two Retrains are apart.

    The root mean square, over rows, of the mean over seeds of ours minus the own seed's Retrain,
    without what chance adds to it, by the root mean square distance of two Retrains of different
    seeds: 0 = as Retrain, 1 = as far off as another seed takes Retrain itself.

    Args:
        ours: of a model, by seed; each of its seeds has a Retrain.
        retrains: of all seeds.

    Returns:
        The share; None for fewer than two seeds, or where all Retrains answer alike.
    """
    found, floor = bias(ours, retrains), apart(retrains)
    return None if found is None or not floor else found / floor
