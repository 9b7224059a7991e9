"""User-clustered bootstrap: how much a measure owes to who happens to be in the data."""

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
