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
FOLDS = 5


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
    some rows, in folds: what a fitted row's item is liked is counted in the other folds, so that no
    row is remembered.

    Args:
        facts: of all rows.
        fitted: ids of the rows that it learns from, each once; at least one.
    """

    def __init__(self, facts: RowFacts, fitted: Rows) -> None:
        self._facts = facts
        item, label = facts.item[fitted], facts.label[fitted]
        self._mean = float(label.mean())
        self._fold = np.zeros(len(facts.item), dtype=np.int64)
        self._fold[fitted] = np.random.default_rng(0).permutation(len(fitted)) % FOLDS
        shape = FOLDS, int(facts.item.max()) + 1
        self._count, self._liked = np.zeros(shape), np.zeros(shape)  # [folds, items]
        np.add.at(self._count, (self._fold[fitted], item), 1)
        np.add.at(self._liked, (self._fold[fitted], item), label)
        self._learn(fitted)

    def _learn(self, fitted: Rows) -> None:
        label = self._facts.label[fitted]
        self._regression: LogisticRegression | None = None
        if len(np.unique(label)) < 2:  # the share of likes is all that there is to know
            return
        numbers = self._numbers(fitted, True)
        self._scaler = StandardScaler().fit(numbers)
        learner = LogisticRegression(C=1000.0, max_iter=1000)
        self._regression = learner.fit(self._scaler.transform(numbers), label)

    def losses(self, rows: Rows, fitted: bool = False) -> Numbers:  # [m] -> [m]
        """Log loss of each row, in nats; whether it was ``fitted`` on them is up to the caller."""
        if self._regression is None:
            yes = np.full(len(rows), self._mean)
        else:
            numbers = self._numbers(rows, fitted)
            yes = self._regression.predict_proba(self._scaler.transform(numbers))[:, 1]
        return log_losses(yes, self._facts.label[rows])

    def _numbers(self, rows: Rows, fitted: bool) -> Numbers:  # [m] -> [m, 4]
        """What the regression sees; a fitted row counts what other folds have of its item."""
        item, fold = self._facts.item[rows], self._fold[rows]
        rated = self._count.sum(axis=0)
        count, liked = rated[item], self._liked.sum(axis=0)[item]
        if fitted:
            count = count - self._count[fold, item]
            liked = liked - self._liked[fold, item]
        history = self._facts.history[rows]
        shown = history >= 0
        before = np.where(shown, self._facts.label[history], 0).sum(axis=1)
        length = shown.sum(axis=1)
        known = np.log1p(rated)[self._facts.item[history]]
        columns = [
            _log_odds((liked + ITEM_PRIOR * self._mean) / (count + ITEM_PRIOR)),
            _log_odds((before + HISTORY_PRIOR * self._mean) / (length + HISTORY_PRIOR)),
            np.where(shown, known, 0).sum(axis=1) / np.maximum(1, length),
            np.log1p(rated[item]),
        ]
        return np.stack(columns, axis=1)


def log_losses(yes: Numbers, label: NDArray[np.float32]) -> Numbers:  # [m], [m] -> [m]
    """Log loss of P(yes), in nats; nobody is surer than one in 10 million."""
    right = np.where(label > 0.5, yes, 1 - yes)
    return -np.log(np.clip(right, 1e-7, 1.0))


def _log_odds(share: Numbers) -> Numbers:
    kept = np.clip(share, 0.01, 0.99)
    return np.log(kept / (1 - kept))
