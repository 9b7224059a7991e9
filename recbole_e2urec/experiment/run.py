"""What every run of a language model shares: its rows, histories, trainers and stages."""

import hashlib
from collections.abc import Mapping
from logging import getLogger
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.utils import init_logger, init_seed

from recbole_e2urec.config.config import Config
from recbole_e2urec.config.keys import LORA, POST_RUN_KEYS, TRAINING
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.data.loaders import build_splits, evaluation_loader, make_loaders
from recbole_e2urec.data.request.sampling import choose_control_users
from recbole_e2urec.data.request.selection import ForgetOptions, ForgetRequest, read_request
from recbole_e2urec.data.rows import Splits
from recbole_e2urec.errors import InputError
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.prompting import shown_histories
from recbole_e2urec.report.results import versions
from recbole_e2urec.trainer.checkpoint import Stage
from recbole_e2urec.trainer.llmrec_trainer import LLMRecTrainer
from recbole_e2urec.trainer.recbole_trainer import plain_values
from recbole_e2urec.trainer.training_log import amortised
from recbole_e2urec.utils import distributed

Rows = NDArray[np.int64]
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


def opened(config: Config) -> Any:
    """Seed everything, start the log, and load the data set of a run."""
    init_seed(config["seed"], config["reproducibility"])
    if distributed.is_main_process():
        init_logger(config)
    return load_dataset(config)


def refuse_afterwards(config: Config) -> None:
    """Refuse what a run by itself would pass over.

    Raises:
        InputError: it is to be finalized or purged.
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
        raise InputError(
            f"eval_args: the split {config['eval_args']['split']} leaves no test rows; "
            "give them a share, as {'RS': [0.8, 0.1, 0.1]}"
        )
    users = np.unique(dataset.rows.user)
    control = choose_control_users(users, config["control_users"], config["forget_seed"])
    train = whole.train
    return Parts(
        build_splits(dataset, control), whole, train[np.isin(dataset.rows.user[train], control)]
    )


def unseen_of(parts: Parts, user: Rows, retain: Rows) -> Rows:
    """Rows that no model was trained on, sorted: they tell a request what unseen users cost.

    They are those of the control users; where none are kept out, validation rows of users who stay.

    Args:
        parts: of the run.
        user: inner user ids by row id.
        retain: training rows that stay.
    """
    if len(parts.control):
        return np.sort(parts.control)
    valid = np.sort(parts.splits.valid)
    return valid[np.isin(user[valid], user[retain])]


def request_of(config: Config, dataset: Any, parts: Parts) -> ForgetRequest:
    """Read the request of a run; its warnings are logged, and name nobody.

    Raises:
        InputError: a request that cannot be carried out.
    """
    request = read_request(config.options(ForgetOptions), parts.splits.train, dataset)
    for warning in request.warnings if distributed.is_main_process() else ():
        getLogger().warning("request %s: %s", request.request_id, warning)
    return request


class Experiment:
    """One data set, split, language model and seed.

    The backbone is in memory once: Original's weights are in it unless Retrain is being trained.
    """

    def __init__(self, config: Config, dataset: Any) -> None:
        self.config, self.dataset = config, dataset
        warning = config.borrowed_rates
        if warning and distributed.is_main_process():
            getLogger().warning(warning)
        self.parts = parts_of(config, dataset)
        self.model = LLMRec(config, dataset).to(config["device"])
        self.start = self.model.bank.state(self.model.adapter)

    def recommend(self, tested: bool = True) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """Train and test the recommender alone; without ``tested`` no test row is looked at."""
        nothing = np.empty(0, np.int64)
        history = self.history(nothing)
        loaders = make_loaders(self.config, self.dataset, self.parts.splits)
        with self.model.using_history(history):
            trainer = self.trainer("LLMRec", self.parts.splits.train, self.parts.splits.valid)
            summary = trainer.run(loaders.train, loaders.valid)
            rows = loaders.test if tested else None  # RecBole passes over None
            test = plain_values(trainer.evaluate(rows, show_progress=self.shows))
        row = {"model": "LLMRec", "stage": trainer.stage.digest, "test": test}
        return [self.completed(row, summary)], {}

    def trained(
        self, name: str, train: Rows, validating: Rows, shown: Rows
    ) -> tuple[dict[str, Any], Stage]:
        """Train from the start weights, which the model has; ``validating`` names users by rows."""
        user, valid = self.dataset.rows.user, self.parts.splits.valid
        valid = valid[np.isin(user[valid], user[validating])]
        loaders = make_loaders(self.config, self.dataset, self.parts.splits, train)
        loader = evaluation_loader(self.config, self.dataset, self.parts.splits, "valid", valid)
        with self.model.using_history(shown):
            trainer = self.trainer(name, train, valid)
            return trainer.run(loaders.train, loader), trainer.stage

    def completed(self, row: dict[str, Any], cost: Mapping[str, Any]) -> dict[str, Any]:
        """Complete a result with what it cost and under which settings."""
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
        """A trainer whose stage is named after all that decides its outcome."""
        inputs = {
            **self.common_inputs(),
            "settings": self.training_settings(),
            "prompts": self.model.table.fingerprint(),
            "train": hash_of(train),
            "valid": hash_of(valid),
            "start": _weights_hash(self.start),
        }
        distributed.check_alike(name, {**inputs, "start": None})  # its sum may differ by rounding
        return LLMRecTrainer(self.config, self.model, self.stage(name, inputs))

    def common_inputs(self) -> dict[str, str]:
        """What decides every training alike, whatever is trained on."""
        return {
            "labels": hash_of(self.dataset.rows.label),
            "torch": versions()["torch"],
            "package": versions()["recbole_e2urec"],
        }

    def stage(self, name: str, inputs: Mapping[str, Any]) -> Stage:
        """The stage of this name and these inputs, in ``checkpoint_dir``."""
        return Stage(self.stages, name, inputs, self.config)

    @property
    def stages(self) -> Path:
        """The folder of all stages."""
        return Path(self.config["checkpoint_dir"]) / "stages"

    def training_settings(self) -> dict[str, Any]:
        """The settings that decide what training yields."""
        names = TRAINING + (LORA if self.model.adapter is not None else ())
        return {name: str(self.config[name]) for name in names}

    @property
    def shows(self) -> bool:
        """Whether progress bars are drawn."""
        return bool(self.config["show_progress"])


def hash_of(values: Any) -> str:
    """SHA-256 of an array of rows or labels, in hex.

    Raises:
        InputError: None, which is what data without labels have.
    """
    if values is None:
        raise InputError("a language model learns from labels; set threshold, or add a label")
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def _weights_hash(weights: Mapping[str, torch.Tensor]) -> str:
    """Tell other start weights apart, without reading each number of a large model twice."""
    sums = {name: (tuple(w.shape), float(w.double().sum())) for name, w in weights.items()}
    return hashlib.sha256(repr(sorted(sums.items())).encode()).hexdigest()
