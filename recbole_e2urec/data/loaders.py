"""RecBole loaders from a dataset: one split, one set of candidates, any training rows.

This file takes the same steps as RecBole's ``data_preparation``, which cannot leave users out,
train on part of the rows, or reuse its candidates.

RecBole draws new negatives at each evaluation, and its sequential models may get seen items as
candidates where other models do not. Here, candidate ``j`` of a row is a hash of (seed, row id, j).
It is the same for every model, evaluation and batch size, whichever other rows are evaluated.
"""

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.data.dataloader import FullSortEvalDataLoader, NegSampleEvalDataLoader
from recbole.data.interaction import Interaction
from recbole.data.utils import create_samplers, get_dataloader
from recbole.sampler import KGSampler
from recbole.utils import EvaluatorType, ModelType

from recbole_e2urec.data.dataset import ROW_ID, RowDataMixin
from recbole_e2urec.data.rows import Splits, without
from recbole_e2urec.errors import InputError
from recbole_e2urec.utils.recbole_compat import as_input_errors

_SPAN = np.uint64(1 << 20)  # hash inputs reserved for each row: the most draws that a row can make


def draw_candidates(
    rows: NDArray[np.int64],
    users: NDArray[np.int64],
    used: NDArray[np.int64],
    weights: NDArray[np.float64],
    count: int,
    seed: int,
) -> NDArray[np.int64]:
    """Draw items that the row's user has not used, with replacement as in RecBole.

    Args:
        rows: row ids, [n].
        users: inner user ids of the rows, [n].
        used: pairs ``user * len(weights) + item`` that must not be drawn, [m].
        weights: sampling weight of each inner item id, [items]; an item with weight 0 (padding) is
            never drawn.
        count: candidates per row.
        seed: seed of the run.

    Returns:
        Inner item ids, [n, count].

    Raises:
        InputError: a user has used every item, so nothing can be drawn.
    """
    if count == 0:
        return np.empty((len(rows), 0), dtype=np.int64)
    items = len(weights)
    used = np.unique(used)
    _check_unused_items(users, used, weights)
    upper_bound = np.cumsum(weights) / np.sum(weights)
    start = (
        _hash_integers(rows.astype(np.uint64) ^ _hash_integers(np.array([seed]))) // _SPAN
    ) * _SPAN
    candidates = np.zeros((len(rows), count), dtype=np.int64)
    open_row, open_slot = (index.ravel() for index in np.indices(candidates.shape))
    draw = open_slot.astype(np.uint64)
    while len(open_row):
        uniform = _hash_integers(start[open_row] + draw) / np.float64(2**64)
        item = np.minimum(np.searchsorted(upper_bound, uniform, side="right"), items - 1)
        candidates[open_row, open_slot] = item
        is_used = _contains(used, users[open_row] * items + item)
        open_row, open_slot = open_row[is_used], open_slot[is_used]
        draw = draw[is_used] + np.uint64(count)
    return candidates


def _check_unused_items(
    users: NDArray[np.int64], used: NDArray[np.int64], weights: NDArray[np.float64]
) -> None:
    items = len(weights)
    drawable = used[weights[used % items] > 0]
    per_user = np.bincount(drawable // items, minlength=int(users.max(initial=0)) + 1)
    if np.any(per_user[users] >= np.count_nonzero(weights)):
        raise InputError(
            "a user has interacted with every item, so no candidate can be sampled; set eval_mode "
            "to full, or user_inter_num_interval to leave such users out"
        )


def _contains(ordered: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.bool_]:
    if len(ordered) == 0:
        return np.zeros(len(values), dtype=bool)
    index = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return ordered[index] == values


def _hash_integers(value: NDArray[np.integer]) -> NDArray[np.uint64]:
    """Hash integers to uniform bits with the finaliser of SplitMix64 (Steele et al. 2014)."""
    mixed = value.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


class RowSampler:
    """Replaces RecBole's sampler in evaluation; it is the same for every model of a run.

    Args:
        config: the run's settings.
        dataset: the whole dataset.
        splits: the split of all rows that any compared model trains or is tested on.
        phase: ``valid`` or ``test``.
        rows: row ids to evaluate.

    Attributes:
        phase: ``valid`` or ``test``.
        rows: row ids to evaluate, ascending, [n].
        candidates: inner item ids for each row, [n, count]; no columns if nothing is sampled.
    """

    def __init__(
        self, config: Any, dataset: Any, splits: Splits, phase: str, rows: NDArray[np.int64]
    ) -> None:
        self.phase = phase
        self.rows = np.sort(rows)
        self._users = dataset.user_num
        seen = np.concatenate(splits[:2] if phase == "valid" else splits)
        self._seen = dataset.rows.user[seen], dataset.rows.item[seen]
        args = config[f"{phase}_neg_sample_args"]
        self.candidates = draw_candidates(
            self.rows,
            dataset.rows.user[self.rows],
            self._seen[0] * dataset.item_num + self._seen[1],
            _weights(args["distribution"], dataset, splits),
            0 if args["sample_num"] == "none" else int(args["sample_num"]),
            config["seed"],
        )

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the candidates of some of the rows, in the given order, [len(rows), count]."""
        return self.candidates[np.searchsorted(self.rows, rows)]

    @cached_property
    def used_ids(self) -> NDArray[Any]:
        """The set of items that each user has seen up to this phase, by inner user id, [users]."""
        user, item = self._seen
        order = np.argsort(user, kind="stable")
        bounds = np.searchsorted(user[order], np.arange(self._users + 1))
        items_of_user = np.empty(self._users, dtype=object)
        for inner_id in range(self._users):
            items_of_user[inner_id] = set(
                item[order[bounds[inner_id] : bounds[inner_id + 1]]].tolist()
            )
        return items_of_user


def _weights(distribution: str, dataset: Any, splits: Splits) -> NDArray[np.float64]:
    """Return the weight of each inner item id: 1, or its count over all parts as in RecBole."""
    weights = np.ones(dataset.item_num)
    if distribution == "popularity":
        items = dataset.rows.item[np.concatenate(splits)]
        weights = np.bincount(items, minlength=dataset.item_num).astype(np.float64)
    weights[0] = 0  # padding
    return weights


class RowEvalLoader(NegSampleEvalDataLoader):
    """RecBole's loader for labelled and sampled evaluation, with the fixed candidates per row."""

    def _neg_sampling(self, inter_feat: Interaction) -> Interaction:
        if self.neg_sample_args["sample_num"] == "none":
            return inter_feat
        candidates = self._sampler.of(inter_feat[ROW_ID].numpy())
        flat = torch.from_numpy(np.ascontiguousarray(candidates.T)).view(-1)  # as RecBole tiles
        return self.sampling_func(inter_feat, flat)


class Loaders(NamedTuple):
    """The loaders of a run; an evaluation part without rows is None."""

    train: Any
    valid: Any
    test: Any


def build_splits(dataset: RowDataMixin) -> Splits:
    """Split the rows as ``eval_args`` says.

    Raises:
        InputError: the split is unknown, or no training rows are left.
    """
    parts = (rows.astype(np.int64) for rows in dataset.split_rows())
    return _with_training_rows(Splits(*parts))


def without_users(
    splits: Splits, user: NDArray[np.int64], left_out: NDArray[np.int64]
) -> Splits:  # [n], [u]
    """Leave the rows of some users, such as control users, out of every part.

    Args:
        splits: the parts.
        user: inner user id by row id.
        left_out: inner ids of the users.

    Raises:
        InputError: no training rows are left.
    """
    return _with_training_rows(splits.without(user, left_out))


def _with_training_rows(splits: Splits) -> Splits:
    if len(splits.train) == 0:
        raise InputError("no training rows are left; change eval_args or control_users")
    return splits


def make_loaders(
    config: Any,
    dataset: RowDataMixin,
    splits: Splits,
    train_rows: NDArray[np.int64] | None = None,
) -> Loaders:
    """Make the loaders of a run.

    Args:
        config: the run's settings.
        dataset: the source of the rows.
        splits: the split that all compared models share.
        train_rows: row ids to train on, such as the retain set; None = all training rows. Rows left
            out here are in no history of a sequential model, and they count as unseen when training
            negatives are sampled. Evaluation candidates depend on ``splits`` alone.

    Raises:
        InputError: no training rows are left for the model, or as in :func:`evaluation_loader`.
    """
    rows = splits.train if train_rows is None else train_rows
    hidden = without(splits.train, rows)
    train = dataset.take(rows, hidden)
    if len(train) == 0:
        raise InputError("no training rows are left for this model; it needs users with two rows")
    evaluated = [
        evaluation_loader(config, dataset, splits, phase, hidden=hidden)
        for phase in ("valid", "test")
    ]
    return Loaders(_train_loader(config, dataset, train, splits, hidden), *evaluated)


def evaluation_loader(
    config: Any,
    dataset: RowDataMixin,
    splits: Splits,
    phase: str,
    rows: NDArray[np.int64] | None = None,
    hidden: NDArray[np.int64] | None = None,
) -> Any:
    """Make the loader of an evaluation part or of other rows.

    Args:
        config: the run's settings.
        dataset: the source of the rows.
        splits: the split that all compared models share.
        phase: ``valid`` or ``test``; decides the evaluation mode and the candidates.
        rows: row ids to evaluate, such as the forget set or the test rows of forgotten users;
            None = all rows of the part.
        hidden: row ids that no history of a sequential model may show.

    Returns:
        The loader; None if no row is left.

    Raises:
        InputError: ``topk`` is larger than the number of items.
    """
    mode = config["eval_args"]["mode"][phase]
    rows = getattr(splits, phase) if rows is None else rows
    if mode != "labeled":
        rows = relevant_rows(config, dataset, rows)
        largest_k, items = max(config["topk"]), dataset.item_num - 1
        if config["eval_type"] == EvaluatorType.RANKING and largest_k > items:
            raise InputError(f"topk: {largest_k} is more than the {items} items")
    part = dataset.take(rows, hidden)
    if len(part) == 0:
        return None
    sampler = RowSampler(config, dataset, splits, phase, rows)
    if mode == "full":
        return FullSortEvalDataLoader(config, part, sampler, shuffle=False)
    return RowEvalLoader(config, part, sampler)


def relevant_rows(config: Any, dataset: RowDataMixin, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows whose item counts as a hit in ranking.

    These are the liked rows, or all rows if there are no labels or ``rank_positives`` is ``all``.
    """
    label = dataset.rows.label
    if config["rank_positives"] == "all" or label is None:
        return rows
    return rows[label[rows] == 1]


def _train_loader(
    config: Any, dataset: RowDataMixin, train: Any, splits: Splits, hidden: NDArray[np.int64]
) -> Any:
    loader_class = get_dataloader(config, "train")
    samples = config["train_neg_sample_args"]["distribution"] != "none"
    if config.is_language_model and not samples:
        return loader_class(config, train, None, shuffle=config["shuffle"])
    parts = [train, dataset.take(splits.valid, hidden), dataset.take(splits.test, hidden)]
    all_rows = np.concatenate([train.inter_feat[ROW_ID].numpy(), *splits[1:]])
    all_parts = dataset.take(all_rows, hidden)
    with as_input_errors():
        sampler, _, _ = create_samplers(config, all_parts, parts)
        if config["MODEL_TYPE"] != ModelType.KNOWLEDGE:
            return loader_class(config, train, sampler, shuffle=config["shuffle"])
        args = config["train_neg_sample_args"]
        entity_sampler = KGSampler(dataset, args["distribution"], args["alpha"])
        return loader_class(config, train, sampler, entity_sampler, shuffle=True)
