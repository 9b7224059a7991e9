"""``recbole-e2urec export``: write a model of a finished run into a folder.

A model folder then answers ``recommend`` and carries out requests. Nothing is trained. The model of
a comparison that forgot is measured again and gets the certificate of the comparison's request.
Other formats are for plain transformers and peft, see :mod:`hub`; they also take the model of a
model folder.

``--finalize=DIR`` and ``--purge`` do the same at the end of a run, and remove the rest. Unsuitable
runs and folders are refused before anything is trained. The folder is written after the comparison
has been measured. If the process is killed, the same command continues: if the folder already holds
the outcome, nothing is trained, and only the steps that are left are carried out.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from recbole.utils import init_seed
from torch import Tensor

from recbole_e2urec.config.config import Config, RunSettings
from recbole_e2urec.config.keys import POST_RUN_KEYS
from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.data.request.selection import ForgetOptions
from recbole_e2urec.deployment.certificate import certify, certify_if_missing
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
from recbole_e2urec.deployment.hub import (
    NO_LICENSE,
    ModelFacts,
    facts_of,
    publish,
    refuse_no_adapter,
)
from recbole_e2urec.deployment.model_folder import (
    NO_GENERATION,
    WEIGHTS,
    ModelFolder,
    first_record,
    model_settings,
)
from recbole_e2urec.deployment.purge import certify_purge, purge
from recbole_e2urec.deployment.served_model import (
    FIRST_REQUEST,
    NOT_FORGOTTEN,
    RequestNumbers,
    drift_between,
    fully_forgotten_users,
    open_folder,
    sample_of,
    tensors_of,
    with_orphaned_rows,
)
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.finished import (
    FILTER,
    FinishedRun,
    FinishedStage,
    comparison_of,
    rows_of,
    settings_of,
)
from recbole_e2urec.experiment.launch import ONE_RUN, layers_of
from recbole_e2urec.experiment.preview import preview
from recbole_e2urec.experiment.run import Experiment, Rows
from recbole_e2urec.methods import METHODS, method_of
from recbole_e2urec.utils import distributed, recbole_compat
from recbole_e2urec.utils.io import hash_of_tensors, outside_run_folder

ORIGINAL = "Original"
RECOMMENDER = "LLMRec"
_NO_POST_RUN: dict[str, Any] = {"finalize": None, "purge": False}


@option_class()
class ExportOptions:
    """Where the model goes, and in which format."""

    output: str = option("The folder: a new one, or an empty one.", default="", text=True)
    format: Literal["folder", "merged", "peft"] = option(
        "A model folder, to answer with and to forget in (folder); a model for plain transformers "
        "(merged); an adapter for plain peft, of a model under tuning: lora (peft).",
        default="folder",
    )
    license: str = option(
        "The licence in the model card of merged and peft, as hubs call it: mit, cc-by-4.0, other.",
        default=NO_LICENSE,
        text=True,
    )
    checkpoint: str | None = option(
        "Take the model of this model folder instead, for merged and peft.", default=None, text=True
    )

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        if not self.output:
            raise InputError("export: where to? write --output=DIR")
        if not self.license.strip():
            raise InputError("license is empty; leave it out, or name one, as in --license=mit")
        if self.format == "folder" and self.checkpoint is not None:
            raise InputError(
                f"checkpoint: {self.checkpoint} is a model folder already; write --format=merged "
                "or --format=peft, or copy it"
            )
        if self.format == "folder" and self.license != NO_LICENSE:
            raise InputError("license: a model folder has no model card; write --format=merged")


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
    """Write a model into a folder; nothing is trained.

    Args:
        options: where to, and in which format.
        model: a method, ``Original`` or ``Retrain`` of the newest comparison that agrees with the
            settings. ``LLMRec`` is a recommender that was trained alone, or else Original. None is
            the method of the comparison.
        settings: settings that select the run.

    Returns:
        What was written, for people.

    Raises:
        InputError: there is no such run, a model of it is not kept or is not a single model, the
            folder is not empty, or the model is no adapter.
    """
    recbole_compat.apply()
    folder = ModelFolder(options.output)
    refuse_used(folder, "output")
    if options.checkpoint is not None:
        return _export_served(options, model, settings)
    row, source = _find(model, settings)
    if options.format == "peft":
        refuse_no_adapter(row["settings"]["tuning"])
    finished = _load(row, source, settings)
    if options.format == "folder":
        return _write(folder, finished, "output")
    return publish(finished.run, _facts(finished), folder.path, options.format, options.license)


def _export_served(options: ExportOptions, model: str | None, settings: RunSettings) -> str:
    """Write the model of a model folder for plain transformers or peft."""
    for key, value in (("model", model), ("dataset", settings.dataset)):
        if value is not None:
            raise InputError(f"{key}: {options.checkpoint} has its own; drop --{key}")
    run = open_folder(
        ModelFolder(str(options.checkpoint)), settings.overrides, None, settings.config_files
    )
    assert options.format != "folder"
    path = ModelFolder(options.output).path
    return publish(run, facts_of(run), path, options.format, options.license)


def _facts(model: FinishedModel) -> ModelFacts:
    """Return what the card of a model tells."""
    requests = [] if model.entry is None else [model.entry]
    gone = fully_forgotten_users(model.run, model.forgotten)
    caution = model.row.get("caution")
    return ModelFacts(
        model.row["model"], model.row["test"], requests, model.forgotten, gone, caution
    )


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


def _find(model: str | None, settings: RunSettings) -> tuple[Mapping[str, Any], Path]:
    """Return the row of the results that has the model, and the checkpoint_dir."""
    rows, folder = rows_of(settings)
    alone = [row for row in rows if row["model"] == RECOMMENDER and "request" not in row]
    newest = next((row for row in reversed(rows) if "request" in row or row in alone), None)
    if alone and (model == RECOMMENDER or (model is None and newest is alone[-1])):
        return alone[-1], folder
    if model == RECOMMENDER:
        model = ORIGINAL
    rows, folder = comparison_of(model, settings)
    by_model = {row["model"]: row for row in rows}
    methods = [name for name in by_model if name in METHODS and name != RETRAIN]
    if model is None and len(methods) != 1:
        names = ", ".join(by_model)
        raise InputError(f"export: which model? write --model=NAME; there are {names}")
    return by_model[model or methods[0]], folder


def _load(row: Mapping[str, Any], folder: Path, settings: RunSettings) -> FinishedModel:
    load = _load_from_comparison if "request" in row else _load_recommender
    return load(row, folder, settings)


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


@option_class()
class FinalizeOptions:
    """What follows a run."""

    finalize: str | int | None = option(
        "A new folder for the model that forgot, merged into one, to use by recommend and forget; "
        "~ = none is made."
    )
    purge: bool = option(
        "After finalize, remove all else that the run left and that holds the data. --purge alone "
        "does."
    )

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        if self.finalize == "":
            raise InputError("finalize: where to? write --finalize=DIR")
        if self.purge and self.finalize is None:
            raise InputError(
                "purge: a run would lose its outcome; write --finalize=DIR as well, or purge it "
                "later by recbole-e2urec purge --checkpoint_dir=saved"
            )


class PostRun:
    """The steps that follow a run: writing the model folder, and the purge.

    Args:
        model: the model, as for :func:`run_recbole_e2urec`.
        settings: its other arguments.

    Attributes:
        is_wanted: whether anything is to follow.
        is_done: whether the folder already holds the outcome.
        run_settings: the settings of the run, without what follows it.

    Raises:
        InputError: the run cannot be finalized, or the folder is not free.
    """

    def __init__(self, model: str | None, settings: RunSettings) -> None:
        layers = layers_of(settings.config_files, settings.config_dict, settings.overrides)
        self.is_wanted = any(key in layer for layer in layers for key in POST_RUN_KEYS)
        self.is_done = False
        self.run_settings = settings
        if not self.is_wanted:
            return
        recbole_compat.apply()
        with distributed.single_process():  # the run itself looks for a GPU; reading needs none
            config = settings.overridden({"use_gpu": False}).config(model)
            self.options = config.options(FinalizeOptions)
            self._check(config)
        without_steps = dict(settings.config_dict or {})
        if config[FILTER] is not None:  # it may be in a file, and results do not keep its values
            without_steps[FILTER] = config[FILTER]
        self.run_settings = replace(settings.overridden(_NO_POST_RUN), config_dict=without_steps)

    def _check(self, config: Config) -> None:
        self.is_wanted = self.options.finalize is not None
        if not self.is_wanted:
            return
        refuse_unfit(config)
        self.name = str(config.model)
        self.folder = ModelFolder(str(self.options.finalize))
        self.source = Path(str(config["checkpoint_dir"]))
        refuse_overlap(self.folder.path, self.source)
        if config["dry_run"]:
            self.is_wanted = False
        elif self.folder.has_model:
            self.is_done = is_outcome(self.folder, config)
        if not self.is_done:
            refuse_used(self.folder, "finalize")

    def carry_out(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """Write the model folder, and purge if that is wanted; only the main process does so.

        Args:
            rows: results of the run; empty if the outcome already exists.

        Returns:
            What was done, for people.

        Raises:
            InputError: the merged model does not answer as the student did, or the disk fails.
        """
        with distributed.single_process():
            lines = [f"{self.folder.path} has it already; nothing was trained"]
            if not self.is_done:
                row = next(row for row in rows if row["model"] == self.name)
                lines = [export_row(self.folder, row, self.source, self.run_settings)]
            with self.folder.locked():
                self.folder.tidy()
                self.folder.remove_work()
                return "\n".join([*lines, *self._certify_if_missing(), *self._purge()])

    def _certify_if_missing(self) -> list[str]:
        """Write the certificate if a killed process left it out."""
        requests = self.folder.read(with_tensors=False).record["requests"]
        if not requests:
            return []
        return certify_if_missing(
            lambda: open_folder(self.folder).request_numbers,
            self.folder,
            requests[0],
            FIRST_REQUEST,
        )

    def _purge(self) -> list[str]:
        if not self.options.purge:
            return []
        run = open_folder(self.folder)  # before anything is removed
        purged = purge(self.source, self.folder.path, run.record["dataset"])
        for entry in run.record["requests"][:1]:
            certify_purge(run, self.folder, entry["digest"], purged)
        return purged.lines()


def refuse_unfit(config: Config) -> None:
    """Refuse a run whose outcome is not a single model that has carried out a request."""
    name = str(config.model)
    fitting = ", ".join(method for method, kind in METHODS.items() if kind.answers_alone)
    for key in ONE_RUN:
        if config[key]:
            raise InputError(f"finalize: one model; drop {key}, or export one of them afterwards")
    if config["show_prompts"]:
        raise InputError("finalize: show_prompts trains nothing; drop one of them")
    if name not in METHODS:
        raise InputError(
            f"finalize: {name} forgets nothing that a model folder holds; {fitting} do"
        )
    if not METHODS[name].answers_alone:
        raise InputError(f"finalize: {name} is several models, a model folder holds one: {fitting}")
    options = config.options(ForgetOptions)
    if options.file is None and options.where is None:
        raise InputError(
            "finalize: of which request? write --forget_file=FILE or --forget_where=FILTER "
            "(forget_ratio draws users for experiments)"
        )


def refuse_overlap(folder: Path, checkpoint_dir: Path) -> None:
    """Refuse a model folder inside ``checkpoint_dir``, or the other way round."""
    path, place = folder.resolve(), checkpoint_dir.resolve()
    if path.is_relative_to(place) or place.is_relative_to(path):
        raise InputError(
            f"finalize: {folder} and checkpoint_dir, {place}, must not hold one another"
        )


def is_outcome(folder: ModelFolder, config: Config) -> bool:
    """Return whether a folder holds the model of such a run.

    Method, data set, seed, settings and request must be the same. Whether a GPU was used does not
    matter.
    """
    record = folder.read(with_tensors=False).record
    identity = {
        "model": str(config.model),
        "dataset": str(config["dataset"]),
        "seed": config["seed"],
    }
    if any(record[key] != value for key, value in identity.items()):
        return False
    digest = preview(config).digest  # loads the data, from which some settings follow
    settings = model_settings(config.settings(), config)
    recorded = dict(record["settings"])
    recorded.pop("use_gpu", None)
    settings.pop("use_gpu", None)
    if recorded != json.loads(json.dumps(settings)):
        return False
    made_for = record.get("made_for") or {}
    return bool(made_for.get("request_digest") == digest)
