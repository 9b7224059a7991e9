"""An unlearning run: Original, Retrain and a method on one split, measured alike."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec import writer
from recbole_e2urec.config import Config
from recbole_e2urec.data.forget import Asked
from recbole_e2urec.embeddings import user_embeddings
from recbole_e2urec.evaluator.measure import group_sizes
from recbole_e2urec.experiment import Rows, hash_of, unseen_of
from recbole_e2urec.keys import LORA
from recbole_e2urec.measuring import Answered, Measuring
from recbole_e2urec.methods import method_of
from recbole_e2urec.methods.base import Unlearner
from recbole_e2urec.model.scorers import Adapted, Mixture, Stored, on_start
from recbole_e2urec.tables import NOISE
from recbole_e2urec.trainer.cost import restart_peak
from recbole_e2urec.trainer.stage import Stage
from recbole_e2urec.trainer.unlearning import Fit, Request, Tools


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
        asked: Asked | None = None,
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
        made = self.unlearn(method_of(config))
        return {**self.measured(config.model, made), "settings": config.settings()}

    def noise_row(self, digest: str) -> dict[str, Any] | None:
        """Measure another seed's Retrain as if it were an unlearned model: what noise alone does.

        Args:
            digest: of its stage, in the same folder.

        Returns:
            The row; None where it retained other rows, as under a random split, or is an adapter:
            the backbone under it may have been drawn from its seed.
        """
        own, other = (Stage.of(self.stages, "Retrain", one) for one in (self.retrain.stage, digest))
        alike = all(own.inputs[name] == other.inputs[name] for name in ("train", "prompts"))
        if self.model.adapter is not None or not alike:
            return None
        scorer = Stored(self.model.adapter, other.weights)
        return self.measured(NOISE, self.answered(digest, scorer, other.summary()))

    @property
    def request(self) -> Request:
        """What a method works with."""
        untrained = Stored(self.model.adapter, lambda: self.start)
        start = (lambda: self.start) if self.model.adapter is None else None
        tools = Tools(self._part, self._fit_apart, self._fit_adapter, start, untrained, self._embed)
        rows, retain = self.dataset.rows, self.split.retain
        return Request(
            self.split.forget, retain, self.parts.splits.valid,
            unseen_of(self.parts, rows.user, retain), rows.user, rows.item, self.before, self.after,
            tools, self.config["seed"], self.shows,
        )  # fmt: skip

    def unlearn(self, method: Unlearner) -> Answered:
        """Unlearn the request, and ask the unlearned model about all groups."""
        restart_peak()
        with self.model.shown(self.after):
            unlearned = method.unlearn(self.model, self.request)
        made = self.answered(unlearned.digest, unlearned.scorer, unlearned.cost)
        return made._replace(found=unlearned.found)

    def _fit(self, name: str, train: Rows, validating: Rows, shown: Rows) -> Answered:
        """Train Original or Retrain."""
        restart_peak()
        cost, stage = self._trained(name, train, validating, shown)
        return self.answered(stage.digest, Adapted(self.model.adapter), cost)

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

    def _embed(self, train: Rows) -> NDArray[np.float32]:
        return writer.from_writer(lambda: user_embeddings(self.config, self.parts.splits, train))

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
