"""From a dataset to RecBole's loaders: one split, one set of candidates, any training rows.

The same steps as RecBole's ``data_preparation``, which cannot leave users out, train on a part of
the rows, or keep its candidates.

RecBole draws negatives anew at each evaluation, and sequential models may meet seen items while
others do not. Here candidate ``j`` of a row is a hash of (seed, row id, j): the same for every
model, evaluation and batch size, whatever other rows are evaluated.
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
from recbole_e2urec.data.rows import Splits
from recbole_e2urec.errors import InputError
from recbole_e2urec.utils.recbole_compat import as_input_errors

_SPAN = np.uint64(1 << 20)  # draws per row: the most that a row can redraw


def draw_candidates(
    rows: NDArray[np.int64],
    users: NDArray[np.int64],
    used: NDArray[np.int64],
    weights: NDArray[np.float64],
    count: int,
    seed: int,
) -> NDArray[np.int64]:
    """Draw items that the row's user has not used, with replacement as RecBole does.

    Args:
        rows: row ids, [n].
        users: inner user ids of the rows, [n].
        used: pairs ``user * len(weights) + item`` that must not be drawn, [m].
        weights: of each inner item id, [items]; 0 is never drawn (padding).
        count: candidates per row.
        seed: of the run.

    Returns:
        Inner item ids, [n, count].

    Raises:
        InputError: a user has used every item, so nothing can be drawn.
    """
    items = len(weights)
    used = np.unique(used)
    _check_room(users, used, weights)
    bound = np.cumsum(weights) / np.sum(weights)
    start = (_mix(rows.astype(np.uint64) ^ _mix(np.array([seed]))) // _SPAN) * _SPAN
    drawn = np.zeros((len(rows), count), dtype=np.int64)
    open_row, open_slot = (index.ravel() for index in np.indices(drawn.shape))
    tries = open_slot.astype(np.uint64)
    while len(open_row):
        share = _mix(start[open_row] + tries) / np.float64(2**64)
        found = np.minimum(np.searchsorted(bound, share, side="right"), items - 1)
        drawn[open_row, open_slot] = found
        again = _contains(used, users[open_row] * items + found)
        open_row, open_slot = open_row[again], open_slot[again]
        tries = tries[again] + np.uint64(count)
    return drawn


def _check_room(
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
    place = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return ordered[place] == values


def _mix(value: NDArray[np.integer]) -> NDArray[np.uint64]:
    """Hash integers, every bit as if random: the finaliser of SplitMix64 (Steele et al. 2014)."""
    mixed = value.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


class RowSampler:
    """Stands where RecBole's sampler does in evaluation; the same for every model of a run.

    Args:
        config: the run's settings.
        dataset: the whole dataset.
        splits: of all rows that any compared model may learn from or is tested on.
        phase: ``valid`` or ``test``.
        rows: row ids to be evaluated.

    Attributes:
        phase: as given.
        rows: ascending, [n].
        candidates: inner item ids for each row, [n, count]; no columns when nothing is sampled.
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
        """Candidates of some of the rows, in the order given, [len(rows), count]."""
        return self.candidates[np.searchsorted(self.rows, rows)]

    @cached_property
    def used_ids(self) -> NDArray[Any]:
        """For each inner user id the set of items seen up to this phase, [users]."""
        user, item = self._seen
        order = np.argsort(user, kind="stable")
        bounds = np.searchsorted(user[order], np.arange(self._users + 1))
        sets = np.empty(self._users, dtype=object)
        for inner in range(self._users):
            sets[inner] = set(item[order[bounds[inner] : bounds[inner + 1]]].tolist())
        return sets


def _weights(distribution: str, dataset: Any, splits: Splits) -> NDArray[np.float64]:
    """Weight of each inner item id; by popularity it is the count over all parts, as in RecBole."""
    weights = np.ones(dataset.item_num)
    if distribution == "popularity":
        items = dataset.rows.item[np.concatenate(splits)]
        weights = np.bincount(items, minlength=dataset.item_num).astype(np.float64)
    weights[0] = 0  # padding
    return weights


class Loaders(NamedTuple):
    """RecBole's loaders; None for an evaluation part without rows."""

    train: Any
    valid: Any
    test: Any


class RowEvalLoader(NegSampleEvalDataLoader):
    """RecBole's loader for labelled and sampled evaluation, with the candidates of the rows."""

    def _neg_sampling(self, inter_feat: Interaction) -> Interaction:
        if self.neg_sample_args["sample_num"] == "none":
            return inter_feat
        candidates = self._sampler.of(inter_feat[ROW_ID].numpy())
        flat = torch.from_numpy(np.ascontiguousarray(candidates.T)).view(-1)  # as RecBole tiles
        return self.sampling_func(inter_feat, flat)


class RowFullSortLoader(FullSortEvalDataLoader):
    """RecBole's loader for full ranking; a user's line carries the id of its earliest row."""

    def __init__(self, config: Any, dataset: RowDataMixin, sampler: RowSampler) -> None:
        super().__init__(config, dataset, sampler, shuffle=False)
        if not self.is_sequential:
            rows = dataset.inter_feat[ROW_ID].numpy()
            rows = rows[np.lexsort((rows, dataset.rows.time[rows], dataset.rows.user[rows]))]
            users, first = np.unique(dataset.rows.user[rows], return_index=True)
            earliest = rows[first][np.searchsorted(users, self.uid_list.numpy())]
            self.user_df.update(Interaction({ROW_ID: torch.from_numpy(earliest)}))


def build_splits(dataset: RowDataMixin, left_out: NDArray[np.int64] | None = None) -> Splits:
    """Split the rows as ``eval_args`` says.

    Args:
        dataset: a loaded dataset.
        left_out: inner ids of users that take part in nothing, such as control users.

    Raises:
        InputError: the split is unknown, or leaves nothing to train on.
    """
    users = np.empty(0, np.int64) if left_out is None else left_out
    parts = [
        rows[~np.isin(dataset.rows.user[rows], users)].astype(np.int64)
        for rows in dataset.split_rows()
    ]
    if len(parts[0]) == 0:
        raise InputError("no training rows are left; change eval_args or control_users")
    return Splits(*parts)


def make_loaders(
    config: Any,
    dataset: RowDataMixin,
    splits: Splits,
    train_rows: NDArray[np.int64] | None = None,
) -> Loaders:
    """Make the loaders of a run.

    Args:
        config: the run's settings.
        dataset: where the rows come from.
        splits: the split of all models that are compared.
        train_rows: what to train on, such as the retain set; None = all training rows. What is left
            out is in no history of a sequential model and counts as unseen when negatives for
            training are sampled. Candidates of evaluation depend on ``splits`` alone.
    """
    rows = splits.train if train_rows is None else train_rows
    hidden = np.setdiff1d(splits.train, rows)
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
    """Make the loader of an evaluation part, or of some of its rows; None when no row is left.

    Args:
        config: the run's settings.
        dataset: where the rows come from.
        splits: the split of all models that are compared.
        phase: ``valid`` or ``test``, whose mode and candidates apply.
        rows: other rows, such as the forget set, or the test rows of forgotten users; None = all
            of that part.
        hidden: rows that no history of a sequential model may show.
    """
    mode = config["eval_args"]["mode"][phase]
    rows = getattr(splits, phase) if rows is None else rows
    if mode != "labeled":
        rows = relevant(config, dataset, rows)
        longest, items = max(config["topk"]), dataset.item_num - 1
        if config["eval_type"] == EvaluatorType.RANKING and longest > items:
            raise InputError(f"topk: {longest} is more than the {items} items")
    part = dataset.take(rows, hidden)
    if len(part) == 0:
        return None
    sampler = RowSampler(config, dataset, splits, phase, rows)
    if mode == "full":
        return RowFullSortLoader(config, part, sampler)
    return RowEvalLoader(config, part, sampler)


def relevant(config: Any, dataset: RowDataMixin, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows whose item counts as a hit in ranking: liked ones, or all (``rank_positives: all``)."""
    label = dataset.rows.label
    if config["rank_positives"] == "all" or label is None:
        return rows
    return rows[label[rows] == 1]


def _train_loader(
    config: Any, dataset: RowDataMixin, train: Any, splits: Splits, hidden: NDArray[np.int64]
) -> Any:
    kind = get_dataloader(config, "train")
    parts = [train, dataset.take(splits.valid, hidden), dataset.take(splits.test, hidden)]
    whole = dataset.take(np.concatenate([train.inter_feat[ROW_ID].numpy(), *splits[1:]]), hidden)
    with as_input_errors():
        sampler, _, _ = create_samplers(config, whole, parts)
        if config["MODEL_TYPE"] != ModelType.KNOWLEDGE:
            return kind(config, train, sampler, shuffle=config["shuffle"])
        args = config["train_neg_sample_args"]
        entities = KGSampler(dataset, args["distribution"], args["alpha"])
        return kind(config, train, sampler, entities, shuffle=True)
