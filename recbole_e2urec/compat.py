"""Every workaround for RecBole 1.2.0 and 1.2.1 on today's NumPy, pandas, SciPy and torch.

One function each: the symptom, the cause, and when it can go. ``apply`` calls those that change
RecBole itself, once. ``recbole.quick_start`` is never imported: it alone needs ray, and ray 2.6.3
(the newest that RecBole 1.2.1 allows) imports neither under NumPy 2 nor under setuptools 82. Nor
is ``recbole.utils.get_flops`` called: it needs thop and copies the model.
"""

import csv
import os
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from recbole_e2urec.errors import InputError

RECBOLE_VERSIONS = ("1.2.0", "1.2.1")
# fmt: off
_OLD_NAMES = {
    "bool": np.bool_, "int": np.int_, "float": np.float64, "complex": np.complex128,
    "object": np.object_, "str": np.str_, "long": np.int_, "unicode": np.str_,
}
# fmt: on


@cache
def apply() -> None:
    """Make RecBole work on this stack; later calls do nothing. Raises as check_versions does."""
    import recbole
    from recbole.config.configurator import Config

    check_versions(recbole.__version__, pd.__version__)
    quiet_warnings()
    add_dok_update()
    Config.compatibility_settings = lambda self: add_numpy_aliases()
    read_without_quoting()
    copy_collected_data()
    refuse_nan_scores()


def check_versions(recbole: str, pandas: str) -> None:
    """Refuse versions that are silently wrong.

    Symptom: under pandas 3 missing features become -9223372036854775808 or stay NaN, and token
    sequences kill every model. Cause: chained ``fillna(inplace=True)`` and ``Series.agg(len)`` all
    over RecBole's dataset. Can go with a RecBole release that says it supports pandas 3.

    Raises:
        InputError: names the version found and the one to install.
    """
    if recbole not in RECBOLE_VERSIONS:
        raise InputError(
            f"RecBole {recbole} is installed, {' or '.join(RECBOLE_VERSIONS)} is needed: "
            "pip install 'recbole>=1.2.0,<1.3'"
        )
    if int(pandas.split(".")[0]) >= 3:
        raise InputError(
            f"pandas {pandas} is installed, and RecBole is silently wrong on it: "
            "pip install 'pandas>=2.1,<3'"
        )


def quiet_warnings() -> None:
    """Silence warnings that a user can do nothing about.

    Symptom: pages of FutureWarning (pandas ``inplace``, ``torch.cuda.amp.GradScaler``),
    UserWarning (``torch.sparse.SparseTensor``) and, on Python 3.12, SyntaxWarning. Cause: RecBole's
    code. Can go when RecBole is clean.
    """
    for category in (FutureWarning, UserWarning, SyntaxWarning):
        warnings.filterwarnings("ignore", category=category, module=r"recbole\.")


def add_numpy_aliases() -> None:
    """Give NumPy the old names that RecBole reads: ``np.float``, ``np.bool``, ``np.int`` and so on.

    Symptom: ``AttributeError: np.float_ was removed`` from every ``Config()`` under NumPy 2, after
    half of the names were set. Cause: ``Config.compatibility_settings`` reads removed names. Only
    names that NumPy lacks are added, and none before all are known. Can go when RecBole reads none.
    """
    for name, kind in _OLD_NAMES.items():
        if name not in np.__dict__:
            setattr(np, name, kind)


def add_dok_update() -> None:
    """Give SciPy's dok matrix the private ``_update`` back.

    Symptom: LightGCN, NGCF, GCMC, SpectralCF, NCL, KGIN, MCCLK die with ``'dok_matrix' object has
    no attribute '_update'``. Cause: SciPy 1.13 dropped it (RecBole issue 2034). Can go when these
    models build their adjacency otherwise.
    """
    if not hasattr(sp.dok_matrix, "_update"):
        sp.dok_matrix._update = lambda self, entries: self._dict.update(entries)


def read_without_quoting() -> None:
    """Read atomic files as they are written: a quote is a character like any other.

    Symptom: a title that begins with a quote raises ParserError, or swallows the next lines, even
    when the column is not loaded. Cause: default quoting in ``Dataset._load_feat``, through which
    all dataset classes read. The name ``pd`` in its module gets a ``read_csv`` that does not quote;
    pandas itself is left alone. Can go when RecBole passes ``quoting=csv.QUOTE_NONE``.
    """
    from recbole.data.dataset import dataset

    def read_csv(*args: Any, **options: Any) -> Any:
        return pd.read_csv(*args, **{"quoting": csv.QUOTE_NONE, **options})

    unquoted = types.ModuleType("pandas")
    unquoted.__dict__.update(pd.__dict__)
    unquoted.__dict__["read_csv"] = read_csv
    dataset.pd = unquoted


def copy_collected_data() -> None:
    """Make the beyond-accuracy metrics work: coverage, Gini, popularity, tail share.

    Symptom: ``'int' object has no attribute 'cpu'`` in RecBole 1.2.1. Cause:
    ``Collector.get_data_struct`` moves counts to the CPU as if they were tensors. Can go when not.
    """
    from recbole.evaluator.collector import Collector

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


def refuse_nan_scores() -> None:
    """Stop when a model answers NaN.

    Symptom: an AUC of 0.5, or a top-10 full of NaN items, instead of an error. Cause: sorting puts
    NaN on top, and RecBole does not look. Can go when RecBole's collector checks.
    """
    from recbole.evaluator.collector import Collector

    original = Collector.eval_batch_collect

    def eval_batch_collect(self: Any, scores: Any, *rest: Any) -> None:
        if torch.isnan(scores).any():
            raise InputError("the model's scores are NaN; try a smaller learning_rate")
        original(self, scores, *rest)

    Collector.eval_batch_collect = eval_batch_collect


@contextmanager
def as_input_errors() -> Iterator[None]:
    """Give RecBole's complaints (ValueError, NotImplementedError) as one line for the user.

    For calls into RecBole's checks of settings and data, not for training, where they are bugs.
    """
    try:
        yield
    except InputError:
        raise
    except (ValueError, NotImplementedError) as error:
        raise InputError(" ".join(str(error).split())) from error


@contextmanager
def own_checkpoints(files: set[Path]) -> Iterator[None]:
    """Inside the block, ``torch.save`` writes whole files and notes them; these alone unpickle.

    Symptom: training ends, then the test fails with ``UnpicklingError: Weights only load failed``.
    Cause: RecBole pickles its Config (DIN its Dataset too) into the checkpoint, and torch 2.6
    loads tensors only unless told otherwise. Unpickling runs code, hence only ``files``, the
    caller's own, which grow here; other files, and a full disk, are an InputError. Can go when
    RecBole's checkpoints hold tensors and plain values.
    """
    load, save = torch.load, torch.save

    def save_whole(value: Any, file: Any, **options: Any) -> None:
        part = Path(f"{file}.part")
        try:
            save(value, part, **options)
            os.replace(part, file)
        except (OSError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            advice = "free some space or name another checkpoint_dir"
            raise InputError(f"cannot write {file}: {reason}; {advice}") from error
        finally:
            part.unlink(missing_ok=True)
        files.add(Path(file).resolve())

    def load_own(file: Any, **options: Any) -> Any:
        if Path(file).resolve() not in files:
            reason = "was not written by this run, and loading it could run code"
            raise InputError(f"{file} {reason}; train the model again")
        return load(file, **{**options, "weights_only": False})

    torch.load, torch.save = load_own, save_whole  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.load, torch.save = load, save
