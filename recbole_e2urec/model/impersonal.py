"""A recommender that remembers nobody: how hard rows are for whoever has not seen their users."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

Rows = NDArray[np.int64]
Numbers = NDArray[np.float64]
ITEM_PRIOR = 5.0  # rows that an item's share of likes is mixed with, at the mean of all items
HISTORY_PRIOR = 1.0  # the same for a history


class RowFacts(NamedTuple):
    """What such a recommender may know; arrays by row id.

    Attributes:
        item: inner item ids, int64 [n].
        label: 1 = liked, 0 = not, float32 [n].
        history: rows that each prompt shows, int64 [n, k]; -1 = absent.
    """

    item: Rows
    label: NDArray[np.float32]
    history: Rows


class ImpersonalModel:
    """Logistic regression on four numbers that name no user.

    They are the item's share of likes, the share of likes in the history that the prompt shows, the
    popularity of the history's items, and the number of rows that the item has. It is fitted on
    some rows; the share of likes of a fitted row's item leaves out the row itself, so that no row
    is remembered.

    Args:
        facts: of all rows.
        fitted: ids of the rows that it learns from, each once; at least one.
    """

    def __init__(self, facts: RowFacts, fitted: Rows) -> None:
        self._facts = facts
        item, label = facts.item[fitted], facts.label[fitted]
        size = int(facts.item.max()) + 1
        self._count = np.bincount(item, minlength=size).astype(np.float64)
        self._liked = np.bincount(item, weights=label, minlength=size)
        self._mean = float(label.mean())
        self._learn(fitted)

    def _learn(self, fitted: Rows) -> None:
        label = self._facts.label[fitted]
        self._regression: LogisticRegression | None = None
        if len(np.unique(label)) < 2:  # the share of likes is all that there is to know
            return
        numbers = self._numbers(fitted, own=1.0)
        self._scaler = StandardScaler().fit(numbers)
        learner = LogisticRegression(C=1000.0, max_iter=1000)
        self._regression = learner.fit(self._scaler.transform(numbers), label)

    def losses(self, rows: Rows) -> Numbers:  # [m] -> [m]
        """Log loss of rows that it was not fitted on, in nats."""
        if self._regression is None:
            yes = np.full(len(rows), self._mean)
        else:
            numbers = self._numbers(rows, own=0.0)
            yes = self._regression.predict_proba(self._scaler.transform(numbers))[:, 1]
        return log_losses(yes, self._facts.label[rows])

    def _numbers(self, rows: Rows, own: float) -> Numbers:  # [m] -> [m, 4]
        """What the regression sees; ``own`` is how often a row itself counts for its item."""
        item, label = self._facts.item[rows], self._facts.label[rows]
        count, liked = self._count[item] - own, self._liked[item] - own * label
        history = self._facts.history[rows]
        shown = history >= 0
        before = np.where(shown, self._facts.label[history], 0).sum(axis=1)
        length = shown.sum(axis=1)
        known = np.log1p(self._count)[self._facts.item[history]]
        columns = [
            _log_odds((liked + ITEM_PRIOR * self._mean) / (count + ITEM_PRIOR)),
            _log_odds((before + HISTORY_PRIOR * self._mean) / (length + HISTORY_PRIOR)),
            np.where(shown, known, 0).sum(axis=1) / np.maximum(1, length),
            np.log1p(count),
        ]
        return np.stack(columns, axis=1)


def log_losses(yes: Numbers, label: NDArray[np.float32]) -> Numbers:  # [m], [m] -> [m]
    """Log loss of P(yes), in nats; nobody is surer than one in 10 million."""
    right = np.where(label > 0.5, yes, 1 - yes)
    return -np.log(np.clip(right, 1e-7, 1.0))


def _log_odds(share: Numbers) -> Numbers:
    kept = np.clip(share, 0.01, 0.99)
    return np.log(kept / (1 - kept))
