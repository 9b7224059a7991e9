"""Asks a model about the groups of rows that matter, and computes measures from its answers."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from recbole_e2urec.data.rows import RowTable
from recbole_e2urec.evaluator.attacks import (
    FALSE_POSITIVE_RATES,
    LOSS_EDGES,
    RESAMPLING_SEED,
    histogram,
    membership_auc,
    membership_roc,
    membership_tpr,
)
from recbole_e2urec.evaluator.metrics import (
    UserBootstrap,
    euclidean,
    interval,
    jeffreys_half,
    jensen_shannon,
    labelled_metrics,
    log_probabilities,
    residual,
)
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.scorers import CachedAnswers, Scorer

Rows = NDArray[np.int64]


class Groups(NamedTuple):
    """Row ids to ask about, by group.

    Attributes:
        forget: training rows to forget.
        retain: training rows to retain, or a sample of them.
        test: all test rows.
        heldout_forget_users: test rows of users with a forgotten row.
        heldout_other_users: test rows of everyone else.
        control: rows of control users, on whom no model was trained.
    """

    forget: Rows
    retain: Rows
    test: Rows
    heldout_forget_users: Rows
    heldout_other_users: Rows
    control: Rows


class Answers(NamedTuple):
    """The answers of one model.

    Attributes:
        yes: P(yes) by row id, float64 [n]; NaN for rows not asked about.
        forget: the complete answers on the forget rows.
        rounded: P(yes) as in ``yes`` of the model with rounded weights, by their bits; only for
            certificates.
    """

    yes: NDArray[np.float64]
    forget: CachedAnswers
    rounded: Mapping[int, NDArray[np.float64]] = MappingProxyType({})


def ask(
    model: LLMRec, scorer: Scorer, groups: Groups, forget_history: Rows, history: Rows
) -> Answers:
    """Ask a model about all groups, each row once.

    Args:
        model: the recommender.
        scorer: what answers.
        groups: the rows.
        forget_history: histories in the prompts of forget rows, [n, k].
        history: histories in the prompts of all other rows, [n, k].
    """
    assert model.labels is not None  # Original was trained on them
    yes = np.full(len(model.labels), np.nan)
    others = np.unique(np.concatenate([groups.retain, groups.test, groups.control]))
    answer_ids = model.language_model.answer_ids
    with model.using_history(forget_history):
        forget = scorer.ask(model, groups.forget)
    yes[groups.forget] = forget.yes(answer_ids).cpu().numpy()
    with model.using_history(history):
        yes[others] = scorer.ask(model, others).yes(answer_ids).cpu().numpy()
    return Answers(yes, forget)


def utility(
    config: Any, answers: Answers, groups: Groups, labels: NDArray[np.float32]
) -> dict[str, Any]:
    """Compute AUC, ACC and LogLoss of each group except the control users."""
    names = [name for name in Groups._fields if name != "control"]
    rows_by_group = {name: getattr(groups, name) for name in names}
    return {
        name: labelled_metrics(config, answers.yes[rows], labels[rows])
        for name, rows in rows_by_group.items()
    }


def who_pays(
    config: Any, answers: Answers, groups: Groups, rows: RowTable, train: Rows
) -> dict[str, list[float | None]]:
    """Compute AUC of the held-out rows of users who stay, by fifths.

    ``activity`` has fifths of these users, from those with fewest to those with most training rows.
    ``popularity`` has fifths of these rows, from the items with fewest to those with most training
    rows. AUC is None where it is not defined.

    Args:
        config: the run's configuration.
        answers: answers of the model.
        groups: the rows.
        rows: all rows.
        train: ids of all training rows, of the request too.
    """
    label, held_out = rows.label, groups.heldout_other_users
    assert label is not None  # without labels nothing was trained

    def trained_on(ids: Rows) -> Rows:
        return np.bincount(ids[train], minlength=ids.max() + 1)

    user, item = rows.user[held_out], rows.item[held_out]
    users = np.unique(user)
    users = users[np.argsort(trained_on(rows.user)[users], kind="stable")]
    rarest_first = held_out[np.argsort(trained_on(rows.item)[item], kind="stable")]
    fifths = {
        "activity": [held_out[np.isin(user, part)] for part in np.array_split(users, 5)],
        "popularity": np.array_split(rarest_first, 5),
    }
    return {
        name: [labelled_metrics(config, answers.yes[part], label[part])["auc"] for part in parts]
        for name, parts in fifths.items()
    }


def attacks(losses: NDArray[np.float64], groups: Groups) -> dict[str, float | None]:
    """Run membership inference against the forget rows.

    ``mia_auc`` takes rows of control users, whom no model saw, for non-members.
    ``mia_tpr_at_fpr_01`` is the share of members found when 1 % of these rows are accused.
    ``mia_auc_same_users`` compares with held-out rows of the forgotten users. The model remembers
    these users as a whole, so this is no clean control.

    Args:
        losses: loss of the true answer by row id, see ``log_losses``.
        groups: the rows.

    Returns:
        The measures; None for a measure without rows to compare.
    """
    members, unseen = losses[groups.forget], losses[groups.control]
    measures = {
        "mia_auc": membership_auc(members, unseen),
        "mia_tpr_at_fpr_01": membership_tpr(members, unseen),
        "mia_auc_same_users": membership_auc(members, losses[groups.heldout_forget_users]),
    }
    return {name: None if np.isnan(value) else value for name, value in measures.items()}


def curves(losses: NDArray[np.float64], groups: Groups) -> dict[str, Any]:
    """Compute the curves of the loss attack for plots; arguments as in :func:`attacks`.

    ``mia_roc`` is the attack's ROC curve against control users. ``loss_shares`` holds histograms of
    the losses of forget rows, of control users and of forgotten users' held-out rows. Groups
    without rows are left out.
    """
    members, unseen = losses[groups.forget], losses[groups.control]
    histograms: dict[str, Any] = {"edges": list(LOSS_EDGES)}
    for name in ("forget", "control", "heldout_forget_users"):
        if len(rows := getattr(groups, name)):
            histograms[name] = histogram(losses[rows])
    if len(members) == 0 or len(unseen) == 0:
        return {"loss_shares": histograms}
    roc = {"fpr": list(FALSE_POSITIVE_RATES), "tpr": membership_roc(members, unseen)}
    return {"mia_roc": roc, "loss_shares": histograms}


def distance_to(
    answers: Answers, original: Answers, retrained: Answers, forget: Rows
) -> dict[str, float | None]:
    """Measure the distance to Retrain on the forget rows.

    Args:
        answers: answers of the model.
        original: answers of Original.
        retrained: answers of Retrain.
        forget: ids of the forget rows.

    Returns:
        Means of JSD, half the Jeffreys divergence and L2, and the residual; the residual is None
        if Original and Retrain answer alike.
    """
    measures = {"jsd": jensen_shannon, "jeffreys_half": jeffreys_half, "l2": euclidean}
    sums = dict.fromkeys(measures, 0.0)
    with torch.no_grad():
        for part in answers.forget.chunks():
            ours, theirs = (
                log_probabilities(each.forget.logits(part)) for each in (answers, retrained)
            )
            for name, measure in measures.items():
                sums[name] += float(measure(ours, theirs).sum())
    yes = (torch.from_numpy(each.yes[forget]) for each in (answers, original, retrained))
    share = residual(*yes)
    means: dict[str, float | None] = {name: total / len(forget) for name, total in sums.items()}
    return {**means, "residual": None if np.isnan(share) else share}


def intervals(
    answers: Answers, original: Answers, retrained: Answers, groups: Groups, rows: RowTable
) -> dict[str, list[float] | None]:
    """Compute 95 % intervals of AUCs and of paired differences, by a bootstrap over users.

    ``test_auc`` and ``forget_auc`` are this model's. ``lost`` is Original's test AUC minus this
    one. ``gap`` is this forget AUC minus Retrain's.
    """
    label = rows.label
    assert label is not None  # without labels nothing was trained
    test, forget = (
        UserBootstrap(rows.user[part], label[part], RESAMPLING_SEED)
        for part in (groups.test, groups.forget)
    )
    test_auc, original_test_auc = (test.auc(each.yes[groups.test]) for each in (answers, original))
    forget_auc, retrain_forget_auc = (
        forget.auc(each.yes[groups.forget]) for each in (answers, retrained)
    )
    return {
        "test_auc": interval(test_auc),
        "lost": interval(original_test_auc - test_auc),
        "forget_auc": interval(forget_auc),
        "gap": interval(forget_auc - retrain_forget_auc),
    }


def group_sizes(groups: Groups) -> dict[str, int]:
    """Count the rows of each group."""
    return {name: len(rows) for name, rows in groups._asdict().items()}
