"""A model of a finished comparison, and what its request did: how a folder's ledger begins."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from recbole.utils import init_seed
from torch import Tensor

from recbole_e2urec.data.loading import load_dataset
from recbole_e2urec.deployment.change import Change, change_of, watched_of
from recbole_e2urec.deployment.deployed import drift_between
from recbole_e2urec.deployment.evidence import Evidence, measured
from recbole_e2urec.deployment.folder import NO_GENERATION, WEIGHTS
from recbole_e2urec.deployment.merged import CHECKED, merge
from recbole_e2urec.deployment.proving import Proof, Watch, entry_of
from recbole_e2urec.deployment.reference import RETRAIN, referred_to
from recbole_e2urec.deployment.remains import sample_of, with_gone
from recbole_e2urec.experiment import Experiment, Rows
from recbole_e2urec.jobs import Given
from recbole_e2urec.kept import Kept, KeptStage, settings_of
from recbole_e2urec.methods import method_of
from recbole_e2urec.storage import hash_of_tensors

ORIGINAL = "Original"


class Made(NamedTuple):
    """A model of a finished run.

    Attributes:
        run: on its data; its model is this one.
        row: of the results.
        forgotten: ids of rows that the model forgot, sorted.
        sample: rows of nobody who was forgotten, and what Original answered, [n] each.
        weights: of the model.
        entry: of the ledger, for the request; None: nothing was forgotten.
    """

    run: Experiment
    row: Mapping[str, Any]
    forgotten: Rows
    sample: tuple[Rows, Tensor]
    weights: Mapping[str, Tensor]
    entry: dict[str, Any] | None


def as_original(run: Experiment, row: Mapping[str, Any]) -> Made:
    """The model before any request, which the run has."""
    nothing = np.empty(0, np.int64)
    sample, weights = _sample(run, nothing), run.model.bank.state(run.model.adapter)
    return Made(run, row, nothing, sample, weights, None)


def _sample(run: Experiment, forgotten: Rows) -> tuple[Rows, Tensor]:
    """The rows on which drift is measured, and P(yes) by the model that the run has, [n] each."""
    rows = sample_of(run, forgotten)
    return rows, _answers(run, rows, run.history(forgotten))


def compared(row: Mapping[str, Any], folder: Path, given: Given) -> Made:
    """A model of a comparison: Original before the request, or one after it.

    Args:
        row: of the results.
        folder: the comparison's checkpoint_dir.
        given: as the comparison was given it.

    Raises:
        InputError: a model is not kept or is no single one, or, merged, answers otherwise than the
            student did.
    """
    config = settings_of(row, folder, given)
    init_seed(config["seed"], config["reproducibility"])
    run = Kept(config, load_dataset(config))
    run.train()
    if row["model"] == ORIGINAL:
        return as_original(run, row)
    return _Request(run, row).carried_out()


class _After(NamedTuple):
    """The model after the request."""

    weights: Mapping[str, Tensor]
    cost: Mapping[str, Any]
    found: Mapping[str, float]
    evidence: Evidence
    retrain: dict[str, Any] | None


class _Request:
    """A comparison's request, measured on the models of the comparison as on one in use."""

    def __init__(self, run: Kept, row: Mapping[str, Any]) -> None:
        nothing = np.empty(0, np.int64)
        self.run, self.row = run, row
        self.forgotten = with_gone(run, run.asked.rows)
        self.change: Change = change_of(run, nothing, self.forgotten)
        self.watched = watched_of(run, self.change)
        self.watch = Watch()
        self.original = run.model.bank.state(run.model.adapter)
        self.sample = _sample(run, self.forgotten)

    def carried_out(self) -> Made:
        """Measure Original and the model of the row, which the run has afterwards."""
        run = self.run
        first = self._measured(self.change.before)
        then = self._retrained() if self.row["model"] == RETRAIN else self._unlearned(first)
        now = _answers(run, self.sample[0], self.change.after)
        before = {WEIGHTS: hash_of_tensors(self.original)}
        proof = Proof(
            change=self.change,
            first=first,
            then=then.evidence,
            before={"generation": NO_GENERATION, "files": before},
            drift=drift_between(self.sample[1], now) if len(now) else None,
            drift_rows=len(now),
            retrain=then.retrain,
            cost=then.cost,
            found=then.found,
            unlearning_seconds=then.cost["seconds"],
            measuring_seconds=self.watch.seconds,
        )
        entry = entry_of(run, run.asked.request_id, run.asked.digest, proof)
        return Made(run, self.row, self.forgotten, self.sample, then.weights, entry)

    def _measured(self, history: Rows) -> Evidence:
        with self.watch.running():
            return measured(self.run, self.change, self.watched, history)

    def _retrained(self) -> _After:
        """Have Retrain in the model's place."""
        run = self.run
        weights = KeptStage.of(run.stages, RETRAIN, run.retrain.stage).weights()
        run.model.bank.load(run.model.adapter, weights)
        return _After(weights, run.retrain.cost, {}, self._measured(self.change.after), None)

    def _unlearned(self, first: Evidence) -> _After:
        """Have the merged student in the model's place, measured against Retrain."""
        run, adapter = self.run, self.run.model.adapter
        reference = self._retrained()
        run.model.bank.load(adapter, self.original)
        made = run.unlearn(method_of(run.config))
        asked = np.concatenate([run.split.forget[:CHECKED], self.sample[0][:CHECKED]])
        with run.model.shown(run.after):
            weights = merge(run.model, run.scorers[made.stage], asked)
        then = self._measured(self.change.after)
        answers = {"before": first.answers, "after": then.answers}
        seconds = reference.cost["seconds"]
        retrain = referred_to(reference.evidence, answers, self.watched, seconds)
        return _After(weights, made.cost, made.found, then, retrain)


def _answers(run: Experiment, rows: Rows, history: Rows) -> Tensor:  # [n] -> [n]
    with run.model.shown(history):
        return run.model.answer(rows, None).cpu()
