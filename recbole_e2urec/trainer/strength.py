"""How strongly to forget: predicts the loss that forget rows should have, without any Retrain.

No model was trained on the control users. :class:`ImpersonalModel`, which remembers no user,
measures how hard their rows are. Original's loss on these rows beyond that difficulty is what it
loses on users it never saw. The predicted loss of a held-out model on the forget rows is therefore

    mean impersonal(forget) + mean over control rows of (Original - impersonal).

For a request of few rows this prediction is rough, because such requests differ by chance. The same
prediction for the retain rows is more precise: it tells how much Original remembers of training
rows in general. The two are combined; the more precise one gets the larger weight.
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
from recbole_e2urec.model.losses import log_losses
from recbole_e2urec.model.scorers import Adapted, Scorer, Stored
from recbole_e2urec.trainer.adapter import UnlearningTask
from recbole_e2urec.trainer.loop import Stream, generator_of
from recbole_e2urec.utils import distributed

Rows = NDArray[np.int64]
Numbers = NDArray[np.float64]
ITEM_PRIOR = 5.0  # rows at the overall mean that smooth an item's share of likes
HISTORY_PRIOR = 1.0  # the same for a history's share of likes
FOLDS = 5
LEAST_PROBABILITY = 1e-7  # of a true answer; a smaller one counts as this, lest one row decide
ASKED = 2048  # rows of a kind that are asked often, at most
FEW_USERS = 30  # fewer clusters than that do not tell the error of their own mean
UNLIKE = 0.5  # standard deviation of the memorisation gap between requests, as a share of its mean
MOST_AMISS = 2.0  # by which a sample of the forget rows may mislead
CLOSE = 0.02  # tolerance, as a share of the gap: a loss this near to its target has reached it
ROUGH = 0.1  # the same, where the search goes on


class RowFacts(NamedTuple):
    """The data that :class:`ImpersonalModel` may use, by row id.

    Attributes:
        item: inner item ids, int64 [n].
        label: 1 = liked, 0 = not, float32 [n].
        history: ids of the rows that each prompt shows, int64 [n, k]; -1 = absent.
    """

    item: Rows
    label: NDArray[np.float32]
    history: Rows


class ImpersonalModel:
    """Logistic regression on four features that identify no user.

    The features are the item's share of likes, the share of likes in the history that the prompt
    shows, the popularity of the history's items, and the item's number of rows. The regression is
    fitted in folds: for a fitted row, the item's likes are counted in the other folds, so that the
    model remembers no row.

    Args:
        facts: data of all rows.
        fitted: ids of the rows to fit, each once; at least one.
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
        if len(np.unique(label)) < 2:  # all labels are the same: the mean predicts them
            return
        numbers = self._numbers(fitted, True)
        self._scaler = StandardScaler().fit(numbers)
        learner = LogisticRegression(C=1000.0, max_iter=1000)
        self._regression = learner.fit(self._scaler.transform(numbers), label)

    def losses(self, rows: Rows, fitted: bool = False) -> Numbers:  # [m] -> [m]
        """Log loss of each row, in nats.

        Args:
            rows: row ids.
            fitted: whether the model was fitted on these rows; the caller must know.
        """
        if self._regression is None:
            yes = np.full(len(rows), self._mean)
        else:
            numbers = self._numbers(rows, fitted)
            yes = self._regression.predict_proba(self._scaler.transform(numbers))[:, 1]
        return log_losses(yes, self._facts.label[rows], LEAST_PROBABILITY)

    def _numbers(self, rows: Rows, fitted: bool) -> Numbers:  # [m] -> [m, 4]
        """Features of the regression; for fitted rows, the item is counted in other folds."""
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


def _log_odds(share: Numbers) -> Numbers:
    clipped = np.clip(share, 0.01, 0.99)
    return np.log(clipped / (1 - clipped))


class TargetLoss(NamedTuple):
    """The loss that the forget rows of a request should reach.

    Attributes:
        rows: ids of the forget rows, sorted, [n].
        loss: the target: mean log loss on these rows, in nats.
        error: standard error of the target, with users as the sampling units.
        losses: Original's log loss on each of these rows, in nats, [n].
    """

    rows: Rows
    loss: float
    error: float
    losses: Numbers

    @property
    def original(self) -> float:
        """Original's mean log loss on these rows, in nats."""
        return float(self.losses.mean())

    @property
    def gap(self) -> float:
        """How much more than for Original the loss is to be, in nats."""
        return self.loss - self.original

    @property
    def findings(self) -> dict[str, float]:
        """The target as entries of a result row."""
        return {
            "target_logloss": self.loss,
            "target_error": self.error,
            "original_logloss": self.original,
        }


def target_loss(model: LLMRec, request: UnlearningTask) -> TargetLoss:
    """Predict the loss of a held-out model on the forget rows.

    Original is asked about all forget rows, since a sample of them would be as far off as the whole
    prediction, and about as many rows of control users. Without control users, validation rows of
    users who stay take their place. Original was trained on these users, so the prediction is too
    low if prompts name users.

    Args:
        model: Original.
        request: what to forget, at least one row.
    """
    labels = model.labels
    assert labels is not None  # Original was trained on them
    impersonal = ImpersonalModel(
        RowFacts(request.item, labels, request.forget_history), request.retain
    )
    forget, retain = request.forget, some_of(request.retain, request.seed)
    unseen = some_of(request.unseen, request.seed, max(ASKED, len(forget)))
    losses = [_original_losses(model, request, rows) for rows in (forget, retain, unseen)]
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
    if len(np.unique(users[0])) < FEW_USERS:
        few_error = error_of_few(users[0], beyond[2], users[2])
        forget_error = forget_error if few_error is None else few_error
    gap, gap_error = shrunken_gap(of_unseen - of_forget, forget_error, of_unseen - of_retain)
    target = float(losses[0].mean()) + gap
    return TargetLoss(forget, target, float(np.hypot(unseen_error, gap_error)), losses[0])


def _original_losses(model: LLMRec, request: UnlearningTask, rows: Rows) -> Numbers:  # [m] -> [m]
    """Log loss of Original on each row; rows that are answered already are not asked about."""
    assert model.labels is not None  # Original was trained on them
    yes = np.full(len(model.labels), np.nan) if request.answered is None else request.answered
    unknown = rows[np.isnan(yes[rows])]
    yes[unknown] = own_yes(model, unknown, request.forget_history)
    return log_losses(yes[rows], model.labels[rows], LEAST_PROBABILITY)


def own_yes(model: LLMRec, rows: Rows, history: Rows) -> Numbers:  # [m], [n, k] -> [m]
    """P(yes) of the model itself for each row, with these histories in the prompts."""
    with model.using_history(history):
        answers = Adapted(model.adapter).ask(model, rows)
    return answers.yes(model.language_model.answer_ids).double().cpu().numpy()


def strength_reaching(
    model: LLMRec,
    request: UnlearningTask,
    target: TargetLoss,
    scorer: Callable[[float], Scorer],
    most: float,
    exact: bool = True,
) -> float:
    """Find the strength at which the forget rows reach the target loss.

    Many strengths are tried on a sample of the rows. The one that is found there is tried once on
    all rows. From then on the sample is to gain so much more or less than all rows as it did then.

    Args:
        model: the recommender.
        request: what to forget.
        target: the loss to reach, and the rows on which it is measured.
        scorer: makes the scorer of a strength.
        most: the largest strength.
        exact: whether all rows are asked; otherwise it is enough to come near on the sample.

    Returns:
        The strength, see :func:`strength_for`.
    """
    sample = some_of(target.rows, request.seed)
    losses = target.losses[np.searchsorted(target.rows, sample)]
    before = float(losses.mean())

    @cache
    def loss(share: float) -> float:
        return float(loss_of(model, scorer(share), sample).mean())

    def gaining(gap: float, close: float) -> float:
        wanted = TargetLoss(sample, before + gap, target.error, losses)
        return strength_for(loss, wanted, most, close)

    with model.using_history(request.forget_history):
        if len(sample) == len(target.rows):
            return gaining(target.gap, CLOSE)
        share = gaining(target.gap, ROUGH)
        if not exact or share == 0:
            return share
        gained = float(loss_of(model, scorer(share), target.rows).mean()) - target.original
        amiss = np.clip((loss(share) - before) / max(gained, 1e-9), 1 / MOST_AMISS, MOST_AMISS)
        return gaining(target.gap * float(amiss), CLOSE)


def scale_to_target(
    model: LLMRec,
    request: UnlearningTask,
    name: str,
    start: Mapping[str, Tensor],
    target: TargetLoss,
    bounds: tuple[float, float],
) -> float:
    """Scale the change of a trained adapter so that the forget rows reach the target loss.

    Args:
        model: the recommender with the trained adapter.
        request: what to forget.
        name: name of the adapter.
        start: the adapter's weights before training, with which it answers as Original does.
        target: the loss to reach.
        bounds: smallest and largest factor.

    Returns:
        The factor.
    """
    least, most = bounds
    trained = model.bank.state(name)

    def scorer(factor: float) -> Scorer:
        return Stored(name, lambda: interpolated(start, trained, factor))

    with model.bank.active(name):  # each factor's answers would switch to it and back
        factor = max(least, strength_reaching(model, request, target, scorer, most))
    model.bank.load(name, interpolated(start, trained, factor))
    return factor


def shrunken_gap(of_request: float, error: float, general: float) -> tuple[float, float]:
    """Estimate a request's memorisation gap from its own rows and from the retain rows.

    The two estimates are weighted by their precision, each by the other's variance. The variance of
    the general estimate is that between requests, see ``UNLIKE``.

    Args:
        of_request: gap of the request's own rows, in nats.
        error: standard error of ``of_request``.
        general: gap of the retain rows, in nats.

    Returns:
        The estimate, at least 0, and its standard error.
    """
    between, chance = (UNLIKE * general) ** 2, error**2
    whole = between + chance
    if whole == 0:
        return max(0.0, of_request), 0.0
    mean = (between * of_request + chance * general) / whole
    return max(0.0, mean), float(np.sqrt(between * chance / whole))


def loss_of(model: LLMRec, scorer: Scorer, rows: Rows) -> Numbers:  # [m] -> [m]
    """Log loss of a scorer on each row, in nats, with the histories of the model's prompts."""
    labels = model.labels
    assert labels is not None
    yes = scorer.ask(model, rows).yes(model.language_model.answer_ids)
    return log_losses(yes.double().cpu().numpy(), labels[rows], LEAST_PROBABILITY)


def mean_over_users(values: Numbers, user: Rows) -> tuple[float, float]:  # [n], [n]
    """Mean over rows, and its standard error with users, not rows, as the sampling units.

    For each user, the deviations of the user's rows from the mean are summed. The error is the
    square root of the sum of these sums' squares, divided by the number of rows. If all rows are of
    one user, rows are the sampling units.

    Args:
        values: one value for each row.
        user: inner user id of each row.

    Returns:
        The mean and its standard error; both are 0 if there are no rows.
    """
    if len(values) == 0:
        return 0.0, 0.0
    mean = float(values.mean())
    _, place = np.unique(user, return_inverse=True)
    if place.max() == 0:
        place = np.arange(len(values))
    sums = np.bincount(place, weights=values - mean)
    return mean, float(np.sqrt((sums**2).sum()) / len(values))


def error_of_few(request: Rows, values: Numbers, user: Rows) -> float | None:  # [m], [n], [n]
    """Standard error of a mean over the rows of few users, from how other users differ.

    A user's rows are easy or hard together, for reasons that neither the model nor the user's
    memorised rows explain; a few users cannot tell by how much. So the variance within users,
    ``s``, and between users, ``t``, is taken from others, by a one-way analysis of variance with
    groups of unequal size. With m_u rows of user u and m in all, the squared error is

        (s * m + t * sum over u of m_u^2) / m^2.

    Args:
        request: inner user id of each row of the request.
        values: one value for each row of other users.
        user: inner user id of each of these rows.

    Returns:
        The error; None if the others are a single user, or have one row each.
    """
    _, place, rows = np.unique(user, return_inverse=True, return_counts=True)
    users, count = len(rows), len(values)
    if users < 2 or users == count:
        return None
    means = np.bincount(place, weights=values) / rows
    within = float(((values - means[place]) ** 2).sum()) / (count - users)
    between = float((rows * (means - values.mean()) ** 2).sum()) / (users - 1)
    size = (count - (rows**2).sum() / count) / (users - 1)
    between_users = max(0.0, (between - within) / size)
    mine = np.unique(request, return_counts=True)[1]
    whole = len(request)
    return float(np.sqrt(within * whole + between_users * (mine**2).sum()) / whole)


def some_of(rows: Rows, seed: int, most: int = ASKED) -> Rows:
    """Draw at most so many of the rows at random; sorted.

    Each row has a random place in line. If some rows leave, the others keep theirs: the draws for
    two requests differ by few rows, so that a model in use can be asked about most of them before
    there is a request.
    """
    if len(rows) <= most:
        return rows
    places = generator_of(seed, Stream.TARGET_ROWS).random(int(rows.max()) + 1)[rows]
    return np.sort(rows[np.argpartition(places, most)[:most]])


def strength_for(
    loss: Callable[[float], float], target: TargetLoss, most: float, close: float = CLOSE
) -> float:
    """Find the strength at which a loss reaches its target.

    Args:
        loss: gives the mean loss on the target's rows at a strength above 0; need not be monotonic.
        target: the loss to reach; Original's loss is that of strength 0.
        most: the largest strength.
        close: a loss this near to its target has reached it, as a share of the gap.

    Returns:
        The strength: 0 if Original already reaches the target, ``most`` if no strength does.
    """

    @cache
    def missing(strength: float) -> float:
        gap = target.loss - (loss(strength) if strength > 0 else target.original)
        return 0.0 if abs(gap) <= close * target.gap else gap

    if target.gap <= 0:
        return 0.0
    low, high = 0.0, min(1.0, most)
    while missing(high) > 0:
        if high >= most:
            return distributed.broadcast(most)
        low, high = high, min(2 * high, most)
    return distributed.broadcast(float(brentq(missing, low, high)))
