"""How strongly to forget: the loss that forget rows should have, predicted without any Retrain.

Nobody trained on the control users. What Original loses on their rows, beyond how hard those rows
are, is what rows of unseen users cost it. :class:`ImpersonalModel`, which remembers nobody, says
how hard rows are. A model that never saw the forget rows should therefore lose on them

    mean impersonal(forget) + mean over control rows of (Original - impersonal).

A request of few rows differs from others by chance, so for it this is a rough guess. How much
Original remembers of training rows in general is known better: the same prediction for rows that
stay. The two are weighted by how well each is known.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from recbole_e2urec.model.backbones.lora import interpolated
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.scorers import Adapted, Scorer, Stored
from recbole_e2urec.trainer.adapter import UnlearningTask
from recbole_e2urec.utils import distributed

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


ASKED = 2048  # rows of a kind, at most, on which losses are measured; half as many miss by a tenth
UNLIKE = 0.5  # standard deviation between requests of what is remembered, as a share of its mean
CLOSE = 0.02  # of the gap; a loss so near to its target has reached it


class TargetLoss(NamedTuple):
    """What a request is to lose.

    Attributes:
        rows: forget rows on which it is measured, sorted.
        loss: the mean log loss that they are to have, in nats.
        error: its standard error, as users are drawn anew.
        original: what Original loses on them.
    """

    rows: Rows
    loss: float
    error: float
    original: float

    @property
    def found(self) -> dict[str, float]:
        """What results tell of it."""
        return {
            "target_logloss": self.loss,
            "target_error": self.error,
            "original_logloss": self.original,
        }


def target_loss(model: LLMRec, request: UnlearningTask) -> TargetLoss:
    """Predict the loss on forget rows of a model that never saw them.

    Without control users, validation rows of users who stay take their place. Original knows these
    users, so where prompts name users the prediction is then too low.

    Args:
        model: Original.
        request: what to forget, at least one row.
    """
    labels = model.labels
    assert labels is not None  # Original was trained on them
    impersonal = ImpersonalModel(
        RowFacts(request.item, labels, request.forget_history), request.retain
    )
    forget, retain, unseen = (
        some_of(rows, request.seed) for rows in (request.forget, request.retain, request.unseen)
    )
    with model.using_history(request.forget_history):
        original = Adapted(model.adapter)
        losses = [loss_of(model, original, rows) for rows in (forget, retain, unseen)]
    difficulty = (
        impersonal.losses(forget),
        impersonal.losses(retain, fitted=True),
        impersonal.losses(unseen),
    )
    beyond = [loss - hard for loss, hard in zip(losses, difficulty, strict=True)]
    users = [request.user[rows] for rows in (forget, retain, unseen)]
    (of_forget, forget_error), (of_retain, _), (of_unseen, unseen_error) = map(
        mean_over_users, beyond, users
    )
    gap, gap_error = shrunken_gap(of_unseen - of_forget, forget_error, of_unseen - of_retain)
    before = float(losses[0].mean())
    return TargetLoss(forget, before + gap, float(np.hypot(unseen_error, gap_error)), before)


def strength_reaching(
    model: LLMRec,
    request: UnlearningTask,
    target: TargetLoss,
    scorer: Callable[[float], Scorer],
    most: float,
) -> float:
    """The share, of at most ``most``, at which a scorer loses on forget rows what it is to lose."""

    def loss(share: float) -> float:
        return float(loss_of(model, scorer(share), target.rows).mean())

    with model.using_history(request.forget_history):
        return strength_for(loss, target, most)


def scale_to_target(
    model: LLMRec,
    request: UnlearningTask,
    name: str,
    start: Mapping[str, Tensor],
    target: TargetLoss,
    bounds: tuple[float, float],
) -> float:
    """Multiply what an adapter became so that forget rows lose what they are to lose.

    Args:
        model: has the adapter, trained.
        request: what to forget.
        name: of the adapter.
        start: its weights at which it answers as Original does.
        target: the loss that is wanted.
        bounds: least and greatest factor.

    Returns:
        The factor.
    """
    least, most = bounds
    trained = model.bank.state(name)

    def scorer(factor: float) -> Scorer:
        return Stored(name, lambda: interpolated(start, trained, factor))

    factor = max(least, strength_reaching(model, request, target, scorer, most))
    model.bank.load(name, interpolated(start, trained, factor))
    return factor


def shrunken_gap(of_request: float, error: float, general: float) -> tuple[float, float]:
    """What a request remembers, from its own rows and from all others; mean and standard error.

    Requests differ by ``UNLIKE`` of what is remembered in general; a request's own mean differs by
    chance, by its standard error. Each counts by the other's variance. Never below 0.
    """
    between, chance = (UNLIKE * general) ** 2, error**2
    whole = between + chance
    if whole == 0:
        return max(0.0, of_request), 0.0
    mean = (between * of_request + chance * general) / whole
    return max(0.0, mean), float(np.sqrt(between * chance / whole))


def loss_of(model: LLMRec, scorer: Scorer, rows: Rows) -> Numbers:  # [m] -> [m]
    """Log loss of a scorer on each row, in nats, under the histories that the model shows."""
    labels = model.labels
    assert labels is not None
    yes = scorer.ask(model, rows).yes(model.language_model.answer_ids)
    return log_losses(yes.double().cpu().numpy(), labels[rows])


def mean_over_users(values: Numbers, user: Rows) -> tuple[float, float]:  # [n], [n]
    """Mean over rows, and its standard error where users, not rows, are drawn at random.

    The error is the root of the sum over users of (sum over their rows of value minus mean)
    squared, divided by the number of rows. Rows of one user alone count as if drawn one by one.
    """
    if len(values) == 0:
        return 0.0, 0.0
    mean = float(values.mean())
    _, place = np.unique(user, return_inverse=True)
    if place.max() == 0:
        place = np.arange(len(values))
    sums = np.bincount(place, weights=values - mean)
    return mean, float(np.sqrt((sums**2).sum()) / len(values))


def some_of(rows: Rows, seed: int) -> Rows:
    """The rows, or as many of them as are enough to measure a loss, drawn at random; sorted."""
    if len(rows) <= ASKED:
        return rows
    generator = np.random.default_rng(np.random.SeedSequence([seed, len(rows)]))
    return np.sort(generator.choice(rows, ASKED, replace=False))


def strength_for(loss: Callable[[float], float], target: TargetLoss, most: float) -> float:
    """The strength at which a loss reaches a target.

    Args:
        loss: mean loss on the target's rows under a strength above 0; it need not rise everywhere.
        target: the loss that is wanted; Original's is that of strength 0.
        most: the greatest strength; given back where the target is not reached.

    Returns:
        0 where the target is reached without any.
    """

    @cache
    def missing(strength: float) -> float:
        gap = target.loss - (loss(strength) if strength > 0 else target.original)
        return 0.0 if abs(gap) <= CLOSE * (target.loss - target.original) else gap

    if target.loss <= target.original:
        return 0.0
    low, high = 0.0, min(1.0, most)
    while missing(high) > 0:
        if high >= most:
            return distributed.broadcast(most)
        low, high = high, min(2 * high, most)
    return distributed.broadcast(float(brentq(missing, low, high)))
