"""An unlearning run: Original, Retrain and a method on one split, measured alike."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec.config import Config
from recbole_e2urec.data.forget import ForgetOptions, choose_forget
from recbole_e2urec.data.loaders import evaluation_loader, make_loaders
from recbole_e2urec.embeddings import user_embeddings
from recbole_e2urec.evaluator.measure import (
    Answers,
    Groups,
    ask,
    attacks,
    distance_to,
    group_sizes,
    intervals,
    utility,
)
from recbole_e2urec.experiment import LORA, Experiment, Rows, hash_of
from recbole_e2urec.methods import method_of
from recbole_e2urec.methods.base import Unlearner
from recbole_e2urec.model.scorers import Adapted, Mixture, Scorer, Stored, answering, on_start
from recbole_e2urec.trainer.classic import plain
from recbole_e2urec.trainer.stage import Stage
from recbole_e2urec.trainer.unlearning import Fit, Request, Tools

# Retain rows that are measured: as many as forget rows, but no fewer than these. To ask every model
# about all of them took as long as E2URec's training.
LEAST_RETAIN = 10_000


class Answered(NamedTuple):
    """A model of the table: the stage that made it, its answers, cost and ranking metrics."""

    stage: str
    answers: Answers
    cost: Mapping[str, Any]
    ranking: Mapping[str, float]


class Forgetting(Experiment):
    """One request: Retrain and Original are trained once, then any number of methods can follow.

    Args:
        config: of the run.
        dataset: its rows.
        held_out: the part on which usefulness is measured: ``test``, or ``valid`` where settings
            are being chosen. Rows of results call it ``test`` in either case.
    """

    def __init__(self, config: Config, dataset: Any, held_out: str = "test") -> None:
        super().__init__(config, dataset)
        options = config.options(ForgetOptions, "forget_")
        self.split = choose_forget(options, self.parts.splits.train, dataset.rows, dataset.ids)
        self.held_out = held_out
        self.groups = self._groups()
        hidden = self._hidden()
        self.before, self.after = self.history(hidden[:0]), self.history(hidden)

    def train(self) -> None:
        """Train Retrain and then Original, which the backbone holds from there on."""
        self.retrain = self._fit("Retrain", self.split.retain, self.after)
        self.model.bank.load(self.model.adapter, self.start)
        self.original = self._fit("Original", self.parts.splits.train, self.before)

    def run(self) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """Unlearn with the method that the settings name, and measure all three models."""
        method_of(self.config)  # refuses bad settings before anything is trained
        self.train()
        unlearned = self.unlearned_row(self.config)
        rows = self.measured("Original", self.original), self.measured("Retrain", self.retrain)
        return [*rows, unlearned], group_sizes(self.groups)

    def unlearned_row(self, config: Config) -> dict[str, Any]:
        """Unlearn with the method that these settings name, and measure it."""
        made = self.unlearn(method_of(config))
        return {**self.measured(config.model, made), "settings": config.settings()}

    @property
    def request(self) -> Request:
        """What a method works with."""
        untrained = Stored(self.model.adapter, lambda: self.start)
        start = (lambda: self.start) if self.model.adapter is None else None
        tools = Tools(self._part, self._fit_apart, self._fit_adapter, start, untrained, self._embed)
        return Request(
            self.split.forget, self.split.retain, self.parts.splits.valid,
            self.dataset.rows.user, self.before, self.after,
            tools, self.config["seed"], self.shows,
        )  # fmt: skip

    def unlearn(self, method: Unlearner) -> Answered:
        """Unlearn the request, and ask the unlearned model about all groups."""
        with self.model.shown(self.after):
            unlearned = method.unlearn(self.model, self.request)
        return self._answered(unlearned.digest, unlearned.scorer, unlearned.cost)

    def measured(self, name: str, made: Answered) -> dict[str, Any]:
        """All measures of one model, as a row of the results."""
        labels, answers = self.dataset.rows.label, made.answers
        original, retrained = self.original.answers, self.retrain.answers
        row = {
            "model": name,
            "stage": made.stage,
            "request": self.retrain.stage,  # Original's measures differ between requests
            **utility(self.config, answers, self.groups, labels),
            "to_retrain": distance_to(answers, original, retrained, self.groups.forget),
            **attacks(answers, self.groups, labels),
            "intervals": intervals(answers, original, retrained, self.groups, self.dataset.rows),
        }
        if made.ranking:
            row["ranking"] = dict(made.ranking)
        relative = _ratio(made.cost, self.retrain.cost)
        return self.completed(row, {**made.cost, "relative_to_retrain": relative})

    def _fit(self, name: str, train: Rows, shown: Rows) -> Answered:
        """Train Original or Retrain; only retained users validate either."""
        cost, stage = self._trained(name, train, self.split.retain, shown)
        return self._answered(stage.digest, Adapted(self.model.adapter), cost)

    def _fit_apart(self, name: str, train: Rows, shown: Rows) -> Fit:
        """Train another recommender in Original's place, which comes back."""
        adapter = self.model.adapter
        with self.model.bank.kept(adapter):
            self.model.bank.load(adapter, self.start)
            cost, stage = self._trained(name, train, train, shown)
        return Fit(Stored(adapter, stage.weights), cost, stage.digest, stage.weights)

    def _fit_adapter(self, name: str, train: Rows, shown: Rows) -> Fit:
        """Train an adapter on the backbone as it was before tuning, which comes back."""
        model = self.model
        if model.adapter is not None:  # that is how Original was trained, too
            return self._fit_apart(name, train, shown)
        with on_start(model, lambda: self.start):
            model.bank.add(name, model.lora, self.config["seed"])
            model.adapter = name
            try:
                cost, stage = self._trained(name, train, train, shown)
            finally:
                model.adapter = None
                model.bank.remove(name)
        scorer = Mixture([stage.weights], lambda: self.start, None)
        return Fit(scorer, cost, stage.digest, stage.weights)

    def _trained(
        self, name: str, train: Rows, validating: Rows, shown: Rows
    ) -> tuple[dict[str, Any], Stage]:
        """Train from the start weights, which the model has; ``validating`` names users by rows."""
        user, valid = self.dataset.rows.user, self.parts.splits.valid
        valid = valid[np.isin(user[valid], user[validating])]
        loaders = make_loaders(self.config, self.dataset, self.parts.splits, train)
        own = evaluation_loader(self.config, self.dataset, self.parts.splits, "valid", valid)
        with self.model.shown(shown):
            trainer = self.trainer(name, train, valid)
            return trainer.run(loaders.train, own), trainer.stage

    def _embed(self, train: Rows) -> NDArray[np.float32]:
        return user_embeddings(self.config, self.parts.splits, train)

    def _answered(self, stage: str, scorer: Scorer, cost: Mapping[str, Any]) -> Answered:
        answers = ask(self.model, scorer, self.groups, self.before, self.after)
        return Answered(stage, answers, cost, self._ranking(scorer))

    def _part(self, name: str, settings: Mapping[str, Any]) -> Stage:
        """The stage of a part of a method."""
        inputs = {
            "original": self.original.stage,
            "settings": dict(settings),
            "lora": {key: str(self.config[key]) for key in LORA},
            "forget": hash_of(self.split.forget),
            "histories": [hash_of(self.before), hash_of(self.after)],
        }
        return self.stage(name, inputs)

    def _hidden(self) -> Rows:
        """Forgotten rows of users who keep other training rows: no other prompt shows them."""
        user, split = self.dataset.rows.user, self.split
        return split.forget[np.isin(user[split.forget], user[split.retain])]

    def _groups(self) -> Groups:
        user, split = self.dataset.rows.user, self.split
        rows = getattr(self.parts.splits, self.held_out)
        forgotten = np.isin(user[rows], user[split.forget])
        asked = min(len(split.retain), max(len(split.forget), LEAST_RETAIN))
        generator = np.random.default_rng(self.config["forget_seed"])
        retain = np.sort(generator.choice(split.retain, asked, replace=False))
        control = self.parts.control
        return Groups(split.forget, retain, rows, rows[forgotten], rows[~forgotten], control)

    def _ranking(self, scorer: Scorer) -> dict[str, float]:
        """Metrics of ranked held-out items; empty when the run is evaluated by labels."""
        if self.config.plan.kind == "labeled":
            return {}
        loader = evaluation_loader(self.config, self.dataset, self.parts.splits, self.held_out)
        train = make_loaders(self.config, self.dataset, self.parts.splits).train
        trainer = self.trainer("ranking", self.parts.splits.train, self.parts.splits.valid)
        with self.model.shown(self.after), answering(self.model, scorer):
            trainer.eval_collector.data_collect(train)
            return plain(trainer.evaluate(loader, show_progress=self.shows))


def _ratio(cost: Mapping[str, Any], reference: Mapping[str, Any]) -> float | None:
    return cost["seconds"] / reference["seconds"] if reference["seconds"] else None
