"""The base of every run of a language model: its rows, histories, trainers and stages."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from logging import getLogger
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.utils import init_seed

from recbole_e2urec.config.config import Config
from recbole_e2urec.config.keys import LORA, POST_RUN_KEYS, TRAINING
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.data.history import identity_of
from recbole_e2urec.data.loaders import (
    Loaders,
    build_splits,
    evaluation_loader,
    make_loaders,
    without_users,
)
from recbole_e2urec.data.request.selection import (
    ForgetOptions,
    ForgetRequest,
    choose_control_users,
    read_request,
)
from recbole_e2urec.data.rows import Splits
from recbole_e2urec.errors import InputError
from recbole_e2urec.model.backbones.tiny import EMBEDDED
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.prompting import shown_histories
from recbole_e2urec.report.results import RESULTS, load_results, versions
from recbole_e2urec.trainer.checkpoint import Stage
from recbole_e2urec.trainer.llmrec_trainer import LLMRecTrainer
from recbole_e2urec.trainer.recbole_trainer import plain_values
from recbole_e2urec.trainer.training_log import amortised
from recbole_e2urec.utils import distributed, recbole_compat
from recbole_e2urec.utils.io import make_folder

T = TypeVar("T")

Rows = NDArray[np.int64]
# Training on few rows; docs/explanation/choices.md says what was measured.
FEW_ROWS = 20_000  # from here on, sizes are those of the yaml files
TOO_FEW_ROWS = 1_000
LEAST_STEPS = 16  # in an epoch
BROKEN_DOWN = 1.05  # times the least training loss of an epoch
LEAST_PATIENCE = 1_000  # steps without a better validation
MOST_STEPS = 3_000  # of a whole training, or the epochs of the yaml file if these are more
FEW_ROWS_RATE = 0.005  # learning rate
SMALLEST_BATCH = 8
SIZES = (
    "train_batch_size", "epochs", "eval_step", "stopping_step", "valid_metric", "learning_rate",
)  # fmt: skip
COST = (
    "seconds", "relative_to_retrain", "prior_seconds", "amortised_seconds", "trained_parameters",
    "adapter_parameters", "steps", "peak_memory_mb", "peak_gpu_memory_mb",
)  # fmt: skip


class Parts(NamedTuple):
    """The rows of a run.

    Attributes:
        splits: train, valid and test rows, without control users.
        whole: the same with control users.
        control: rows of control users from the training part.
    """

    splits: Splits
    whole: Splits
    control: Rows


def opened(config: Config, kind: Callable[[Config, Any], T]) -> T:
    """Seed everything, start the log, load the data set, and make the run.

    Args:
        config: the run's settings.
        kind: makes the run of the settings and the data set.

    Raises:
        InputError: the data or the request cannot be used, or a folder of the run cannot be made.
            No log of it is left behind.
    """
    init_seed(config["seed"], config["reproducibility"])
    earlier = [*getLogger().handlers]
    distributed.on_main_process(lambda: _make_folders(config))
    try:
        return kind(config, load_dataset(config))
    except InputError:
        if distributed.is_main_process():  # it may be the only one that is refused
            recbole_compat.discard_log(config, earlier)
        raise


def _make_folders(config: Config) -> None:
    """Make the folder of the results, and start the run's log."""
    folder = Path(config["checkpoint_dir"])
    make_folder(folder, "checkpoint_dir")
    load_results(folder / RESULTS)  # refuse now what could not be completed after the training
    recbole_compat.start_log(config)


def refuse_afterwards(config: Config) -> None:
    """Refuse settings for steps after a run, which the run itself would ignore.

    Raises:
        InputError: ``finalize`` or ``purge`` is set.
    """
    for key in POST_RUN_KEYS:
        if config[key]:
            raise InputError(
                f"{key}: from Python, call recbole_e2urec.quick_start.run_and_finalize"
            )


def parts_of(config: Config, dataset: Any) -> Parts:
    """Split the rows, and set the control users aside.

    Raises:
        InputError: a split that leaves nothing to train or to test on.
    """
    whole = build_splits(dataset)
    if len(whole.test) == 0:
        raise InputError(_no_test_rows(config, dataset))
    user, train, rest = dataset.rows.user, whole.train, dataset.remainder
    if rest is not None:
        return Parts(without_users(whole, user, rest.control_users), whole, rest.control)
    users = np.flatnonzero(np.bincount(user))
    control = choose_control_users(users, config["control_users"], config["forget_seed"])
    of_control = train[np.isin(user[train], control)]
    return Parts(without_users(whole, user, control), whole, of_control)


def data_preparation(config: Config, dataset: Any) -> Loaders:
    """Split a data set and make its loaders, in place of RecBole's function of the same name.

    Control users are in no part, as in every run of this package. Sizes of training that follow
    from few rows are set in ``config``.

    Args:
        config: the settings.
        dataset: the data set, as from ``create_dataset``.

    Returns:
        The loaders of the train, valid and test part. A model made with
        the data set afterwards shows histories in its prompts.

    Raises:
        InputError: a split that leaves nothing to train or to test on.
    """
    parts = parts_of(config, dataset)
    dataset.shown_parts = parts.whole
    for line in fit_to_rows(config, len(parts.splits.train)):
        getLogger().warning("%s: %s", config["dataset"], line)
    return make_loaders(config, dataset, parts.splits)


def _no_test_rows(config: Config, dataset: Any) -> str:
    """Say why a split leaves no test rows, and what would."""
    args = config["eval_args"]
    of_users = np.unique(dataset.rows.user, return_counts=True)[1]
    advice = "give them a share, as {'RS': [0.8, 0.1, 0.1]}"
    if args["group_by"] == "user":
        advice = (
            f"half of the users have {np.median(of_users):g} rows or fewer; give them a larger "
            "share, or split the rows of all users together (group_by: none)"
        )
    return f"eval_args: the split {args['split']} leaves no test rows; {advice}"


def unseen_of(parts: Parts, user: Rows, retain: Rows) -> Rows:
    """Return rows on which no model was trained, sorted, to predict the loss on unseen users.

    These are the rows of control users. Without control users, they are the validation rows of
    users who stay.

    Args:
        parts: parts of the run.
        user: inner user ids by row id.
        retain: training rows that stay.
    """
    if len(parts.control):
        return np.sort(parts.control)
    valid = np.sort(parts.splits.valid)
    return valid[np.isin(user[valid], user[retain])]


def fit_to_rows(config: Config, rows: int) -> list[str]:
    """Set sizes of training that fit few training rows, in ``config``.

    An epoch gets at least 16 steps. Training may take 3,000 steps, and waits 1,000 for a better
    validation: a model often answers the mean for hundreds of steps before it learns more, and at
    tiny-t5's rate for good. LogLoss validates: on few rows, an untrained model can have the best
    AUC by chance. This is for embedded backbones, on fewer than 20,000 rows, if no setting names
    any of these sizes.

    Returns:
        What was set, and whether there are too few rows to learn from, for people.
    """
    if rows >= FEW_ROWS or str(config["backbone"]) not in EMBEDDED:
        return []
    said = []
    if rows < TOO_FEW_ROWS:
        said.append(
            f"{rows:,} training rows are too few to learn from: a model of fewer than "
            f"{TOO_FEW_ROWS:,} may know no more than chance"
        )
    if any(config.is_given(key) for key in SIZES):
        return said
    most = min(config["train_batch_size"], max(SMALLEST_BATCH, rows // LEAST_STEPS))
    size = 2 ** int(np.log2(most))
    steps = -(-rows // size)  # in an epoch
    config["train_batch_size"] = size
    config["epochs"] = max(config["epochs"], -(-MOST_STEPS // steps))
    config["stopping_step"] = max(config["stopping_step"], -(-LEAST_PATIENCE // steps))
    config["learning_rate"] = min(config["learning_rate"], FEW_ROWS_RATE)
    if "LogLoss" in config["metrics"]:
        config["valid_metric"], config["valid_metric_bigger"] = "LogLoss", False
    chosen = ", ".join(f"{key} {config[key]}" for key in SIZES if key != "eval_step")
    said.append(f"sizes for {rows:,} training rows: {chosen}")
    return said


def has_broken_down(losses: Sequence[float]) -> bool:
    """Return whether the training loss, by epoch, ended well above an earlier epoch's."""
    return len(losses) > 0 and losses[-1] > BROKEN_DOWN * min(losses)


def constant_logloss(train: NDArray[np.float32], valid: NDArray[np.float32]) -> float:
    """Return the LogLoss on ``valid`` labels of the better of two constant answers.

    They are the share of likes among ``train`` labels, and one half.
    """
    share = np.clip(train.mean(), 1e-6, 1 - 1e-6)
    of_share = -np.where(valid == 1, np.log(share), np.log(1 - share)).mean()
    return float(min(of_share, np.log(2)))


def request_of(config: Config, dataset: Any, parts: Parts) -> ForgetRequest:
    """Read the request of a run, and log its warnings, which name nobody.

    Raises:
        InputError: the request cannot be executed.
    """
    request = read_request(config.options(ForgetOptions), parts.splits.train, dataset)
    for warning in request.warnings if distributed.is_main_process() else ():
        getLogger().warning("request %s: %s", request.request_id, warning)
    return request


class Experiment:
    """A run with one data set, split, language model and seed.

    Only one backbone is in memory. It holds Original's weights, except while Retrain is trained.

    Args:
        config: settings of the run.
        dataset: data set of the run.
        model: a recommender that was trained on the data; None: a new one.

    Attributes:
        start: the weights before any training.
    """

    def __init__(self, config: Config, dataset: Any, model: LLMRec | None = None) -> None:
        self.config, self.dataset = config, dataset
        warning = config.borrowed_rates
        if warning and distributed.is_main_process():
            getLogger().warning(warning)
        self.parts = self.parts_of(config, dataset)
        erased = 0 if dataset.remainder is None else dataset.remainder.erased_training_rows
        self.sizes = fit_to_rows(config, len(self.parts.splits.train) + erased)
        for line in self.sizes if distributed.is_main_process() else ():
            getLogger().warning("%s: %s", config["dataset"], line)
        untrained = LLMRec(config, dataset).to(config["device"])
        self.start = untrained.bank.state(untrained.adapter)
        self.model = untrained if model is None else model

    def parts_of(self, config: Config, dataset: Any) -> Parts:
        """Return the rows of the run."""
        return parts_of(config, dataset)

    def recommend(self, tested: bool = True) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """Train the recommender alone, and test it; if not ``tested``, no test row is used."""
        nothing = np.empty(0, np.int64)
        history = self.history(nothing)
        loaders = make_loaders(self.config, self.dataset, self.parts.splits)
        with self.model.using_history(history):
            trainer = self.trainer("LLMRec", self.parts.splits.train, self.parts.splits.valid)
            summary = trainer.run(loaders.train, loaders.valid)
            self._warn_of_bad_training("LLMRec", summary, *self.parts.splits[:2])
            rows = loaders.test if tested else None  # RecBole skips None
            test = plain_values(trainer.evaluate(rows, show_progress=self.shows))
        row = {"model": "LLMRec", "stage": trainer.stage.digest, "test": test}
        return [self.completed(row, summary)], {}

    def trained(
        self, name: str, train: Rows, validating: Rows, shown: Rows
    ) -> tuple[dict[str, Any], Stage]:
        """Train from the start weights, which must be loaded.

        Args:
            name: name of the stage.
            train: rows to train on.
            validating: rows whose users validate the model.
            shown: histories that prompts show, [n, k].

        Returns:
            The summary of the training, and its stage.
        """
        user, valid = self.dataset.rows.user, self.parts.splits.valid
        valid = valid[np.isin(user[valid], user[validating])]
        loaders = make_loaders(self.config, self.dataset, self.parts.splits, train)
        loader = evaluation_loader(self.config, self.dataset, self.parts.splits, "valid", valid)
        with self.model.using_history(shown):
            trainer = self.trainer(name, train, valid)
            summary = trainer.run(loaders.train, loader)
        self._warn_of_bad_training(name, summary, train, valid)
        return summary, trainer.stage

    def _warn_of_bad_training(
        self, name: str, summary: Mapping[str, Any], train: Rows, valid: Rows
    ) -> None:
        if distributed.is_main_process() and has_broken_down(summary["train_loss"]):
            getLogger().warning(
                "%s: the training loss rose from %.3f to %.3f, so the training broke down; try a "
                "smaller clip_norm or learning_rate",
                name, min(summary["train_loss"]), summary["train_loss"][-1],
            )  # fmt: skip
        label = self.dataset.rows.label
        reached = (summary.get("valid") or {}).get("logloss")
        if reached is None or not len(train) or not distributed.is_main_process():
            return
        constant = constant_logloss(label[train], label[valid])
        if reached >= constant:
            getLogger().warning(
                "%s has learned nothing: LogLoss %.4f on validation rows, where one answer to all "
                "of them has %.4f",
                name, reached, constant,
            )  # fmt: skip

    def completed(self, row: dict[str, Any], cost: Mapping[str, Any]) -> dict[str, Any]:
        """Add the cost and the settings to a row of results."""
        if "prior_seconds" in cost:
            spread = amortised(cost["seconds"], cost["prior_seconds"])
            cost = {**cost, "amortised_seconds": spread}
        more = {name: cost[name] for name in ("valid", "train_loss") if name in cost}
        return {
            **row,
            **more,
            "backbone": self.config["backbone"],
            "cost": {name: cost[name] for name in COST if name in cost},
            "settings": self.config.settings(),
        }

    def history(self, hidden: Rows) -> Rows:
        """Histories of all rows, [n, k], without the hidden ones (see shown_histories)."""
        length = self.model.prompt_options.history_length
        return shown_histories(self.dataset.rows, self.parts.whole, hidden, length)

    def trainer(self, name: str, train: Rows, valid: Rows) -> LLMRecTrainer:
        """Create a trainer whose stage is identified by all inputs that determine its result."""
        inputs = {
            **self.common_inputs(),
            "settings": self.training_settings(),
            "prompts": self.model.table.fingerprint(),
            "train": hash_of(train),
            "valid": hash_of(valid),
            "start": _weights_hash(self.start),
        }
        distributed.check_alike(
            name, {**inputs, "start": None}
        )  # weight sums may differ by rounding
        return LLMRecTrainer(self.config, self.model, self.stage(name, inputs))

    def common_inputs(self) -> dict[str, str]:
        """Return the inputs that affect every training, whatever its rows are."""
        return {
            "labels": hash_of(self.dataset.rows.label),
            "torch": versions()["torch"],
            "package": versions()["recbole_e2urec"],
        }

    def stage(self, name: str, inputs: Mapping[str, Any]) -> Stage:
        """The stage of this name and these inputs, in the run's folder."""
        return Stage(self.stages, name, inputs, self.config)

    @property
    def stages(self) -> Path:
        """The folder of all stages."""
        return self.config.run_folder / "stages"

    def training_settings(self) -> dict[str, Any]:
        """Return the settings that affect the result of training."""
        names = TRAINING + (LORA if self.model.adapter is not None else ())
        return {name: str(self.config[name]) for name in names}

    @property
    def shows(self) -> bool:
        """Whether progress bars are drawn."""
        return bool(self.config["show_progress"])


def hash_of(values: Any) -> str:
    """SHA-256 of an array of rows or labels, or of histories, in hex.

    Raises:
        InputError: the values are None, because the data have no labels.
    """
    if values is None:
        raise InputError("a language model learns from labels; set threshold, or add a label")
    digest = hashlib.sha256()
    for piece in identity_of(values):
        digest.update(piece)
    return digest.hexdigest()


def _weights_hash(weights: Mapping[str, torch.Tensor]) -> str:
    """Identify start weights by their shapes and sums, cheaply even for a large model."""
    sums = {name: (tuple(w.shape), float(w.double().sum())) for name, w in weights.items()}
    return hashlib.sha256(repr(sorted(sums.items())).encode()).hexdigest()
