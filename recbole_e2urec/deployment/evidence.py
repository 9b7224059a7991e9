"""What can be measured of a model before and after a request, without anything of the other one."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec.deployment.change import Change, Watched
from recbole_e2urec.evaluator.bootstrap import UserBootstrap, interval
from recbole_e2urec.evaluator.labelled import labelled_metrics
from recbole_e2urec.evaluator.measure import RESAMPLING_SEED, Answers
from recbole_e2urec.evaluator.membership import answer_losses, membership_auc
from recbole_e2urec.evaluator.relearnsteps import step_curve
from recbole_e2urec.experiment import Experiment, Rows
from recbole_e2urec.model.scorers import Adapted

Losses = NDArray[np.float64]


class Evidence(NamedTuple):
    """What a model answered, and the measures made of it, as JSON."""

    answers: Answers
    measures: dict[str, Any]


def measured(run: Experiment, change: Change, watched: Watched, history: Rows) -> Evidence:
    """Measure a model.

    Args:
        run: its model answers.
        change: the request; all but the test rows are asked with the histories before it, as they
            were learned.
        watched: the rows to ask about.
        history: of the test rows: what prompts show while this model is in use, [n, k].
    """
    model, user, labels = run.model, run.dataset.rows.user, run.dataset.rows.label
    assert labels is not None  # the model was trained on them
    scorer, words = Adapted(model.adapter), model.language_model.answer_ids
    yes = np.full(len(labels), np.nan)
    with model.shown(change.before):
        forget = scorer.ask(model, watched.forget)
        yes[watched.forget] = forget.yes(words).cpu().numpy()
        others = np.union1d(watched.heldout, watched.control)
        yes[others] = model.answer(others, None).cpu().numpy()
    losses = answer_losses(yes, labels)
    seed = run.config["seed"]
    curves = {
        name: step_curve(model, rows, change.before, seed)
        for name, rows in (("forget", watched.forget), ("control", watched.control))
    }
    with model.shown(history):  # test rows of users who stay may be held-out rows of this request
        test = model.answer(watched.test, None).double().cpu().numpy()
    measures = {
        "test": labelled_metrics(run.config, test, labels[watched.test]),
        **{name: _loss(losses[getattr(watched, name)]) for name in Watched._fields[:3]},
        "mia": _attack(losses, watched.forget, watched.control, user),
        "mia_same_users": _attack(losses, watched.forget, watched.heldout, user),
        "relearning": {name: one and one._asdict() for name, one in curves.items()},
    }
    return Evidence(Answers(yes, forget), measures)


def _loss(losses: Losses) -> dict[str, Any]:  # [n] -> mean cross-entropy of the true answers, nats
    return {"loss": float(losses.mean()) if len(losses) else None, "rows": len(losses)}


def _attack(losses: Losses, members: Rows, others: Rows, user: Rows) -> dict[str, Any] | None:
    """Membership inference by the loss: AUC, and its 95 % interval over resampled users."""
    if len(members) == 0 or len(others) == 0:
        return None
    rows = np.concatenate([members, others])
    belongs = np.repeat([1.0, 0.0], [len(members), len(others)])
    found = UserBootstrap(user[rows], belongs, RESAMPLING_SEED)
    return {
        "auc": membership_auc(losses[members], losses[others]),
        "interval": interval(found.auc(-losses[rows])),
        "users": len(np.unique(user[members])),
        "other_users": len(np.unique(user[others])),
    }
