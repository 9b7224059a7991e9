"""Rows of a large data set in memory-mapped files, prepared piece by piece and shard by shard.

The table of interactions is read in pieces, from an atomic file or by pyarrow from Parquet or Arrow
files. Users and items are numbered as RecBole numbers them, by first appearance, and the columns
are written to files by row id, in the order of the table. Then the rows are put into shards, each
with all rows of its users, and each shard is sorted by user and time. The sorted row ids, one shard
after the other, are an index: it gives the rows of a user, from which histories and the split
follow.

Memory depends on the numbers of users and items, on ``shard_rows``, and on the user with the most
rows, but not on the number of rows. No history and no prompt is stored.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from itertools import count
from logging import getLogger
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recbole_e2urec.config.keys import ARROW_FORMATS, find_interactions
from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.data.features import read_features, reading
from recbole_e2urec.data.history import UserIndex
from recbole_e2urec.data.rows import Entries, IdMap, StoredRows
from recbole_e2urec.data.validation import (
    check_cells,
    check_end,
    check_finite,
    check_ids,
    check_number_columns,
    find_bad_number,
    read_header,
    warn_of_labels,
)
from recbole_e2urec.errors import InputError, one_line
from recbole_e2urec.utils import distributed, recbole_compat
from recbole_e2urec.utils.io import codec, file_lock, read_json

LOGGER = getLogger(__name__)
VERSION = 1  # of the files; others are prepared anew
FACTS = "facts.json"
PIECE = 2**18  # rows in memory at once, while they are read
COLUMNS = {"user": "i8", "item": "i8", "time": "f8", "rating": "f8", "label": "f4"}
FIELDS = {
    "USER_ID_FIELD": "user",
    "ITEM_ID_FIELD": "item",
    "TIME_FIELD": "time",
    "RATING_FIELD": "rating",
    "LABEL_FIELD": "label",
}
_OF_SHARD = np.dtype([("row", "i8"), ("user", "i8"), ("time", "f8")])
ALL = "[0,inf)"  # the interval that filters nothing, RecBole's default
# Settings that need all rows at once.
_OF_ALL_ROWS = (
    "benchmark_filename", "val_interval", "rm_dup_inter", "user_inter_num_interval",
    "item_inter_num_interval", "min_history", "last_rows",
)  # fmt: skip


@option_class()
class ShardOptions:
    """How the rows of a large data set are read."""

    shard_rows: int | None = option(
        "Prepare the rows in shards of about so many, and read them from memory-mapped files, for "
        "language models on data that do not fit into memory: docs/how-to/large-data.md. ~ = all "
        "rows in memory.",
        ge=1,
        default=None,
    )


class Facts(NamedTuple):
    """What is known of prepared rows, beside their columns.

    Attributes:
        rows: their number.
        columns: names of the columns that they have, of COLUMNS.
        ratings, labels: the distinct values, ascending; empty without such a column.
        ties: share of rows whose user has another row of the same time.
        digest: identifies users, times and their order.
        warnings: what is odd, one sentence each.
    """

    rows: int
    columns: list[str]
    ratings: list[float]
    labels: list[float]
    ties: float
    digest: str
    warnings: list[str]


class PreparedRows:
    """The prepared rows in a folder; columns are memory-mapped.

    Attributes:
        facts: what is known of them.
        ids: maps the file's tokens to inner ids.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts = Facts(**read_json(folder / FACTS))
        tokens = read_json(folder / "tokens.json")
        numbered = ({token: n for n, token in enumerate(part, start=1)} for part in tokens)
        self.ids = IdMap(*numbered)
        self._start, self._users, self._pairs = (
            np.load(folder / f"{name}.npy") for name in ("start", "users", "pairs")
        )

    def column(self, name: str) -> Any:
        """Return a column by row id; None: the rows have no such column."""
        known = name in self.facts.columns
        return _mapped(self.folder / name, COLUMNS[name]) if known else None

    @cached_property
    def index(self) -> UserIndex:
        """Where the rows of each user are."""
        return UserIndex(_mapped(self.folder / "order", "i8"), self._start, self.facts.digest)

    def rows(self, threshold: float | None) -> StoredRows:
        """Return the rows, with their own labels or with those that a threshold makes."""
        user, item, time, rating, label = map(self.column, COLUMNS)
        if threshold is not None:
            label = self._liked(threshold)
        highest = None if rating is None else self.facts.ratings[-1]
        values, of_row = np.array(self.facts.ratings or [0.0]), _mapped(self.folder / "entry", "i4")
        entries = Entries(values, self._pairs, of_row)
        return StoredRows(user, item, time, rating, label, True, highest, self.index, entries)

    def _liked(self, threshold: float) -> Any:
        """Return the labels that a threshold makes; they are written on first use."""
        path = self.folder / f"liked-{threshold!r}"

        def write() -> None:
            if path.exists():
                return
            part = path.with_name(f".{path.name}.{os.getpid()}.part")
            with part.open("wb") as file:
                for (rating,) in _in_pieces(self.folder, "rating"):
                    (rating >= threshold).astype(COLUMNS["label"]).tofile(file)
            os.replace(part, path)

        distributed.on_main_process(write)
        return _mapped(path, COLUMNS["label"])

    def split(self, sizes: Callable[[int], Sequence[int]]) -> list[NDArray[np.int64]]:
        """Split the rows of each user in the order of time, the earliest into the first part.

        Users are in the order of their first rows in time, as in RecBole's parts.

        Args:
            sizes: how many rows each part gets of a user with so many rows.
        """
        start, users = self._start, self._users
        counts, which = np.unique(start[users + 1] - start[users], return_inverse=True)
        lengths = np.array([sizes(int(count)) for count in counts])[which]
        ends = start[users, None] + np.cumsum(lengths, axis=1)
        parts = zip(ends.T, lengths.T, strict=True)
        return [self.index.order[_ranges(end - length, end)] for end, length in parts]


def refuse_settings(config: Any) -> None:
    """Refuse what needs all rows at once.

    Raises:
        InputError: names the setting.
    """
    args, rating = config["eval_args"], config["RATING_FIELD"]
    for key in _OF_ALL_ROWS:
        if config[key] and str(config[key]).replace(" ", "") != ALL:
            raise InputError(f"shard_rows: {key} needs all rows at once; set one of them to ~")
    kind, parts = next(iter(args["split"].items()))
    by_user = (kind == "RS" and args["group_by"] == "user") or parts == "valid_and_test"
    if args["order"] != "TO" or not by_user:
        raise InputError(
            "shard_rows: the rows of each user are split in the order of time; set eval_args to "
            "{order: TO, group_by: user} with a split such as {RS: [0.8, 0.1, 0.1]}"
        )
    if isinstance(config["threshold"], Mapping) and [*config["threshold"]] != [rating]:
        raise InputError(f"shard_rows: labels are made from {rating} alone; see threshold")
    if config.remainder is not None:
        raise InputError("shard_rows: rows were erased from the data of this model; leave it out")


def prepared_rows(config: Any) -> PreparedRows:
    """Return the prepared rows of a run's data set; the main process prepares them if needed.

    They are in the run's folder, by the table's name, size and time of change, and the settings
    that decide how it is read.

    Raises:
        InputError: the table cannot be read or used, or the folder cannot be written to.
    """
    refuse_settings(config)
    source = find_interactions(Path(config["data_path"]), config["dataset"])
    if source is None:  # RecBole's own message names the file
        raise InputError(f"there is no {config['dataset']}.inter in {config['data_path']}")
    folder = config.run_folder / "rows" / _name_of(config, source)

    def prepare() -> None:
        with file_lock(folder.with_suffix(".lock"), LOGGER.info):
            if not (folder / FACTS).is_file():
                _prepare(config, source, folder)

    distributed.on_main_process(prepare)
    if not (folder / FACTS).is_file():
        raise InputError(f"there is no {folder}; all machines need the same checkpoint_dir")
    return PreparedRows(folder)


def _name_of(config: Any, source: Path) -> str:
    """Return a name that changes with the table and with how it is read."""
    files = sorted(source.rglob("*")) if source.is_dir() else [source]
    files += _catalogues(config).values()
    states = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    settings = [str(config[key]) for key in (*FIELDS, "field_separator", "encoding")]
    stated = json.dumps([VERSION, states, settings])
    return hashlib.sha256(stated.encode()).hexdigest()[:16]


def _catalogues(config: Any) -> dict[str, Path]:
    """Return the files of users and items, if RecBole loads them: their ids are numbered, too."""
    folder = Path(config["data_path"])
    paths = {kind: folder / f"{config['dataset']}.{kind}" for kind in ("user", "item")}
    return {
        kind: path
        for kind, path in paths.items()
        if config["load_col"].get(kind) and path.is_file()
    }


def _prepare(config: Any, source: Path, folder: Path) -> None:
    """Write the prepared rows to the folder, which is complete or absent."""
    LOGGER.info("%s: rows are prepared in %s", source.name, folder)
    try:
        for old in folder.parent.glob(".rows.*.part"):
            shutil.rmtree(old, ignore_errors=True)
        part = Path(tempfile.mkdtemp(".part", ".rows.", folder.parent))
        try:
            _Preparation(config, source, part).run(int(config["shard_rows"]))
            os.replace(part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise InputError(
            f"cannot write {folder}: {error.strerror}; free some space or name another "
            "checkpoint_dir"
        ) from error


class _Preparation:
    """Prepares rows in an empty folder."""

    def __init__(self, config: Any, source: Path, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.table = _Table(config, source)
        self.ratings, self.labels = _Distinct("f8"), _Distinct("f8")
        self.numbers: dict[str, dict[str, int]] = {kind: _numbers() for kind in ("user", "item")}
        self.users = _Users()

    def run(self, shard_rows: int) -> None:
        """Read the table, then sort it shard by shard."""
        rows = self._write_columns()
        columns = [name for name in COLUMNS if (self.folder / name).exists()]
        users = self.users
        users.grow(len(self.numbers["user"]))
        start = np.concatenate([[0], np.cumsum(users.rows)])
        ties, digest = self._sort(start, shard_rows)
        self._write_entries("rating" in columns)
        with_rows = np.flatnonzero(users.rows)
        order = np.lexsort((users.first_row[with_rows], users.first_time[with_rows]))
        np.save(self.folder / "start.npy", start)
        np.save(self.folder / "users.npy", with_rows[order])
        self._write_json("tokens.json", [[*tokens] for tokens in self.numbers.values()])
        values = self.ratings.values().tolist(), self.labels.values().tolist()
        facts = Facts(rows, columns, *values, ties / rows, digest, self.table.warnings)
        self._write_json(FACTS, facts._asdict())

    def _write_columns(self) -> int:
        """Number users and items, and write the columns; return the number of rows."""
        read = reading(self.config)
        known = {
            kind: [*read_features(path, self.config[f"{kind.upper()}_ID_FIELD"], (), **read)]
            for kind, path in _catalogues(self.config).items()
        }
        row = nameless = lost = 0
        with ExitStack() as stack:
            files = {name: stack.enter_context((self.folder / name).open("wb")) for name in COLUMNS}
            for frame in self.table.frames():
                named = frame[frame["user"].notna() & frame["item"].notna()]
                is_known = named["user"].notna()
                for kind, tokens in known.items():
                    is_known &= named[kind].isin(tokens)
                kept = named[is_known]
                for name, values in self._columns_of(kept, row).items():
                    values.astype(COLUMNS[name]).tofile(files[name])
                row += len(kept)
                nameless, lost = nameless + len(frame) - len(named), lost + len(named) - len(kept)
        for name in COLUMNS:
            if (self.folder / name).stat().st_size == 0:
                (self.folder / name).unlink()
        self._note_lost(row, nameless, lost)
        for kind, tokens in known.items():
            _numbered(np.array(tokens, object), self.numbers[kind])
        return row

    def _columns_of(self, frame: pd.DataFrame, row: int) -> dict[str, NDArray[Any]]:
        """Return the columns of a piece, whose row ids begin with ``row``; note its values."""
        columns = {name: frame[name].to_numpy() for name in COLUMNS if name in frame}
        for kind, numbers in self.numbers.items():
            columns[kind] = _numbered(columns[kind], numbers)
        self.users.add(columns["user"], columns["time"], row)
        self.ratings.add(columns.get("rating", []))
        self.labels.add(columns.get("label", []))
        return columns

    def _note_lost(self, rows: int, nameless: int, lost: int) -> None:
        """Say how many rows are left out, or refuse a table without rows."""
        warnings = self.table.warnings
        if nameless:
            warnings.append(f"{nameless} rows name no user or no item, and are left out")
        told = (
            f"{lost} of {rows + lost} rows are left out, since their user or item has no line in "
            "the .user or .item file; ids must be written alike"
        )
        if not rows:
            raise InputError(f"{self.table.source}: {told if lost else 'the table has no row'}")
        if lost:
            warnings.append(told)

    def _sort(self, start: NDArray[np.int64], shard_rows: int) -> tuple[int, str]:
        """Write the row ids by user, time and row id, shard by shard.

        Returns:
            The number of rows whose user has another row of the same time, and the digest.
        """
        shard_of_user = np.maximum(start[1:] - 1, 0) // shard_rows
        shards = [self.folder / f"shard-{number}" for number in range(shard_of_user[-1] + 1)]
        self._scatter(shard_of_user, shards)
        ties, digest = 0, hashlib.sha256()
        with (self.folder / "order").open("wb") as file:
            for path in shards:
                if not path.exists():  # the shard before it has a user with more rows than fit
                    continue
                shard = np.fromfile(path, _OF_SHARD)
                path.unlink()
                shard = shard[np.lexsort((shard["time"], shard["user"]))]
                np.ascontiguousarray(shard["row"]).tofile(file)
                digest.update(shard.tobytes())
                same = (np.diff(shard["user"]) == 0) & (np.diff(shard["time"]) == 0)
                ties += int((np.append(same, False) | np.insert(same, 0, False)).sum())
        return ties, digest.hexdigest()

    def _scatter(self, shard_of_user: NDArray[np.int64], shards: Sequence[Path]) -> None:
        """Append each row to the file of its user's shard."""
        first = 0  # row id
        for user, time in _in_pieces(self.folder, "user", "time"):
            rows = np.empty(len(user), _OF_SHARD)
            rows["row"] = np.arange(first, first + len(user))
            rows["user"], rows["time"] = user, time
            first += len(user)
            shard = shard_of_user[rows["user"]]
            order = np.argsort(shard, kind="stable")
            numbers, starts = np.unique(shard[order], return_index=True)
            for number, part in zip(numbers, np.split(rows[order], starts[1:]), strict=True):
                with shards[number].open("ab") as file:
                    part.tofile(file)

    def _write_entries(self, rated: bool) -> None:
        """Write which distinct pair of item and rating each row has."""
        ratings, names = self.ratings.values(), ("item", "rating")[: 1 + rated]

        def pairs_of(item: NDArray[np.int64], *rating: NDArray[np.float64]) -> NDArray[np.int64]:
            code: Any = np.searchsorted(ratings, rating[0]) if rating else 0
            return item * max(1, len(ratings)) + code

        distinct = _Distinct("i8")
        for piece in _in_pieces(self.folder, *names):
            distinct.add(pairs_of(*piece))
        pairs = distinct.values()
        with (self.folder / "entry").open("wb") as file:
            for piece in _in_pieces(self.folder, *names):
                of_piece, of_row = np.unique(pairs_of(*piece), return_inverse=True)
                np.searchsorted(pairs, of_piece)[of_row].astype("i4").tofile(file)
        np.save(self.folder / "pairs.npy", pairs)

    def _write_json(self, name: str, value: Any) -> None:
        (self.folder / name).write_text(json.dumps(value), encoding="utf-8")


class _Table:
    """The table of interactions, read in pieces.

    Attributes:
        source: the file or the folder.
        warnings: what is odd, one sentence each.
    """

    def __init__(self, config: Any, source: Path) -> None:
        self.config, self.source = config, source
        self.warnings: list[str] = []

    def frames(self) -> Iterator[pd.DataFrame]:
        """Yield the pieces, with our names of the columns.

        Raises:
            InputError: a column is missing, or a cell cannot be used.
        """
        fields = {self.config[key]: name for key, name in FIELDS.items()}
        pieces = (
            self._arrow_pieces() if self.source.suffix in ARROW_FORMATS else self._text_pieces()
        )
        return (frame.rename(columns=fields) for frame in pieces)

    def _columns(self, names: Collection[str]) -> tuple[list[str], list[str]]:
        """Return the names of the columns of ids and of numbers that the table has."""
        ids, others = [*FIELDS][:2], [*FIELDS][2:]
        for key in (*ids, "TIME_FIELD"):
            if self.config[key] not in names:
                raise InputError(
                    f"{self.source}: no column {self.config[key]!r} among {', '.join(names)}; "
                    f"rename one, or name it with {key}"
                )
        numbers = [self.config[key] for key in others if self.config[key] in names]
        return [self.config[key] for key in ids], numbers

    def _text_pieces(self) -> Iterator[pd.DataFrame]:
        """Read an atomic file, after the checks of any such file."""
        path, encoding = self.source, self.config["encoding"] or "utf-8"
        table_format = (path, self.config["field_separator"], encoding)
        header = read_header(*table_format)
        check_cells(*table_format)
        ids, numbers = self._columns(header)
        check_ids(path, header, ids)
        check_number_columns(path, header, numbers)
        self.warnings += check_end(path) + warn_of_labels(path, header, self.config["LABEL_FIELD"])
        types: dict[str, Any] = {f"{name}:token": str for name in ids}
        types |= {f"{name}:float": np.float64 for name in numbers}
        options = {"engine": "python", "encoding": codec(encoding), "chunksize": PIECE}
        try:
            pieces = recbole_compat.read_csv(
                str(path), types, table_format[1], usecols=[*types], **options
            )
            for frame in pieces:
                frame.columns = [name.rpartition(":")[0] for name in frame.columns]
                check_finite(frame, *table_format, numbers)
                yield frame
        except InputError:
            raise
        except (ValueError, OverflowError) as error:
            cell = find_bad_number(*table_format, numbers, missing_is_bad=False)
            raise InputError(f"{path}, {cell or one_line(error)}") from error

    def _arrow_pieces(self) -> Iterator[pd.DataFrame]:
        """Read a Parquet or Arrow file, or a folder of such files."""
        try:
            import pyarrow
            from pyarrow.dataset import dataset
        except ImportError as error:
            advice = "pip install 'recbole_e2urec[large]'"
            raise InputError(f"{self.source} needs pyarrow: {advice}") from error
        try:
            table = dataset(self.source, format=ARROW_FORMATS[self.source.suffix])
            names = {name.partition(":")[0]: name for name in table.schema.names}
            ids, numbers = self._columns(names)
            for name in ids:
                if pyarrow.types.is_floating(table.schema.field(names[name]).type):
                    raise InputError(f"{self.source}: {name} has fractions, and ids have none")
            kinds = dict.fromkeys(ids, pyarrow.string()) | dict.fromkeys(numbers, pyarrow.float64())
            # What is read ahead would be held in memory.
            for batch in table.to_batches(
                columns=[names[name] for name in kinds],
                batch_size=PIECE,
                batch_readahead=1,
                fragment_readahead=1,
            ):
                columns = {
                    name: batch.column(names[name]).cast(kind, safe=False)
                    for name, kind in kinds.items()
                }
                frame = pd.DataFrame(
                    {name: cells.to_numpy(zero_copy_only=False) for name, cells in columns.items()}
                )
                self._check_numbers(frame, numbers)
                yield frame
        except pyarrow.ArrowException as error:
            raise InputError(f"{self.source}: {one_line(error)}") from error

    def _check_numbers(self, frame: pd.DataFrame, numbers: Collection[str]) -> None:
        for name in numbers:
            if not np.isfinite(frame[name].to_numpy()).all():
                raise InputError(f"{self.source}: {name} has a missing or infinite number")


class _Users:
    """What is known of each user, by inner id: number of rows, and the first row in time."""

    def __init__(self) -> None:
        self.rows = np.zeros(1, np.int64)
        self.first_time, self.first_row = np.full(1, np.inf), np.zeros(1, np.int64)

    def grow(self, last: int) -> None:
        """Make room for inner ids up to this one."""
        more = last + 1 - len(self.rows)
        if more > 0:
            self.rows = np.append(self.rows, np.zeros(more, np.int64))
            self.first_time = np.append(self.first_time, np.full(more, np.inf))
            self.first_row = np.append(self.first_row, np.zeros(more, np.int64))

    def add(self, user: NDArray[np.int64], time: NDArray[np.float64], row: int) -> None:
        """Count rows of these users, whose row ids begin with ``row``."""
        self.grow(int(user.max(initial=0)))
        order = np.lexsort((time, user))
        users, first, rows = np.unique(user[order], return_index=True, return_counts=True)
        self.rows[users] += rows
        first = order[first]
        is_earlier = time[first] < self.first_time[users]
        users, first = users[is_earlier], first[is_earlier]
        self.first_time[users], self.first_row[users] = time[first], row + first


class _Distinct:
    """The distinct numbers of many pieces, found in time that grows as the pieces do."""

    def __init__(self, dtype: str) -> None:
        self._known: NDArray[Any] = np.empty(0, dtype)
        self._new: list[NDArray[Any]] = []

    def add(self, numbers: Any) -> None:
        """Add the numbers of a piece."""
        numbers = np.asarray(numbers, self._known.dtype)
        # Without an index, NumPy hashes the numbers, which takes longer than sorting many of them.
        self._new.append(np.unique(numbers, return_index=True)[0])
        if sum(map(len, self._new)) > len(self._known):
            self.values()

    def values(self) -> NDArray[Any]:
        """Return the distinct numbers so far, ascending."""
        self._known = np.unique(np.concatenate([self._known, *self._new]))
        self._new = []
        return self._known


def _numbers() -> dict[str, int]:
    """Return a map that numbers new tokens from 1 on."""
    return defaultdict(count(1).__next__)


def _numbered(tokens: Any, numbers: dict[str, int]) -> NDArray[np.int64]:
    """Number tokens by first appearance."""
    codes, distinct = pd.factorize(tokens)
    known = map(numbers.__getitem__, distinct)
    return np.fromiter(known, np.int64, len(distinct))[codes]


def _ranges(start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:  # [r], [r]
    """Return the whole numbers of each range, its end excluded, one range after the other."""
    lengths = end - start
    shift = np.repeat(start - (np.cumsum(lengths) - lengths), lengths)
    return shift + np.arange(len(shift))


def _in_pieces(folder: Path, *names: str) -> Iterator[list[NDArray[Any]]]:
    """Read columns piece by piece; mapped files would count as memory of the process."""
    with ExitStack() as stack:
        files = [stack.enter_context((folder / name).open("rb")) for name in names]
        while True:
            piece = [
                np.fromfile(file, COLUMNS[name], PIECE)
                for file, name in zip(files, names, strict=True)
            ]
            if not len(piece[0]):
                return
            yield piece


def _mapped(path: Path, dtype: str) -> NDArray[Any]:
    """Map a file of numbers into memory; what is written to the array stays in this process."""
    if path.stat().st_size == 0:
        return np.empty(0, dtype)
    return np.asarray(np.memmap(path, dtype, mode="c"))
