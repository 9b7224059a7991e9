"""``recbole-e2urec forget``: carry out requests on a served model, one after the other.

The model that one request leaves is the Original of the next. Forgotten rows are never trained on
again and are in no history. A request that was carried out does nothing the second time.

The new model is put in place first, and serves from then on. It is measured afterwards, as is the
generation before, which completes the ledger. If the process is killed in between, the next request
on the folder measures first.

The certificate of a request is made from the ledger and the folder's other files alone. If the
process is killed after the ledger is complete, the certificate can still be made.
"""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from recbole_e2urec.config.keys import LORA
from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.config.yaml import read_switch
from recbole_e2urec.data.request.filter import Fields
from recbole_e2urec.data.request.selection import ForgetOptions, Selection, request_digest, select
from recbole_e2urec.data.rows import without
from recbole_e2urec.deployment.certificate import (
    TRAININGS,
    certify,
    certify_if_missing,
    salted,
    training_after,
)
from recbole_e2urec.deployment.certificate_words import summary_of
from recbole_e2urec.deployment.erase import erase_forgotten, refuse_unfit, would_erase
from recbole_e2urec.deployment.evidence import (
    Evidence,
    Reference,
    RequestDelta,
    attack,
    check_reference,
    compare_to_retrain,
    counts_of,
    delta_of,
    evaluation_rows_of,
    in_same_state,
    measure,
    state_of,
)
from recbole_e2urec.deployment.model_folder import (
    ANSWERS,
    WEIGHTS,
    ModelFolder,
    Tensors,
    hash_of_file,
)
from recbole_e2urec.deployment.purge import (
    purge_after_request,
    purge_with_run,
    recorded_checkpoint_dir,
)
from recbole_e2urec.deployment.served_model import (
    ServedModel,
    open_folder,
    sample_of,
    with_orphaned_rows,
)
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.finished import NotFinished
from recbole_e2urec.experiment.launch import layers_of
from recbole_e2urec.experiment.preview import preview_of
from recbole_e2urec.experiment.run import Experiment, Rows, hash_of, unseen_of
from recbole_e2urec.methods import METHODS, method_of
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.scorers import Adapted, Scorer, Stored
from recbole_e2urec.report.results import versions
from recbole_e2urec.trainer.adapter import Fit, TrainingServices, UnlearningTask
from recbole_e2urec.trainer.checkpoint import Stage
from recbole_e2urec.trainer.training_log import restart_peak

DEFAULT_METHOD = "NegatedE2URec"
CHECKED_ROWS = 16  # rows of a part, at most, on which a merged model is compared to the student
ROUNDING = {torch.float32: 1e-4}  # how far P(yes) may differ; 2e-2 for smaller dtypes
SALT_BYTES = 16
MEASURING = "measuring"  # in the entry of a request that is not measured yet: how it is to be
_MODEL_KEYS = ("backbone", "backbone_dtype", "tuning", *LORA)


@dataclass(frozen=True)
class MeasuringOptions:
    """What is measured beside the rest, at the price of a training each.

    Attributes:
        with_retrain: train a Retrain on what is left, and measure the distance to it.
        noise_floor: train another one under the next seed as well: how far two Retrains are apart.
    """

    with_retrain: bool = False
    noise_floor: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        if self.noise_floor and not self.with_retrain:
            raise InputError("noise_floor: there is no Retrain to compare with; add --with_retrain")


@option_class()
class RequestOptions:
    """A request on a model folder, to forget or to correct."""

    checkpoint: str = option("The folder that export made.", default="", text=True)
    request: str | None = option(
        "The request, a file as of --forget_file; or give --forget_where=FILTER.",
        default=None,
        text=True,
    )
    # What Retrain itself moves answers on ml-100k: docs/explanation/queue.md.
    drift_budget: float = option(
        "Retraining is due when the model's answers have drifted from the first model's by more "
        "than this: the mean KL of yes and no, in nats.",
        gt=0,
        default=0.009,
    )
    retrain_when_due: bool = option(
        "When retraining is due, train anew on what is left, and serve that.", default=False
    )
    with_retrain: bool = option(
        "Measure against a Retrain, which is trained for it: as dear as the model's own training.",
        default=False,
    )
    noise_floor: bool = option(
        "Train one more Retrain, under the next seed, to see how far two of them are apart.",
        default=False,
    )

    def measuring(self) -> MeasuringOptions:
        """What is measured."""
        return MeasuringOptions(self.with_retrain, self.noise_floor)


@option_class()
class QueueOptions(RequestOptions):
    """A request to forget."""

    purge: bool = option(
        "Afterwards, remove all else that holds the forgotten data: docs/how-to/purge.md.",
        default=False,
    )
    erase_data: bool = option(
        "Afterwards, remove the forgotten rows from the data files as well: "
        "docs/how-to/erase-data.md.",
        default=False,
    )
    shared_data: bool = option(
        "Erase although other model folders or runs use these files, which then fit them no more.",
        default=False,
    )
    checkpoint_dir: str | None = option(
        "Where the run that made the model wrote, to purge that; ~ = as the folder says.",
        default=None,
        text=True,
    )

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        if not self.checkpoint:
            raise InputError("forget: in which model? write --checkpoint=DIR")
        if self.checkpoint_dir is not None and not self.purge:
            raise InputError("checkpoint_dir says what is purged; write --purge as well")
        if self.shared_data and not self.erase_data:
            raise InputError("shared_data says what may be erased; write --erase_data as well")
        self.measuring()

    def purges(self, record: Mapping[str, Any]) -> bool:
        """Return whether the run that a model folder records will be purged."""
        named, recorded = self.checkpoint_dir, recorded_checkpoint_dir(record)
        return self.purge and (named is None or Path(named).resolve() == recorded)


class _FolderRequest(NamedTuple):
    """A request on a served model."""

    selection: Selection
    digest: str
    request_id: str


class Unlearned(NamedTuple):
    """What is known about a request once its model is made.

    Attributes:
        delta: what the request changed.
        state_before: name and hashes of the model before it.
        cost: the cost that the method reports.
        findings: what the method found out by itself.
        seconds: how long unlearning took.
    """

    delta: RequestDelta
    state_before: Mapping[str, Any]
    cost: Mapping[str, Any]
    findings: Mapping[str, float]
    seconds: float


class Measured(NamedTuple):
    """What is known about a request once both models are measured.

    Attributes:
        before, after: what the models before and after it answered.
        drift: mean KL from the first model's answers, in nats; None: unknown.
        drift_rows: on how many rows drift was measured.
        attacks: what an :func:`attack` finds between the two models.
        retrain: measures of a Retrain and distances to it, see :func:`compare_to_retrain`; None:
            there is no Retrain.
        seconds: how long measuring took.
    """

    before: Evidence
    after: Evidence
    drift: float | None
    drift_rows: int
    attacks: Mapping[str, Any] | None
    retrain: Mapping[str, Any] | None
    seconds: float


class Stopwatch:
    """Adds up seconds."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count while the body runs."""
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started


def forget(
    options: QueueOptions,
    model: str | None,
    settings: Mapping[str, Any],
    config_files: Sequence[str] = (),
) -> str:
    """Carry out a request, or say what it would forget.

    Args:
        options: the folder and the request.
        model: the method; None: the one that made the model, or NegatedE2URec.
        settings: options of the method and of the request, and ``dry_run``. Text is read as on the
            command line.
        config_files: yaml files with such settings.

    Returns:
        A report for people. It names no user and no item.

    Raises:
        InputError: the folder, the request or the method cannot be used.
    """
    folder = ModelFolder(options.checkpoint)
    merged = _merged_settings(options, settings, config_files)
    method = model or default_method(folder)
    check_method(method)
    if read_switch(merged.get("dry_run", False), "dry_run"):
        return "\n".join(_preview(folder, merged, method, options))
    folder.read(with_tensors=False)  # refuses other folders before a lock is made in them
    with folder.locked(unmeasured=True):
        folder.tidy()
        run = open_folder(folder, merged, method)
        method_of(run.config)  # refuses bad settings before the request is read
        if options.erase_data:
            refuse_unfit(run, folder, options.shared_data, options.purges(run.record))
            would_erase(run, run.forgotten)  # refuses files whose lines are not their rows
        digest, lines = carry_out(run, folder, options)
        run, trained = train_if_due(run, folder, options)
        lines += trained
        if options.erase_data:
            purges = options.purges(run.record)
            lines += erase_forgotten(run, folder, options.shared_data, purges)
        if options.purge:
            lines += purge_after_request(run, folder, digest, options.checkpoint_dir)
        return "\n".join(lines)


def check_method(name: str) -> None:
    """Refuse a method that cannot forget in a served model.

    Raises:
        InputError: there is no such method, it trains anew instead of changing the model, or it
            needs other models.
    """
    fitting = [method for method, kind in METHODS.items() if kind.has_only_original]
    if name not in fitting:
        raise InputError(f"--model={name}: a model in use forgets by one of {', '.join(fitting)}")


def _merged_settings(
    options: QueueOptions, settings: Mapping[str, Any], config_files: Sequence[str]
) -> dict[str, Any]:
    """Merge the settings of the method and of the request; later layers win."""
    merged = merge_settings(settings, config_files)
    if options.request is not None:
        merged["forget_file"] = options.request
    elif "forget_where" not in merged:
        raise InputError("forget: what? write --request=FILE, or --forget_where=FILTER")
    return merged


def merge_settings(settings: Mapping[str, Any], config_files: Sequence[str]) -> dict[str, Any]:
    """Merge settings and those in files; later layers win."""
    layers = layers_of(config_files, None, settings)
    return {key: value for layer in layers for key, value in layer.items()}


def default_method(folder: ModelFolder) -> str:
    """Return the method that forgets unless another one is named."""
    made_by = str(folder.read(with_tensors=False).record["model"])
    return made_by if made_by in METHODS and made_by != "Retrain" else DEFAULT_METHOD


def carry_out(
    run: ServedModel,
    folder: ModelFolder,
    options: QueueOptions,
    serve: Callable[[ServedModel], ServedModel] = lambda run: run,
) -> tuple[str, list[str]]:
    """Carry out the request of a model's settings, unless it was carried out before.

    Args:
        run: the model, opened with the request.
        folder: its folder; call this inside ``locked()``.
        options: what is measured.
        serve: is given the new model once it is in place, and returns one to measure.

    Returns:
        The digest of the request, and what to report.
    """
    erased = _erased_before(run)
    if erased is not None:  # the data no longer have what it names
        lines = measure_if_killed(run, folder, options, erased["digest"])
        return erased["digest"], [*lines, done_before(erased)]
    request = _read_request(run)
    lines = measure_if_killed(run, folder, options, request.digest)
    return request.digest, [*lines, *_execute(run, folder, options, request, serve)]


def measure_if_killed(
    run: ServedModel, folder: ModelFolder, options: RequestOptions, digest: str
) -> list[str]:
    """Measure the last request if a killed process left that out; return what to report.

    It is measured as it was asked for, or as it is asked for now if it is given again.
    """
    entry = run.unmeasured
    if entry is None:
        return []
    is_repeated = entry["digest"] == digest
    return measure_last(run, folder, options if is_repeated else _asked_for(entry, options))


def _asked_for(entry: Mapping[str, Any], options: RequestOptions) -> RequestOptions:
    """Return how a killed request was to be measured; versions up to 0.10.0 did not note it."""
    noted = entry.get(MEASURING, {"drift_budget": options.drift_budget})
    try:
        return RequestOptions(options.checkpoint, **noted)
    except (InputError, TypeError) as error:
        raise InputError(
            f"{options.checkpoint} is damaged: {MEASURING} in model.json: {error}"
        ) from error


def given_before(
    run: ServedModel, wording: Callable[[str], str], is_meant: Callable[[Mapping[str, Any]], bool]
) -> Mapping[str, Any] | None:
    """Return the ledger's entry of a request that was given in the same words.

    Args:
        run: the served model.
        wording: hashes the words of the request that is given now, with a salt.
        is_meant: tells the entries that are looked at.
    """
    for entry in run.record["requests"]:
        with suppress(KeyError, TypeError, ValueError, OSError):  # what reads it will say so
            if is_meant(entry) and entry["wording"] == wording(entry["evidence"]["salt"]):
                return dict(entry)
    return None


def _erased_before(run: ServedModel) -> Mapping[str, Any] | None:
    """Return the entry of a request that was given in the same words, and erased from the data."""
    return given_before(run, lambda salt: _wording(run, salt), lambda entry: "erased" in entry)


def _wording(run: ServedModel, salt: str) -> str:
    """Return a salted hash of how a request was given."""
    options = run.config.options(ForgetOptions)
    if options.file is None:
        return salted(salt, "filter", str(options.where))
    return salted(salt, "file", options.by, hash_of_file(Path(options.file)))


def done_before(entry: Mapping[str, Any]) -> str:
    """Say that a request was carried out before."""
    return f"request {entry['request_id']} was carried out before; nothing to do"


def _read_request(run: ServedModel) -> _FolderRequest:
    options = run.config.options(ForgetOptions)
    table, ids = run.dataset.rows, run.dataset.ids
    selection = select(options, run.parts.splits.train, table, ids, Fields(run.dataset))
    if selection.names_nothing:
        raise InputError(f"{selection.source} names nobody; {selection.names_nothing}")
    name, published = run.dataset.dataset_name, run.dataset.file_rows
    digest = request_digest(name, published, ids, selection.chosen)
    return _FolderRequest(selection, digest, selection.request_id or digest)


def _preview(
    folder: ModelFolder, settings: Mapping[str, Any], method: str, options: QueueOptions
) -> list[str]:
    """Return what a request would forget and purge; nothing is changed."""
    run = open_folder(folder, settings, method)
    would_purge: list[str] = []
    if options.purge:
        would_purge = purge_with_run(folder, run.record, options.checkpoint_dir, dry_run=True)[1]
    erased = _erased_before(run)
    if erased is not None:
        return [done_before(erased), *would_purge]
    request = _read_request(run)
    executed, would = _executed_before(run, request), []
    if options.erase_data:
        refuse_unfit(run, folder, options.shared_data, options.purges(run.record))
        asked = np.union1d(run.forgotten, np.flatnonzero(request.selection.chosen))
        would = would_erase(run, with_orphaned_rows(run, asked))
    if executed is not None:
        return [executed, *would, *would_purge]
    parts = run.parts._replace(splits=run.parts.splits._replace(train=run.live))
    return [*preview_of(run.config, run.dataset, parts).lines(), *would, *would_purge]


def _executed_before(run: ServedModel, request: _FolderRequest) -> str | None:
    """Return what to report about a request that was carried out before; None: it was not.

    Raises:
        InputError: another request had its id.
    """
    for entry in run.record["requests"]:
        if entry["digest"] == request.digest:
            return done_before(entry)
        if entry["request_id"] == request.request_id:
            raise InputError(
                f"request_id {request.request_id} was another request's; give a new one"
            )
    return None


def _execute(
    run: ServedModel,
    folder: ModelFolder,
    options: QueueOptions,
    request: _FolderRequest,
    serve: Callable[[ServedModel], ServedModel],
) -> list[str]:
    """Forget what the request asks for, put the new model in place, and measure and certify it."""
    warnings = [f"warning: {warning}" for warning in request.selection.warnings]
    executed = _executed_before(run, request)
    rows = np.flatnonzero(request.selection.chosen)
    if len(rows) == 0:
        raise InputError(
            f"{request.selection.source} names no row that the data has; look for a typing error"
        )
    if executed is None and np.isin(rows, run.forgotten).all():
        executed = (
            f"request {request.request_id}: all that it names is forgotten already; nothing to do"
        )
    if executed is not None:
        return [*warnings, executed, *missing_certificate(run, folder, request.digest)]
    check_reference(run, options.noise_floor)
    entry = ledger_entry(run, request.request_id, request.digest, unlearn(run, folder, rows))
    entry["wording"] = _wording(run, entry["evidence"]["salt"])
    put_in_place(run, folder, options, entry)
    return [*warnings, *measure_last(serve(run), folder, options)]


def put_in_place(
    run: ServedModel, folder: ModelFolder, options: RequestOptions, entry: dict[str, Any]
) -> None:
    """Write the generation that serves from now on, with the ledger's entry of its request."""
    measuring = {"drift_budget": options.drift_budget, **asdict(options.measuring())}
    run.record["requests"].append({**entry, MEASURING: measuring})
    run.state = folder.write(run.record, run.tensors).state
    folder.remove_work()


def measure_last(run: ServedModel, folder: ModelFolder, options: RequestOptions) -> list[str]:
    """Measure and certify the last request; return what to report."""
    certificate = complete(run, folder, options.measuring())
    entry, count = run.record["requests"][-1], len(run.record["requests"])
    first, *others = summary_of(entry, count)
    if not options.retrain_when_due and is_due(run.record, options.drift_budget):
        others.append(f"that is above drift_budget ({options.drift_budget:g}): retraining is due")
    return [first, certificate, *others]


def complete(run: ServedModel, folder: ModelFolder, options: MeasuringOptions) -> str:
    """Measure the last request, complete the ledger, and certify; say where the certificate is.

    If a request asked control users how strongly to forget, the folder also gets the answers that
    the next one will need for that.
    """
    entry = run.record["requests"][-1]
    add_measures(entry, measure_request(run, folder, options))
    tensors: dict[str, Tensors] = {**folder.files()}
    if any("target_logloss" in _found(request) for request in run.record["requests"]):
        run.ask_ahead()
        tensors[ANSWERS] = run.answers
    run.state = folder.write(run.record, tensors).state
    return f"certificate: {certify(run.request_numbers, folder, len(run.record['requests']))}"


def _found(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = entry.get("evidence", {}).get("method", {}).get("found", {})
    return found


def missing_certificate(run: ServedModel, folder: ModelFolder, digest: str) -> list[str]:
    """Write the certificate if the process was killed before it could; report what was written."""
    for number, entry in enumerate(run.record["requests"], 1):
        if entry["digest"] == digest:
            return certify_if_missing(lambda: run.request_numbers, folder, entry, number)
    return []


def is_due(record: Mapping[str, Any], budget: float) -> bool:
    """Return whether the model has drifted further than it may since it was trained."""
    requests = record["requests"]
    drift = requests[-1].get("drift") if requests else None
    return drift is not None and drift > budget and training_after(record, len(requests)) is None


def train_if_due(
    run: ServedModel, folder: ModelFolder, options: RequestOptions
) -> tuple[ServedModel, list[str]]:
    """Train anew if that is wanted and due, and remove working files.

    Returns:
        The model that serves, and what to report.
    """
    lines = []
    if options.retrain_when_due and is_due(run.record, options.drift_budget):
        run, lines = train_anew(run, folder), ["trained anew on what is left; drift begins at 0"]
    folder.remove_work()
    return run, lines


def train_anew(run: ServedModel, folder: ModelFolder) -> ServedModel:
    """Train a recommender on the rows that are left, and serve it; call this inside ``locked()``.

    The ledger notes the training. If the process is killed, the same request continues it. A
    Retrain that was trained to measure the last request is taken.

    Args:
        run: the model in use, measured after its last request.
        folder: its folder.

    Returns:
        The new model, opened.
    """
    number, rows = len(run.record["requests"]), sample_of(run, run.forgotten)
    with state_of(run, number) as delta:  # in which its Retrain was trained
        reference = Reference(run, folder.work, run.config["seed"])
        cost = reference.train(delta)
        with reference.model.using_history(delta.after):
            yes = reference.model.answer(rows, None).cpu()
    training = {
        "after": number,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "before": dict(run.state),
        "rows": len(run.live),
        "seconds": cost["seconds"],
    }
    record = {**run.record, TRAININGS: [*run.record.get(TRAININGS, []), training]}
    weights = reference.model.bank.state(reference.model.adapter)
    sample = {"rows": torch.from_numpy(rows), "yes": yes}
    folder.write(record, {**run.tensors, "weights": weights, "sample": sample})
    return run.reopened(folder)


def unlearn(run: ServedModel, folder: ModelFolder, asked_rows: Rows) -> Unlearned:
    """Forget what a request asks for, in memory.

    Args:
        run: the model; afterwards it has forgotten the rows.
        folder: the model's folder, which keeps what is needed to resume after a kill.
        asked_rows: ids of the rows that the request names, training rows or not.

    Raises:
        InputError: no training row would be left, or the merged model does not answer as the
            student did.
    """
    forgotten = with_orphaned_rows(run, np.union1d(run.forgotten, asked_rows))
    delta = delta_of(run, run.forgotten, forgotten)
    return change_model(run, delta, lambda: apply_unlearning(run, folder, delta))


def change_model(
    run: ServedModel, delta: RequestDelta, change: Callable[[], dict[str, Any]]
) -> Unlearned:
    """Change a model in memory as a request asks for.

    Args:
        run: the model.
        delta: the request.
        change: changes the model, and returns the cost.

    Raises:
        InputError: no training row would be left as it is.
    """
    if len(delta.retain) == 0:
        raise InputError("the request leaves no training row; train and export anew")
    state_before, stopwatch = run.state, Stopwatch()
    with stopwatch.running():
        cost = change()
    findings = cost.pop("found", {})
    return Unlearned(delta, state_before, cost, findings, stopwatch.seconds)


def measure_request(run: ServedModel, folder: ModelFolder, options: MeasuringOptions) -> Measured:
    """Measure the models before and after the last request.

    Args:
        run: the model after it.
        folder: the model's folder, which still has the model before it.
        options: what is measured besides.

    Raises:
        InputError: a noise floor cannot be measured, or the folder is damaged.
    """
    check_reference(run, options.noise_floor)
    number, stopwatch = len(run.record["requests"]), Stopwatch()
    generation = folder.read_before(run.record["requests"][-1])
    with state_of(run, number) as delta:
        rows = evaluation_rows_of(run, delta)
        with stopwatch.running():
            earlier = ServedModel(run.config, run.dataset, generation, folder.path)
            with in_same_state(earlier, run, number):
                before = measure(earlier, delta, rows, delta.before)
            del earlier
            after = measure(run, delta, rows, delta.after)
            drift = run.drift(delta.after)
            attacks = attack(run, delta, rows, before.answers, after.answers)
        retrain, work = None, folder.work
        if options.with_retrain and len(delta.forget):
            answers = {"before": before.answers, "after": after.answers}
            retrain = compare_to_retrain(run, delta, rows, answers, work, options.noise_floor)
    drift_rows = len(run.sample.rows)
    return Measured(before, after, drift, drift_rows, attacks, retrain, stopwatch.seconds)


def ledger_entry(
    run: Experiment, request_id: str, digest: str, unlearned: Unlearned
) -> dict[str, Any]:
    """Return what the ledger keeps of a request that is not measured yet.

    Args:
        run: the run that has the data and the settings of the method.
        request_id: name of the request.
        digest: hash of the request.
        unlearned: what is known about it.

    Returns:
        ``request_id``, ``digest``, ``method``, ``date``, ``seconds``; ``rows`` and
        ``training_rows``, how many were newly forgotten; and ``evidence``, see :mod:`certificate`.
    """
    delta = unlearned.delta
    return {
        "request_id": request_id,
        "digest": digest,
        "method": str(run.config["model"]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seconds": unlearned.seconds,
        "rows": len(delta.forgotten) - len(delta.earlier),
        "training_rows": len(delta.forget),
        "evidence": {
            "salt": secrets.token_hex(SALT_BYTES),
            "asked": counts_of(run, delta),
            "method": {**_method_settings(run), "found": dict(unlearned.findings)},
            "before": dict(unlearned.state_before),
            "cost": {"request_seconds": unlearned.seconds, **unlearned.cost},
            "versions": versions(),
        },
    }


def add_measures(entry: dict[str, Any], measured: Measured) -> None:
    """Complete the ledger's entry of a request.

    Adds ``forget_loss`` of the training rows before and after; ``drift`` and ``drift_rows``; and to
    the evidence ``measures``, ``attacks``, ``retrain`` and the cost of measuring. How the request
    was to be measured is no longer needed.
    """
    entry.pop(MEASURING, None)
    before, after = measured.before.measures, measured.after.measures
    losses = [measures["forget"]["loss"] for measures in (before, after)]
    entry["forget_loss"] = losses if entry["training_rows"] else None
    entry["drift"], entry["drift_rows"] = measured.drift, measured.drift_rows
    evidence = entry["evidence"]
    evidence["measures"] = {"before": before, "after": after}
    evidence["attacks"], evidence["retrain"] = measured.attacks, measured.retrain
    evidence["cost"]["measuring_seconds"] = measured.seconds


def _method_settings(run: Experiment) -> dict[str, Any]:
    return {
        "name": str(run.config["model"]),
        "options": asdict(method_of(run.config).options),
        "seed": run.config["seed"],
        "model": {key: run.config[key] for key in _MODEL_KEYS},
    }


def apply_unlearning(run: ServedModel, folder: ModelFolder, delta: RequestDelta) -> dict[str, Any]:
    """Forget rows: replace the model by its successor, in memory.

    Args:
        run: the model; afterwards it has forgotten the rows.
        folder: the model's folder, which keeps what is needed to resume after a kill.
        delta: the request.

    Returns:
        The cost; empty if the request removes no training row.

    Raises:
        InputError: the merged model does not answer as the student did.
    """
    cost = unlearn_rows(run, folder, delta) if len(delta.forget) else {}
    run.forget(delta.forgotten)
    return cost


def unlearn_rows(run: ServedModel, folder: ModelFolder, delta: RequestDelta) -> dict[str, Any]:
    """Unlearn the rows; afterwards the model has the weights of its successor."""
    model, task = run.model, task_of(run, folder, delta, delta.forget, delta.before)
    task = replace(task, answered=run.answered)
    restart_peak()
    with model.using_history(delta.after):
        unlearned = method_of(run.config).unlearn(model, task)
        checked = np.concatenate([delta.forget[:CHECKED_ROWS], run.sample.rows[:CHECKED_ROWS]])
        merge(model, unlearned.scorer, checked)
    return {**unlearned.cost, "found": dict(unlearned.findings)}


def task_of(
    run: ServedModel, folder: ModelFolder, delta: RequestDelta, rows: Rows, history: Rows
) -> UnlearningTask:
    """Describe a part of a request to a method.

    Args:
        run: the served model.
        folder: its files.
        delta: the request.
        rows: rows to forget, or to learn.
        history: histories that their prompts show, [n, k].
    """
    table, histories = run.dataset.rows, (history, delta.after)
    valid, unseen = (
        without(others, run.forgotten)
        for others in (run.parts.splits.valid, unseen_of(run.parts, table.user, delta.retain))
    )
    settings = {}
    if len(delta.corrected):  # of which histories and row numbers alone do not tell
        state = {"prompts": run.model.table.fingerprint(), "labels": hash_of(table.label)}
        settings = {**state, "users": hash_of(table.user)}
    return UnlearningTask(
        rows, delta.retain, valid, unseen, table.user, table.item,
        *histories, FolderServices(run, folder, rows, histories),
        run.config["seed"], run.shows, settings,
    )  # fmt: skip


class FolderServices(TrainingServices):
    """What a served model can do for a method: it has only itself, and trains nothing anew.

    Stages are kept in the folder until the request is carried out.

    Args:
        run: the served model.
        folder: its files.
        forget: training rows to forget.
        histories: what prompts show before and after the request, [n, k] each.
    """

    def __init__(
        self, run: ServedModel, folder: ModelFolder, forget: Rows, histories: tuple[Rows, Rows]
    ) -> None:
        super().__init__(run.model, run.start)
        self._work = folder.work
        self._inputs = {
            "weights": run.record["files"][WEIGHTS],
            "lora": {key: str(run.config[key]) for key in LORA},
            "forget": hash_of(forget),
            "histories": [hash_of(history) for history in histories],
            "training": run.training_settings(),
        }

    def stage(self, name: str, settings: Mapping[str, Any]) -> Stage:
        """Return the stage of a part of a method that forgets this request."""
        return Stage(self._work, name, {**self._inputs, "settings": dict(settings)})

    def fit(self, name: str, rows: Rows, history: Rows) -> Fit:
        """Refuse: nothing is trained anew."""
        raise InputError(f"{name} would be trained anew; a served model has only itself")

    def fit_adapter(self, name: str, rows: Rows, history: Rows) -> Fit:
        """Refuse: nothing is trained anew."""
        return self.fit(name, rows, history)

    def embed(self, rows: Rows) -> Any:
        """Refuse: users are grouped before Original is trained."""
        raise InputError("users are grouped before a model is trained, not after")


def merge(model: LLMRec, scorer: Scorer, rows: Rows) -> dict[str, Tensor]:
    """Merge as :func:`merged_weights` does, and check that the model answers as the scorer did.

    Args:
        model: the model.
        scorer: what answers until now.
        rows: rows on which the answers are compared.

    Raises:
        InputError: the answers differ, or several models answer together.
    """
    expected = scorer.ask(model, rows).yes(model.language_model.answer_ids).cpu()
    weights = merged_weights(model, scorer)
    _check_alike(expected, model.answer(rows, None).cpu(), model.language_model.model.dtype)
    return weights


def merged_weights(model: LLMRec, scorer: Scorer) -> dict[str, Tensor]:
    """Give the model the weights that answer as a scorer does, and return them.

    A student's adapter is merged into the backbone's weights, or replaces the adapter that was
    tuned. The previous weights are lost.

    Raises:
        InputError: several models answer together.
    """
    bank = model.bank
    if isinstance(scorer, Stored) and scorer.place == scorer.adapter == model.adapter:
        bank.load(model.adapter, scorer.read())
    elif isinstance(scorer, Adapted) and scorer.adapter is not None:
        if model.adapter is None:
            bank.merge(scorer.adapter)
        else:
            bank.load(model.adapter, bank.state(scorer.adapter))
            bank.remove(scorer.adapter)
    else:
        raise NotFinished("several models answer together; a model folder holds one")
    return bank.state(model.adapter)


def _check_alike(student: Tensor, merged: Tensor, dtype: torch.dtype) -> None:
    difference = float((student - merged).abs().max()) if len(student) else 0.0
    if not difference <= ROUNDING.get(dtype, 2e-2):
        raise InputError(
            f"merged into the weights, the model answers {difference:.2g} otherwise than before; "
            "no folder is changed or made (backbone_dtype: float32 rounds less)"
        )
