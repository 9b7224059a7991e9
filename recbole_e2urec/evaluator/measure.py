"""What a model answers on the groups of rows that matter, and the measures made from it."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from recbole_e2urec.data.rows import RowTable
from recbole_e2urec.evaluator.attacks import (
    FALSE_POSITIVE_RATES,
    LOSS_EDGES,
    histogram,
    membership_auc,
    membership_roc,
    membership_tpr,
)
from recbole_e2urec.evaluator.bootstrap import UserBootstrap, interval
from recbole_e2urec.evaluator.metrics import (
    euclidean,
    jeffreys_half,
    jensen_shannon,
    labelled_metrics,
    log_probabilities,
    residual,
)
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.scorers import CachedAnswers, Scorer

Rows = NDArray[np.int64]
RESAMPLING_SEED = 0  # one for all runs, so that intervals of two runs can be compared


class Groups(NamedTuple):
    """Row ids to ask about.

    Attributes:
        forget: training rows to forget.
        retain: training rows that stay, or a sample of them.
        test: all test rows.
        heldout_forget_users: test rows of users with a forgotten row.
        heldout_other_users: test rows of everyone else.
        control: rows of users that no model was trained on.
    """

    forget: Rows
    retain: Rows
    test: Rows
    heldout_forget_users: Rows
    heldout_other_users: Rows
    control: Rows


class Answers(NamedTuple):
    """What one model says.

    Attributes:
        yes: P(yes) by row id, float64 [n]; NaN where nothing was asked.
        forget: its whole answers to the forget rows.
    """

    yes: NDArray[np.float64]
    forget: CachedAnswers


def ask(
    model: LLMRec, scorer: Scorer, groups: Groups, forget_history: Rows, history: Rows
) -> Answers:
    """Ask about all groups, each row once.

    Args:
        model: the recommender.
        scorer: who answers.
        groups: the rows.
        forget_history: histories of the prompts of forget rows, [n, k].
        history: histories of all others, [n, k].
    """
    yes = np.full(len(model.labels), np.nan)
    others = np.unique(np.concatenate([groups.retain, groups.test, groups.control]))
    words = model.language_model.answer_ids
    with model.using_history(forget_history):
        forget = scorer.ask(model, groups.forget)
    yes[groups.forget] = forget.yes(words).cpu().numpy()
    with model.using_history(history):
        yes[others] = scorer.ask(model, others).yes(words).cpu().numpy()
    return Answers(yes, forget)


def utility(
    config: Any, answers: Answers, groups: Groups, labels: NDArray[np.float32]
) -> dict[str, Any]:
    """AUC, ACC and LogLoss of each group but the control users', by group."""
    names = [name for name in Groups._fields if name != "control"]
    rows = {name: getattr(groups, name) for name in names}
    return {
        name: labelled_metrics(config, answers.yes[part], labels[part])
        for name, part in rows.items()
    }


def attacks(losses: NDArray[np.float64], groups: Groups) -> dict[str, float | None]:
    """Membership inference against forget rows.

    ``mia_auc``: non-members are rows of users that no model saw; ``mia_tpr_at_fpr_01``: the share
    of members found when 1 % of these are accused; ``mia_auc_same_users``: against held-out
    rows of the forgotten users, who are remembered as a whole, so this is no clean control.

    Args:
        losses: of the true answer, by row id (see :func:`answer_losses`).
        groups: the rows.
    """
    members, unseen = losses[groups.forget], losses[groups.control]
    found = {
        "mia_auc": membership_auc(members, unseen),
        "mia_tpr_at_fpr_01": membership_tpr(members, unseen),
        "mia_auc_same_users": membership_auc(members, losses[groups.heldout_forget_users]),
    }
    return {name: None if np.isnan(value) else value for name, value in found.items()}


def curves(losses: NDArray[np.float64], groups: Groups) -> dict[str, Any]:
    """What plots need of the loss attack; arguments as in :func:`attacks`.

    ``mia_roc``: the attack's ROC against control users; ``loss_shares``: how the losses of forget
    rows, of control users and of forgotten users' held-out rows are spread. Groups without rows
    are left out.
    """
    members, unseen = losses[groups.forget], losses[groups.control]
    spread: dict[str, Any] = {"edges": list(LOSS_EDGES)}
    for name in ("forget", "control", "heldout_forget_users"):
        if len(rows := getattr(groups, name)):
            spread[name] = histogram(losses[rows])
    if len(members) == 0 or len(unseen) == 0:
        return {"loss_shares": spread}
    roc = {"fpr": list(FALSE_POSITIVE_RATES), "tpr": membership_roc(members, unseen)}
    return {"mia_roc": roc, "loss_shares": spread}


def distance_to(
    answers: Answers, original: Answers, retrained: Answers, forget: Rows
) -> dict[str, float | None]:
    """Distances to Retrain on the forget rows: JSD, Jeffreys/2 and L2 (means), and residual."""
    measures = {"jsd": jensen_shannon, "jeffreys_half": jeffreys_half, "l2": euclidean}
    sums = dict.fromkeys(measures, 0.0)
    with torch.no_grad():
        for part in answers.forget.chunks():
            ours, theirs = (
                log_probabilities(one.forget.logits(part)) for one in (answers, retrained)
            )
            for name, measure in measures.items():
                sums[name] += float(measure(ours, theirs).sum())
    three = (torch.from_numpy(one.yes[forget]) for one in (answers, original, retrained))
    share = residual(*three)
    means: dict[str, float | None] = {name: total / len(forget) for name, total in sums.items()}
    return {**means, "residual": None if np.isnan(share) else share}


def intervals(
    answers: Answers, original: Answers, retrained: Answers, groups: Groups, rows: RowTable
) -> dict[str, list[float] | None]:
    """User-clustered 95 % intervals of AUCs, and of paired differences in them.

    ``test_auc`` and ``forget_auc``; ``lost``: Original's test AUC minus this one; ``gap``: this
    forget AUC minus Retrain's.
    """
    label = rows.label
    assert label is not None  # without labels nothing was trained
    test, forget = (
        UserBootstrap(rows.user[part], label[part], RESAMPLING_SEED)
        for part in (groups.test, groups.forget)
    )
    on_test, original_on_test = (test.auc(one.yes[groups.test]) for one in (answers, original))
    on_forget, retrain_on_forget = (
        forget.auc(one.yes[groups.forget]) for one in (answers, retrained)
    )
    return {
        "test_auc": interval(on_test),
        "lost": interval(original_on_test - on_test),
        "forget_auc": interval(on_forget),
        "gap": interval(on_forget - retrain_on_forget),
    }


def group_sizes(groups: Groups) -> dict[str, int]:
    """Number of rows of each group."""
    return {name: len(rows) for name, rows in groups._asdict().items()}
