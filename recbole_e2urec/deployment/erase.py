"""``recbole-e2urec erase``: remove what is forgotten from the data files as well.

The files lose the forgotten rows, and the lines of users and items of whom no row is left. Rows
that were corrected get their right values. The model folder moves along: its hash of the data, its
row numbers, and its certificates. What would be another if it were computed from fewer rows, such
as the split, is kept, see :class:`Remainder`.

All new files are written and tried first. Then a journal decides, and they are put in place; see
:meth:`ModelFolder.decide_erasure`. No copy of the old files is kept.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import recbole
import torch
from numpy.typing import NDArray

from recbole_e2urec.config.config import Config
from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.data.features import reading
from recbole_e2urec.data.prompt_table import PromptTable
from recbole_e2urec.data.rows import Remainder, Splits, without
from recbole_e2urec.deployment.certificate import certificate_of, hashes_of, lost_items, name_of
from recbole_e2urec.deployment.model_folder import (
    CORRECTIONS,
    ERASING,
    POINTER,
    STAGED,
    Generation,
    ModelFolder,
    Tensors,
    fingerprint_of,
    hash_of_file,
)
from recbole_e2urec.deployment.purge import (
    is_still_there,
    purge_reported,
    recorded_checkpoint_dir,
)
from recbole_e2urec.deployment.served_model import (
    NOT_FORGOTTEN,
    ServedModel,
    drawn,
    open_folder,
    remainder_tensors,
    tensors_of,
)
from recbole_e2urec.errors import DISK_ERRORS, InputError, nearest
from recbole_e2urec.experiment.run import Rows
from recbole_e2urec.model.backbones.tiny import EMBEDDED, shown_words
from recbole_e2urec.model.prompting import make_texts, shown_histories, wording_of
from recbole_e2urec.utils.io import run_folder, write_bytes, write_json, write_text

REGISTER = ".e2urec-folders"  # in a data folder: the model folders that use its files
NOTHING = "the data have nothing that is forgotten or corrected; nothing to erase"
COMPARED_ROWS = 20_000  # whose prompts must stay the same
COMPARED_AT_ONCE = 2_048
Mask = NDArray[np.bool_]
Cells = Mapping[int, Mapping[str, str]]  # by line: texts by column


@option_class()
class EraseOptions:
    """What is erased."""

    checkpoint: str = option("The folder that export made.", default="", text=True)
    shared_data: bool = option(
        "Erase although other model folders or runs use these files, which then fit them no more.",
        default=False,
    )
    dry_run: bool = option("Say what would be erased; write nothing.", default=False)

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        if not self.checkpoint:
            raise InputError("erase: what which model forgot? write --checkpoint=DIR")


def erase(
    options: EraseOptions, settings: Mapping[str, Any], config_files: Sequence[str] = ()
) -> str:
    """Erase from the data files what the model in a folder has forgotten.

    Args:
        options: the folder.
        settings: as text: where the data is now, and how to compute.
        config_files: yaml files with such settings.

    Returns:
        What was done, for people. It names no user and no item.

    Raises:
        InputError: the folder or the data cannot be used, or others use these files.
    """
    folder = ModelFolder(options.checkpoint)
    folder.read(with_tensors=False)  # refuses other folders before a lock is made in them
    if options.dry_run:
        run = open_folder(folder, settings, None, config_files)
        refuse_unfit(run, folder, options.shared_data)
        return "\n".join(would_erase(run, run.forgotten))
    with folder.locked():
        folder.tidy()
        run = open_folder(folder, settings, None, config_files)
        return "\n".join(erase_forgotten(run, folder, options.shared_data))


def would_erase(run: ServedModel, forgotten: Rows) -> list[str]:
    """Return what would be erased once these rows are forgotten; nothing is changed."""
    if not len(forgotten) and not len(run.corrections.rows):
        return [NOTHING]
    return _told(_plan_of(run, forgotten), "would erase", "would correct")


def erase_forgotten(
    run: ServedModel, folder: ModelFolder, shared_data: bool, purges: bool = False
) -> list[str]:
    """Erase from its data files what a model has forgotten; call this inside ``locked()``.

    What was corrected is corrected there as well.

    Args:
        run: the model, opened on its data, which it no longer fits afterwards.
        folder: the model's folder.
        shared_data: erase although others use the files.
        purges: whether the run that made the model will be purged.

    Returns:
        What was done, for people.

    Raises:
        InputError: the files may or can not be rewritten; they and the folder are as before.
    """
    if not len(run.forgotten) and not len(run.corrections.rows):
        return [NOTHING]
    refuse_unfit(run, folder, shared_data, purges)
    plan = _plan_of(run, run.forgotten)
    with _taken_back_on_failure(folder):
        staged = folder.begin_erasure(plan.data, run.dataset.dataset_name)
        files = _write_successors(plan, staged)
        moved = _try_out(run, plan, staged)
        generation = _write_generation(run, folder, plan, moved, files)
        _write_certificates(run, folder, generation)
        folder.decide_erasure(staged, files)
    if folder.pointer().name != generation.name:
        raise InputError(f"{plan.data} was changed meanwhile; nothing was erased, try again")
    folder.tidy()
    return _told(plan, "erased", "corrected")


@contextmanager
def _taken_back_on_failure(folder: ModelFolder) -> Iterator[None]:
    """Remove what was prepared if the body fails before the erasure is decided."""
    try:
        yield
    except OSError as error:
        with suppress(InputError):
            folder.finish_erasure()
        if error.errno not in DISK_ERRORS:
            raise
        raise InputError(f"erase: cannot write {error.filename}: {error.strerror}") from error
    except InputError:
        with suppress(InputError):
            folder.finish_erasure()
        raise


# --- Who may erase


def refuse_unfit(
    run: ServedModel, folder: ModelFolder, shared_data: bool, purges: bool = False
) -> None:
    """Refuse data files that may or can not be rewritten.

    Args:
        run: the model, opened on its data.
        folder: the model's folder.
        shared_data: whether others may use the files.
        purges: whether the run that made the model will be purged.

    Raises:
        InputError: names what is in the way, and what would do.
    """
    data = _data_folder(run.config)
    if run.config.is_bundled or Path(recbole.__file__).parent in data.resolve().parents:
        raise InputError(
            f"erase: {data} came with RecBole and is not yours; copy it to a folder of yours, and "
            "train and export with --data_path"
        )
    for path in [path for paths in _files_of(run.config).values() for path in paths]:
        _refuse_unwritable(path)
    if not os.access(data, os.W_OK):
        raise InputError(f"erase: cannot write in {data}; change its mode")
    others = [] if shared_data else [*_other_users(run, folder, purges)]
    if others:
        raise InputError(
            f"erase: {', '.join(map(str, others))} also use the files in {data}, and would fit "
            "them no more; remove what is not needed (runs by recbole-e2urec purge, or --purge at "
            "the request), or write --shared_data"
        )


def _refuse_unwritable(path: Path) -> None:
    if path.is_symlink():
        raise InputError(f"erase: {path} is a link; name the folder of the file by --data_path")
    status = path.stat()
    if status.st_nlink > 1:
        raise InputError(f"erase: {path} has another name (a hard link), which would keep all rows")
    if not status.st_mode & 0o222 or not os.access(path, os.W_OK):
        raise InputError(f"erase: {path} is read-only; change its mode")


def register_use(config: Config, folder: ModelFolder) -> None:
    """Note in the data folder that a model folder uses its files, where that can be written."""
    if config.is_bundled:
        return
    with suppress(OSError), (_data_folder(config) / REGISTER).open("a", encoding="utf-8") as file:
        file.write(f"{folder.path.resolve()}\n")


def _other_users(run: ServedModel, folder: ModelFolder, purges: bool) -> Iterator[Path]:
    """Yield other model folders, and the folder of runs, that use the same data files.

    Model folders are looked for in the data folder's register, beside the given one, and in the
    ``checkpoint_dir`` of its run.
    """
    data, own = _data_folder(run.config).resolve(), folder.path.resolve()
    places, checkpoint_dir = [own.parent], recorded_checkpoint_dir(run.record)
    if checkpoint_dir is not None and is_still_there(checkpoint_dir, run.record):
        places.append(checkpoint_dir)
        runs = run_folder(checkpoint_dir, run.dataset.dataset_name)
        if runs.is_dir() and not purges:
            yield runs
    noted = data / REGISTER
    lines = noted.read_text("utf-8", "replace").splitlines() if noted.is_file() else []
    candidates = [Path(line) for line in lines if "\0" not in line]
    for place in places:
        candidates += sorted(place.iterdir()) if os.access(place, os.R_OK) else []
    for other in dict.fromkeys(path.resolve() for path in candidates):
        if other != own and _uses(ModelFolder(other), data):
            yield other


def _uses(folder: ModelFolder, data: Path) -> bool:
    """Return whether a folder holds a model that was made with the files of a data folder."""
    try:
        record = folder.read(with_tensors=False).record if folder.has_model else None
    except (InputError, OSError):
        return False  # it is damaged, and of no use to anybody
    if record is None:
        return False
    parent = Path(str(record["settings"].get("data_path") or "dataset"))
    return (parent / str(record["dataset"])).resolve() == data


# --- What is to be erased


class _Table(NamedTuple):
    """An atomic file.

    Attributes:
        path: the file.
        digest: SHA-256 of what was read.
        separator: between cells.
        names: of the columns.
        lines: all its lines, with their ends.
        at: which of them hold data.
        tokens: what these say in columns of ids, by the name of the column.
    """

    path: Path
    digest: str
    separator: str
    names: list[str]
    lines: list[str]
    at: list[int]
    tokens: dict[str, list[str]]

    def rewritten(self, dropped: Mask, cells: Cells) -> str:
        """Return the text without some of the lines that hold data, and with some other cells."""
        gone = {self.at[place] for place in np.flatnonzero(dropped)}
        other = {self.at[place]: self._with(self.at[place], cells[place]) for place in cells}
        lines = (other.get(number, line) for number, line in enumerate(self.lines))
        return "".join(line for number, line in enumerate(lines) if number not in gone)

    def _with(self, number: int, cells: Mapping[str, str]) -> str:
        """Return a line with other cells, by the names of their columns."""
        line = self.lines[number].rstrip("\r\n")
        row = line.split(self.separator)
        row += [""] * (len(self.names) - len(row))
        for name, text in cells.items():
            row[self.names.index(name)] = text
        return self.separator.join(row) + self.lines[number][len(line) :]


class _Change(NamedTuple):
    """What becomes of a file.

    Attributes:
        table: the file.
        dropped: which of its lines that hold data go.
        cells: what others of these say from now on.
    """

    table: _Table
    dropped: Mask
    cells: Cells

    @property
    def counts(self) -> dict[str, int]:
        """How many lines go (``lines``), and, if there are any, how many are ``corrected``."""
        counts = {"lines": int(self.dropped.sum()), "corrected": len(self.cells)}
        return {key: n for key, n in counts.items() if n or key == "lines"}

    @property
    def is_any(self) -> bool:
        """Whether the file changes."""
        return bool(self.dropped.any() or self.cells)


class _Plan(NamedTuple):
    """What is to be erased.

    Attributes:
        data: the folder of the files.
        encoding: of the files.
        kept: ids of the rows that stay.
        changes: of the files.
        lines, sizes: by kind of file: what :class:`Remainder` holds of them.
        orders: by ``user`` and ``item``: old inner ids in the order that the new files give.
    """

    data: Path
    encoding: str
    kept: Rows
    changes: list[_Change]
    lines: dict[str, Rows]
    sizes: dict[str, int]
    orders: dict[str, Rows]

    def keep_lines(self, kind: str, lines: Rows, dropped: Mask) -> None:
        """Note which lines of a kind of file the data have, numbered without the dropped ones."""
        self.lines[kind] = (np.cumsum(~dropped) - 1)[lines]
        self.sizes[kind] = int((~dropped).sum())


class _Ids(NamedTuple):
    """The ids of users, or those of items.

    Attributes:
        kind: ``user`` or ``item``.
        field: the column with their tokens.
        inner: inner id of each token.
        of_rows: inner id of each row, as it is right.
    """

    kind: str
    field: str
    inner: Mapping[str, int]
    of_rows: Rows


def _ids_of(run: ServedModel) -> tuple[_Ids, _Ids]:
    ids, rows, config = run.dataset.ids, run.dataset.rows, run.config
    return (
        _Ids("user", config["USER_ID_FIELD"], ids.users, rows.user),
        _Ids("item", config["ITEM_ID_FIELD"], ids.items, rows.item),
    )


def _plan_of(run: ServedModel, forgotten: Rows) -> _Plan:
    """Find the lines to erase: of forgotten rows, and of users and items without another line.

    Lines that the model's filters left out go too if they belong to a user of whom no row stays, or
    repeat user and item of a forgotten row, or those that a moved row had.

    Raises:
        InputError: the lines of a file are not its rows.
    """
    lines, kept = run.dataset.lines["inter"], without(np.arange(len(run.number)), forgotten)
    fields = [ids.field for ids in _ids_of(run)]
    tables = [_read(path, run.config, *fields) for path in _files_of(run.config)["inter"]]
    old, cells = _interactions(run, tables), _cells_of(run, kept)
    frame, user_field = old.copy(), run.config["USER_ID_FIELD"]
    moved = {line: cell[user_field] for line, cell in cells.items() if user_field in cell}
    frame.loc[[*moved], "user"] = [*moved.values()]
    dropped = _dropped(frame, old, lines, kept, forgotten)
    changes, first = [], 0
    for table in tables:
        own = range(first, first + len(table.at))
        of_table = {line - first: cell for line, cell in cells.items() if line in own}
        changes.append(_Change(table, dropped[first : own.stop], of_table))
        first = own.stop
    encoding = reading(run.config)["encoding"]
    plan = _Plan(_data_folder(run.config), encoding, kept, changes, {}, {}, {})
    plan.keep_lines("inter", lines[kept], dropped)
    for ids in _ids_of(run):
        _add_catalogue(plan, run, ids, set(old[ids.kind]) - set(frame[ids.kind][~dropped]))
    return plan


def _cells_of(run: ServedModel, kept: Rows) -> Cells:
    """Return what corrected rows that stay say from now on, by their line of interactions."""
    right, published, config = run.dataset.rows, run.dataset.file_rows, run.config
    users = {inner: token for token, inner in run.dataset.ids.users.items()}
    columns = {
        config["USER_ID_FIELD"]: ("user", lambda user: users[int(user)]),
        config["RATING_FIELD"]: ("rating", _number),
    }
    if not config["threshold"]:  # else labels follow
        columns[config["LABEL_FIELD"]] = ("label", _number)
    cells: dict[int, dict[str, str]] = {}
    for field, (name, text) in columns.items():
        new, old = getattr(right, name), getattr(published, name)
        if old is None:
            continue
        differs = (new[kept] != old[kept]) & ~(np.isnan(new[kept]) & np.isnan(old[kept]))
        for row in kept[differs]:
            cells.setdefault(int(run.dataset.lines["inter"][row]), {})[field] = text(new[row])
    return cells


def _number(value: Any) -> str:
    return np.format_float_positional(value, trim="-")


def _interactions(run: ServedModel, tables: Sequence[_Table]) -> pd.DataFrame:
    """Return user and item of each line of interactions.

    Raises:
        InputError: the lines are not the rows.
    """
    tokens = {
        ids.kind: [token for table in tables for token in table.tokens[ids.field]]
        for ids in _ids_of(run)
    }
    frame = pd.DataFrame(tokens, dtype=object)
    of_rows, published = frame.reindex(run.dataset.lines["inter"]), run.dataset.file_rows
    for ids in _ids_of(run):
        inner = of_rows[ids.kind].map(ids.inner).to_numpy(np.float64)
        if not np.array_equal(inner, getattr(published, ids.kind)):
            raise InputError(
                f"erase: {tables[0].path} has quotes or line ends of its own, so that its rows are "
                "not its lines; write it anew without them, and train and export anew"
            )
    return frame


def _add_catalogue(plan: _Plan, run: ServedModel, ids: _Ids, lost: set[str]) -> None:
    """Plan the lines of a ``.user`` or ``.item`` file, if there is one, without the lost tokens."""
    of_lines = np.empty(0, np.int64)
    for path in _files_of(run.config)[ids.kind]:
        table = _read(path, run.config, ids.field)
        tokens = pd.Series(table.tokens[ids.field], dtype=object)
        gone = tokens.isin(lost).to_numpy()
        plan.changes.append(_Change(table, gone, {}))
        if ids.kind in run.dataset.lines:  # else RecBole loads no column of it
            lines = run.dataset.lines[ids.kind]
            plan.keep_lines(ids.kind, lines[~gone[lines]], gone)
            of_lines = tokens[lines[~gone[lines]]].map(ids.inner).dropna().to_numpy(np.int64)
    plan.orders[ids.kind] = pd.unique(np.concatenate([ids.of_rows[plan.kept], of_lines]))


def _dropped(
    frame: pd.DataFrame, old: pd.DataFrame, lines: Rows, kept: Rows, forgotten: Rows
) -> Mask:
    """Return which lines of interactions go, see :func:`_plan_of`.

    Args:
        frame: user and item of each line, as they are right.
        old: the same, as the files have them.
        lines: the line of each row.
        kept: rows that stay.
        forgotten: rows that are forgotten.
    """
    dropped, is_row = np.zeros(len(frame), bool), np.zeros(len(frame), bool)
    dropped[lines[forgotten]] = is_row[lines] = True
    user, pair, old_pair = frame["user"], _pairs(frame), _pairs(old)
    gone = set(user[dropped]) - set(user[lines[kept]])
    lost = {*pair[dropped], *old_pair[dropped | (pair != old_pair)]}
    repeated = pair.isin(lost).to_numpy() & ~is_row
    mask: Mask = dropped | user.isin(gone).to_numpy() | repeated
    return mask


def _pairs(frame: pd.DataFrame) -> "pd.Series[str]":
    return frame["user"] + "\0" + frame["item"]


def _data_folder(config: Config) -> Path:
    return Path(str(config["data_path"]))


def _files_of(config: Config) -> dict[str, list[Path]]:
    """Return the atomic files of a data set that are there, by kind."""
    data, name = _data_folder(config), str(config["dataset"])
    parts = config["benchmark_filename"]
    inter = [f"{name}.{part}.inter" for part in parts] if parts else [f"{name}.inter"]
    files = {"inter": inter, "user": [f"{name}.user"], "item": [f"{name}.item"]}
    return {
        kind: [data / name for name in names if (data / name).exists()]
        for kind, names in files.items()
    }


def _read(path: Path, config: Config, *fields: str) -> _Table:
    """Read an atomic file, of which the data set made sure that it can be read."""
    separator, encoding = reading(config)["separator"], reading(config)["encoding"]
    content = path.read_bytes()
    text = content.decode(encoding, "replace")
    if text.encode(encoding, "replace") != content:
        raise InputError(f"erase: {path} is not plain {encoding}; write it anew")
    lines = [f"{line}\n" for line in text.split("\n")]
    lines[-1] = lines[-1].removesuffix("\n")
    rows = [line.rstrip("\r\n").split(separator) for line in lines]
    names = [cell.rpartition(":")[0] for cell in rows[0]]
    names[0] = names[0].removeprefix("\ufeff")
    at = [number for number, row in enumerate(rows) if number and (len(row) > 1 or row[0].strip())]
    tokens = {}
    for field in fields:
        if field not in names:
            raise InputError(f"erase: {path} has no column {field!r}; {nearest(field, names)}")
        column = names.index(field)
        tokens[field] = ["".join(rows[number][column : column + 1]) for number in at]
    digest = hashlib.sha256(content).hexdigest()
    return _Table(path, digest, separator, names, lines, at, tokens)


# --- The new files, and what moves along


def _write_successors(plan: _Plan, staged: Path) -> dict[str, list[str]]:
    """Write the new files; the others are linked to, so that the data can be read there.

    Returns:
        For each file that changes, the SHA-256 of what it was and of what it becomes.
    """
    files = {}
    for change in plan.changes:
        if change.is_any:
            table = change.table
            new = staged / table.path.name
            write_bytes(new, table.rewritten(change.dropped, change.cells).encode(plan.encoding))
            shutil.copymode(table.path, new)
            with suppress(OSError):
                os.chown(new, table.path.stat().st_uid, table.path.stat().st_gid)
            files[new.name] = [table.digest, hash_of_file(new)]
    for path in plan.data.iterdir():
        if path.name not in files and path.is_file():
            (staged / path.name).symlink_to(path.resolve())
    return files


class _Moved(NamedTuple):
    """What the model folder says of the data that are left."""

    remainder: Remainder
    fingerprint: dict[str, str]


def _try_out(run: ServedModel, plan: _Plan, staged: Path) -> _Moved:
    """Read the new files as the model folder will, and compare rows and prompts.

    Raises:
        InputError: something of what stays would be another.
    """
    rest = _remainder(run, plan)
    settings = {**run.config.external_config_dict, "data_path": str(staged.parent)}
    config = Config("LLMRec", run.config.dataset, None, settings)
    config.remainder = rest
    dataset = load_dataset(config, examine=False)
    texts, _ = make_texts(dataset, wording_of(config, dataset, run.model.prompt_options))
    table = run.model.prompts(dataset.rows, np.full((len(dataset.rows), 0), -1), texts)
    if not _same_rows(run, dataset, plan) or not _same_prompts(run, dataset, plan, table, rest):
        raise InputError(
            f"erase: without these rows, {plan.data} would give other rows or prompts of users who "
            "stay; nothing is erased, train and export anew on files without them"
        )
    if str(run.config["backbone"]) in EMBEDDED:
        language_model: Any = run.model.language_model
        shown = {*table.token_ids.tolist(), *language_model.answer_ids}
        rest = rest._replace(words=tuple(shown_words(language_model.codec.tokenizer, shown)))
    train = rest.parts.train
    train = train[~np.isin(dataset.rows.user[train], rest.control_users)]
    return _Moved(rest, fingerprint_of(dataset, table, train))


def _remainder(run: ServedModel, plan: _Plan) -> Remainder:
    """Return what stays as it was, in row numbers and inner ids of what is left."""
    parts = run.parts
    earlier = run.dataset.remainder
    trained = len(without(parts.splits.train, plan.kept))
    control_users = np.intersect1d(run.control_users, plan.orders["user"])
    return Remainder(
        plan.lines,
        plan.sizes,
        _ranks(plan, "user", plan.orders["user"]),
        _ranks(plan, "item", plan.orders["item"]),
        Splits(*(_moved_rows(plan, part) for part in parts.whole)),
        _ranks(plan, "user", control_users),
        _moved_rows(plan, parts.control),
        trained + (earlier.erased_training_rows if earlier else 0),
        run.dataset.rows.highest_rating,
        (),
    )


def _ranks(plan: _Plan, kind: str, inner: Rows) -> Rows:
    """Return new inner ids: the rank of each old one among those of whom something is left."""
    ranks: Rows = np.searchsorted(np.sort(plan.orders[kind]), inner) + 1
    return ranks


def _moved_rows(plan: _Plan, rows: Rows) -> Rows:
    """Return new numbers of those of the rows that stay, in the same order."""
    moved: Rows = np.searchsorted(plan.kept, rows[np.isin(rows, plan.kept)])
    return moved


def _same_rows(run: ServedModel, dataset: Any, plan: _Plan) -> bool:
    """Return whether the new files have the rows that stay, in their order."""
    new = {
        "user": (dataset.ids.users, dataset.rows.user),
        "item": (dataset.ids.items, dataset.rows.item),
    }
    if len(dataset.rows) != len(plan.kept):
        return False
    for ids in _ids_of(run):
        inner, of_rows = new[ids.kind]
        before = [ids.inner.get(token, -1) for token in sorted(inner, key=inner.__getitem__)]
        if before != sorted(before):
            return False
        if not np.array_equal(_ranks(plan, ids.kind, ids.of_rows[plan.kept]), of_rows):
            return False
    names = ["rating", "label", *(["time"] if run.dataset.rows.has_time else [])]
    columns = ((getattr(run.dataset.rows, name), getattr(dataset.rows, name)) for name in names)
    return all(
        new is None if old is None else np.array_equal(old[plan.kept], new, equal_nan=True)
        for old, new in columns
    )


def _same_prompts(
    run: ServedModel, dataset: Any, plan: _Plan, table: PromptTable, rest: Remainder
) -> bool:
    """Return whether the prompts of rows that stay are the same, token by token."""
    nothing, length = np.empty(0, np.int64), run.model.prompt_options.history_length
    old = run.model.table.with_history(run.history(run.forgotten))
    new = table.with_history(shown_histories(dataset.rows, rest.parts, nothing, length))
    rows = drawn(np.arange(len(plan.kept)), run.config["seed"], COMPARED_ROWS)
    return all(
        torch.equal(old.batch(plan.kept[part]).input_ids, new.batch(part).input_ids)
        for part in np.array_split(rows, -(-len(rows) // COMPARED_AT_ONCE))
    )


def _write_generation(
    run: ServedModel,
    folder: ModelFolder,
    plan: _Plan,
    moved: _Moved,
    files: Mapping[str, Sequence[str]],
) -> Generation:
    """Write the generation that fits the new files, beside the current one."""
    record = folder.read(with_tensors=False).record
    record["fingerprint"] = moved.fingerprint
    record["settings"]["data_path"] = str(plan.data.absolute().parent)
    report = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "requests": sum("erased" not in entry for entry in record["requests"]),
        "fingerprint": moved.fingerprint,
        "files": {
            name: {**change.counts, "sha256": files[name][1]}
            for name, change in ((change.table.path.name, change) for change in plan.changes)
            if name in files
        },
    }
    for number, entry in enumerate(record["requests"], 1):
        if "erased" not in entry:
            entry["erased"] = {**report, **_hashes(run, number, entry)}
    sample = {"rows": torch.from_numpy(_moved_rows(plan, run.sample.rows)), "yes": run.sample.yes}
    tensors: dict[str, Tensors] = {
        **run.tensors,
        "weights": folder.files()["weights"],
        "forgotten": tensors_of(np.full(len(plan.kept), NOT_FORGOTTEN)),
        "sample": sample,
        "remainder": remainder_tensors(moved.remainder),
    }
    tensors.pop(CORRECTIONS, None)  # the files have them now
    return folder.prepare(record, tensors)


def _hashes(run: ServedModel, number: int, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the ledger keeps of whom a request was about, as salted hashes."""
    try:
        given = run.request_numbers, number, entry["evidence"]["salt"]
        return {"identifiers": hashes_of(*given), "items": lost_items(*given)}
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"request {number} in model.json is no entry of this version") from error


def _write_certificates(run: ServedModel, folder: ModelFolder, generation: Generation) -> None:
    """Write the new certificates, and what makes the generation the current one."""
    requests, before = generation.record["requests"], run.record["requests"]
    for number, entry in enumerate(requests, 1):
        if "erased" in before[number - 1] and number < len(requests):
            continue  # nothing that it says has changed
        purged = purge_reported(folder, entry, number)
        certificate = certificate_of(
            run.request_numbers, generation.record, generation.state, number, purged
        )
        path = folder.path / ERASING / name_of(entry, number)
        write_text(path.with_suffix(".html"), certificate.page)
        write_json(path, certificate.content)
    write_json(folder.path / ERASING / POINTER, generation.pointer)


def _told(plan: _Plan, erased: str, corrected: str) -> list[str]:
    """Return what is erased and corrected, and which files are left alone, for people."""
    lines = []
    for key, verb in (("lines", erased), ("corrected", corrected)):
        counts = [(change.counts.get(key), change.table.path.name) for change in plan.changes]
        told = [f"{count:,} of {name}" for count, name in counts if count]
        if told:
            lines.append(f"{verb} lines: {', '.join(told)} ({plan.data})")
    known = {REGISTER, *(change.table.path.name for change in plan.changes)}
    left = sorted(path.name for path in plan.data.iterdir() if path.name not in known)
    left = [name for name in left if not name.endswith(STAGED)]
    if left:
        lines.append(
            "warning: left, as the model does not read them; look what they hold: "
            + ", ".join(left)
        )
    return lines
