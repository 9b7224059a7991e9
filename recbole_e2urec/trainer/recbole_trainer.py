"""Trains any RecBole model by its own trainer, with safe checkpoints and fast sampled ranking."""

import itertools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from recbole.utils import EvaluatorType, ModelType, get_local_time, get_trainer, init_seed
from torch import Tensor

from recbole_e2urec.data.dataset import ROW_ID
from recbole_e2urec.data.loaders import Loaders
from recbole_e2urec.errors import Diverged, InputError
from recbole_e2urec.trainer.training_log import events_writer
from recbole_e2urec.utils import distributed
from recbole_e2urec.utils.recbole_compat import as_input_errors, own_checkpoints


class OwnCheckpoints:
    """Mixin for RecBole's trainers: writes complete files, and loads only those that it wrote."""

    def _save_checkpoint(self, *args: Any, **options: Any) -> None:
        with own_checkpoints(self._written):
            super()._save_checkpoint(*args, **options)  # type: ignore[misc]

    def save_pretrained_model(self, *args: Any, **options: Any) -> None:
        """Save a model as RecBole does for models that it trains in two stages."""
        with own_checkpoints(self._written):
            super().save_pretrained_model(*args, **options)  # type: ignore[misc]

    def resume_checkpoint(self, resume_file: Any) -> None:
        """Resume from a checkpoint that this trainer wrote."""
        with own_checkpoints(self._written):
            super().resume_checkpoint(resume_file)  # type: ignore[misc]

    def evaluate(self, *args: Any, **options: Any) -> Any:
        """Evaluate as RecBole does; the best model comes from a checkpoint of this trainer."""
        with own_checkpoints(self._written):
            return super().evaluate(*args, **options)  # type: ignore[misc]

    @property
    def _written(self) -> set[Path]:
        return self.__dict__.setdefault("_own_checkpoints", set())


class QuickSampledRanking:
    """Mixin for RecBole's trainers: score sampled candidates from one answer per user or row.

    RecBole scores each candidate with a whole forward pass. That is 101 times the work for SASRec,
    and one propagation through the graph per batch for LightGCN. ``full_sort_predict`` gives the
    same scores for all items at once. Models without it are evaluated as RecBole does.
    """

    config: Any
    model: Any
    device: Any
    test_batch_size: int
    tot_item_num: int

    def _neg_sample_batch_eval(self, batched_data: Any) -> Any:
        interaction, row_idx, positive_u, positive_i = batched_data
        if self.config["eval_type"] == EvaluatorType.RANKING and row_idx is not None:
            try:
                answers = self._answers(interaction)
            except NotImplementedError:
                return super()._neg_sample_batch_eval(batched_data)  # type: ignore[misc]
            scores = torch.full(
                (int(positive_u[-1]) + 1, self.tot_item_num), -np.inf, device=self.device
            )
            scores[row_idx, interaction[self.config["ITEM_ID_FIELD"]]] = answers
            return interaction, scores, positive_u, positive_i
        return super()._neg_sample_batch_eval(batched_data)  # type: ignore[misc]

    def _answers(self, interaction: Any) -> Tensor:  # n candidates -> [n]
        """Score each candidate for its user, or for its row where the history matters."""
        sequential = self.config["MODEL_TYPE"] == ModelType.SEQUENTIAL
        key = interaction[ROW_ID if sequential else self.config["USER_ID_FIELD"]].numpy()
        _, first, place = np.unique(key, return_index=True, return_inverse=True)
        items = interaction[self.config["ITEM_ID_FIELD"]].numpy()
        answers = torch.empty(len(key), device=self.device)
        step = max(self.test_batch_size // self.tot_item_num, 1)
        for start in range(0, len(first), step):
            chunk = interaction[first[start : start + step]].to(self.device)
            table = self.model.full_sort_predict(chunk).view(-1, self.tot_item_num)
            here = np.flatnonzero((place >= start) & (place < start + step))
            answers[here] = table[place[here] - start, items[here]].to(answers.dtype)
        return answers


@cache
def recbole_trainer_class(trainer_class: type) -> type:
    """Make a subclass of a RecBole trainer with both mixins; once for each class."""
    mixins = (OwnCheckpoints, QuickSampledRanking)
    return type(trainer_class.__name__, (*mixins, trainer_class), {})


_count = itertools.count(1)


class ClassicFit(NamedTuple):
    """A trained classic model.

    Attributes:
        trainer: RecBole's trainer; ``trainer.model`` holds the best weights.
        results: plain numbers: ``valid`` and ``test`` metrics, ``epochs``, ``steps``, ``seconds``,
            ``trained_parameters``, ``train_loss`` by epoch, and ``checkpoint``, the file's path.
    """

    trainer: Any
    results: dict[str, Any]


def fit_classic(config: Any, loaders: Loaders) -> ClassicFit:
    """Train a RecBole model, and test the epoch that is best on validation.

    Seeds and the order of steps are RecBole's own, so the results equal RecBole's.

    Raises:
        InputError: the loss or the scores became NaN, an optional package of the model is missing,
            or the disk is full.
    """
    started = time.perf_counter()
    init_seed(config["seed"], config["reproducibility"])
    trainer = make_trainer(config, loaders)
    with _explained(config["model"]):
        _, valid = trainer.fit(
            loaders.train, loaders.valid, saved=True, show_progress=config["show_progress"]
        )
    seconds = time.perf_counter() - started
    test = trainer.evaluate(loaders.test, show_progress=config["show_progress"])
    epochs = len(trainer.train_loss_dict)
    results = {
        "valid": plain_values(valid),
        "test": plain_values(test),
        "epochs": epochs,
        "steps": epochs * len(loaders.train),
        "seconds": seconds,
        "trained_parameters": sum(
            weights.numel() for weights in trainer.model.parameters() if weights.requires_grad
        ),
        "train_loss": [float(loss) for loss in trainer.train_loss_dict.values()],
        "checkpoint": str(trainer.saved_model_file),
    }
    return ClassicFit(trainer, results)


def make_trainer(config: Any, loaders: Loaders) -> Any:
    """Build the model of the config and RecBole's trainer for it, with a checkpoint of its own."""
    with as_input_errors():
        model = config.model_class(config, loaders.train._dataset).to(config["device"])
    trainer = _trainer_of(config, model)
    # RecBole's file name has seconds only: two trainers started in one second would share a file
    name = f"{config['model']}-{get_local_time()}-{os.getpid()}-{next(_count)}.pth"
    trainer.saved_model_file = str(config.run_folder / name)
    return trainer


def ready_trainer(config: Any, model: Any, loaders: Loaders) -> Any:
    """Build RecBole's trainer for an already trained model, to evaluate it again."""
    trainer = _trainer_of(config, model)
    trainer.eval_collector.data_collect(loaders.train)
    return trainer


def _trainer_of(config: Any, model: Any) -> Any:
    """Build RecBole's trainer, which writes to the run's folder."""
    config = config.with_settings({"checkpoint_dir": str(config.run_folder)})
    kind = recbole_trainer_class(get_trainer(config["MODEL_TYPE"], config["model"]))
    trainer = kind(config, model)
    if distributed.is_main_process():
        trainer.tensorboard = events_writer(config)
    return trainer


def plain_values(metrics: Any) -> dict[str, float]:
    """Convert metrics to Python floats (NumPy 2 prints ``np.float64(0.5)``); None becomes empty."""
    return {str(name): float(value) for name, value in (metrics or {}).items()}


@contextmanager
def _explained(model: str) -> Iterator[None]:
    """Explain a missing package and RecBole's "Training loss is nan"; other errors are bugs."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(f"model {model} needs the package {error.name}; install it") from error
    except ValueError as error:
        if "loss is nan" not in str(error):
            raise
        raise Diverged("the training loss became NaN; try a smaller learning_rate") from error
