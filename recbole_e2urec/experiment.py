"""A language model's run: Original, Retrain and a method on one split."""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from recbole_e2urec.config import Config
from recbole_e2urec.data.forget import ForgetOptions, choose_control_users, choose_forget
from recbole_e2urec.data.loaders import Loaders, build_splits, evaluation_loader, make_loaders
from recbole_e2urec.data.rows import Splits
from recbole_e2urec.errors import InputError
from recbole_e2urec.evaluator.measure import (
    Answers,
    Groups,
    ask,
    attacks,
    distance_to,
    mapping_without_rows,
    utility,
)
from recbole_e2urec.methods import METHODS
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.prompting import shown_histories
from recbole_e2urec.results import versions
from recbole_e2urec.trainer.classic import plain
from recbole_e2urec.trainer.llmrec import LLMRecTrainer
from recbole_e2urec.trainer.stage import Stage
from recbole_e2urec.trainer.unlearning import Request

Rows = NDArray[np.int64]
TRAINING = (
    "backbone", "tuning", "epochs", "learning_rate", "train_batch_size", "weight_decay",
    "eval_step", "stopping_step", "valid_metric", "seed", "lora_r", "lora_alpha", "lora_dropout",
    "lora_target_modules", "eval_args", "device",
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


def parts_of(config: Config, dataset: Any) -> Parts:
    """Split the rows, and set the control users aside.

    Raises:
        InputError: a split that leaves a part empty.
    """
    whole = build_splits(dataset)
    users = np.unique(dataset.rows.user)
    control = choose_control_users(users, config["control_users"], config["forget_seed"])
    train = whole.train
    return Parts(
        build_splits(dataset, control), whole, train[np.isin(dataset.rows.user[train], control)]
    )


class Experiment:
    """One data set, split, language model and seed.

    The backbone is in memory once: Original's weights are in it unless Retrain is being trained.
    """

    def __init__(self, config: Config, dataset: Any) -> None:
        self.config, self.dataset = config, dataset
        self.parts = parts_of(config, dataset)
        self.model = LLMRec(config, dataset).to(config["device"])
        self.start = self.model.bank.state(self.model.adapter)
        self.log = logging.getLogger()

    def recommend(self) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """Train and test the recommender alone."""
        nothing = np.empty(0, np.int64)
        history = self._history(nothing)
        loaders = make_loaders(self.config, self.dataset, self.parts.splits)
        with self.model.shown(history):
            trainer = self._trainer("LLMRec", self.parts.splits.train, self.parts.splits.valid)
            summary = trainer.run(loaders.train, loaders.valid)
            test = plain(trainer.evaluate(loaders.test, show_progress=self._shows))
        row = {"model": "LLMRec", "stage": trainer.stage.digest, "test": test}
        return [self._row(row, summary)], {}

    def forget(self) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """Train Original and Retrain, run the method, and measure all three."""
        config, rows, model = self.config, self.dataset.rows, self.model
        options = config.options(ForgetOptions, "forget_")
        split = choose_forget(options, self.parts.splits.train, rows, self.dataset.ids)
        method_class = METHODS[config["model"]]
        method = method_class(config.options(method_class.options_class))
        groups = self._groups(split.forget, split.retain)
        hidden = self._hidden(split)
        before, after = self._history(hidden[:0]), self._history(hidden)
        valid = self.parts.splits.valid
        valid = valid[np.isin(rows.user[valid], rows.user[split.retain])]

        reference, retrained, retrain_cost, retrain_test = self._fit(
            "Retrain", split.retain, valid, after, groups, before, after
        )
        model.bank.load(model.adapter, self.start)
        fitted, original, original_cost, original_test = self._fit(
            "Original", self.parts.splits.train, valid, before, groups, before, after
        )
        request = Request(
            split.forget, split.retain, before, after,
            lambda name, settings: self._stage(
                name,
                {"original": fitted, "settings": dict(settings), "lora": self._settings(),
                 "forget": _hash(split.forget), "histories": [_hash(before), _hash(after)]},
            ),
            config["seed"], self._shows,
        )  # fmt: skip
        with model.shown(after):
            unlearned = method.unlearn(model, request)
        answers = ask(model, unlearned.adapter, groups, before, after)
        made = {
            "Original": (fitted, original, original_cost, original_test),
            "Retrain": (reference, retrained, retrain_cost, retrain_test),
            str(config["model"]): (
                unlearned.digest, answers, unlearned.cost, self._ranking(unlearned.adapter, after),
            ),
        }  # fmt: skip
        table = [
            self._measured(name, *parts, groups, original, retrained, retrain_cost)
            for name, parts in made.items()
        ]
        return table, dict(mapping_without_rows(groups))

    def _hidden(self, split: Any) -> Rows:
        """Forgotten rows of users who keep other training rows: no other prompt shows them."""
        user = self.dataset.rows.user
        return split.forget[np.isin(user[split.forget], user[split.retain])]

    def _fit(  # noqa: PLR0913
        self, name: str, train: Rows, valid: Rows, shown: Rows, groups: Groups,
        before: Rows, after: Rows,
    ) -> tuple[str, Answers, dict[str, Any], dict[str, float]]:  # fmt: skip
        """Train Original or Retrain from the start weights, and ask it about all groups."""
        loaders = self._loaders(train, valid)
        with self.model.shown(shown):
            trainer = self._trainer(name, train, valid)
            cost = trainer.run(loaders.train, loaders.valid)
        answers = ask(self.model, self.model.adapter, groups, before, after)
        return trainer.stage.digest, answers, cost, self._ranking(self.model.adapter, after)

    def _measured(  # noqa: PLR0913
        self, name: str, stage: str, answers: Answers, cost: Mapping[str, Any],
        ranking: Mapping[str, float], groups: Groups, original: Answers, retrained: Answers,
        retrain_cost: Mapping[str, Any],
    ) -> dict[str, Any]:  # fmt: skip
        labels = self.dataset.rows.label
        row = {
            "model": name,
            "stage": stage,
            **utility(self.config, answers, groups, labels),
            "to_retrain": distance_to(answers, original, retrained, groups.forget),
            **attacks(answers, groups, labels),
        }
        if ranking:
            row["ranking"] = dict(ranking)
        return self._row(row, {**cost, "relative_to_retrain": _ratio(cost, retrain_cost)})

    def _row(self, row: dict[str, Any], cost: Mapping[str, Any]) -> dict[str, Any]:
        names = ("seconds", "relative_to_retrain", "trained_parameters", "steps", "peak_memory_mb")
        more = {name: cost[name] for name in ("valid", "train_loss") if name in cost}
        return {
            **row,
            **more,
            "backbone": self.config["backbone"],
            "cost": {name: cost[name] for name in names if name in cost},
            "settings": self.config.settings(),
        }

    def _groups(self, forget: Rows, retain: Rows) -> Groups:
        user, test = self.dataset.rows.user, self.parts.splits.test
        forgotten = np.isin(user[test], user[forget])
        return Groups(forget, retain, test, test[forgotten], test[~forgotten], self.parts.control)

    def _history(self, hidden: Rows) -> Rows:
        length = self.model.prompt_options.history_length
        return shown_histories(self.dataset.rows, self.parts.whole, hidden, length)

    def _loaders(self, train: Rows, valid: Rows) -> Loaders:
        loaders = make_loaders(self.config, self.dataset, self.parts.splits, train)
        own = evaluation_loader(self.config, self.dataset, self.parts.splits, "valid", valid)
        return loaders._replace(valid=own)

    def _ranking(self, adapter: str | None, history: Rows) -> dict[str, float]:
        """Metrics of ranked test items; empty when the run is evaluated by labels."""
        if self.config.plan.kind == "labeled":
            return {}
        loader = evaluation_loader(self.config, self.dataset, self.parts.splits, "test")
        trainer = self._trainer("ranking", self.parts.splits.train, self.parts.splits.valid)
        before = self.model.adapter
        self.model.adapter = adapter
        try:
            with self.model.shown(history):
                trainer.eval_collector.data_collect(self._loaders(*self.parts.splits[:2]).train)
                return plain(trainer.evaluate(loader, show_progress=self._shows))
        finally:
            self.model.adapter = before

    def _trainer(self, name: str, train: Rows, valid: Rows) -> LLMRecTrainer:
        inputs = {
            "settings": self._settings(),
            "prompts": self.model.table.fingerprint(),
            "labels": _hash(self.dataset.rows.label),
            "train": _hash(train),
            "valid": _hash(valid),
            "start": _weights_hash(self.start),
            "torch": versions()["torch"],
            "package": versions()["recbole_e2urec"],
        }
        return LLMRecTrainer(self.config, self.model, self._stage(name, inputs))

    def _stage(self, name: str, inputs: Mapping[str, Any]) -> Stage:
        return Stage(Path(self.config["checkpoint_dir"]) / "stages", name, inputs)

    def _settings(self) -> dict[str, Any]:
        return {name: str(self.config[name]) for name in TRAINING}

    @property
    def _shows(self) -> bool:
        return bool(self.config["show_progress"])


def _ratio(cost: Mapping[str, Any], reference: Mapping[str, Any]) -> float | None:
    return cost["seconds"] / reference["seconds"] if reference["seconds"] else None


def _hash(values: Any) -> str:
    if values is None:
        raise InputError("a language model learns from labels; set threshold, or add a label")
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def _weights_hash(weights: Mapping[str, torch.Tensor]) -> str:
    """Tell other start weights apart, without reading each number of a large model twice."""
    sums = {name: (tuple(w.shape), float(w.double().sum())) for name, w in weights.items()}
    return hashlib.sha256(repr(sorted(sums.items())).encode()).hexdigest()
