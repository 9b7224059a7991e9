"""The dataset class that a model wants, with stable rows.

RecBole deletes the rating when it makes labels, stores time as float32 (which reorders histories),
splits sequential data after dropping each user's first row, and draws a random order from a global
generator. The mixin keeps raw values aside, names each row, and splits by row id for all classes.
"""

import copy
from functools import cache
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.data import dataset as recbole_datasets
from recbole.data.dataset import Dataset, SequentialDataset
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType, ModelType

from recbole_e2urec.data.request.filter import further_columns
from recbole_e2urec.data.rows import IdMap, RowTable, TargetOptions, target_rows
from recbole_e2urec.data.validation import check_cells, check_finite, check_labels, find_bad_number
from recbole_e2urec.errors import InputError
from recbole_e2urec.utils import distributed
from recbole_e2urec.utils.recbole_compat import as_input_errors

ROW_ID = "row_id"  # int64 column of every interaction, train or evaluation, of every model


class RowDataMixin(Dataset):
    """Puts row ids, raw ratings and float64 times on any dataset class of RecBole.

    Attributes:
        rows: all interactions after filtering, before splitting, in the order of the file.
        ids: from the file's tokens to inner ids.
    """

    rows: RowTable
    ids: IdMap
    _whole: Any = None  # all rows as tensors, an Interaction; None until prepare()
    _augmented: tuple[bytes, Any] | None = None  # the last augmentation, by the rows left out

    def copy(self, new_inter_feat: Interaction) -> "RowDataMixin":
        """As RecBole's; a copy holds on to its own rows only, and knows the row table."""
        other = super().copy(new_inter_feat)
        other._whole = other._augmented = None
        other.rows, other.ids = self.rows, self.ids
        return other

    def __getstate__(self) -> dict[str, Any]:
        """Leave the row table and caches out of pickles: DIN's checkpoint holds its dataset."""
        kept_aside = ("rows", "ids", "further", "_whole", "_augmented")
        return {name: value for name, value in self.__dict__.items() if name not in kept_aside}

    def split_rows(self) -> list[NDArray[np.int64]]:
        """Row ids of the train, valid and test part, in RecBole's order within each part.

        RecBole's own splitting runs on a view of all rows whose time is exact, so ``TO``, ``RO``,
        ``RS``, ``LS``, ``TS`` and ``benchmark_filename`` mean what they mean there, and a
        sequential model gets the same parts as the others. A random order depends on ``seed``
        alone. Without a time column ``TO`` is refused, and a history follows the file's order.
        Rows that the rules of :func:`target_rows` leave out are in no part.

        Raises:
            InputError: a split that RecBole does not know or that does not give three parts, an
                order of time without times, or rules that leave no rows.
        """
        order = self.config["eval_args"]["order"]
        if order == "TO" and not self.rows.has_time and self.benchmark_filename_list is None:
            raise InputError(
                f"{self.config['dataset']}: the .inter file has no column {self.time_field!r} to "
                "order by; name it with TIME_FIELD, or set eval_args to {order: RO}"
            )
        if self._augments() and order != "TO":
            raise InputError(f"eval_args: order {order}: {self.config['model']} needs order TO")
        view = copy.copy(self)
        view.rows, view.time_field = self.rows, "row_time"
        view.inter_feat = self._targets()
        view._change_feat_format = view._drop_unused_col = lambda: None
        with as_input_errors(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config["seed"])
            view.ids = self.ids
            parts = Dataset.build(view)
        if len(parts) != 3:
            raise InputError(f"the split gives {len(parts)} parts; three are needed (eval_args)")
        return [part.inter_feat[ROW_ID].numpy() for part in parts]

    def _targets(self) -> Interaction:
        """User, exact time and id of the rows that take part."""
        rows = torch.from_numpy(
            target_rows(self.rows, self.ids, self.config.options(TargetOptions))
        )
        user, time = (torch.from_numpy(part)[rows] for part in (self.rows.user, self.rows.time))
        return Interaction({self.uid_field: user, "row_time": time, ROW_ID: rows})

    def take(self, rows: NDArray[np.int64], hidden: NDArray[np.int64] | None = None) -> Dataset:
        """Give a dataset with these rows, in this order.

        A sequential class drops each user's first row, for want of a history.

        Args:
            rows: row ids.
            hidden: row ids that no history of a sequential class may show, such as forgotten rows.
        """
        self.prepare()
        source = self
        if self._augments():
            source = self._augment(np.empty(0, np.int64) if hidden is None else np.unique(hidden))
        present = source._whole[ROW_ID].numpy()
        position = np.full(len(self.rows), -1, dtype=np.int64)
        position[present] = np.arange(len(present))
        found = position[np.asarray(rows, dtype=np.int64)]
        return source.copy(source._whole[found[found >= 0]])

    def build(self) -> list[Dataset]:
        """As RecBole's: the train, valid and test dataset."""
        return [self.take(part) for part in self.split_rows()]

    def prepare(self) -> None:
        """Turn the tables into tensors, once."""
        if self._whole is not None:
            return
        with as_input_errors():
            self._change_feat_format()
        self._drop_unused_col()
        self.inter_feat.update(Interaction({ROW_ID: torch.arange(len(self.rows))}))
        self._whole = self.inter_feat

    def data_augmentation(self) -> None:
        """Wait: RecBole augments all rows here, but only :meth:`take` knows which are hidden."""

    def _augments(self) -> bool:
        return isinstance(self, SequentialDataset) and self.benchmark_filename_list is None

    def _augment(self, hidden: NDArray[np.int64]) -> "RowDataMixin":
        """Run RecBole's augmentation on all rows but the hidden ones, in exact order of time."""
        if self._augmented is None or self._augmented[0] != hidden.tobytes():
            order = np.lexsort((self.rows.time, self.rows.user))  # stable: ties stay in file order
            order = order[~np.isin(order, hidden)]
            part = self.copy(self._whole[order])
            del part.inter_feat.interaction[ROW_ID]
            super(RowDataMixin, part).data_augmentation()
            user = self.rows.user[order]
            has_history = np.flatnonzero(user[1:] == user[:-1]) + 1
            part.inter_feat.update(Interaction({ROW_ID: torch.from_numpy(order[has_history])}))
            part._whole = part.inter_feat
            self._augmented = (hidden.tobytes(), part)
        return self._augmented[1]

    def _load_feat(self, filepath: str, source: Any) -> Any:
        encoding = self.config["encoding"] or "utf-8"
        place = (Path(filepath), self.config["field_separator"], encoding)
        check_cells(*place)
        try:
            frame = super()._load_feat(filepath, source)
        except (ValueError, OverflowError) as error:
            floats = [name for name, kind in self.field2type.items() if kind == FeatureType.FLOAT]
            cell = find_bad_number(*place, floats, missing_is_bad=False)
            raise InputError(f"{filepath}, {cell or ' '.join(str(error).split())}") from error
        if source == FeatureSource.INTERACTION:
            check_finite(frame, *place, self._numeric_columns(frame, filepath))
        return frame

    def _numeric_columns(self, frame: Any, filepath: str) -> list[str]:
        for name in (self.uid_field, self.iid_field):
            if frame is None or name not in frame:
                raise InputError(f"{filepath}, line 1: no column {name!r} is loaded; see load_col")
        names = [self.config[f"{kind}_FIELD"] for kind in ("RATING", "TIME", "LABEL")]
        present = [name for name in names if name in frame]
        for name in present:
            if self.field2type[name] != FeatureType.FLOAT:
                raise InputError(f"{filepath}, line 1: write {name}:float; it holds numbers")
        return present

    def _set_label_by_threshold(self) -> None:
        """Keep what RecBole is about to delete or round; here ratings and times are still raw."""
        frame = self.inter_feat
        user, item = (frame[name].to_numpy(np.int64) for name in (self.uid_field, self.iid_field))
        rating = self._raw_column(self.config["RATING_FIELD"])
        time = self._raw_column(self.time_field)
        if all(name in frame for name in self.config["threshold"] or {}):
            super()._set_label_by_threshold()
        label = self._raw_column(self.label_field)
        check_labels(label, self.config)
        moment = np.arange(len(user), dtype=np.float64) if time is None else time
        liked = None if label is None else label.astype(np.float32)
        self.rows = RowTable(user.copy(), item.copy(), moment, rating, liked, time is not None)
        self.further = further_columns(frame, self.config)  # what a filter may name besides
        self.ids = IdMap(self._tokens(self.uid_field), self._tokens(self.iid_field))

    def _raw_column(self, name: str) -> NDArray[np.float64] | None:
        frame = self.inter_feat
        return frame[name].to_numpy(np.float64, copy=True) if name in frame else None

    def _tokens(self, field: str) -> dict[str, int]:
        tokens = self.field2token_id[field]
        return {str(token): int(inner) for token, inner in tokens.items() if inner != 0}


class LLMRecDataset(RowDataMixin, Dataset):
    """The dataset of language models: RecBole's plain one with stable rows."""


@cache
def with_rows(base: type) -> type:
    """Put :class:`RowDataMixin` on a dataset class of RecBole; the class can be pickled here."""
    name = f"Row{base.__name__}"
    made = type(name, (RowDataMixin, base), {"__module__": __name__, "__doc__": base.__doc__})
    globals()[name] = made  # DIN's checkpoint pickles its dataset, which looks the class up
    return made


def load_dataset(config: Any) -> RowDataMixin:
    """Load, filter and number the data set of a run, in the class that its model wants.

    Raises:
        InputError: a file or column is missing or cannot be fetched, a cell is not a number,
            nothing is left, the labels do not do, or two settings choose the rows of the parts.
    """
    if config["benchmark_filename"] and config.options(TargetOptions) != TargetOptions():
        raise InputError("benchmark_filename names the parts; drop min_history and last_rows")
    if config.is_language_model:
        kind: type = LLMRecDataset
    else:
        by_type = {
            ModelType.SEQUENTIAL: "SequentialDataset",
            ModelType.KNOWLEDGE: "KnowledgeBasedDataset",
        }
        usual = by_type.get(config["MODEL_TYPE"], "Dataset")
        own = f"{config['model']}Dataset"
        kind = with_rows(getattr(recbole_datasets, own, getattr(recbole_datasets, usual)))
    try:
        with as_input_errors():
            return _loaded(kind, config)
    except URLError as error:
        advice = f"put its atomic files into {config['data_path']}"
        raise InputError(
            f"{config['dataset']} cannot be fetched: {error.reason}; {advice}"
        ) from error


def _loaded(kind: type, config: Any) -> RowDataMixin:
    """Load it; where it must be fetched, the first process of each machine goes before the rest."""
    missing = distributed.total(float(not Path(config["data_path"]).is_dir())) > 0
    first = distributed.local_rank() == 0
    if missing and not first:
        distributed.all_gather(first)
    data: RowDataMixin = kind(config)
    if missing and first:
        distributed.all_gather(first)
    return data
