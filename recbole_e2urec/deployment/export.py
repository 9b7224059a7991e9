"""``recbole-e2urec export``: write a model of a finished run into a model folder.

The folder then answers ``recommend`` and carries out requests. Nothing is trained. The model of a
comparison that forgot is measured again and gets the certificate of the comparison's request.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from recbole.utils import init_seed
from torch import Tensor

from recbole_e2urec.config.config import RunSettings
from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.deployment.certificate import certify
from recbole_e2urec.deployment.erase import register_use
from recbole_e2urec.deployment.evidence import (
    RETRAIN,
    Evidence,
    RequestDelta,
    attack,
    delta_of,
    distances_to_retrain,
    evaluation_rows_of,
    measure,
)
from recbole_e2urec.deployment.forget import (
    CHECKED_ROWS,
    Measured,
    Stopwatch,
    Unlearned,
    add_measures,
    ledger_entry,
    merge,
)
from recbole_e2urec.deployment.model_folder import NO_GENERATION, WEIGHTS, ModelFolder, first_record
from recbole_e2urec.deployment.served_model import (
    FIRST_REQUEST,
    NOT_FORGOTTEN,
    RequestNumbers,
    drift_between,
    sample_of,
    tensors_of,
    with_orphaned_rows,
)
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.finished import (
    FinishedRun,
    FinishedStage,
    comparison_of,
    rows_of,
    settings_of,
)
from recbole_e2urec.experiment.run import Experiment, Rows
from recbole_e2urec.methods import METHODS, method_of
from recbole_e2urec.utils import recbole_compat
from recbole_e2urec.utils.io import hash_of_tensors, outside_run_folder

ORIGINAL = "Original"
RECOMMENDER = "LLMRec"


@option_class()
class ExportOptions:
    """Where the model goes."""

    output: str = option("The folder: a new one, or an empty one.", default="", text=True)

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        if not self.output:
            raise InputError("export: where to? write --output=DIR")


class FinishedModel(NamedTuple):
    """A model of a finished run.

    Attributes:
        run: the run, on its data; the model that it has is this one.
        row: row of the results.
        forgotten: sorted ids of rows that the model forgot.
        sample: rows of users who were not forgotten, and what Original answered, [n] each.
        weights: weights of the model.
        entry: the ledger's entry of the request; None: nothing was forgotten.
    """

    run: Experiment
    row: Mapping[str, Any]
    forgotten: Rows
    sample: tuple[Rows, Tensor]
    weights: Mapping[str, Tensor]
    entry: dict[str, Any] | None


def export(options: ExportOptions, model: str | None, settings: RunSettings) -> str:
    """Write a model folder; nothing is trained.

    Args:
        options: where to.
        model: a method, ``Original`` or ``Retrain`` of the newest comparison that agrees with the
            settings. ``LLMRec`` is a recommender that was trained alone, or else Original. None is
            the method of the comparison.
        settings: settings that select the run.

    Returns:
        What was written, for people.

    Raises:
        InputError: there is no such run, a model of it is not kept or is not a single model, or the
            folder is not empty.
    """
    recbole_compat.apply()
    folder = ModelFolder(options.output)
    refuse_used(folder, "output")
    return _write(folder, _load(model, settings), "output")


def export_row(
    folder: ModelFolder, row: Mapping[str, Any], source: Path, settings: RunSettings
) -> str:
    """Write a model folder for the model of a row of results.

    Args:
        folder: where to.
        row: row of a comparison's results.
        source: the comparison's checkpoint_dir.
        settings: the settings that the comparison was given.

    Returns:
        What was written, for people.

    Raises:
        InputError: as for :func:`export`, or the merged model does not answer as the student did.
    """
    recbole_compat.apply()
    refuse_used(folder, "finalize")
    return _write(folder, _load_from_comparison(row, source, settings), "finalize")


def refuse_used(folder: ModelFolder, key: str) -> None:
    """Refuse a folder that is not empty or would be purged; ``key`` is the setting of its name."""
    if outside_run_folder(folder.path.resolve()) != folder.path.resolve():
        raise InputError(
            f"{key}: a purge would remove {folder.path}, as it lies in the folder of runs; name "
            "another folder"
        )
    if not folder.is_free:
        raise InputError(f"{key}: {folder.path} is there and not empty; name a new folder")


def _write(folder: ModelFolder, model: FinishedModel, key: str) -> str:
    with folder.locked():
        refuse_used(folder, key)
        numbers = np.full(len(model.run.dataset.rows), NOT_FORGOTTEN)
        numbers[model.forgotten] = FIRST_REQUEST
        rows, yes = model.sample
        tensors = {
            "weights": model.weights,
            "forgotten": tensors_of(numbers),
            "sample": {"rows": torch.from_numpy(rows), "yes": yes},
        }
        record = first_record(model.row, model.run)
        lines = [
            f"{model.row['model']} of {model.row['dataset']} is in {folder.path}; "
            f"{len(model.forgotten):,} rows of the data are forgotten in it"
        ]
        if model.entry is not None:
            record["requests"].append(model.entry)
        folder.write(record, tensors)
        register_use(model.run.config, folder)
        if model.entry is not None:
            request_numbers = RequestNumbers(model.run.dataset, numbers)
            lines.append(f"certificate: {certify(request_numbers, folder, FIRST_REQUEST)}")
    return "\n".join(lines)


def _load(model: str | None, settings: RunSettings) -> FinishedModel:
    rows, folder = rows_of(settings)
    alone = [row for row in rows if row["model"] == RECOMMENDER and "request" not in row]
    newest = next((row for row in reversed(rows) if "request" in row or row in alone), None)
    if alone and (model == RECOMMENDER or (model is None and newest is alone[-1])):
        return _load_recommender(alone[-1], folder, settings)
    if model == RECOMMENDER:
        model = ORIGINAL
    rows, folder = comparison_of(model, settings)
    by_model = {row["model"]: row for row in rows}
    methods = [name for name in by_model if name in METHODS and name != RETRAIN]
    if model is None and len(methods) != 1:
        names = ", ".join(by_model)
        raise InputError(f"export: which model? write --model=NAME; there are {names}")
    return _load_from_comparison(by_model[model or methods[0]], folder, settings)


def _load_recommender(row: Mapping[str, Any], folder: Path, settings: RunSettings) -> FinishedModel:
    """Load a recommender that was trained alone."""
    config = settings_of(row, folder, settings)
    init_seed(config["seed"], config["reproducibility"])
    run = Experiment(config, load_dataset(config, examine=False))
    nothing = np.empty(0, np.int64)
    with run.model.using_history(run.history(nothing)):
        wanted = run.trainer(RECOMMENDER, run.parts.splits.train, run.parts.splits.valid).stage
    stage = FinishedStage(run.stages, RECOMMENDER, wanted.inputs)
    with stage.open():
        weights = stage.weights()
    run.model.bank.load(run.model.adapter, weights)
    return _as_original(run, row)


def _load_from_comparison(
    row: Mapping[str, Any], folder: Path, settings: RunSettings
) -> FinishedModel:
    """Load a model of a comparison: Original before the request, or a model after it.

    Args:
        row: row of the results.
        folder: the comparison's checkpoint_dir.
        settings: the settings that the comparison was given.

    Raises:
        InputError: a model is not kept, is not a single model, or, once merged, does not answer as
            the student did.
    """
    config = settings_of(row, folder, settings)
    init_seed(config["seed"], config["reproducibility"])
    run = FinishedRun(config, load_dataset(config, examine=False))
    run.train()
    if row["model"] == ORIGINAL:
        return _as_original(run, row)
    return _ComparisonRequest(run, row).carry_out()


def _as_original(run: Experiment, row: Mapping[str, Any]) -> FinishedModel:
    """Return the model that the run has, before any request."""
    nothing = np.empty(0, np.int64)
    sample, weights = _sample(run, nothing), run.model.bank.state(run.model.adapter)
    return FinishedModel(run, row, nothing, sample, weights, None)


def _sample(run: Experiment, forgotten: Rows) -> tuple[Rows, Tensor]:
    """Return the rows on which drift is measured, and P(yes) of the run's model, [n] each."""
    rows = sample_of(run, forgotten)
    return rows, _answers(run, rows, run.history(forgotten))


def _answers(run: Experiment, rows: Rows, history: Rows) -> Tensor:  # [n] -> [n]
    with run.model.using_history(history):
        return run.model.answer(rows, None).cpu()


class _ModelAfter(NamedTuple):
    """The model after the request, and what is known about it."""

    weights: Mapping[str, Tensor]
    cost: Mapping[str, Any]
    findings: Mapping[str, float]
    evidence: Evidence
    retrain: dict[str, Any] | None


class _ComparisonRequest:
    """The request of a comparison, measured as a request on a served model is.

    Args:
        run: the finished comparison.
        row: row of the results of a model after the request.
    """

    def __init__(self, run: FinishedRun, row: Mapping[str, Any]) -> None:
        nothing = np.empty(0, np.int64)
        self.run, self.row = run, row
        self.forgotten = with_orphaned_rows(run, run.forget_request.rows)
        self.delta: RequestDelta = delta_of(run, nothing, self.forgotten)
        self.rows = evaluation_rows_of(run, self.delta)
        self.stopwatch = Stopwatch()
        self.original = run.model.bank.state(run.model.adapter)
        self.sample = _sample(run, self.forgotten)

    def carry_out(self) -> FinishedModel:
        """Measure Original and the model of the row, which the run then has."""
        run = self.run
        before = self._measure(self.delta.before)
        after = self._retrain() if self.row["model"] == RETRAIN else self._unlearn(before)
        answers = _answers(run, self.sample[0], self.delta.after)
        files = {WEIGHTS: hash_of_tensors(self.original)}
        unlearned = Unlearned(
            delta=self.delta,
            state_before={"generation": NO_GENERATION, "files": files},
            cost=after.cost,
            findings=after.findings,
            seconds=after.cost["seconds"],
        )
        measured = Measured(
            before=before,
            after=after.evidence,
            drift=drift_between(self.sample[1], answers) if len(answers) else None,
            drift_rows=len(answers),
            attacks=attack(run, self.delta, self.rows, before.answers, after.evidence.answers),
            retrain=after.retrain,
            seconds=self.stopwatch.seconds,
        )
        request = run.forget_request
        entry = ledger_entry(run, request.request_id, request.digest, unlearned)
        add_measures(entry, measured)
        return FinishedModel(run, self.row, self.forgotten, self.sample, after.weights, entry)

    def _measure(self, history: Rows) -> Evidence:
        with self.stopwatch.running():
            return measure(self.run, self.delta, self.rows, history)

    def _retrain(self) -> _ModelAfter:
        """Give the model the weights of Retrain, and measure it."""
        run = self.run
        weights = FinishedStage.of(run.stages, RETRAIN, run.retrain.stage).weights()
        run.model.bank.load(run.model.adapter, weights)
        return _ModelAfter(weights, run.retrain.cost, {}, self._measure(self.delta.after), None)

    def _unlearn(self, before: Evidence) -> _ModelAfter:
        """Give the model the weights of the merged student, and measure it against Retrain."""
        run, adapter = self.run, self.run.model.adapter
        retrain = self._retrain()
        run.model.bank.load(adapter, self.original)
        student = run.unlearn(method_of(run.config))
        checked = np.concatenate([run.split.forget[:CHECKED_ROWS], self.sample[0][:CHECKED_ROWS]])
        with run.model.using_history(run.after):
            weights = merge(run.model, run.scorers[student.stage], checked)
        after = self._measure(self.delta.after)
        answers = {"before": before.answers, "after": after.answers}
        seconds = retrain.cost["seconds"]
        distances = distances_to_retrain(
            run, self.delta, self.rows, retrain.evidence, answers, seconds
        )
        return _ModelAfter(weights, student.cost, student.findings, after, distances)
