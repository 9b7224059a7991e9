"""Every workaround for RecBole 1.2.0 and 1.2.1 on today's NumPy, pandas, SciPy and torch.

One function each: the symptom, the cause, and when it can go. ``apply`` calls those that change
RecBole itself, once. ``recbole.quick_start`` is never imported: it alone needs ray, and ray 2.6.3
(the newest that 1.2.1 allows) imports neither under NumPy 2 nor under setuptools 82. Nor is
``recbole.utils.get_flops`` called: it needs thop and copies the model.
"""

import csv
import os
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any
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
from recbole.utils import logger, utils

from recbole_e2urec.errors import Diverged, InputError, one_line
from recbole_e2urec.utils import distributed


@contextmanager
def as_input_errors() -> Iterator[None]:
    """Give ValueError and NotImplementedError as an InputError of one line.

    For calls into RecBole's checks of settings and data, not for training, where they are bugs.
    """
    try:
        yield
    except InputError:
        raise
    except (ValueError, NotImplementedError) as error:
        raise InputError(one_line(error)) from error


class LateWriter:
    """A TensorBoard writer that opens its file when the first value is written.

    Args:
        make: opens it.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make, self._made = make, None

    def __getattr__(self, name: str) -> Any:
        """Give what the writer has, which is opened now if it was not."""
        if self._made is None:
            self._made = self._make()
            _open.add(self)
        return getattr(self._made, name)

    def close(self) -> None:
        """Write out what there is; a later value opens another file."""
        if self._made is not None:
            self._made.close()
            self._made = None


_open: WeakSet[LateWriter] = WeakSet()


def close_events() -> None:
    """Close what TensorBoard has open in this process: it writes by name, to removed files too."""
    for one in list(_open):
        one.close()


class Nowhere:
    """Takes what a writer of events takes, and writes nothing."""

    def __getattr__(self, name: str) -> Any:
        """Give a function that does nothing."""
        return lambda *args, **options: None


def make_folders_at_once() -> None:
    """Let processes that begin together make the same folder.

    Symptom: ``FileExistsError: saved``. Cause: ``ensure_dir`` looks first and makes the folder
    then. Can go when it passes ``exist_ok``.
    """
    for module in (utils, logger, trainer):
        module.ensure_dir = partial(os.makedirs, exist_ok=True)


def open_tensorboard_late() -> None:
    """Let a trainer that only evaluates leave no file, and of several processes the writer alone.

    Symptom: an event file without any value in ``log_tensorboard`` for each trainer that is made,
    in each process. Cause: ``SummaryWriter`` opens its file when it is made, whoever makes it. Can
    go when RecBole waits for a value, and asks which process it is in.
    """
    original = trainer.get_tensorboard
    trainer.get_tensorboard = lambda logger: LateWriter(
        lambda: original(logger) if distributed.is_main_process() else Nowhere()
    )


def search_with_generators() -> None:
    """Let RecBole's exhaustive search work with hyperopt 0.2.6 and later.

    Symptom: ``RandomState has no attribute integers``. Cause: hyperopt draws from NumPy's
    ``Generator``, and ``exhaustive_search`` hands it a ``RandomState``. The name ``np`` in its
    module gets another ``RandomState``; NumPy is left alone. Can go when RecBole asks for newer
    hyperopt than 0.2.5.
    """
    numpy = types.ModuleType("numpy")
    numpy.__dict__.update(np.__dict__)
    random = types.ModuleType("numpy.random")
    random.__dict__.update(np.random.__dict__)
    random.__dict__["RandomState"] = np.random.default_rng
    numpy.__dict__["random"] = random
    hyper_tuning.np = numpy


RECBOLE_VERSIONS = ("1.2.0", "1.2.1")
# fmt: off
_OLD_NAMES = {
    "bool": np.bool_, "int": np.int_, "float": np.float64, "complex": np.complex128,
    "object": np.object_, "str": np.str_, "long": np.int_, "unicode": np.str_,
}
# fmt: on
# What pandas reads as a missing number; RecBole puts the mean of the column there.
# fmt: off
MISSING_NUMBERS = frozenset((
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
    "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
))
# fmt: on


@cache
def apply() -> None:
    """Make RecBole work on this stack; later calls do nothing. Raises as check_versions does."""
    check_versions(recbole.__version__, pd.__version__)
    quiet_warnings()
    add_dok_update()
    Config.compatibility_settings = lambda self: add_numpy_aliases()
    read_without_quoting()
    download_alone()
    copy_collected_data()
    refuse_nan_scores()
    measure_single_rows()
    make_folders_at_once()
    open_tensorboard_late()
    search_with_generators()


def check_versions(recbole_version: str, pandas_version: str) -> None:
    """Refuse versions that are silently wrong.

    Symptom: under pandas 3 missing features become -9223372036854775808 or stay NaN, and token
    sequences kill every model. Cause: chained ``fillna(inplace=True)`` and ``Series.agg(len)`` all
    over RecBole's dataset. Can go with a RecBole release that says it supports pandas 3.
    """
    if recbole_version not in RECBOLE_VERSIONS:
        fitting = " or ".join(RECBOLE_VERSIONS)
        raise InputError(f"RecBole {recbole_version} is installed; {fitting} is needed")
    if int(pandas_version.split(".")[0]) >= 3:
        raise InputError(f"RecBole is silently wrong on pandas {pandas_version}; install pandas<3")


def quiet_warnings() -> None:
    """Silence warnings that a user can do nothing about.

    Symptom: pages of FutureWarning (pandas, ``GradScaler``), UserWarning (``SparseTensor``) and, on
    Python 3.12, SyntaxWarning. Cause: RecBole's code. Can go when RecBole is clean.
    """
    for category in (FutureWarning, UserWarning, SyntaxWarning):
        warnings.filterwarnings("ignore", category=category, module=r"recbole\.")


def add_numpy_aliases() -> None:
    """Give NumPy the old names that RecBole reads: ``np.float``, ``np.bool``, ``np.int`` and so on.

    Symptom: ``np.float_ was removed`` from every ``Config()`` under NumPy 2, half of the names set.
    Cause: ``Config.compatibility_settings``. What NumPy has is left alone. Can go with that method.
    """
    for name, kind in _OLD_NAMES.items():
        if name not in np.__dict__:
            setattr(np, name, kind)


def add_dok_update() -> None:
    """Give SciPy's dok matrix the private ``_update`` back.

    Symptom: LightGCN, NGCF, GCMC, SpectralCF, NCL, KGIN, MCCLK die for want of it. Cause: SciPy
    1.13 dropped it (RecBole issue 2034). Can go when they build their adjacency otherwise.
    """
    if not hasattr(sp.dok_matrix, "_update"):
        sp.dok_matrix._update = lambda self, entries: self._dict.update(entries)


def read_without_quoting() -> None:
    """Read atomic files as they are written: a quote is a character, ``NA`` a name like any other.

    Symptom: a title that begins with a quote raises ParserError, or swallows lines, even when its
    column is not loaded; rows of a user or item called ``NA`` or ``null`` are gone. Cause: pandas'
    defaults in ``Dataset._load_feat``. The name ``pd`` in its module gets another ``read_csv``;
    pandas is left alone. Can go when RecBole neither quotes nor takes words for nothing.
    """

    def read_csv(*args: Any, dtype: Any, **options: Any) -> Any:
        missing = {name: [""] if kind is str else MISSING_NUMBERS for name, kind in dtype.items()}
        literal = {"quoting": csv.QUOTE_NONE, "keep_default_na": False, "na_values": missing}
        return pd.read_csv(*args, dtype=dtype, **{**literal, **options})

    unquoted = types.ModuleType("pandas")
    unquoted.__dict__.update(pd.__dict__)
    unquoted.__dict__["read_csv"] = read_csv
    dataset.pd = unquoted


def download_alone() -> None:
    """Let one process alone fetch a data set.

    Symptom: ``Default process group has not been initialized`` after the download, or processes
    that wait for ever. Cause: ``Dataset._download`` waits for other processes, which there are none
    of, or which found the folder there and do not come. Can go when it asks.
    """
    original = dataset.Dataset._download

    def _download(self: Any) -> None:
        with patch.object(torch.distributed, "barrier", lambda: None):
            original(self)

    dataset.Dataset._download = _download


def copy_collected_data() -> None:
    """Make the beyond-accuracy metrics work: coverage, Gini, popularity, tail share.

    Symptom: ``'int' object has no attribute 'cpu'`` in RecBole 1.2.1. Cause:
    ``Collector.get_data_struct`` moves counts to the CPU as if they were tensors. Can go when not.
    """
    original = Collector.get_data_struct

    def get_data_struct(self: Any) -> Any:
        kept = self.data_struct._data_dict
        counts = {name: value for name, value in kept.items() if not torch.is_tensor(value)}
        for name in counts:
            del kept[name]
        collected = original(self)
        kept.update(counts)
        collected._data_dict.update(counts)
        return collected

    Collector.get_data_struct = get_data_struct


def recbole_model(name: str) -> type:
    """Give RecBole's class of a model, as ``recbole.utils.get_model`` does.

    Symptom: sequential models, and all that trains after them in the same process, check every
    operation's gradient, and a NaN ends in a traceback. Cause: ``sine.py`` turns on torch's anomaly
    detection when it is imported, and any sequential model imports it. Can go when it does not.
    """
    before = torch.is_anomaly_enabled()
    try:
        return recbole.utils.get_model(name)
    finally:
        torch.autograd.set_detect_anomaly(before)


def refuse_nan_scores() -> None:
    """Stop when a model answers NaN.

    Symptom: an AUC of 0.5, or a top-10 full of NaN items. Cause: sorting puts NaN on top, and
    RecBole does not look. Can go when RecBole's collector checks.
    """
    original = Collector.eval_batch_collect

    def eval_batch_collect(self: Any, scores: Any, *rest: Any) -> None:
        if torch.isnan(scores).any():
            raise Diverged("the model's scores are NaN; try a smaller learning_rate")
        original(self, scores, *rest)

    Collector.eval_batch_collect = eval_batch_collect


def measure_single_rows() -> None:
    """Let LogLoss take one row.

    Symptom: ``TypeError: object of type 'numpy.float64' has no len()`` under NumPy 1.26. Cause:
    ``np.float64(array)`` makes a scalar of an array with one value there. Twice the same row has
    the same mean. Can go when RecBole casts by ``astype``, or NumPy 1.26 is no longer admitted.
    """
    original = LogLoss.metric_info

    def metric_info(self: Any, preds: Any, trues: Any) -> Any:
        if len(preds) == 1:
            preds, trues = np.repeat(preds, 2), np.repeat(trues, 2)
        return original(self, preds, trues)

    LogLoss.metric_info = metric_info


@contextmanager
def own_checkpoints(files: set[Path]) -> Iterator[None]:
    """Inside the block, ``torch.save`` writes whole files and notes them; these alone unpickle.

    Symptom: training ends, then the test fails with ``UnpicklingError: Weights only load failed``.
    Cause: RecBole pickles its Config (DIN its Dataset too) into the checkpoint, and torch 2.6
    loads tensors only unless told otherwise. Unpickling runs code, hence only ``files``, which grow
    here; other files, and a full disk, are an InputError. Can go when it saves plain values.
    """
    load, save = torch.load, torch.save

    def save_whole(value: Any, file: Any, **options: Any) -> None:
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

    torch.load, torch.save = load_own, save_whole  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.load, torch.save = load, save
