"""RecBole's trainer for the language model: stages, length-grouped batches, exact resuming."""

import itertools
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.trainer import Trainer
from recbole.utils import get_local_time

from recbole_e2urec.data.dataset import ROW_ID
from recbole_e2urec.data.prompt_table import length_grouped_batches
from recbole_e2urec.errors import InputError
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.trainer.checkpoint import Stage
from recbole_e2urec.trainer.loop import (
    Average,
    EpochPosition,
    StepRule,
    Stream,
    adamw,
    generator_of,
    load_optimizer,
    optimizer_tensors,
    seed_dropout,
    train_epoch,
    with_prefix,
    without_prefix,
)
from recbole_e2urec.trainer.recbole_trainer import plain_values
from recbole_e2urec.trainer.training_log import memory_used
from recbole_e2urec.utils import distributed
from recbole_e2urec.utils.io import read_tensors

_count = itertools.count(1)


class LLMRecTrainer(Trainer):
    """Trains LLMRec as RecBole trains any model, with early stopping on validation.

    It differs from RecBole's trainer as follows:

    - AdamW trains the weights that ``tuning`` selects, in batches of similar prompt length.
    - After every epoch, a :class:`Stage` stores a checkpoint as safetensors.
    - The order of the data depends on seed and epoch alone, so a resumed run ends with the numbers
      of an uninterrupted one.
    - Between epochs, the model has the average of its weights; this is validated and saved.

    After :meth:`fit`, the model has its best weights, and ``saved_model_file`` names their file.

    Args:
        config: the settings.
        model: the model to train.
        stage: where its checkpoints are, and an earlier run of the same training is found; None:
            a new folder below ``checkpoint_dir``.
    """

    cur_step: int
    best_valid_score: float
    best_valid_result: Any

    def __init__(self, config: Any, model: LLMRec, stage: Stage | None = None) -> None:
        self.stage = new_stage(config) if stage is None else stage
        self.spent = 0.0  # seconds of earlier runs of this stage
        self.steps = 0
        super().__init__(config, model)
        self.tensorboard = self.stage.curves.tensorboard
        self.wandblogger = self.stage.curves.wandb
        self.saved_model_file = str(self.stage.folder / "weights.safetensors")

    def run(self, train_data: Any, valid_data: Any) -> dict[str, Any]:
        """Train the model, resume its training or reuse a finished stage.

        The model has the best weights afterwards.

        Returns:
            The stage's summary: ``seconds``, ``steps``, ``epochs``, ``trained_parameters``,
            ``peak_memory_mb``, ``train_loss`` by epoch and ``valid``, the best result.
        """
        with self.stage.open():
            if self.stage.finished:
                self.model.bank.load(self.model.adapter, self.stage.weights())
                self.eval_collector.data_collect(train_data)
                return self.stage.summary()
            show = bool(self.config["show_progress"])
            return self._finish(train_data, self._telling(valid_data), show_progress=show)

    def fit(
        self,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Callable[[int, float], None] | None = None,
    ) -> tuple[float, Any]:
        """Train as RecBole does; afterwards the model has its best weights.

        Args:
            train_data: the loader of training rows.
            valid_data: the loader of validation rows; None: nothing stops the training early.
            verbose: whether losses and validation are logged.
            saved: whether the weights stay on the disk.
            show_progress: whether progress bars are drawn.
            callback_fn: called after each validation, with the epoch and its score.

        Returns:
            The best validation score and the metrics of that epoch.
        """
        with self.stage.open():
            valid = self._telling(valid_data)
            self._finish(train_data, valid, verbose, show_progress, callback_fn)
        if not saved and distributed.is_main_process():
            shutil.rmtree(self.stage.folder)
        return self.best_valid_score, self.best_valid_result

    def _finish(
        self,
        train_data: Any,
        valid_data: Any,
        verbose: bool = True,
        show_progress: bool = False,
        callback_fn: Callable[[int, float], None] | None = None,
    ) -> dict[str, Any]:
        model = self.model
        steps = self.epochs * -(-len(train_data._dataset) // self.config["train_batch_size"])
        weights = model.bank.parameters(model.adapter)
        self.average = Average(weights, float(self.config["average_decay"]), steps)
        self._resume()
        self.started = time.perf_counter()

        def after_epoch(epoch: int, score: float) -> None:
            self._after_epoch(epoch)
            if callback_fn is not None:
                callback_fn(epoch, score)

        self._fit_epochs(train_data, valid_data, verbose, True, show_progress, after_epoch)
        model.bank.load(model.adapter, self.stage.best())
        summary = self._summary()
        self.stage.finish(self._state(), summary)
        self.stage.curves.close()
        return summary

    def _telling(self, valid_data: Any) -> Any:
        """Leave out validation rows that all have the same label: their AUC is undefined."""
        if valid_data is None or self.config.plan.kind != "labeled":
            return valid_data
        rows = valid_data._dataset.inter_feat[ROW_ID].numpy()
        if len(np.unique(self.model.labels[rows])) > 1:
            return valid_data
        self.logger.info(f"{self.stage.name}: validation rows of one label only; none are used")
        return None

    def evaluate(
        self,
        eval_data: Any,
        load_best_model: bool = True,
        model_file: str | None = None,
        show_progress: bool = False,
    ) -> Any:
        """Evaluate as RecBole does; all processes get the result of the main process.

        Args:
            eval_data: the loader.
            load_best_model: means nothing, since the model has its best weights after training.
            model_file: the ``saved_model_file`` of a trainer, whose weights are loaded before;
                None: the model is evaluated as it is.
            show_progress: whether a progress bar is drawn.

        Raises:
            InputError: the file has no weights of such a model.
        """
        if model_file is not None:
            self._load(Path(model_file))
        metrics = super().evaluate(eval_data, load_best_model=False, show_progress=show_progress)
        return distributed.broadcast(metrics)

    def _load(self, path: Path) -> None:
        try:
            self.model.bank.load(self.model.adapter, read_tensors(path)[0])
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: no weights of this model ({error})") from error

    def resume_checkpoint(self, resume_file: Any) -> None:
        """Refuse: a training resumes from its stage.

        Raises:
            InputError: always.
        """
        raise InputError(
            f"resume_checkpoint: {resume_file}: give the trainer the stage of the training, "
            "LLMRecTrainer(config, model, stage), and it goes on; to load weights, "
            "evaluate(..., model_file=...)"
        )

    def _build_optimizer(self, **_: Any) -> torch.optim.Optimizer:
        return adamw(self.model.bank.parameters(self.model.adapter), self._rule)

    @property
    def _rule(self) -> StepRule:
        options = self.model.options
        return StepRule(
            self.learning_rate,
            options.rate_schedule,
            options.clip_norm,
            options.adam_epsilon,
            self.weight_decay,
        )

    def _train_epoch(
        self, train_data: Any, epoch_idx: int, loss_func: Any = None, show_progress: bool = False
    ) -> float:
        model: LLMRec = self.model
        rows = train_data._dataset.inter_feat[ROW_ID].numpy()
        generator = generator_of(self.config["seed"], Stream.ORDER, epoch_idx)
        size = self.config["train_batch_size"]
        batches = length_grouped_batches(model.table.lengths(rows), size, generator)
        clock = EpochPosition(self.stage.name, epoch_idx, self.epochs, show_progress)
        self.steps += len(batches)
        if epoch_idx > 0:
            self.average.swap()
        with torch.random.fork_rng(devices=[]), model.bank.training(model.adapter):
            seed_dropout(self.config["seed"], epoch_idx)
            terms = train_epoch(
                self.optimizer,
                batches,
                lambda batch: model.answer_losses(rows[batch]),
                clock,
                self._rule,
                self.average.follow,
            )
        self.average.swap()
        self.stage.curves.trained(epoch_idx, terms)
        return terms["loss"]

    def _valid_epoch(self, valid_data: Any, show_progress: bool = False) -> Any:
        score, result = super()._valid_epoch(valid_data, show_progress)
        self.stage.curves.validated(max(self.train_loss_dict), plain_values(result))
        return score, result

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **_: Any) -> None:
        """Save the weights; RecBole calls this if validation improves or there is none."""
        self.stage.save_best(self._state())
        if self.eval_step <= 0 or epoch < 0 or not self._validates:
            self._after_epoch(epoch)

    def _after_epoch(self, epoch: int) -> None:
        """Save the progress of the stage; RecBole calls this after each evaluation."""
        state = {
            "epoch": epoch + 1,
            "cur_step": self.cur_step,
            "best_valid_score": float(self.best_valid_score),
            "best_valid_result": plain_values(self.best_valid_result),
            "train_loss": {str(key): float(loss) for key, loss in self.train_loss_dict.items()},
            "seconds": self._seconds(),
            "steps": self.steps,
        }
        average = with_prefix("average", self._state())
        self.average.swap()
        tensors = {**average, **with_prefix("model", self._state())}
        self.average.swap()
        self.stage.save_progress({**tensors, **optimizer_tensors(self.optimizer)}, state)

    def _fit_epochs(self, train_data: Any, valid_data: Any, *options: Any) -> None:
        """Train as RecBole does, unless a resumed stage has already stopped early."""
        self._validates = valid_data is not None
        if self.cur_step > self.stopping_step:
            self.start_epoch = self.epochs + 1
        if self.start_epoch >= self.epochs:
            if not self.train_loss_dict:  # epochs: 0
                self.stage.save_best(self._state())
            self.eval_collector.data_collect(train_data)
            return
        super().fit(train_data, valid_data, *options)

    def _resume(self) -> None:
        progress = self.stage.progress()
        if progress is None:
            return
        tensors, state = progress
        for part in ("model", "average"):  # the last one stays in the model
            self.average.swap()
            self.model.bank.load(self.model.adapter, without_prefix(part, tensors))
        self.average.goes_on()
        load_optimizer(self.optimizer, tensors)
        self.start_epoch, self.cur_step = state["epoch"], state["cur_step"]
        self.best_valid_score = state["best_valid_score"]
        self.best_valid_result = state["best_valid_result"]
        self.train_loss_dict = {int(key): loss for key, loss in state["train_loss"].items()}
        self.spent, self.steps = state["seconds"], state["steps"]
        self.logger.info(f"{self.stage.name}: goes on after epoch {self.start_epoch}")

    def _state(self) -> dict[str, Any]:
        return self.model.bank.state(self.model.adapter)

    def _seconds(self) -> float:
        return self.spent + time.perf_counter() - self.started

    def _summary(self) -> dict[str, Any]:
        return {
            "seconds": self._seconds(),
            "steps": self.steps,
            "epochs": len(self.train_loss_dict),
            "trained_parameters": self.model.bank.learning(self.model.adapter),
            **memory_used(),
            "train_loss": list(self.train_loss_dict.values()),
            "valid": plain_values(self.best_valid_result),
        }


def new_stage(config: Any) -> Stage:
    """Return a stage that no other training has, named after the model."""
    name = distributed.broadcast(f"{get_local_time()}-{os.getpid()}-{next(_count)}")
    return Stage(config.run_folder / "stages", str(config["model"]), {"started": name}, config)
