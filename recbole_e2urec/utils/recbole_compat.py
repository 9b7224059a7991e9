"""Every workaround for RecBole 1.2.0 and 1.2.1 on current NumPy, pandas, SciPy and torch.

Each workaround is one function, whose docstring gives the symptom, the cause and when the function
can be removed. :func:`needed_with` says with which versions the symptom appears; with others, the
workaround does no harm. :func:`apply` calls, once, those that change RecBole itself.

``recbole.quick_start`` is never imported. It alone needs ray, and ray 2.6.3, the newest that 1.2.1
allows, can be imported neither under NumPy 2 nor under setuptools 82. ``recbole.utils.get_flops``
is never called, because it needs thop and copies the model.
"""

import csv
import logging
import os
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch
from weakref import WeakSet

import numpy as np
import pandas as pd
import recbole
import recbole.utils
import scipy.sparse as sp
import torch
from recbole.config.configurator import Config
from recbole.data.dataset import dataset
from recbole.evaluator.collector import Collector
from recbole.evaluator.metrics import LogLoss
from recbole.trainer import hyper_tuning, trainer
from recbole.utils import WandbLogger, logger, utils

from recbole_e2urec.errors import Diverged, InputError, one_line
from recbole_e2urec.utils import distributed
from recbole_e2urec.utils.io import RUN_SUFFIX

F = TypeVar("F", bound=Callable[..., Any])
RECBOLE_VERSIONS = ("1.2.0", "1.2.1")
WORKAROUNDS: dict[str, str] = {}  # by name: the versions that need it
# fmt: off
_OLD_NUMPY_NAMES = {
    "bool": np.bool_, "int": np.int_, "float": np.float64, "complex": np.complex128,
    "object": np.object_, "str": np.str_, "long": np.int_, "unicode": np.str_,
}
# What pandas reads as a missing number; RecBole replaces it by the mean of the column.
MISSING_NUMBERS = frozenset((
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
    "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
))
# fmt: on


def needed_with(requirement: str) -> Callable[[F], F]:
    """Note in ``WORKAROUNDS`` which versions need a workaround.

    Args:
        requirement: as in ``setup.py``; ``recbole`` is each supported version of it.
    """

    def note(workaround: F) -> F:
        WORKAROUNDS[workaround.__name__] = requirement
        return workaround

    return note


@cache
def apply() -> None:
    """Make RecBole work with the installed packages; later calls do nothing.

    Raises:
        InputError: as in :func:`check_versions`.
    """
    check_versions(recbole.__version__, pd.__version__)
    quiet_warnings()
    add_numpy_aliases()
    add_dok_update()
    read_without_quoting()
    download_alone()
    copy_collected_data()
    refuse_nan_scores()
    measure_single_rows()
    make_folders_at_once()
    log_utf8()
    open_tensorboard_late()
    keep_wandb_in_run_folder()
    search_with_generators()


@needed_with("pandas>=3")
def check_versions(recbole_version: str, pandas_version: str) -> None:
    """Refuse versions with which RecBole is silently wrong.

    Symptom: missing features become -9223372036854775808 or stay NaN, and every model fails on
    token sequences. Cause: chained ``fillna(inplace=True)`` and ``Series.agg(len)`` throughout
    RecBole's dataset. Can go with a RecBole release that supports pandas 3.

    Raises:
        InputError: names the version that is needed.
    """
    if recbole_version not in RECBOLE_VERSIONS:
        # 1.2.1 cannot be installed on Python 3.12: setup.py says why.
        newest = RECBOLE_VERSIONS[sys.version_info < (3, 12)]
        raise InputError(
            f"RecBole {recbole_version} is installed, and {' or '.join(RECBOLE_VERSIONS)} is "
            f"needed: pip install recbole=={newest}"
        )
    if int(pandas_version.split(".")[0]) >= 3:
        raise InputError(
            f"pandas {pandas_version} is installed, on which RecBole is silently wrong: "
            "pip install 'pandas<3'"
        )


@needed_with("recbole")
def quiet_warnings() -> None:
    """Silence warnings that users can do nothing about.

    Symptom: pages of FutureWarning (``GradScaler``; pandas, before Python 3.14), UserWarning
    (``SparseTensor``) and, from Python 3.12 on, SyntaxWarning. Cause: RecBole's code. Can go when
    RecBole causes no warnings.
    """
    for category in (FutureWarning, UserWarning, SyntaxWarning):
        warnings.filterwarnings("ignore", category=category, module=r"recbole\.")


@needed_with("numpy>=2")
def add_numpy_aliases() -> None:
    """Add the old names to NumPy that RecBole uses, such as ``np.float``, ``np.bool``, ``np.int``.

    Names that NumPy still has are not changed. Symptom: every ``Config()`` fails with ``np.float_
    was removed`` after setting half of the names. Cause: ``Config.compatibility_settings``. Can go
    when RecBole removes that method.
    """
    for name, dtype in _OLD_NUMPY_NAMES.items():
        if name not in np.__dict__:
            setattr(np, name, dtype)
    Config.compatibility_settings = lambda self: None


@needed_with("scipy>=1.13")
def add_dok_update() -> None:
    """Add the private method ``_update`` back to SciPy's dok matrix.

    Symptom: LightGCN, NGCF, GCMC, SpectralCF, NCL, KGIN and MCCLK fail without it. Cause: SciPy
    removed it (RecBole issue 2034). Can go when these models build their adjacency matrix in
    another way.
    """
    if not hasattr(sp.dok_matrix, "_update"):
        sp.dok_matrix._update = lambda self, entries: self._dict.update(entries)


def read_csv(path: str, dtype: Any, delimiter: str, **options: Any) -> Any:
    """Read an atomic file as it is, see :func:`read_without_quoting`.

    Args:
        path: the file.
        dtype: type of each column, as its header names it.
        delimiter: what separates the columns.
        options: further options of ``pandas.read_csv``, such as ``chunksize``.
    """
    missing = {name: [""] if kind is str else MISSING_NUMBERS for name, kind in dtype.items()}
    literal = {"quoting": csv.QUOTE_NONE, "keep_default_na": False, "na_values": missing}
    if len(delimiter.encode()) == 1 and not _has_nul(path):  # what C can read
        options |= {"engine": "c", "float_precision": "round_trip", "low_memory": False}
    return pd.read_csv(path, dtype=dtype, delimiter=delimiter, **{**literal, **options})


@needed_with("recbole")
def read_without_quoting() -> None:
    """Read atomic files as they are: a quote is a character, and ``NA`` is a name like any other.

    The name ``pd`` in RecBole's dataset module gets another ``read_csv``; pandas itself is not
    changed. Symptom: a title that begins with a quote raises ParserError or swallows lines, even if
    its column is not loaded; rows of a user or item called ``NA`` or ``null`` disappear; reading
    takes ten times as long as it must, and a time of many digits loses its last one. Cause: pandas'
    defaults and its slow parser in ``Dataset._load_feat``. Can go when RecBole neither interprets
    quotes nor reads words as missing values, and leaves the choice of the parser to pandas.
    """
    pandas = types.ModuleType("pandas")
    pandas.__dict__.update(pd.__dict__)
    pandas.__dict__["read_csv"] = read_csv
    dataset.pd = pandas


def _has_nul(path: str) -> bool:
    """Tell whether a file has a NUL character; a large file is not held in memory."""
    with open(path, "rb") as file:
        return any(b"\0" in piece for piece in iter(partial(file.read, 2**20), b""))


@needed_with("recbole")
def download_alone() -> None:
    """Let a single process download a data set without waiting for others.

    Symptom: ``Default process group has not been initialized`` after the download, or processes
    that wait forever. Cause: ``Dataset._download`` waits for other processes, which either do not
    exist, or found the folder and never reach the barrier. Can go when RecBole checks this.
    """
    original = dataset.Dataset._download

    def _download(self: Any) -> None:
        with patch.object(torch.distributed, "barrier", lambda: None):
            original(self)

    dataset.Dataset._download = _download


@needed_with("recbole==1.2.1")
def copy_collected_data() -> None:
    """Make the metrics beyond accuracy work: coverage, Gini, popularity, tail share.

    Symptom: ``'int' object has no attribute 'cpu'``. Cause: ``Collector.get_data_struct`` moves
    counts to the CPU as if they were tensors. Can go when RecBole moves tensors only.
    """
    original = Collector.get_data_struct

    def get_data_struct(self: Any) -> Any:
        data = self.data_struct._data_dict
        counts = {name: value for name, value in data.items() if not torch.is_tensor(value)}
        for name in counts:
            del data[name]
        collected = original(self)
        data.update(counts)
        collected._data_dict.update(counts)
        return collected

    Collector.get_data_struct = get_data_struct


@needed_with("recbole")
def refuse_nan_scores() -> None:
    """Stop when a model's scores are NaN.

    Symptom: an AUC of 0.5, or a top-10 full of items with score NaN. Cause: sorting puts NaN first,
    and RecBole does not check. Can go when RecBole's collector checks the scores.
    """
    original = Collector.eval_batch_collect

    def eval_batch_collect(self: Any, scores: Any, *rest: Any) -> None:
        if torch.isnan(scores).any():
            raise Diverged("the model's scores are NaN; try a smaller learning_rate")
        original(self, scores, *rest)

    Collector.eval_batch_collect = eval_batch_collect


@needed_with("numpy<2")
def measure_single_rows() -> None:
    """Let LogLoss work on a single row, by repeating it: two equal rows have the same mean.

    Symptom: ``object of type 'numpy.float64' has no len()``. Cause: ``np.float64(array)`` turns an
    array with one value into a scalar. Can go when RecBole casts with ``astype``.
    """
    original = LogLoss.metric_info

    def metric_info(self: Any, preds: Any, trues: Any) -> Any:
        if len(preds) == 1:
            preds, trues = np.repeat(preds, 2), np.repeat(trues, 2)
        return original(self, preds, trues)

    LogLoss.metric_info = metric_info


@needed_with("recbole")
def make_folders_at_once() -> None:
    """Let processes that start together create the same folder.

    Symptom: ``FileExistsError: saved``. Cause: ``ensure_dir`` checks for the folder before it
    creates it. Can go when RecBole passes ``exist_ok``.
    """
    for module in (utils, logger, trainer):
        module.ensure_dir = partial(os.makedirs, exist_ok=True)


@needed_with("recbole")
def log_utf8() -> None:
    """Write log files as UTF-8, whatever the locale is, and open them at the first line.

    The name ``logging`` in RecBole's logger module gets another ``FileHandler``; the standard
    library is not changed. Symptom: pages of ``--- Logging error ---`` where a title is logged
    under an ASCII locale, and an empty file where an earlier log goes on. Cause: ``init_logger``
    names no encoding, and opens its file before it knows whether it is used. Can go when it does.
    """
    logging = types.ModuleType("logging")
    logging.__dict__.update(logger.logging.__dict__)
    logging.__dict__["FileHandler"] = partial(
        logger.logging.FileHandler, encoding="utf-8", errors="backslashreplace", delay=True
    )
    logger.logging = logging


class LateWriter:
    """A TensorBoard writer that opens its file when it is first used.

    Args:
        make: opens the writer.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make, self._writer = make, None

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the writer, which is opened now if needed."""
        if self._writer is None:
            self._writer = self._make()
            _opened_writers.add(self)
        return getattr(self._writer, name)

    def close(self) -> None:
        """Write pending values and close the file; a later value opens another file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


_opened_writers: WeakSet[LateWriter] = WeakSet()


class Nowhere:
    """A TensorBoard writer that writes nothing."""

    def __getattr__(self, name: str) -> Any:
        """Return a function that does nothing."""
        return lambda *args, **options: None


@needed_with("recbole")
def open_tensorboard_late() -> None:
    """Open TensorBoard's file only when a value is written, and only in the main process.

    A trainer that only evaluates then leaves no file. Symptom: for each trainer in each process, an
    event file without any value in ``log_tensorboard``. Cause: ``SummaryWriter`` opens its file at
    once, in any process. Can go when RecBole waits for a value and checks which process it is in.
    """
    original = trainer.get_tensorboard
    trainer.get_tensorboard = lambda logger: LateWriter(
        lambda: original(logger) if distributed.is_main_process() else Nowhere()
    )


def close_events() -> None:
    """Close the TensorBoard files of this process, which are written by name even if removed."""
    for writer in list(_opened_writers):
        writer.close()


@needed_with("recbole")
def keep_wandb_in_run_folder() -> None:
    """Let wandb write its local runs to the run's folder, unless WANDB_DIR names another.

    Symptom: local runs of all data sets and projects lie in ``wandb`` of the current folder. Cause:
    ``WandbLogger`` has no key for it. Can go when it has one.
    """
    original = WandbLogger.setup

    def setup(self: Any) -> None:
        if (
            not self.log_wandb
            or "WANDB_DIR" in os.environ
            or not hasattr(self.config, "run_folder")
        ):
            original(self)
            return
        folder = self.config.run_folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["WANDB_DIR"] = str(folder)
        try:
            original(self)
        finally:
            del os.environ["WANDB_DIR"]

    WandbLogger.setup = setup


@needed_with("recbole")
def start_log(config: Any) -> None:
    """Start RecBole's log in the run's folder; a log in the folder of another run ends.

    Symptom: logs of all data sets lie in ``log`` of the current folder. Cause: ``init_logger`` has
    no key for it. Can go when it has one.

    Raises:
        InputError: the folder cannot be written to.
    """
    folder, started_in = config.run_folder.resolve(), Path.cwd()
    _end_logs_outside(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        logger.init_logger(config)
    except OSError as error:
        raise InputError(
            f"cannot write {folder / 'log'}: {error.strerror}; free some space or name another "
            "checkpoint_dir"
        ) from error
    finally:
        os.chdir(started_in)


def discard_log(config: Any, earlier: Sequence[logging.Handler]) -> None:
    """End and remove a run's log, unless an earlier one went on, and folders that are then empty.

    Args:
        config: the run's settings.
        earlier: the root logger's handlers before :func:`start_log`.
    """
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if handler not in earlier]:
        root.removeHandler(handler)
        handler.close()
        if isinstance(handler, logging.FileHandler):
            Path(handler.baseFilename).unlink(missing_ok=True)
    folder = config.run_folder.resolve()
    log = folder / "log"
    for empty in (log / str(config["model"]), log, folder, folder.parent):
        with suppress(OSError):  # it is not empty
            empty.rmdir()


def _end_logs_outside(folder: Path) -> None:
    """Remove the handlers that ``init_logger`` added for a run with another folder."""
    root = logging.getLogger()
    files = (Path(getattr(handler, "baseFilename", os.devnull)) for handler in root.handlers)
    others = [file for file in files if RUN_SUFFIX in str(file) and folder not in file.parents]
    for handler in list(root.handlers) if others else ():
        is_terminal = isinstance(handler.formatter, logger.colorlog.ColoredFormatter)
        if is_terminal or Path(getattr(handler, "baseFilename", os.devnull)) in others:
            root.removeHandler(handler)
            handler.close()


@needed_with("hyperopt>=0.2.6")
def search_with_generators() -> None:
    """Let RecBole's exhaustive search work with a newer hyperopt than RecBole names.

    The name ``np`` in RecBole's hyper_tuning module gets another ``RandomState``; NumPy itself is
    not changed. Symptom: ``RandomState has no attribute integers``. Cause: hyperopt draws from
    NumPy's ``Generator``, but ``exhaustive_search`` passes it a ``RandomState``. Can go when
    RecBole passes a ``Generator``.
    """
    numpy = types.ModuleType("numpy")
    numpy.__dict__.update(np.__dict__)
    random = types.ModuleType("numpy.random")
    random.__dict__.update(np.random.__dict__)
    random.__dict__["RandomState"] = np.random.default_rng
    numpy.__dict__["random"] = random
    hyper_tuning.np = numpy


@needed_with("recbole")
def recbole_model(name: str) -> type:
    """Return RecBole's class of a model, as ``recbole.utils.get_model`` does.

    Symptom: sequential models, and everything trained after them in the same process, check the
    gradient of every operation, and a NaN ends in a traceback. Cause: ``sine.py`` turns on torch's
    anomaly detection when imported, and any sequential model imports it. Can go when ``sine.py``
    does not.
    """
    was_enabled = torch.is_anomaly_enabled()
    try:
        return recbole.utils.get_model(name)
    finally:
        torch.autograd.set_detect_anomaly(was_enabled)


@contextmanager
def as_input_errors() -> Iterator[None]:
    """Turn ValueError and NotImplementedError into an InputError of one line.

    Use it for calls into RecBole's checks of settings and data, but not for training, where such
    errors are bugs.
    """
    try:
        yield
    except InputError:
        raise
    except (ValueError, NotImplementedError) as error:
        raise InputError(one_line(error)) from error


@needed_with("torch>=2.6")
@contextmanager
def own_checkpoints(files: set[Path]) -> Iterator[None]:
    """Inside the block, let ``torch.load`` unpickle only files that ``torch.save`` wrote there.

    ``torch.save`` adds the files that it writes to ``files``, and writes them atomically.
    Unpickling runs code, so ``torch.load`` refuses other files. Symptom: training ends, then the
    test fails with ``UnpicklingError: Weights only load failed``. Cause: RecBole pickles its Config
    (DIN also its Dataset) into the checkpoint, and torch loads only tensors by default. Can go
    when RecBole saves plain values.

    Args:
        files: resolved paths of files that may be unpickled; grows inside the block.

    Raises:
        InputError: another file is loaded, or the disk is full.
    """
    load, save = torch.load, torch.save

    def save_atomically(value: Any, file: Any, **options: Any) -> None:
        part = Path(f"{file}.part")
        try:
            save(value, part, **options)
            os.replace(part, file)
        except (OSError, RuntimeError) as error:
            reason = f"{str(error).splitlines()[0]}; free some space or name another checkpoint_dir"
            raise InputError(f"cannot write {file}: {reason}") from error
        finally:
            part.unlink(missing_ok=True)
        files.add(Path(file).resolve())

    def load_own(file: Any, **options: Any) -> Any:
        if Path(file).resolve() not in files:
            raise InputError(f"{file} was not written by this run; train the model again")
        return load(file, **{**options, "weights_only": False})

    torch.load, torch.save = load_own, save_atomically  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.load, torch.save = load, save
