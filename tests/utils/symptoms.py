"""Which symptoms of ``recbole_compat`` appear here, without and with their workarounds.

Run as a program, in an empty folder: other tests may have mended RecBole in their process. Each
function has the name of a workaround and tells whether its symptom appears. Its argument says
whether to use the workaround, if that is not a change to RecBole itself.
"""

import inspect
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from pickle import UnpicklingError
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from atomic_files import INTER, TITLES, small_interactions, write_table
from recbole.config import Config
from recbole.data.dataset import dataset
from recbole.evaluator.collector import Collector
from recbole.evaluator.metrics import LogLoss
from recbole.trainer import hyper_tuning, trainer
from recbole.utils import WandbLogger, get_model, logger
from stand_ins import Recorder

from recbole_e2urec.errors import InputError
from recbole_e2urec.utils import recbole_compat


def fails(kind: type[Exception], call: Callable[..., Any], *given: Any) -> bool:
    try:
        call(*given)
    except kind:
        return True
    return False


def small(**columns: list[str]) -> Config:
    """RecBole's Config on a small data set, whose item file has the titles that RecBole changes."""
    write_table(Path("data/small/small.inter"), INTER, small_interactions())
    items = [[f"i{item}", title] for item, title in enumerate(TITLES)]
    write_table(Path("data/small/small.item"), "item_id:token title:token_seq", items)
    columns = {"inter": ["user_id", "item_id", "rating"], **columns}
    return Config("FM", "small", config_dict={"data_path": "data", "load_col": columns})


def check_versions(used: bool) -> bool:
    if used and fails(InputError, recbole_compat.check_versions, "1.2.1", pd.__version__):
        return False
    table = pd.DataFrame({"a": [np.nan]})
    table["a"].fillna(0, inplace=True)
    return bool(table["a"].isna().any())


def quiet_warnings(_: bool) -> bool:
    alone = SimpleNamespace(
        model=torch.nn.Identity(), config={"single_spec": True}, enable_scaler=False
    )
    with warnings.catch_warnings(record=True) as said:
        trainer.Trainer._train_epoch(alone, [], 0, loss_func=id)
    return any("recbole" in warning.filename for warning in said)


def add_numpy_aliases(_: bool) -> bool:
    return fails(AttributeError, small)


def add_dok_update(_: bool) -> bool:
    return fails(AttributeError, lambda: sp.dok_matrix((1, 1))._update({}))


def read_without_quoting(_: bool) -> bool:
    return fails(pd.errors.ParserError, dataset.Dataset, small(item=["item_id", "title"]))


def download_alone(_: bool) -> bool:
    archive = Path("small.zip")
    archive.touch()
    names = ("decide_download", "makedirs", "extract_zip", "rename_atomic_files")
    stand_ins: dict[str, Any] = {name: lambda *given: True for name in names}
    stand_ins["download_url"] = lambda *given: str(archive)
    alone = SimpleNamespace(
        config={"local_rank": 0}, logger=logging.getLogger(), dataset_name="", dataset_path="",
        _get_download_url=str,
    )  # fmt: skip
    with patch.multiple(dataset, **stand_ins):
        return fails(ValueError, dataset.Dataset._download, alone)


def collector() -> Collector:
    modes = {"mode": {"valid": "full", "test": "full"}}
    return Collector(
        {"metrics": ["ItemCoverage"], "topk": [1], "device": "cpu", "eval_args": modes}
    )


def copy_collected_data(_: bool) -> bool:
    counting = collector()
    counting.data_struct.set("data.num_items", 5)
    return fails(AttributeError, counting.get_data_struct)


def refuse_nan_scores(_: bool) -> bool:
    scores = torch.tensor([[0.0, float("nan")]])
    return not fails(InputError, collector().eval_batch_collect, scores, None, None, None)


def measure_single_rows(_: bool) -> bool:
    return fails(TypeError, LogLoss(small()).metric_info, np.array([0.25]), np.array([1.0]))


def make_folders_at_once(_: bool) -> bool:
    Path("saved").mkdir()
    with patch.object(os.path, "exists", lambda path: False):  # as it was when they looked
        return any(fails(FileExistsError, at.ensure_dir, "saved") for at in (trainer, logger))


def log_utf8(_: bool) -> bool:
    logger.init_logger(small())
    return any(Path("log").rglob("*.log"))


def open_tensorboard_late(_: bool) -> bool:
    trainer.get_tensorboard(logging.getLogger())
    return Path("log_tensorboard").exists()


def keep_wandb_in_run_folder(_: bool) -> bool:
    folders = []

    class Wandb(Recorder):
        def init(self, project: str, config: Any) -> None:
            folders.append(os.environ.get("WANDB_DIR"))

    config = SimpleNamespace(log_wandb=True, wandb_project="", run_folder=Path("run"))
    with patch.dict(sys.modules, wandb=Wandb()):
        WandbLogger(config)
    return folders == [None]


def start_log(used: bool) -> bool:
    config = small()
    config.run_folder = Path("run")
    (recbole_compat.start_log if used else logger.init_logger)(config)
    return Path("log").exists()


def search_with_generators(_: bool) -> bool:
    from hyperopt import Trials, hp
    from hyperopt.base import Domain

    domain = Domain(id, {"x": hp.choice("x", [1, 2])})
    return fails(AttributeError, hyper_tuning.exhaustive_search, [0], domain, Trials(), 1)


def recbole_model(used: bool) -> bool:
    for name in [name for name in sys.modules if "sequential_recommender" in name]:
        del sys.modules[name]
    (recbole_compat.recbole_model if used else get_model)("SASRec")
    try:
        return torch.is_anomaly_enabled()
    finally:
        torch.autograd.set_detect_anomaly(False)


def own_checkpoints(used: bool) -> bool:
    with recbole_compat.own_checkpoints(set()) if used else nullcontext():
        torch.save({"config": Path("a")}, "a.pth")
        return fails(UnpicklingError, torch.load, "a.pth")


def appears(name: str, used: bool) -> bool:
    """Whether a symptom appears, in a folder of its own and with no log."""
    folder, start = Path(f"{name}-{used}"), Path.cwd()
    folder.mkdir()
    os.chdir(folder)
    try:
        return globals()[name](used)
    finally:
        os.chdir(start)
        logging.getLogger().handlers.clear()


def without_and_with(name: str) -> tuple[bool, bool]:
    without = appears(name, False)
    workaround = getattr(recbole_compat, name)
    if not inspect.signature(workaround).parameters:
        workaround()
    return without, appears(name, True)


if __name__ == "__main__":
    # RecBole makes no Config without the first of them.
    names = sorted(recbole_compat.WORKAROUNDS, key=lambda name: name != "add_numpy_aliases")
    found = {name: without_and_with(name) for name in names}
    Path("found.json").write_text(json.dumps(found))
