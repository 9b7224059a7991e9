"""An unlearning run: Original, Retrain and a method on one split, measured alike."""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec.config.config import Config
from recbole_e2urec.config.keys import LORA
from recbole_e2urec.data.loaders import evaluation_loader, make_loaders
from recbole_e2urec.data.request.selection import ForgetRequest
from recbole_e2urec.evaluator.attacks import Relearning, RelearnOptions, answer_losses
from recbole_e2urec.evaluator.measure import (
    Answers,
    Groups,
    ask,
    attacks,
    curves,
    distance_to,
    group_sizes,
    intervals,
    utility,
)
from recbole_e2urec.experiment.recbole_models import user_embeddings
from recbole_e2urec.experiment.run import Experiment, Rows, hash_of, request_of, unseen_of
from recbole_e2urec.methods import method_of
from recbole_e2urec.methods.unlearner import Unlearner
from recbole_e2urec.model.scorers import Adapted, Mixture, Scorer, Stored, answering, on_start
from recbole_e2urec.report.results import ForgetAnswers
from recbole_e2urec.report.tables import NOISE
from recbole_e2urec.trainer.adapter import Fit, TrainingServices, UnlearningTask
from recbole_e2urec.trainer.checkpoint import Stage
from recbole_e2urec.trainer.llmrec_trainer import LLMRecTrainer
from recbole_e2urec.trainer.recbole_trainer import plain_values
from recbole_e2urec.trainer.training_log import restart_peak
from recbole_e2urec.utils import distributed

# Retain rows that are measured: as many as forget rows, but no fewer than these. To ask every model
# about all of them took as long as E2URec's training.
LEAST_RETAIN = 10_000
DRAWN = ("control_users", "forget_seed", "history_length")  # who and what Retrain trains on


class MeasuredModel(NamedTuple):
    """A model of the table: the stage that made it, and what was found out about it."""

    stage: str
    answers: Answers
    cost: Mapping[str, Any]
    ranking: Mapping[str, float]
    relearning: Mapping[str, Any] | None
    found: Mapping[str, float] = MappingProxyType({})


class Measuring(Experiment):
    """An experiment with a request, which was carried out on one model and not on another.

    Args:
        config: of the run.
        dataset: its rows.
        held_out: the part on which usefulness is measured: ``test``, or ``valid`` where settings
            are being chosen. Rows of results call it ``test`` in either case.
        asked: the request; None: the one that the settings name.

    Attributes:
        asked: the request.
        split: the training rows to retain and to forget.
        before, after: histories that prompts show before and after the request, [n, k].
        original, retrain: what these two answered; whoever trains them sets both.
        said: what was measured, on the forget rows: by the name and the stage of the row.
    """

    original: MeasuredModel
    retrain: MeasuredModel

    def __init__(
        self,
        config: Config,
        dataset: Any,
        held_out: str = "test",
        asked: ForgetRequest | None = None,
    ) -> None:
        super().__init__(config, dataset)
        self.ranked = config.ranked()
        self.asked = asked or request_of(config, dataset, self.parts)
        self.split = self.asked.split
        self.held_out = held_out
        self.groups = self._groups()
        hidden = self._hidden()
        self.before, self.after = self.history(hidden[:0]), self.history(hidden)
        relearn = config.options(RelearnOptions)
        self.relearning = Relearning(relearn, self.split.forget, self.before, config["seed"])
        self.forget_answers: dict[tuple[str, str], ForgetAnswers] = {}

    def measured(self, name: str, model: MeasuredModel) -> dict[str, Any]:
        """All measures of one model, as a row of the results."""
        labels, answers = self.dataset.rows.label, model.answers
        original, retrained = self.original.answers, self.retrain.answers
        losses = answer_losses(answers.yes, labels)
        self.forget_answers[name, model.stage] = ForgetAnswers(
            answers.yes[self.groups.forget], self.alike
        )
        row = {
            "model": name,
            "stage": model.stage,
            "request": self.retrain.stage,  # Original's measures differ between requests
            "request_id": self.asked.request_id,
            "request_digest": self.asked.digest,
            "comparison": self.comparison,
            **utility(self.config, answers, self.groups, labels),
            "to_retrain": distance_to(answers, original, retrained, self.groups.forget),
            **attacks(losses, self.groups),
            **curves(losses, self.groups),
            "intervals": intervals(answers, original, retrained, self.groups, self.dataset.rows),
        }
        if model.ranking:
            row["ranking"] = dict(model.ranking)
        if model.found:
            row["found"] = dict(model.found)
        if model.relearning:
            row["relearning"] = dict(model.relearning)
        relative = _ratio(model.cost, self.retrain.cost)
        return self.completed(row, {**model.cost, "relative_to_retrain": relative})

    @cached_property
    def comparison(self) -> str:
        """Names all that decides Retrain besides its seed and what is drawn by it: 16 hex digits.

        The request, which has a name of its own, is left out.
        """
        settings = {key: str(self.config[key]) for key in DRAWN}
        prompts = self.model.table.with_history(self.before[:, :0]).fingerprint()
        training = {**self.training_settings(), "seed": ""}
        return _named([self.common_inputs(), training, settings, prompts])

    @cached_property
    def alike(self) -> str:
        """The same where models of two seeds may be compared row by row: 16 hex digits.

        They may where they retain and forget the same rows under the same prompts. An adapter may
        not: the backbone under it may have been drawn from its seed.
        """
        with self.model.using_history(self.after):
            prompts = self.model.table.fingerprint()
        seed = None if self.model.adapter is None else self.config["seed"]
        return _named([hash_of(self.split.forget), hash_of(self.split.retain), prompts, seed])

    def answered(self, stage: str, scorer: Scorer, cost: Mapping[str, Any]) -> MeasuredModel:
        """Ask a model about all that is measured, and let a copy of it relearn."""
        answers = ask(self.model, scorer, self.groups, self.before, self.after)
        curve = self.relearning.curve(self.config, self.model, scorer)
        return MeasuredModel(stage, answers, cost, self._ranking(scorer), curve)

    def _hidden(self) -> Rows:
        """Rows asked for of users who keep training rows: no other prompt shows them.

        Rows of no part, which only histories show, are among them; validation and test rows that
        are asked for are not, as they measure all models alike.
        """
        user, held_out = self.dataset.rows.user, self.parts.whole[1:]
        rows = np.setdiff1d(self.asked.rows, np.concatenate(held_out))
        return rows[np.isin(user[rows], user[self.split.retain])]

    def _groups(self) -> Groups:
        user, split = self.dataset.rows.user, self.split
        rows = getattr(self.parts.splits, self.held_out)
        forgotten = np.isin(user[rows], user[split.forget])
        count = min(len(split.retain), max(len(split.forget), LEAST_RETAIN))
        generator = np.random.default_rng(self.config["forget_seed"])
        retain = np.sort(generator.choice(split.retain, count, replace=False))
        control = self.parts.control
        return Groups(split.forget, retain, rows, rows[forgotten], rows[~forgotten], control)

    def _ranking(self, scorer: Scorer) -> dict[str, float]:
        """Metrics of ranked held-out items; empty when nobody asked for them."""
        config, splits = self.ranked, self.parts.splits
        if config is None:
            return {}
        loader = evaluation_loader(config, self.dataset, splits, self.held_out)
        train = make_loaders(config, self.dataset, splits).train
        trainer = LLMRecTrainer(config, self.model, self.stage("ranking", {}))
        with self.model.using_history(self.after), answering(self.model, scorer):
            trainer.eval_collector.data_collect(train)
            return plain_values(trainer.evaluate(loader, show_progress=self.shows))


def _named(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _ratio(cost: Mapping[str, Any], reference: Mapping[str, Any]) -> float | None:
    return cost["seconds"] / reference["seconds"] if reference["seconds"] else None


class Forgetting(Measuring):
    """One request: Retrain and Original are trained once, then any number of methods can follow.

    Args:
        config, dataset, held_out, asked: see :class:`Measuring`.
        validating: rows whose users validate Original; None: those that stay. Requests that share
            an Original name the same.
    """

    def __init__(
        self,
        config: Config,
        dataset: Any,
        held_out: str = "test",
        asked: ForgetRequest | None = None,
        validating: Rows | None = None,
    ) -> None:
        super().__init__(config, dataset, held_out, asked)
        self.validating = self.split.retain if validating is None else validating

    def train(self) -> None:
        """Train Retrain and then Original, which the backbone holds from there on."""
        self.retrain = self._fit("Retrain", self.split.retain, self.split.retain, self.after)
        self.model.bank.load(self.model.adapter, self.start)
        train = self.parts.splits.train
        self.original = self._fit("Original", train, self.validating, self.before)

    def run(self) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """Unlearn with the method that the settings name, and measure all three models."""
        method_of(self.config)  # refuses bad settings before anything is trained
        self.train()
        unlearned = self.unlearned_row(self.config)
        rows = self.measured("Original", self.original), self.measured("Retrain", self.retrain)
        return [*rows, unlearned], group_sizes(self.groups)

    def unlearned_row(self, config: Config) -> dict[str, Any]:
        """Unlearn with the method that these settings name, and measure it."""
        unlearned = self.unlearn(method_of(config))
        return {**self.measured(config.model, unlearned), "settings": config.settings()}

    def noise_row(self, digest: str) -> dict[str, Any] | None:
        """Measure another seed's Retrain as if it were an unlearned model: what noise alone does.

        Args:
            digest: of its stage, in the same folder.

        Returns:
            The row; None where it retained other rows, as under a random split, or is an adapter:
            the backbone under it may have been drawn from its seed.
        """
        retrain, other = (
            Stage.of(self.stages, "Retrain", one) for one in (self.retrain.stage, digest)
        )
        alike = all(retrain.inputs[name] == other.inputs[name] for name in ("train", "prompts"))
        if self.model.adapter is not None or not alike:
            return None
        scorer = Stored(self.model.adapter, other.weights)
        return self.measured(NOISE, self.answered(digest, scorer, other.summary()))

    @property
    def services(self) -> TrainingServices:
        """What the run can do for a method."""
        return RunServices(self)

    @property
    def request(self) -> UnlearningTask:
        """What a method works with."""
        rows, retain = self.dataset.rows, self.split.retain
        return UnlearningTask(
            self.split.forget, retain, self.parts.splits.valid,
            unseen_of(self.parts, rows.user, retain), rows.user, rows.item, self.before, self.after,
            self.services, self.config["seed"], self.shows,
        )  # fmt: skip

    def unlearn(self, method: Unlearner) -> MeasuredModel:
        """Unlearn the request, and ask the unlearned model about all groups."""
        restart_peak()
        with self.model.using_history(self.after):
            unlearned = method.unlearn(self.model, self.request)
        measured = self.answered(unlearned.digest, unlearned.scorer, unlearned.cost)
        return measured._replace(found=unlearned.found)

    def _fit(self, name: str, train: Rows, validating: Rows, shown: Rows) -> MeasuredModel:
        """Train Original or Retrain."""
        restart_peak()
        cost, stage = self.trained(name, train, validating, shown)
        return self.answered(stage.digest, Adapted(self.model.adapter), cost)


class RunServices(TrainingServices):
    """What an unlearning run can do for a method.

    Args:
        run: has trained Original.
    """

    def __init__(self, run: Forgetting) -> None:
        super().__init__(run.model, run.start)
        self._run = run

    def fit(self, name: str, rows: Rows, history: Rows) -> Fit:
        """Train another recommender in Original's place, which comes back."""
        model = self._run.model
        adapter = model.adapter
        with model.bank.restored_after(adapter):
            model.bank.load(adapter, self._run.start)
            cost, stage = self._run.trained(name, rows, rows, history)
        return Fit(Stored(adapter, stage.weights), cost, stage.digest, stage.weights)

    def fit_adapter(self, name: str, rows: Rows, history: Rows) -> Fit:
        """Train an adapter on the backbone as it was before tuning, which comes back."""
        model = self._run.model
        if model.adapter is not None:  # that is how Original was trained, too
            return self.fit(name, rows, history)
        with on_start(model, lambda: self._run.start):
            model.bank.add(name, model.lora, self._run.config["seed"])
            model.adapter = name
            try:
                cost, stage = self._run.trained(name, rows, rows, history)
            finally:
                model.adapter = None
                model.bank.remove(name)
        scorer = Mixture([stage.weights], lambda: self._run.start, None)
        return Fit(scorer, cost, stage.digest, stage.weights)

    def embed(self, rows: Rows) -> NDArray[np.float32]:
        """Embed users by BPR, in the main process."""
        config, splits = self._run.config, self._run.parts.splits
        return distributed.on_main_process(lambda: user_embeddings(config, splits, rows))

    def stage(self, name: str, settings: Mapping[str, Any]) -> Stage:
        """The stage of a part of a method that forgets this request."""
        run = self._run
        inputs = {
            "original": run.original.stage,
            "settings": dict(settings),
            "lora": {key: str(run.config[key]) for key in LORA},
            "forget": hash_of(run.split.forget),
            "histories": [hash_of(run.before), hash_of(run.after)],
        }
        return run.stage(name, inputs)
