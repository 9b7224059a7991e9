"""What a request does to a model, measured alike whatever made the model."""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from recbole_e2urec.config import Config
from recbole_e2urec.data.forget import Asked
from recbole_e2urec.data.loaders import evaluation_loader, make_loaders
from recbole_e2urec.evaluator.measure import (
    Answers,
    Groups,
    ask,
    attacks,
    curves,
    distance_to,
    intervals,
    utility,
)
from recbole_e2urec.evaluator.membership import answer_losses
from recbole_e2urec.evaluator.relearning import Relearning, RelearnOptions
from recbole_e2urec.experiment import Experiment, Rows, hash_of, request_of
from recbole_e2urec.model.scorers import Scorer, answering
from recbole_e2urec.results import Said
from recbole_e2urec.trainer.classic import plain
from recbole_e2urec.trainer.llmrec import LLMRecTrainer

# Retain rows that are measured: as many as forget rows, but no fewer than these. To ask every model
# about all of them took as long as E2URec's training.
LEAST_RETAIN = 10_000
DRAWN = ("control_users", "forget_seed", "history_length")  # who and what Retrain trains on


class Answered(NamedTuple):
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

    original: Answered
    retrain: Answered

    def __init__(
        self, config: Config, dataset: Any, held_out: str = "test", asked: Asked | None = None
    ) -> None:
        super().__init__(config, dataset)
        self.ranked = config.ranked()
        self.asked = asked or request_of(config, dataset, self.parts)
        self.split = self.asked.split
        self.held_out = held_out
        self.groups = self._groups()
        hidden = self._hidden()
        self.before, self.after = self.history(hidden[:0]), self.history(hidden)
        relearn = config.options(RelearnOptions, "relearn_")
        self.relearning = Relearning(relearn, self.split.forget, self.before, config["seed"])
        self.said: dict[tuple[str, str], Said] = {}

    def measured(self, name: str, made: Answered) -> dict[str, Any]:
        """All measures of one model, as a row of the results."""
        labels, answers = self.dataset.rows.label, made.answers
        original, retrained = self.original.answers, self.retrain.answers
        losses = answer_losses(answers.yes, labels)
        self.said[name, made.stage] = Said(answers.yes[self.groups.forget], self.alike)
        row = {
            "model": name,
            "stage": made.stage,
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
        if made.ranking:
            row["ranking"] = dict(made.ranking)
        if made.found:
            row["found"] = dict(made.found)
        if made.relearning:
            row["relearning"] = dict(made.relearning)
        relative = _ratio(made.cost, self.retrain.cost)
        return self.completed(row, {**made.cost, "relative_to_retrain": relative})

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
        with self.model.shown(self.after):
            prompts = self.model.table.fingerprint()
        seed = None if self.model.adapter is None else self.config["seed"]
        return _named([hash_of(self.split.forget), hash_of(self.split.retain), prompts, seed])

    def answered(self, stage: str, scorer: Scorer, cost: Mapping[str, Any]) -> Answered:
        """Ask a model about all that is measured, and let a copy of it relearn."""
        answers = ask(self.model, scorer, self.groups, self.before, self.after)
        curve = self.relearning.curve(self.config, self.model, scorer)
        return Answered(stage, answers, cost, self._ranking(scorer), curve)

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
        asked = min(len(split.retain), max(len(split.forget), LEAST_RETAIN))
        generator = np.random.default_rng(self.config["forget_seed"])
        retain = np.sort(generator.choice(split.retain, asked, replace=False))
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
        with self.model.shown(self.after), answering(self.model, scorer):
            trainer.eval_collector.data_collect(train)
            return plain(trainer.evaluate(loader, show_progress=self.shows))


def _named(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _ratio(cost: Mapping[str, Any], reference: Mapping[str, Any]) -> float | None:
    return cost["seconds"] / reference["seconds"] if reference["seconds"] else None
