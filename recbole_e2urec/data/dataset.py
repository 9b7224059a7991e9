"""RecBole's dataset classes with stable row ids, raw ratings and exact times.

RecBole deletes the rating when it makes labels. It stores times as float32, which reorders
histories. It splits sequential data after dropping each user's first row, and it draws a random
order from a global generator. The mixin in this file keeps the raw values, gives each row an id,
and splits by row id for every dataset class.
"""

import codecs
import copy
from functools import cache
from logging import getLogger
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

from recbole_e2urec.config.schema import AUTO
from recbole_e2urec.data.features import (
    NO_TITLE,
    USUAL_SHARE,
    find_title_field,
    find_user_fields,
    read_catalogue,
    read_features,
    reading,
    share_known,
)
from recbole_e2urec.data.request.filter import further_columns
from recbole_e2urec.data.rows import (
    IdMap,
    Remainder,
    RowTable,
    Splits,
    TargetOptions,
    target_rows,
)
from recbole_e2urec.data.sharded import ShardOptions, prepared_rows
from recbole_e2urec.data.validation import (
    Findings,
    check_cells,
    check_end,
    check_finite,
    check_ids,
    check_labels,
    check_number_columns,
    check_times,
    choose_threshold,
    describe_labels,
    describe_ties,
    describe_times,
    find_bad_number,
    read_header,
    tied_rows,
    warn_of_labels,
)
from recbole_e2urec.errors import InputError
from recbole_e2urec.utils import distributed
from recbole_e2urec.utils.recbole_compat import as_input_errors

LOGGER = getLogger(__name__)
UNTIMED = (
    "no times, so rows are split at random (eval_args: {order: RO}), and a history shows rows that "
    "stand earlier in the file, which need not be earlier in time"
)
ROW_ID = "row_id"  # int64 column in every Interaction: training and evaluation, all models


class RowDataMixin(Dataset):
    """Adds row ids, raw ratings and float64 times to any RecBole dataset class.

    Attributes:
        rows: all interactions after filtering and before splitting, in file order.
        ids: maps the file's tokens to inner ids.
        lines: by ``inter``, ``user`` and ``item``: which lines of the file are in the data, see
            :class:`Remainder`. Parts named by ``benchmark_filename`` count as one file.
        findings: what a person should know about the data before a run.
        shown_parts: the parts whose rows prompts show as histories; None: no history is shown. Set
            when the data are split for a model.
    """

    config: Any
    rows: RowTable
    ids: IdMap
    lines: dict[str, NDArray[np.int64]]
    findings: Findings
    shown_parts: Splits | None = None
    _all_rows: Any = None  # Interaction with all rows as tensors; None until prepare()
    _augmented: tuple[bytes, Any] | None = None  # (hidden rows, dataset) of the last augmentation
    _has_histories = False  # whether the files hold histories, so that none are to be made
    _published: tuple[RowTable, Any] | None = None  # rows, also as tensors, before corrections

    def copy(self, new_inter_feat: Interaction) -> "RowDataMixin":
        """Copy as RecBole does; the copy shares the row table but not the cached tensors."""
        other = super().copy(new_inter_feat)
        other._all_rows = other._augmented = None
        other.rows, other.ids, other.shown_parts = self.rows, self.ids, self.shown_parts
        return other

    def join(self, df: Interaction) -> Interaction:
        """Add features as RecBole does; where row ids are missing, those of users' earliest rows.

        RecBole's loader for full ranking and its case study make interactions of users alone.
        """
        joined = super().join(df)
        if ROW_ID in joined or self.uid_field not in joined or ROW_ID not in self.inter_feat:
            return joined
        asked = joined[self.uid_field].numpy()
        rows = self.inter_feat[ROW_ID].numpy()
        rows = rows[np.lexsort((rows, self.rows.time[rows], self.rows.user[rows]))]
        users, first = np.unique(self.rows.user[rows], return_index=True)
        unknown = np.setdiff1d(asked, users)
        if len(unknown):
            name = self.id2token(self.uid_field, int(unknown[0]))
            raise InputError(
                f"user {name} has no row in this part of the data: nothing that was liked, or a "
                "control user (control_users)"
            )
        earliest = rows[first][np.searchsorted(users, asked)]
        joined.update(Interaction({ROW_ID: torch.from_numpy(earliest)}))
        return joined

    def __getstate__(self) -> dict[str, Any]:
        """Leave the row table and the caches out of pickles: DIN's checkpoint holds its dataset."""
        not_pickled = {
            "rows", "ids", "lines", "further", "findings", "shown_parts", "_missing", "_all_rows",
            "_augmented", "_published",
        }  # fmt: skip
        return {name: value for name, value in self.__dict__.items() if name not in not_pickled}

    @property
    def file_rows(self) -> RowTable:
        """All interactions as the files have them, without corrections."""
        return self.rows if self._published is None else self._published[0]

    def as_published(self) -> "RowDataMixin":
        """Return the data without corrections: a copy if there are any."""
        if self._published is None:
            return self
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)  # a copy would leave out what is not pickled
        other.rows, other._all_rows = self._published
        other.inter_feat, other._published = other._all_rows, None
        return other

    def replace_rows(self, rows: RowTable) -> None:
        """Let users, labels and ratings be others than in the files; further rows may follow."""
        self.prepare()
        if self._published is None:
            self._published = self.rows, self._all_rows
        self.rows, columns = rows, dict(self._all_rows.interaction)
        for name, column in ((self.uid_field, rows.user), (self.label_field, rows.label)):
            if column is not None and name in columns:
                own = torch.from_numpy(column[: len(self._all_rows)].copy())
                columns[name] = own.to(columns[name].dtype)
        self.inter_feat = self._all_rows = Interaction(columns)

    def split_rows(self) -> list[NDArray[np.int64]]:
        """Return the row ids of the train, valid and test part, each in RecBole's order.

        RecBole's own splitting runs on a view of all rows with exact times. ``TO``, ``RO``,
        ``RS``, ``LS``, ``TS`` and ``benchmark_filename`` therefore keep their meaning, and a
        sequential model gets the same parts as any other. A random order depends on ``seed``
        alone. Without a time column, ``TO`` is refused where a setting asks for it and otherwise
        becomes ``RO``; histories follow the file order.
        Rows excluded by the rules of :func:`target_rows` are in no part. After rows were erased,
        the parts are what is left of them.

        Raises:
            InputError: RecBole does not know the split or the split does not give three parts,
                time order is requested or needed but there are no times, or the rules leave no
                rows.
        """
        if self.remainder is not None:
            return [*self.remainder.parts]
        self._check_order()
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
        rows = [part.inter_feat[ROW_ID].numpy() for part in parts]
        if self._augments() and self.benchmark_filename_list is not None:
            self._check_time_order(rows)
        return rows

    @property
    def remainder(self) -> Remainder | None:
        """What stays as it was although rows were erased; None: none were."""
        remainder: Remainder | None = self.config.remainder
        return remainder

    def _check_order(self) -> None:
        """Refuse an order of the split that the data or the model do not have."""
        order, is_split = self.config["eval_args"]["order"], self.benchmark_filename_list is None
        if not self.rows.has_time and (self._augments() or (order == "TO" and is_split)):
            advice = "" if self._augments() else ", or set eval_args to {order: RO}"
            raise InputError(
                f"{self.config['dataset']}: the .inter file has no column {self.time_field!r} to "
                f"order by; name it with TIME_FIELD{advice}"
            )
        if self._augments() and order != "TO" and is_split:
            raise InputError(f"eval_args: order {order}: {self.config['model']} needs order TO")

    def _check_time_order(self, parts: list[NDArray[np.int64]]) -> None:
        """Refuse parts in which histories, which show a user's earlier rows, show later parts."""
        first = np.full(self.rows.user.max() + 1, np.inf)  # by user: first time of the later parts
        for rows in parts[::-1]:
            user, time = self.rows.user[rows], self.rows.time[rows]
            late = int((time > first[user]).sum())
            if late:
                raise InputError(
                    f"benchmark_filename: {self.config['model']} needs each user's parts in the "
                    f"order of time; {late:,} rows are later than rows of a later part"
                )
            np.minimum.at(first, user, time)

    def _targets(self) -> Interaction:
        """Return user, exact time and row id of the rows that take part in the split."""
        rows = torch.from_numpy(
            target_rows(self.rows, self.ids, self.config.options(TargetOptions))
        )
        user, time = (torch.from_numpy(column)[rows] for column in (self.rows.user, self.rows.time))
        return Interaction({self.uid_field: user, "row_time": time, ROW_ID: rows})

    def take(self, rows: NDArray[np.int64], hidden: NDArray[np.int64] | None = None) -> Dataset:
        """Return a dataset with these rows, in this order.

        A sequential class drops each user's first row because it has no history.

        Args:
            rows: row ids.
            hidden: row ids, such as forgotten rows, that no history of a sequential class may show.
        """
        self.prepare()
        source = self
        if self._augments():
            source = self._augment(np.empty(0, np.int64) if hidden is None else np.unique(hidden))
        present = source._all_rows[ROW_ID].numpy()
        position_of_row = np.full(len(self.rows), -1, dtype=np.int64)
        position_of_row[present] = np.arange(len(present))
        positions = position_of_row[np.asarray(rows, dtype=np.int64)]
        return source.copy(source._all_rows[positions[positions >= 0]])

    def build(self) -> list[Dataset]:
        """Return the train, valid and test dataset, as RecBole does."""
        self.shown_parts = Splits(*self.split_rows())
        return [self.take(part) for part in self.shown_parts]

    def prepare(self) -> None:
        """Convert the tables to tensors on the first call; later calls do nothing."""
        if self._all_rows is not None:
            return
        with as_input_errors():
            self._change_feat_format()
        self._drop_unused_col()
        self.inter_feat.update(Interaction({ROW_ID: torch.arange(len(self.rows))}))
        self._all_rows = self.inter_feat

    def data_augmentation(self) -> None:
        """Do nothing: RecBole augments here, but only :meth:`take` knows which rows are hidden."""

    def _benchmark_presets(self) -> None:
        """Do as RecBole does if the files hold histories, as it expects; else make them."""
        self._has_histories = f"item_id{self.config['LIST_SUFFIX']}" in self.inter_feat
        if self._has_histories:
            super()._benchmark_presets()

    def _augments(self) -> bool:
        return isinstance(self, SequentialDataset) and not self._has_histories

    def _augment(self, hidden: NDArray[np.int64]) -> "RowDataMixin":
        """Run RecBole's augmentation on all rows except the hidden ones, in exact time order."""
        if self._augmented is None or self._augmented[0] != hidden.tobytes():
            order = np.lexsort((self.rows.time, self.rows.user))  # stable: ties stay in file order
            order = order[~np.isin(order, hidden)]
            augmented = self.copy(self._all_rows[order])
            del augmented.inter_feat.interaction[ROW_ID]
            super(RowDataMixin, augmented).data_augmentation()
            user = self.rows.user[order]
            has_history = np.flatnonzero(user[1:] == user[:-1]) + 1
            augmented.inter_feat.update(Interaction({ROW_ID: torch.from_numpy(order[has_history])}))
            augmented._all_rows = augmented.inter_feat
            self._augmented = (hidden.tobytes(), augmented)
        return self._augmented[1]

    def _get_preset(self) -> None:
        super()._get_preset()
        self.findings = Findings()

    def _load_feat(self, filepath: str, source: Any) -> Any:
        path, encoding = Path(filepath), self.config["encoding"] or "utf-8"
        table_format = (path, self.config["field_separator"], encoding)
        check_cells(*table_format)
        header = read_header(*table_format)
        check_ids(path, header, (self.uid_field, self.iid_field))
        self.findings.warnings += check_end(path)
        try:
            frame = self._read(filepath, source)
        except (ValueError, OverflowError) as error:
            floats = [name for name, kind in self.field2type.items() if kind == FeatureType.FLOAT]
            cell = find_bad_number(*table_format, floats, missing_is_bad=False)
            raise InputError(f"{filepath}, {cell or ' '.join(str(error).split())}") from error
        if source == FeatureSource.INTERACTION:
            self.findings.warnings += warn_of_labels(path, header, self.label_field)
            check_finite(frame, *table_format, self._numeric_columns(frame, path, header))
            if self.time_field in frame:
                times = frame[self.time_field].to_numpy()
                self.findings.warnings += check_times(path, encoding, times)
        return frame

    def _read(self, filepath: str, source: Any) -> Any:
        """Read a file as RecBole does, but without its byte order mark, if it has one."""
        config, encoding = self.config, self.config["encoding"] or "utf-8"
        if codecs.lookup(encoding).name == "utf-8":
            self.config = config.with_settings({"encoding": "utf-8-sig"})
        try:
            return super()._load_feat(filepath, source)
        finally:
            self.config = config

    def _numeric_columns(self, frame: Any, path: Path, header: dict[str, str]) -> list[str]:
        for key, name in (("USER_ID_FIELD", self.uid_field), ("ITEM_ID_FIELD", self.iid_field)):
            if frame is not None and name in frame:
                continue
            if name in header:
                raise InputError(f"{path}, line 1: no column {name!r} is loaded; see load_col")
            raise InputError(
                f"{path}, line 1: no column {name!r} among {', '.join(header)}; rename one, or "
                f"name it with {key}"
            )
        names = [self.config[f"{kind}_FIELD"] for kind in ("RATING", "TIME", "LABEL")]
        return check_number_columns(path, header, [name for name in names if name in frame])

    def _data_processing(self) -> None:
        """Number the lines of the files first."""
        self.lines = {kind: np.arange(len(feat)) for kind, feat in self._tables().items()}
        super()._data_processing()

    def _tables(self) -> dict[str, Any]:
        tables = {"inter": self.inter_feat, "user": self.user_feat, "item": self.item_feat}
        return {kind: table for kind, table in tables.items() if table is not None}

    def _data_filtering(self) -> None:
        """Filter as RecBole does; after rows were erased, keep the lines that passed before."""
        if self.remainder is None:
            super()._data_filtering()
            return
        lines, sizes = self.remainder.lines, self.remainder.sizes
        for kind, table in self._tables().items():
            if sizes.get(kind) == len(table):  # else it was changed since, which its hash will tell
                setattr(self, f"{kind}_feat", table.iloc[lines[kind]].copy())
        self._reset_index()

    def _reset_index(self) -> None:
        """Remember which lines passed the filters."""
        self.lines = {
            kind: table.index.to_numpy(np.int64) for kind, table in self._tables().items()
        }
        super()._reset_index()

    def _remap(self, remap_list: list[Any]) -> None:
        """Number tokens as RecBole does; after rows were erased, in the order of before."""
        super()._remap(remap_list)
        if self.remainder is None:
            return
        orders = {self.uid_field: self.remainder.users, self.iid_field: self.remainder.items}
        order = next((orders[field] for _, field, _ in remap_list if field in orders), None)
        if order is None or len(order) != len(self.field2id_token[remap_list[0][1]]) - 1:
            return  # the files were changed since, which their hash will tell
        moved = np.concatenate([[0], order])
        tokens = self.field2id_token[remap_list[0][1]][np.argsort(moved)]
        for table, field, kind in remap_list:
            self.field2id_token[field] = tokens
            self.field2token_id[field] = {token: inner for inner, token in enumerate(tokens)}
            ids = table[field]
            is_list = kind == FeatureType.TOKEN_SEQ
            table[field] = [moved[each] for each in ids] if is_list else moved[ids]

    def _filter_inter_by_user_or_item(self) -> None:
        """Say how many rows this drops: those whose user or item is missing from its file."""
        before = len(self.inter_feat)
        super()._filter_inter_by_user_or_item()
        lost = before - len(self.inter_feat)
        told = (
            f"{lost} of {before} rows are left out, since their user or item has no line in the "
            ".user or .item file; ids must be written alike, and filter_inter_by_user_or_item="
            "False keeps such rows"
        )
        if not before:
            raise InputError(f"{self.dataset_name}: the .inter file has no row below its first")
        if lost == before:
            raise InputError(f"{self.dataset_name}: {told}")
        if lost:
            self.findings.warnings.append(told)

    def _fill_nan(self) -> None:
        """Remember which numbers are missing: RecBole replaces them by the mean of the column."""
        floats = self.inter_feat.select_dtypes("float")
        self._missing = {name: floats[name].isna().to_numpy() for name in floats}
        super()._fill_nan()

    def _set_label_by_threshold(self) -> None:
        """Save ratings and times while they are raw: RecBole is about to delete or round them."""
        frame = self.inter_feat
        user, item = (frame[name].to_numpy(np.int64) for name in (self.uid_field, self.iid_field))
        rating = self._raw_column(self.config["RATING_FIELD"])
        time = self._raw_column(self.time_field)
        own = self._raw_column(self.label_field)
        threshold = self._choose_threshold(rating, own)
        if threshold:
            super()._set_label_by_threshold()
        label = self._raw_column(self.label_field)
        check_labels(label, self.config, rating)
        row_time = np.arange(len(user), dtype=np.float64) if time is None else time
        row_label = None if label is None else label.astype(np.float32)
        highest = None if self.remainder is None else self.remainder.highest
        self.rows = RowTable(
            user.copy(), item.copy(), row_time, rating, row_label, time is not None, highest
        )
        self.further = further_columns(
            frame, self.config, self._missing
        )  # more columns that a filter may use
        self.ids = IdMap(self._tokens(self.uid_field), self._tokens(self.iid_field))
        self._choose_order()
        self._describe_rows(threshold, own)

    def _choose_order(self) -> None:
        """Split data without times at random, unless a setting says how."""
        args = self.config["eval_args"]
        if self.rows.has_time or self.benchmark_filename_list is not None or args["order"] != "TO":
            return
        if "order" in (self.config.external_config_dict.get("eval_args") or {}):
            return  # split_rows refuses it
        self.config["eval_args"] = {**args, "order": "RO"}
        self.findings.warnings.append(UNTIMED)

    def _choose_threshold(
        self, rating: NDArray[np.float64] | None, label: NDArray[np.float64] | None
    ) -> dict[str, float] | None:
        """Choose the threshold, and keep it in the settings; None: it makes no labels."""
        config = self.config
        threshold = choose_threshold(
            config["threshold"],
            config.is_given("threshold"),
            config["RATING_FIELD"],
            rating,
            label,
            self.findings,
        )
        config["threshold"] = threshold
        applies = all(name in self.inter_feat for name in threshold or {})
        return threshold if applies else None

    def _describe_rows(
        self, threshold: dict[str, float] | None, own_label: NDArray[np.float64] | None
    ) -> None:
        """Complete the findings about rows."""
        rows, found = self.rows, self.findings
        found.rows, found.users, found.items = len(rows), len(self.ids.users), len(self.ids.items)
        if rows.label is not None and len(rows):
            describe_labels(threshold, rows.label, own_label, found)
        if rows.has_time and len(rows):
            found.ties = self._share_of_ties()
            found.taken += describe_ties(found.ties)

    def _share_of_ties(self) -> float:
        return tied_rows(self.rows.user, self.rows.time)

    def _raw_column(self, name: str) -> NDArray[np.float64] | None:
        frame = self.inter_feat
        return frame[name].to_numpy(np.float64, copy=True) if name in frame else None

    def _tokens(self, field: str) -> dict[str, int]:
        tokens = self.field2token_id[field]
        return {str(token): int(inner) for token, inner in tokens.items() if inner != 0}


class LLMRecDataset(RowDataMixin, Dataset):
    """The dataset of language models: RecBole's plain ``Dataset`` with stable rows."""


class ShardedDataset(LLMRecDataset):
    """The same with prepared rows in memory-mapped files, see `data/sharded.py`.

    Of RecBole's table of interactions, it has the columns that a language model needs: user, item,
    label and row id.
    """

    def _load_data(self, token: str, dataset_path: str) -> None:
        if not Path(dataset_path).exists():
            self._download()
        self.stored = prepared_rows(self.config)
        self.user_feat = self.item_feat = None
        for name in (self.uid_field, self.iid_field):
            self.set_field_property(name, FeatureType.TOKEN, FeatureSource.INTERACTION, 1)
        user, item = (torch.from_numpy(self.stored.column(name)) for name in ("user", "item"))
        self.inter_feat = Interaction({self.uid_field: user, self.iid_field: item})

    def _data_processing(self) -> None:
        stored, config = self.stored, self.config
        facts, self.ids = stored.facts, stored.ids
        self.feat_name_list = ["inter_feat"]
        self.findings.warnings += facts.warnings
        fields = {self.uid_field: self.ids.users, self.iid_field: self.ids.items}
        for field, tokens in fields.items():
            self.field2id_token[field] = np.array(["[PAD]", *tokens])
            self.field2token_id[field] = {"[PAD]": 0, **tokens}
        rating = np.array(facts.ratings) if "rating" in facts.columns else None
        own = stored.column("label")
        threshold = self._choose_threshold(rating, own)
        least = None if threshold is None else threshold[config["RATING_FIELD"]]
        labels: Any = None if own is None else np.array(facts.labels)
        if least is not None and rating is not None:
            labels = np.unique(rating >= least).astype(np.float32)
        check_labels(labels, config, rating)
        self.rows, self.further = stored.rows(least), {}
        if self.rows.label is not None:
            self.set_field_property(
                self.label_field, FeatureType.FLOAT, FeatureSource.INTERACTION, 1
            )
            self.inter_feat.update(
                Interaction({self.label_field: torch.from_numpy(self.rows.label)})
            )
        self._all_rows = self.inter_feat
        self._describe_rows(threshold, own)

    def _choose_threshold(
        self, rating: NDArray[np.float64] | None, label: NDArray[np.float64] | None
    ) -> dict[str, float] | None:
        super()._choose_threshold(rating, label)
        return None if rating is None else self.config["threshold"]

    def _share_of_ties(self) -> float:
        return self.stored.facts.ties

    def split_rows(self) -> list[NDArray[np.int64]]:
        """Return the same parts as for rows in memory, each user's split by RecBole's own rule."""
        kind, shares = next(iter(self.config["eval_args"]["split"].items()))

        def sizes(count: int) -> list[int]:
            if kind == "LS":
                return [len(part) for part in self._split_index_by_leave_one_out([range(count)], 2)]
            ends = self._calcu_split_ids(count, [share / sum(shares) for share in shares])
            return np.diff([0, *ends, count]).tolist()

        if kind == "RS" and len(shares) != 3:
            raise InputError(f"the split gives {len(shares)} parts; three are needed (eval_args)")
        return self.stored.split(sizes)

    def take(self, rows: NDArray[np.int64], hidden: NDArray[np.int64] | None = None) -> Dataset:
        """Return a dataset with these rows, in this order."""
        rows = np.asarray(rows, dtype=np.int64)
        columns = {name: column[rows] for name, column in self.inter_feat.interaction.items()}
        return self.copy(Interaction({**columns, ROW_ID: torch.from_numpy(rows)}))

    @property
    def lines(self) -> Any:  # type: ignore[override]
        """Refuse: which line of the table a row was is not known, and needed to erase it.

        Raises:
            InputError: always.
        """
        raise InputError("shard_rows: rows in shards cannot be erased; leave it out")

    def replace_rows(self, rows: RowTable) -> None:
        """Refuse: corrected rows would have to be sorted anew.

        Raises:
            InputError: always.
        """
        raise InputError("shard_rows: rows in shards cannot be corrected; leave it out")


@cache
def with_rows(base: type) -> type:
    """Add :class:`RowDataMixin` to a RecBole dataset class, so that the result can be pickled."""
    name = f"Row{base.__name__}"
    row_class = type(name, (RowDataMixin, base), {"__module__": __name__, "__doc__": base.__doc__})
    globals()[name] = row_class  # DIN's checkpoint pickles its dataset; pickle looks the class up
    return row_class


def load_dataset(config: Any, examine: bool = True) -> RowDataMixin:
    """Load and filter a run's data set and number its rows, in the class that its model needs.

    Settings that follow from the data get their values in ``config``: ``threshold``, and for a
    language model ``title_field`` and ``user_fields``. The data set's ``findings`` say which.

    Args:
        config: the run's settings.
        examine: whether titles and features are counted, and the findings are logged; not needed
            where a model was already trained on the data.

    Raises:
        InputError: a file or column is missing or cannot be downloaded, a cell is not a number,
            no rows are left, the labels cannot be used, or two settings both choose the rows of
            the parts.
    """
    _check_parts(config)
    if config.is_language_model:
        in_shards = config.options(ShardOptions).shard_rows is not None
        kind: type = ShardedDataset if in_shards else LLMRecDataset
    else:
        by_type = {
            ModelType.SEQUENTIAL: "SequentialDataset",
            ModelType.KNOWLEDGE: "KnowledgeBasedDataset",
        }
        class_of_type = by_type.get(config["MODEL_TYPE"], "Dataset")
        class_of_model = f"{config['model']}Dataset"
        default = getattr(recbole_datasets, class_of_type)
        kind = with_rows(getattr(recbole_datasets, class_of_model, default))
    config.check_data()
    try:
        with as_input_errors():
            dataset = _loaded(kind, config)
    except URLError as error:
        advice = f"put its atomic files into {config['data_path']}"
        raise InputError(
            f"{config['dataset']} cannot be fetched: {error.reason}; {advice}"
        ) from error
    if config.is_language_model:
        choose_columns(config, dataset)
    if examine:
        _examine(config, dataset)
    return dataset


def choose_columns(config: Any, dataset: RowDataMixin) -> None:
    """Choose the columns that prompts show, where no setting does, and add to the findings."""
    found = dataset.findings
    items, users = _catalogues(config, dataset)
    if config["title_field"] == AUTO:
        config["title_field"] = _title_field(items, config, found)
    if config["user_fields"] == AUTO:
        config["user_fields"] = _user_fields(users, config, found)


def examine_prompts(config: Any, dataset: RowDataMixin) -> None:
    """Count the items with a title and the users with features, and add to the findings.

    Raises:
        InputError: a file cannot be read, or its ids are not those of the `.inter` file.
    """
    found, ids = dataset.findings, dataset.ids
    items, users = _catalogues(config, dataset)
    if config["title_field"] not in (None, NO_TITLE):
        found.title_field = config["title_field"]
        titles = read_catalogue(
            items, config["ITEM_ID_FIELD"], config["title_field"], **reading(config)
        )
        what = "items have a title; write --title_field=none"
        found.titled = share_known(ids.items, titles, items, what, shows_ids=True)
        found.warnings += _describe_share(found.titled, "items have a title", items)
    if config["user_fields"]:
        found.user_fields = tuple(config["user_fields"])
        features = read_features(
            users, config["USER_ID_FIELD"], config["user_fields"], **reading(config)
        )
        what = "users have a line; write --user_fields=[]"
        found.described = share_known(ids.users, features, users, what, shows_ids=False)
        found.warnings += _describe_share(found.described, "users have a line", users)


def _describe_share(share: float, what: str, path: Path) -> list[str]:
    return [f"only {share:.0%} of the {what} in {path.name}"] if share < USUAL_SHARE else []


def _catalogues(config: Any, dataset: RowDataMixin) -> list[Path]:
    """Return the files of items and users."""
    folder = Path(config["data_path"])
    return [folder / f"{dataset.dataset_name}.{kind}" for kind in ("item", "user")]


def _examine(config: Any, dataset: RowDataMixin) -> None:
    """Look at what a person should know before a run, and log it."""
    found, name = dataset.findings, dataset.dataset_name
    own = Path(str(config.internal_config_dict["data_path"])) / name
    if config.is_bundled and own.is_dir():
        found.warnings.append(
            f"the data that come with RecBole are read, not {own}; for those write "
            f"--data_path={own.parent}"
        )
    if config.is_language_model:
        examine_prompts(config, dataset)
    if not distributed.is_main_process():
        return
    for line in (*describe(config, dataset), *found.taken):
        LOGGER.info("%s: %s", name, line)
    for line in found.warnings:
        LOGGER.warning("%s: %s", name, line)


def describe(config: Any, dataset: RowDataMixin) -> list[str]:
    """Describe the data of a run in a few lines, after they were examined."""
    found, rows = dataset.findings, dataset.rows
    counts = np.bincount(rows.user)
    rows_of_users = counts[counts > 0]
    fewest, most, median = rows_of_users.min(), rows_of_users.max(), np.median(rows_of_users)
    lines = [
        f"{found.rows:,} rows of {found.users:,} users and {found.items:,} items; {fewest:,} to "
        f"{most:,} rows a user, median {median:g}",
        describe_times(rows.time) if rows.has_time else "times: none",
    ]
    if not config.is_language_model:
        return lines
    titles = "items are named by their ids"
    if found.titled is not None:
        titles = f"{found.titled:.0%} of the items have a title ({found.title_field})"
    users = "prompts say nothing else about users"
    if found.described is not None:
        named = ", ".join(found.user_fields)
        users = f"{found.described:.0%} of the users have a line ({named})"
    return [*lines, f"{titles}; {users}"]


def _title_field(path: Path, config: Any, found: Findings) -> str | None:
    if not path.is_file():
        found.taken.append(f"items are named by their ids, since there is no {path.name}")
        return None
    names = [*read_header(path, **reading(config))]
    title = find_title_field(names)
    if title is None:
        found.warnings.append(
            f"items are named by their ids: no column of {path.name} is called title ("
            f"{', '.join(names)}); title_field names another"
        )
    else:
        found.taken.append(f"titles are column {title} of {path.name}; title_field says otherwise")
    return title


def _user_fields(path: Path, config: Any, found: Findings) -> list[str]:
    if not path.is_file():
        return []
    own = config["USER_ID_FIELD"]
    fields = find_user_fields(path, own, **reading(config))
    header = read_header(path, **reading(config))
    others = [name for name in header if name not in (*fields, own)]
    left_out = f", but not {', '.join(others)}" if others else ""
    found.taken.append(
        f"prompts say of users {', '.join(fields) or 'nothing'}{left_out} ({path.name}); "
        "user_fields says otherwise"
    )
    return [*fields]


def _check_parts(config: Any) -> None:
    """Refuse names of parts that do not do, or that do not go with other settings."""
    names, dataset = config["benchmark_filename"], config["dataset"]
    if names is None:
        return
    distinct = {str(name) for name in names} if isinstance(names, list | tuple) else set()
    if len(distinct) != 3 or len(names) != 3:
        raise InputError(
            f"benchmark_filename: {names!r} does not do; three names are needed, as in "
            f"[train, valid, test] for {dataset}.train.inter and the others"
        )
    if config.options(TargetOptions) != TargetOptions():
        raise InputError("benchmark_filename names the parts; drop min_history and last_rows")
    folder = Path(config["data_path"])
    for path in (folder / f"{dataset}.{name}.inter" for name in names):
        if folder.is_dir() and not path.is_file():
            raise InputError(f"benchmark_filename: there is no file {path}; check its name")


def _loaded(kind: type, config: Any) -> RowDataMixin:
    """Load the data; if it must be downloaded, the first process of each machine goes first."""
    missing = distributed.total(float(not Path(config["data_path"]).is_dir())) > 0
    first = distributed.local_rank() == 0
    if missing and not first:
        distributed.all_gather(first)
    data: RowDataMixin = kind(config)
    if missing and first:
        distributed.all_gather(first)
    return data
