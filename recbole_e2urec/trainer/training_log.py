"""Logs loss terms and validation metrics to TensorBoard and Weights & Biases; measures memory.

TensorBoard gets one run for each stage, ``log_tensorboard/<log file's name>/<stage>`` in the run's
folder, with the values ``train/<term>`` and ``valid/<metric>``. One wandb run holds all stages of a
result row. In it, ``train/<term>`` belongs to the student or to the recommender itself, and
``train/<stage>/<term>`` to any other model that was trained for it.
"""

import re
import resource
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from logging import getLogger
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from recbole.utils import WandbLogger, get_local_time
from torch.utils.tensorboard import SummaryWriter

from recbole_e2urec.utils import distributed
from recbole_e2urec.utils.recbole_compat import LateWriter, Nowhere

REQUESTS = (1, 10, 100)  # numbers of requests over which the cost of prior training is spread
_PROCESS = Path("/proc/self")  # Linux only
_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


def restart_peak() -> None:
    """Reset the peak of :func:`peak_memory_mb`; outside Linux, the old peak stays."""
    with suppress(OSError):
        (_PROCESS / "clear_refs").write_text("5")
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def memory_used() -> dict[str, float]:
    """``peak_memory_mb``, and ``peak_gpu_memory_mb`` (of tensors) where a GPU is used."""
    used = {"peak_memory_mb": peak_memory_mb()}
    if torch.cuda.is_initialized():
        used["peak_gpu_memory_mb"] = torch.cuda.max_memory_allocated() / 1e6
    return used


def peak_memory_mb() -> float:
    """Largest resident memory of this process, in MB of 10**6 bytes."""
    with suppress(OSError):
        match = _PEAK.search((_PROCESS / "status").read_text())
        if match is not None:
            return int(match[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


def amortised(seconds: float, prior: float) -> dict[str, float]:
    """Seconds for each request if the prior training serves as many requests as in ``REQUESTS``."""
    return {str(count): seconds + prior / count for count in REQUESTS}


FOLDER = "log_tensorboard"  # RecBole's name, in the run's folder


class Curves:
    """Logs the training of a stage. No log is opened before the first value.

    With several processes, only the main process logs.

    Args:
        config: config of the run; None: nothing is logged.
        name: name of the stage.
        folder: name of the stage's folder, which is unique.

    Attributes:
        chief: whether the stage trains the main model of the run; wandb then omits its name.
    """

    def __init__(self, config: Any, name: str, folder: str) -> None:
        self._config = config if distributed.is_main_process() else None
        self._name, self._folder = name, folder
        self.chief = config is not None and name == str(config["model"])

    @cached_property
    def tensorboard(self) -> LateWriter:
        """TensorBoard's writer, to which RecBole's trainer also writes."""
        if self._config is None:
            return LateWriter(Nowhere)
        return events_writer(self._config, self._folder)

    @cached_property
    def wandb(self) -> "StageLogger":
        """RecBole's logger; starts a wandb run if the config asks for one and none is active."""
        return StageLogger(self._config, "" if self.chief else f"/{self._name}")

    def trained(self, epoch: int, terms: Mapping[str, float]) -> None:
        """Log the mean of each loss term over an epoch, which is counted from 0."""
        if self._config is None:
            return
        self._write("train", epoch, terms)
        self.wandb.log_metrics({**terms, "train_step": epoch}, head="train")

    def validated(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Log validation metrics to TensorBoard; RecBole's trainer logs them to wandb itself."""
        if self._config is not None:
            self._write("valid", epoch, metrics)

    def _write(self, head: str, epoch: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.tensorboard.add_scalar(f"{head}/{name}", value, epoch)
        self.tensorboard.flush()

    def close(self) -> None:
        """Flush and close the TensorBoard writer."""
        self.tensorboard.close()


class StageLogger(WandbLogger):
    """RecBole's wandb logger, with the stage in the name of each value.

    Args:
        config: config of the run; None: nothing is logged.
        place: text after ``train`` or ``valid``, such as ``/Original``.
    """

    def __init__(self, config: Any, place: str) -> None:
        self._place = place
        super().__init__(SimpleNamespace(log_wandb=False) if config is None else config)

    def _add_head_to_metrics(self, metrics: Mapping[str, Any], head: str) -> dict[str, Any]:
        named: dict[str, Any] = super()._add_head_to_metrics(metrics, f"{head}{self._place}")
        return named


@contextmanager
def own_wandb_run(config: Any) -> Iterator[None]:
    """Finish a wandb run that starts inside the block; a run that was active before goes on."""
    if not config["log_wandb"]:
        yield
        return
    import wandb

    before = wandb.run
    try:
        yield
    finally:
        if before is None and wandb.run is not None:
            wandb.finish()


def events_writer(config: Any, stage: str = "") -> LateWriter:
    """Return a TensorBoard writer for a stage, or for a model of RecBole, which has none.

    The folder is named as RecBole does: after the log file, or the time.
    """

    def writer() -> SummaryWriter:
        files = (getattr(handler, "baseFilename", None) for handler in getLogger().handlers)
        name = next(filter(None, files), f"model-{get_local_time()}")
        return SummaryWriter(
            str(config.run_folder / FOLDER / Path(name).name.split(".")[0] / stage)
        )

    return LateWriter(writer)
