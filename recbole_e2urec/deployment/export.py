"""``recbole-e2urec export``: a finished run's model as a folder to answer with and to forget in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from recbole.utils import init_seed
from torch import Tensor

from recbole_e2urec.config.config import RunSettings
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.deployment.certificate import certify
from recbole_e2urec.deployment.evidence import (
    RETRAIN,
    Evidence,
    RequestDelta,
    delta_of,
    evaluation_rows_of,
    measured,
    referred_to,
)
from recbole_e2urec.deployment.forget import CHECKED, RequestOutcome, Stopwatch, entry_of, merge
from recbole_e2urec.deployment.model_folder import NO_GENERATION, WEIGHTS, ModelFolder, first_record
from recbole_e2urec.deployment.served_model import (
    FIRST,
    KEPT,
    Numbered,
    drift_between,
    sample_of,
    tensors_of,
    with_orphaned_rows,
)
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.base import Experiment, Rows
from recbole_e2urec.experiment.finished import (
    FinishedRun,
    FinishedStage,
    comparison_of,
    rows_of,
    settings_of,
)
from recbole_e2urec.methods import METHODS, method_of
from recbole_e2urec.utils import recbole_compat
from recbole_e2urec.utils.io import hash_of_tensors

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


def compared(row: Mapping[str, Any], folder: Path, given: RunSettings) -> Made:
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
    run = FinishedRun(config, load_dataset(config))
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

    def __init__(self, run: FinishedRun, row: Mapping[str, Any]) -> None:
        nothing = np.empty(0, np.int64)
        self.run, self.row = run, row
        self.forgotten = with_orphaned_rows(run, run.asked.rows)
        self.change: RequestDelta = delta_of(run, nothing, self.forgotten)
        self.watched = evaluation_rows_of(run, self.change)
        self.watch = Stopwatch()
        self.original = run.model.bank.state(run.model.adapter)
        self.sample = _sample(run, self.forgotten)

    def carried_out(self) -> Made:
        """Measure Original and the model of the row, which the run has afterwards."""
        run = self.run
        first = self._measured(self.change.before)
        then = self._retrained() if self.row["model"] == RETRAIN else self._unlearned(first)
        now = _answers(run, self.sample[0], self.change.after)
        before = {WEIGHTS: hash_of_tensors(self.original)}
        proof = RequestOutcome(
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
        weights = FinishedStage.of(run.stages, RETRAIN, run.retrain.stage).weights()
        run.model.bank.load(run.model.adapter, weights)
        return _After(weights, run.retrain.cost, {}, self._measured(self.change.after), None)

    def _unlearned(self, first: Evidence) -> _After:
        """Have the merged student in the model's place, measured against Retrain."""
        run, adapter = self.run, self.run.model.adapter
        reference = self._retrained()
        run.model.bank.load(adapter, self.original)
        made = run.unlearn(method_of(run.config))
        asked = np.concatenate([run.split.forget[:CHECKED], self.sample[0][:CHECKED]])
        with run.model.using_history(run.after):
            weights = merge(run.model, run.scorers[made.stage], asked)
        then = self._measured(self.change.after)
        answers = {"before": first.answers, "after": then.answers}
        seconds = reference.cost["seconds"]
        retrain = referred_to(reference.evidence, answers, self.watched, seconds)
        return _After(weights, made.cost, made.found, then, retrain)


def _answers(run: Experiment, rows: Rows, history: Rows) -> Tensor:  # [n] -> [n]
    with run.model.using_history(history):
        return run.model.answer(rows, None).cpu()


RECOMMENDER = "LLMRec"


@dataclass(frozen=True)
class ExportOptions:
    """Where the model goes.

    Attributes:
        output: a new or empty folder.
    """

    output: str = field(default="", metadata={"text": True})

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        if not self.output:
            raise InputError("export: where to? write --output=DIR")


def export(options: ExportOptions, model: str | None, given: RunSettings) -> str:
    """Write the model folder; nothing is trained.

    Args:
        options: where to.
        model: a method, ``Original`` or ``Retrain`` of the newest comparison that agrees with the
            settings, or ``LLMRec`` for a recommender trained alone (else Original); None: the
            method of the comparison.
        given: settings.

    Returns:
        What was written, for a person.

    Raises:
        InputError: there is no such run, a model of it is not kept or is no single model, or the
            folder has something in it.
    """
    recbole_compat.apply()
    folder = ModelFolder(options.output)
    refuse_used(folder, "output")
    return _written(folder, _made(model, given), "output")


def export_row(
    folder: ModelFolder, row: Mapping[str, Any], source: Path, given: RunSettings
) -> str:
    """The same for the model of a row of results.

    Args:
        folder: where to.
        row: of a comparison.
        source: its checkpoint_dir.
        given: as the comparison was given it.

    Raises:
        InputError: as :func:`export`, or the merged model answers otherwise than the student did.
    """
    recbole_compat.apply()
    refuse_used(folder, "finalize")
    return _written(folder, compared(row, source, given), "finalize")


def _written(folder: ModelFolder, made: Made, key: str) -> str:
    with folder.locked():
        refuse_used(folder, key)
        numbers = np.full(len(made.run.dataset.rows), KEPT)
        numbers[made.forgotten] = FIRST
        rows, yes = made.sample
        tensors = {
            "weights": made.weights,
            "forgotten": tensors_of(numbers),
            "sample": {"rows": torch.from_numpy(rows), "yes": yes},
        }
        record = first_record(made.row, made.run)
        told = [
            f"{made.row['model']} of {made.row['dataset']} is in {folder.path}; "
            f"{len(made.forgotten):,} rows of the data are forgotten in it"
        ]
        if made.entry is not None:
            record["requests"].append(made.entry)
        folder.write(record, tensors)
        if made.entry is not None:
            named = Numbered(made.run.dataset, numbers)
            told.append(f"certificate: {certify(named, folder, FIRST)}")
    return "\n".join(told)


def refuse_used(folder: ModelFolder, key: str) -> None:
    """Refuse a folder with something in it; ``key`` named it."""
    if not folder.is_free:
        raise InputError(f"{key}: {folder.path} is there and not empty; name a new folder")


def _made(model: str | None, given: RunSettings) -> Made:
    if model == RECOMMENDER:
        rows, folder = rows_of(given)
        alone = [row for row in rows if row["model"] == RECOMMENDER and "request" not in row]
        if alone:
            return _recommender(alone[-1], folder, given)
        model = ORIGINAL
    every, folder = comparison_of(model, given)
    named = {row["model"]: row for row in every}
    methods = [name for name in named if name in METHODS and name != RETRAIN]
    if model is None and len(methods) != 1:
        raise InputError(f"export: which model? write --model=NAME; there are {', '.join(named)}")
    return compared(named[model or methods[0]], folder, given)


def _recommender(row: Mapping[str, Any], folder: Path, given: RunSettings) -> Made:
    """A recommender that was trained alone."""
    config = settings_of(row, folder, given)
    init_seed(config["seed"], config["reproducibility"])
    run = Experiment(config, load_dataset(config))
    nothing = np.empty(0, np.int64)
    with run.model.using_history(run.history(nothing)):
        wanted = run.trainer(RECOMMENDER, run.parts.splits.train, run.parts.splits.valid).stage
    stage = FinishedStage(run.stages, RECOMMENDER, wanted.inputs)
    with stage.open():
        weights = stage.weights()
    run.model.bank.load(run.model.adapter, weights)
    return as_original(run, row)
