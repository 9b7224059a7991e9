"""One unlearning run: Original, Retrain and a method on one split, all measured the same way."""

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec.config.config import Config
from recbole_e2urec.config.keys import LORA
from recbole_e2urec.config.schema import DATA_DRIVEN
from recbole_e2urec.data.loaders import evaluation_loader, make_loaders
from recbole_e2urec.data.request.selection import ForgetRequest
from recbole_e2urec.data.rows import without
from recbole_e2urec.evaluator.attacks import Relearning, RelearnOptions
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
    who_pays,
)
from recbole_e2urec.experiment.recbole_models import user_embeddings
from recbole_e2urec.experiment.run import Experiment, Rows, hash_of, request_of, unseen_of
from recbole_e2urec.methods import method_of
from recbole_e2urec.methods.unlearner import Unlearner
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.losses import log_losses
from recbole_e2urec.model.scorers import (
    Adapted,
    Mixture,
    Scorer,
    Stored,
    answering,
    on_start,
    stand_in,
)
from recbole_e2urec.report.results import ForgetAnswers
from recbole_e2urec.report.tables import NOISE, caution_of
from recbole_e2urec.trainer.adapter import Fit, TrainingServices, UnlearningTask
from recbole_e2urec.trainer.checkpoint import Stage
from recbole_e2urec.trainer.llmrec_trainer import LLMRecTrainer
from recbole_e2urec.trainer.recbole_trainer import plain_values
from recbole_e2urec.trainer.training_log import restart_peak
from recbole_e2urec.utils import distributed
from recbole_e2urec.utils.io import hash_of_tensors

# As many retain rows as forget rows are measured, but at least this many if there are so many.
# Measuring every model on all retain rows took as long as E2URec's training.
LEAST_RETAIN = 10_000
# Settings that decide on which users and histories Retrain trains.
DRAWN = ("control_users", "forget_seed", "history_length")


class MeasuredModel(NamedTuple):
    """A model of the results table: the stage that produced it, and its measurements.

    Attributes:
        stage: digest of the stage.
        answers: the model's answers on all measured rows.
        cost: what training or unlearning cost.
        ranking: metrics of ranked held-out items; empty without a ranking pass.
        relearning: the relearning curve; None if it was not measured.
        findings: values that the method determined by itself, such as its strength.
    """

    stage: str
    answers: Answers
    cost: Mapping[str, Any]
    ranking: Mapping[str, float]
    relearning: Mapping[str, Any] | None
    findings: Mapping[str, float] = MappingProxyType({})


class Measuring(Experiment):
    """An experiment with a forget request, which measures models before and after forgetting.

    Args:
        config: settings of the run.
        dataset: data set of the run.
        held_out: the part on which utility is measured: ``test``, or ``valid`` while settings are
            being chosen. Rows of results call it ``test`` in either case.
        forget_request: the request; None: the one that the settings name.
        model: a recommender that was trained on the data; None: a new one.

    Attributes:
        forget_request: the request.
        split: the training rows to retain and to forget.
        before, after: histories that prompts show before and after the request, [n, k].
        original, retrain: measurements of these two models. The code that trains them sets both.
        forget_answers: every measured model's answers on the forget rows, by the row's name and
            stage.
    """

    original: MeasuredModel
    retrain: MeasuredModel

    def __init__(
        self,
        config: Config,
        dataset: Any,
        held_out: str = "test",
        forget_request: ForgetRequest | None = None,
        model: LLMRec | None = None,
    ) -> None:
        super().__init__(config, dataset, model)
        self.ranked = config.ranked()
        self.forget_request = forget_request or request_of(config, dataset, self.parts)
        self.split = self.forget_request.split
        self.held_out = held_out
        self.groups = self._groups()
        hidden = self._hidden()
        self.before, self.after = self.history(hidden[:0]), self.history(hidden)
        relearn = config.options(RelearnOptions)
        self.relearning = Relearning(relearn, self.split.forget, self.before, config["seed"])
        self.forget_answers: dict[tuple[str, str], ForgetAnswers] = {}

    def measured(self, name: str, model: MeasuredModel) -> dict[str, Any]:
        """Return all measures of one model as a row of results."""
        labels, answers = self.dataset.rows.label, model.answers
        original, retrained = self.original.answers, self.retrain.answers
        losses = log_losses(answers.yes, labels)
        forget = self.groups.forget
        users = np.unique(self.dataset.rows.user[forget], return_inverse=True)[1].astype(np.int32)
        self.forget_answers[name, model.stage] = ForgetAnswers(
            answers.yes[forget], self.alike, users
        )
        row = {
            "model": name,
            "stage": model.stage,
            "request": self.retrain.stage,  # Original's measures depend on the request, too
            "request_id": self.forget_request.request_id,
            "request_digest": self.forget_request.digest,
            "comparison": self.comparison,
            **utility(self.config, answers, self.groups, labels),
            "who_pays": who_pays(
                self.config, answers, self.groups, self.dataset.rows, self.parts.splits.train
            ),
            "to_retrain": distance_to(answers, original, retrained, self.groups.forget),
            **attacks(losses, self.groups),
            **curves(losses, self.groups),
            "intervals": intervals(answers, original, retrained, self.groups, self.dataset.rows),
        }
        if self.caution:
            row["caution"] = self.caution
        if model.ranking:
            row["ranking"] = dict(model.ranking)
        if model.findings:
            row["found"] = dict(model.findings)
        if model.relearning:
            row["relearning"] = dict(model.relearning)
        relative = _ratio(model.cost, self.retrain.cost)
        return self.completed(row, {**model.cost, "relative_to_retrain": relative})

    @cached_property
    def caution(self) -> str | None:
        """Why shares of the gap between Original and Retrain mean nothing, see `caution_of`."""
        original, retrain = self.original.answers, self.retrain.answers
        rows, groups = self.dataset.rows, self.groups
        return caution_of(
            [
                {
                    "model": name,
                    "seed": self.config["seed"],
                    "to_retrain": {},
                    "intervals": intervals(answers, original, retrain, groups, rows),
                    **utility(self.config, answers, groups, rows.label),
                }
                for name, answers in (("Original", original), ("Retrain", retrain))
            ]
        )

    @cached_property
    def comparison(self) -> str:
        """Digest of all that determines Retrain except its seed and what the seed draws.

        16 hex digits. The request is left out, because it has its own identifier.
        """
        settings = {key: str(self.config[key]) for key in DRAWN}
        nothing = np.empty((len(self.dataset.rows), 0), dtype=np.int64)
        prompts = self.model.table.with_history(nothing).fingerprint()
        training = {**self.training_settings(), "seed": ""}
        return _named([self.common_inputs(), training, settings, prompts])

    @cached_property
    def alike(self) -> str:
        """Digest that is equal where models of two seeds can be compared row by row.

        16 hex digits. The models can be compared if they retain and forget the same rows with the
        same prompts. Adapters of different seeds cannot, because each seed may have drawn another
        backbone under its adapter.
        """
        with self.model.using_history(self.after):
            prompts = self.model.table.fingerprint()
        seed = None if self.model.adapter is None else self.config["seed"]
        return _named([hash_of(self.split.forget), hash_of(self.split.retain), prompts, seed])

    def answered(self, stage: str, scorer: Scorer, cost: Mapping[str, Any]) -> MeasuredModel:
        """Measure a model on all groups of rows, and let a copy of it relearn.

        Args:
            stage: digest of the stage that produced the model.
            scorer: answers for the model.
            cost: what the model cost.
        """
        answers = ask(self.model, scorer, self.groups, self.before, self.after)
        curve = self.relearning.curve(self.config, self.model, scorer)
        return MeasuredModel(stage, answers, cost, self._ranking(scorer), curve)

    def task(self, services: TrainingServices) -> UnlearningTask:
        """Describe the request to a method, which gets these services."""
        rows, retain = self.dataset.rows, self.split.retain
        return UnlearningTask(
            self.split.forget, retain, self.parts.splits.valid,
            unseen_of(self.parts, rows.user, retain), rows.user, rows.item, self.before, self.after,
            services, self.config["seed"], self.shows,
        )  # fmt: skip

    def _hidden(self) -> Rows:
        """Return the requested rows that the histories of users who stay must not show.

        These are rows of users who keep training rows. They include history-only rows, which belong
        to no part. They exclude requested validation and test rows, because these measure all
        models alike.
        """
        user, held_out = self.dataset.rows.user, self.parts.whole[1:]
        rows = without(self.forget_request.rows, np.concatenate(held_out))
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
        """Return metrics of ranked held-out items; empty unless ``ranking_pass`` asks for them."""
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
    """A run for one request: trains Retrain and Original once, then any number of methods.

    Args:
        config, dataset, held_out, forget_request: see :class:`Measuring`.
        validating: rows whose users validate Original; None: the retain rows. Requests that share
            an Original must pass the same rows.
    """

    def __init__(
        self,
        config: Config,
        dataset: Any,
        held_out: str = "test",
        forget_request: ForgetRequest | None = None,
        validating: Rows | None = None,
    ) -> None:
        super().__init__(config, dataset, held_out, forget_request)
        self.validating = self.split.retain if validating is None else validating
        self._is_trained = False

    def train(self) -> None:
        """Train Retrain and then Original, whose weights then stay in the model; only once."""
        if self._is_trained:
            return
        self.retrain = self._measured_reference("Retrain")
        self.model.bank.load(self.model.adapter, self.start)
        self.original = self._measured_reference("Original")
        self._is_trained = True

    def train_reference(self, name: str) -> None:
        """Train Original or Retrain, so that :meth:`train` finds it; restore the start weights."""
        self._trained_reference(name)
        self.model.bank.load(self.model.adapter, self.start)

    def run(self) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """Unlearn with the method that the settings name, and measure all three models.

        Returns:
            The rows of Original, Retrain and the method; and the number of rows by group.
        """
        self.refuse(self.config)
        self.train()
        unlearned = self.unlearned_row(self.config)
        rows = self.measured("Original", self.original), self.measured("Retrain", self.retrain)
        return [*rows, unlearned], group_sizes(self.groups)

    def refuse(self, config: Config) -> None:
        """Let the method that these settings name refuse the request, before anything is trained.

        Raises:
            InputError: the method cannot carry it out, or an option of it does not do.
        """
        method = method_of(config)
        with self.model.using_history(self.after):
            method.refuse(self.model, self.request)

    def unlearned_row(self, config: Config) -> dict[str, Any]:
        """Unlearn with the method that these settings name, and return its row of results."""
        config = config.with_settings({key: self.config[key] for key in DATA_DRIVEN})
        unlearned = self.unlearn(method_of(config))
        return {**self.measured(config.model, unlearned), "settings": config.settings()}

    def noise_row(self, digest: str) -> dict[str, Any] | None:
        """Measure another seed's Retrain as if it were an unlearned model.

        Its distance to this seed's Retrain is what noise alone causes.

        Args:
            digest: digest of the other Retrain's stage, which is in the same folder.

        Returns:
            The row of results. None if the other Retrain retained other rows, as it does under a
            random split, or is an adapter, because its seed may have drawn another backbone.
        """
        retrain, other = (
            Stage.of(self.stages, "Retrain", stage) for stage in (self.retrain.stage, digest)
        )
        alike = all(retrain.inputs[name] == other.inputs[name] for name in ("train", "prompts"))
        if self.model.adapter is not None or not alike:
            return None
        scorer = Stored(self.model.adapter, other.weights)
        return self.measured(NOISE, self.answered(digest, scorer, other.summary()))

    @property
    def services(self) -> TrainingServices:
        """The services that the run offers to a method."""
        return RunServices(self, lambda: self.original.stage)

    @property
    def request(self) -> UnlearningTask:
        """The task that a method works on."""
        return self.task(self.services)

    def unlearn(self, method: Unlearner) -> MeasuredModel:
        """Unlearn the request with this method, and measure the unlearned model."""
        restart_peak()
        with self.model.using_history(self.after):
            unlearned = method.unlearn(self.model, self.request)
        measured = self.answered(unlearned.digest, unlearned.scorer, unlearned.cost)
        return measured._replace(findings=unlearned.findings)

    def _measured_reference(self, name: str) -> MeasuredModel:
        cost, stage = self._trained_reference(name)
        return self.answered(stage.digest, Adapted(self.model.adapter), cost)

    def _trained_reference(self, name: str) -> tuple[Mapping[str, Any], Stage]:
        restart_peak()
        if name == "Retrain":
            retain = self.split.retain
            return self.trained(name, retain, retain, self.after)
        return self.trained(name, self.parts.splits.train, self.validating, self.before)


class UnlearningTrainer:
    """Makes a trained recommender forget, in the manner of RecBole's trainers.

    The request is the one that the settings name, ``forget_ratio`` or ``forget_file`` for example.
    After :meth:`fit`, the model answers and is evaluated as the one that has forgotten, and prompts
    of users who stay show no forgotten row.

    Args:
        config: the settings, with a method as the model.
        model: the recommender, which was trained on the data.
        dataset: the data.

    Raises:
        InputError: the request cannot be executed, or the method refuses it.
    """

    def __init__(self, config: Config, model: LLMRec, dataset: Any) -> None:
        config = config.with_settings({key: dataset.config[key] for key in DATA_DRIVEN})
        self.model = model
        self._method = method_of(config)
        self._run = Measuring(config, dataset, model=model)
        self._trainer = LLMRecTrainer(config, model)
        weights = hash_of_tensors(model.bank.state(model.adapter))
        self._task = self._run.task(RunServices(self._run, lambda: weights))
        with model.using_history(self._run.after):
            self._method.refuse(model, self._task)

    def fit(self) -> dict[str, Any]:
        """Unlearn.

        Returns:
            What it cost: ``seconds``, ``steps``, ``epochs`` and others; and ``found``, the values
            that the method determined by itself.
        """
        model = self.model
        model.table = model.table.with_history(self._run.after)
        unlearned = self._method.unlearn(model, self._task)
        model.stand_in = stand_in(model, unlearned.scorer)
        return {**unlearned.cost, "found": dict(unlearned.findings)}

    def evaluate(self, eval_data: Any, show_progress: bool = False) -> Any:
        """Evaluate the model as RecBole's trainers do."""
        return self._trainer.evaluate(eval_data, show_progress=show_progress)


class RunServices(TrainingServices):
    """The services that an unlearning run offers to a method.

    Args:
        run: a run whose model is Original.
        original: gives the digest of Original's stage, or of its weights.
    """

    def __init__(self, run: Measuring, original: Callable[[], str]) -> None:
        super().__init__(run.model, run.start)
        self._run, self._original = run, original

    def fit(self, name: str, rows: Rows, history: Rows) -> Fit:
        """Train another recommender in Original's place, then restore Original."""
        model = self._run.model
        adapter = model.adapter
        with model.bank.restored_after(adapter):
            model.bank.load(adapter, self._run.start)
            cost, stage = self._run.trained(name, rows, rows, history)
        return Fit(Stored(adapter, stage.weights), cost, stage.digest, stage.weights)

    def fit_adapter(self, name: str, rows: Rows, history: Rows) -> Fit:
        """Train an adapter on the backbone before tuning, then restore Original."""
        model = self._run.model
        if model.adapter is not None:  # Original was trained this way, too
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
        """Embed users by BPR, trained in the main process."""
        config, splits = self._run.config, self._run.parts.splits
        return distributed.on_main_process(lambda: user_embeddings(config, splits, rows))

    def stage(self, name: str, settings: Mapping[str, Any]) -> Stage:
        """Return the stage of a training step of a method, for this request."""
        run = self._run
        inputs = {
            "original": self._original(),
            "settings": dict(settings),
            "lora": {key: str(run.config[key]) for key in LORA},
            "forget": hash_of(run.split.forget),
            "histories": [hash_of(run.before), hash_of(run.after)],
        }
        return run.stage(name, inputs)
