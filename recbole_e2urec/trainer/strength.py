"""How strongly to forget: the loss that forget rows are to have, known without any Retrain.

Nobody trained on the control users, so what Original loses on their rows, beyond how hard those
rows are, tells what a stranger's rows cost it. How hard rows are says a model that remembers
nobody, :class:`ImpersonalModel`. On forget rows a model that never saw them therefore loses

    mean of impersonal(forget) + mean over control rows of (Original - impersonal).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec.model.impersonal import ImpersonalModel, RowFacts, log_losses
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.scorers import Scorer
from recbole_e2urec.trainer.unlearning import Request

Rows = NDArray[np.int64]
Numbers = NDArray[np.float64]
ASKED = 4096  # rows at most on which a loss is measured while a strength is searched for
MOST_STRENGTH = 16.0
CLOSE = 0.02  # relative; a strength is not searched for more exactly


class TargetLoss(NamedTuple):
    """The mean log loss that forget rows are to have, in nats.

    Attributes:
        loss: the target.
        error: its standard error, from control users drawn anew.
        original: what Original loses on the same forget rows.
    """

    loss: float
    error: float
    original: float


def target_loss(model: LLMRec, original: Scorer, request: Request) -> TargetLoss:
    """Foretell the loss on forget rows of a model that never saw them.

    Where no users are kept out, held-out rows of the users who stay take the control rows' place.
    Original knows these users, so where prompts name users the target is then too low.

    Args:
        model: the recommender.
        original: who answers as Original does.
        request: what to forget.
    """
    labels = model.labels
    assert labels is not None  # Original was trained on them
    forget = some_of(request.forget, request.seed)
    control = some_of(request.unseen, request.seed)
    facts = RowFacts(request.item, labels, request.forget_history)
    easy = ImpersonalModel(facts, request.retain)
    with model.shown(request.forget_history):
        lost = loss_of(model, original, control)
        before = loss_of(model, original, forget)
    beyond = lost - easy.losses(control)
    mean, error = mean_over_users(beyond, request.user[control])
    return TargetLoss(float(easy.losses(forget).mean()) + mean, error, float(before.mean()))


def loss_of(model: LLMRec, scorer: Scorer, rows: Rows) -> Numbers:  # [m] -> [m]
    """Log loss of a scorer on each row, in nats, under the histories that the model shows."""
    labels = model.labels
    assert labels is not None
    yes = scorer.ask(model, rows).yes(model.language_model.answer_ids)
    return log_losses(yes.double().cpu().numpy(), labels[rows])


def mean_over_users(values: Numbers, user: Rows) -> tuple[float, float]:  # [n], [n]
    """Mean over rows, and its standard error where users, not rows, are drawn at random.

    The error is the root of the sum over users of (sum over their rows of value minus mean)
    squared, divided by the number of rows; 0 for one user alone.
    """
    if len(values) == 0:
        return 0.0, 0.0
    mean = float(values.mean())
    _, place = np.unique(user, return_inverse=True)
    sums = np.bincount(place, weights=values - mean)
    return mean, float(np.sqrt((sums**2).sum()) / len(values))


def some_of(rows: Rows, seed: int) -> Rows:
    """The rows, or as many of them as are enough to measure a loss, drawn at random; sorted."""
    if len(rows) <= ASKED:
        return rows
    generator = np.random.default_rng(np.random.SeedSequence([seed, len(rows)]))
    return np.sort(generator.choice(rows, ASKED, replace=False))


def strength_for(loss: Callable[[float], float], target: float, most: float) -> float:
    """The strength at which a loss reaches a target, by bisection.

    Args:
        loss: mean loss under a strength; it need not rise everywhere.
        target: in nats.
        most: the greatest strength; given back where the target is not reached.

    Returns:
        0 where the target is reached without any.
    """
    low, high = 0.0, min(1.0, most)
    if loss(0.0) >= target:
        return 0.0
    while loss(high) < target:
        if high >= most:
            return most
        low, high = high, min(2 * high, most)
    while high - low > CLOSE * high:
        middle = (low + high) / 2
        low, high = (middle, high) if loss(middle) < target else (low, middle)
    return (low + high) / 2
