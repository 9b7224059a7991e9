"""From a dataset to RecBole's loaders: one split, one set of candidates, any training rows.

The same steps as RecBole's ``data_preparation``, which cannot leave users out, train on a part of
the rows, or keep its candidates.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.data.dataloader import FullSortEvalDataLoader, NegSampleEvalDataLoader
from recbole.data.interaction import Interaction
from recbole.data.utils import create_samplers, get_dataloader
from recbole.sampler import KGSampler
from recbole.utils import EvaluatorType, ModelType

from recbole_e2urec.complaints import as_input_errors
from recbole_e2urec.data.dataset import ROW_ID, RowDataMixin
from recbole_e2urec.data.rows import Splits
from recbole_e2urec.data.sampler import RowSampler
from recbole_e2urec.errors import InputError


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
