"""``recbole-e2urec forget``: requests on a model in use, one after the other.

The student of a request is the Original of the next one. Rows that were forgotten are never trained
on again and are in no history; a request that was carried out does nothing the second time.

All that a certificate says is in the ledger or in the folder's other files, so that nothing is lost
to whoever is killed between the new generation and its certificate.
"""

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from recbole_e2urec.config.keys import LORA
from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.config.yaml import read_switch
from recbole_e2urec.data.request.filter import Fields
from recbole_e2urec.data.request.identity import request_digest
from recbole_e2urec.data.request.selection import ForgetOptions, Selection, select
from recbole_e2urec.deployment.certificate import certify, certify_again
from recbole_e2urec.deployment.certificate_words import unreached
from recbole_e2urec.deployment.evidence import (
    Evidence,
    RequestDelta,
    check_reference,
    counts_of,
    delta_of,
    evaluation_rows_of,
    measured,
    referred,
)
from recbole_e2urec.deployment.model_folder import WEIGHTS, ModelFolder
from recbole_e2urec.deployment.purge import purge_beside, purged_after
from recbole_e2urec.deployment.served_model import ServedModel, open_folder, with_orphaned_rows
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.base import Experiment, Rows, hash_of, unseen_of
from recbole_e2urec.experiment.finished import NotFinished
from recbole_e2urec.experiment.launch import layers_of
from recbole_e2urec.experiment.preview import preview_of
from recbole_e2urec.methods import METHODS, method_of
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.scorers import Adapted, Scorer, Stored
from recbole_e2urec.report.results import versions
from recbole_e2urec.trainer.adapter import Fit, TrainingServices, UnlearningTask
from recbole_e2urec.trainer.checkpoint import Stage
from recbole_e2urec.trainer.training_log import restart_peak

CHECKED = 512  # rows of a part, at most, on which a merged model is compared with the student
ROUNDING = {torch.float32: 1e-4}  # most that P(yes) may differ; 2e-2 in smaller dtypes


def merge(model: LLMRec, scorer: Scorer, rows: Rows) -> dict[str, Tensor]:
    """As :func:`weights_of`, if the model then answers these rows as the scorer did.

    Raises:
        InputError: it does not, or several models answer together.
    """
    wanted = scorer.ask(model, rows).yes(model.language_model.answer_ids).cpu()
    weights = weights_of(model, scorer)
    _check_alike(wanted, model.answer(rows, None).cpu(), model.language_model.model.dtype)
    return weights


def weights_of(model: LLMRec, scorer: Scorer) -> dict[str, Tensor]:
    """The weights that answer as a scorer does; the model then has them itself.

    A student's adapter is merged into the backbone's weights, or takes the place of the adapter
    that was tuned: nothing of the model before is left to go back to.

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
    apart = float((student - merged).abs().max()) if len(student) else 0.0
    if not apart <= ROUNDING.get(dtype, 2e-2):
        raise InputError(
            f"merged into the weights, the model answers {apart:.2g} otherwise than before; "
            "no folder is changed or made (backbone_dtype: float32 rounds less)"
        )


def check_method(name: str) -> None:
    """Refuse a method that cannot follow a model in use.

    Raises:
        InputError: it is none, trains anew instead of changing the model, or needs other models.
    """
    known = [one for one, kind in METHODS.items() if kind.has_only_original]
    if name not in known:
        raise InputError(f"--model={name}: a model in use forgets by one of {', '.join(known)}")


def apply_unlearning(run: ServedModel, folder: ModelFolder, change: RequestDelta) -> dict[str, Any]:
    """Forget rows, and put the successor in the model's place, in memory.

    Args:
        run: the model; it has forgotten the rows afterwards.
        folder: where what is needed to go on after a kill is kept.
        change: the request.

    Returns:
        What it cost: nothing where no training row is to be forgotten.

    Raises:
        InputError: the merged model answers otherwise than the student did.
    """
    cost = _unlearn(run, folder, change) if len(change.forget) else {}
    run.forget(change.forgotten)
    return cost


def _unlearn(run: ServedModel, folder: ModelFolder, change: RequestDelta) -> dict[str, Any]:
    """Unlearn the rows; the successor's weights are the model's afterwards."""
    model, shown = run.model, (change.before, change.after)
    rows = run.dataset.rows
    request = UnlearningTask(
        change.forget, change.retain, np.setdiff1d(run.parts.splits.valid, run.forgotten),
        unseen_of(run.parts, rows.user, change.retain), rows.user, rows.item,
        *shown, _tools(run, folder, change.forget, shown),
        run.config["seed"], run.shows,
    )  # fmt: skip
    restart_peak()
    with model.using_history(change.after):
        made = method_of(run.config).unlearn(model, request)
        rows = np.concatenate([change.forget[:CHECKED], run.sample.rows[:CHECKED]])
        merge(model, made.scorer, rows)
    return {**made.cost, "found": dict(made.found)}


def _tools(
    run: ServedModel, folder: ModelFolder, forget: Rows, shown: tuple[Rows, Rows]
) -> TrainingServices:
    """What a method may ask for: its stages are in the folder, until the request is carried out."""
    inputs = {
        "weights": run.record["files"][WEIGHTS],
        "lora": {key: str(run.config[key]) for key in LORA},
        "forget": hash_of(forget),
        "histories": [hash_of(history) for history in shown],
        "training": run.training_settings(),
    }

    def stage(name: str, settings: Mapping[str, Any]) -> Stage:
        return Stage(folder.work, name, {**inputs, "settings": dict(settings)})

    def no_fit(name: str, train: Rows, history: Rows) -> Fit:
        raise InputError(f"{name} would be trained anew; a model in use has only itself")

    def no_users(train: Rows) -> Any:
        raise InputError("users are grouped before a model is trained, not after")

    adapter = run.model.adapter
    start = (lambda: run.start) if adapter is None else None
    return TrainingServices(
        stage, no_fit, no_fit, start, Stored(adapter, lambda: run.start), no_users
    )


SALT = 16  # bytes
_MODEL = ("backbone", "backbone_dtype", "tuning", *LORA)


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


class RequestOutcome(NamedTuple):
    """What is known of a request that was carried out.

    Attributes:
        change: the request.
        first, then: what the model answered before and after it.
        before: files and hashes of the model before.
        drift: mean KL from the first model's answers, in nats; None: unknown.
        drift_rows: on so many rows.
        retrain: measures of a Retrain and distances to it, as of :func:`referred`; None: there is
            none.
        cost: what the method tells of it.
        found: what the method found by itself.
        unlearning_seconds, measuring_seconds: apart.
    """

    change: RequestDelta
    first: Evidence
    then: Evidence
    before: Mapping[str, Any]
    drift: float | None
    drift_rows: int
    retrain: Mapping[str, Any] | None
    cost: Mapping[str, Any]
    found: Mapping[str, float]
    unlearning_seconds: float
    measuring_seconds: float


def entry_of(
    run: Experiment, request_id: str, digest: str, proof: RequestOutcome
) -> dict[str, Any]:
    """What the ledger keeps of a request.

    Args:
        run: on the data, with the settings of the method.
        request_id: its name.
        digest: its hash.
        proof: what is known of it.

    Returns:
        ``request_id``, ``digest``, ``method``, ``date``, ``seconds``; ``rows`` and
        ``training_rows`` that were forgotten anew, ``forget_loss`` of the latter before and after,
        ``drift``, ``drift_rows`` and ``evidence``, see :mod:`certificate`.
    """
    change = proof.change
    losses = [one.measures["forget"]["loss"] for one in (proof.first, proof.then)]
    seconds = {
        "request_seconds": proof.unlearning_seconds,
        "measuring_seconds": proof.measuring_seconds,
    }
    return {
        "request_id": request_id,
        "digest": digest,
        "method": str(run.config["model"]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seconds": proof.unlearning_seconds,
        "rows": len(change.forgotten) - len(change.earlier),
        "training_rows": len(change.forget),
        "forget_loss": losses if len(change.forget) else None,
        "drift": proof.drift,
        "drift_rows": proof.drift_rows,
        "evidence": {
            "salt": secrets.token_hex(SALT),
            "asked": counts_of(run, change),
            "method": {**_method_of(run), "found": dict(proof.found)},
            "before": dict(proof.before),
            "measures": {"before": proof.first.measures, "after": proof.then.measures},
            "retrain": proof.retrain,
            "cost": {**seconds, **proof.cost},
            "versions": versions(),
        },
    }


def execute_request(
    run: ServedModel, folder: ModelFolder, asked: Rows, options: MeasuringOptions
) -> RequestOutcome:
    """Carry out a request in memory.

    Args:
        run: the model; it has forgotten the rows afterwards.
        folder: of the model; what is needed to go on after a kill is kept there.
        asked: row ids, of training or not.
        options: what is measured besides.

    Raises:
        InputError: no training row would be left, the merged model answers otherwise than the
            student did, or a noise floor cannot be measured.
    """
    check_reference(run, options.noise_floor)
    change = delta_of(run, run.forgotten, with_orphaned_rows(run, np.union1d(run.forgotten, asked)))
    if len(change.retain) == 0:
        raise InputError("the request leaves no training row; train and export anew")
    watched, before = evaluation_rows_of(run, change), run.state
    measuring, unlearning = Stopwatch(), Stopwatch()
    with measuring.running():
        first = measured(run, change, watched, change.before)
    with unlearning.running():
        cost = apply_unlearning(run, folder, change)
    with measuring.running():
        then = measured(run, change, watched, change.after)
        drift = run.drift()
    retrain = None
    if options.with_retrain and len(change.forget):
        answers = {"before": first.answers, "after": then.answers}
        retrain = referred(run, change, watched, answers, folder.work, options.noise_floor)
    found = cost.pop("found", {})
    return RequestOutcome(
        change, first, then, before, drift, len(run.sample.rows), retrain, cost, found,
        unlearning.seconds, measuring.seconds,
    )  # fmt: skip


def _method_of(run: Experiment) -> dict[str, Any]:
    return {
        "name": str(run.config["model"]),
        "options": asdict(method_of(run.config).options),
        "seed": run.config["seed"],
        "model": {key: run.config[key] for key in _MODEL},
    }


DEFAULT_METHOD = "NegatedE2URec"


@option_class()
class QueueOptions:
    """A request on a model folder."""

    checkpoint: str = option("The folder that export made.", default="", text=True)
    request: str | None = option(
        "The request, a file as of --forget_file; or give --forget_where=FILTER.",
        default=None,
        text=True,
    )
    # What Retrain itself moves answers on ml-100k: docs/queue.md.
    drift_budget: float = option(
        "Retraining is due when the model's answers have drifted from the first model's by more "
        "than this: the mean KL of yes and no, in nats.",
        gt=0,
        default=0.009,
    )
    with_retrain: bool = option(
        "Measure against a Retrain, which is trained for it: as dear as the model's own training.",
        default=False,
    )
    noise_floor: bool = option(
        "Train one more Retrain, under the next seed, to see how far two of them are apart.",
        default=False,
    )
    purge: bool = option(
        "Afterwards, remove all else that holds the forgotten data: docs/purging.md.", default=False
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
        self.proof()

    def proof(self) -> MeasuringOptions:
        """What is measured."""
        return MeasuringOptions(self.with_retrain, self.noise_floor)


class _Asked(NamedTuple):
    """A request on a model in use."""

    found: Selection
    digest: str
    request_id: str


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
        settings: options of the method and of the request, ``dry_run``; text is read as on the
            command line.
        config_files: yaml files with such settings.

    Returns:
        What was done, for a person; no user and no item is named.

    Raises:
        InputError: the folder or the request do not do, or the method does not.
    """
    folder = ModelFolder(options.checkpoint)
    given = {
        key: value
        for layer in layers_of(config_files, None, settings)
        for key, value in layer.items()
    }
    if options.request is not None:
        given["forget_file"] = options.request
    elif "forget_where" not in given:
        raise InputError("forget: what? write --request=FILE, or --forget_where=FILTER")
    name = model or _default_method(folder)
    check_method(name)
    if read_switch(given.get("dry_run", False), "dry_run"):
        run, where = open_folder(folder, given, name), options.checkpoint_dir
        would = purge_beside(folder, run.record, where, dry_run=True)[1] if options.purge else []
        return "\n".join([_preview(run), *would])
    folder.read(whole=False)  # refuses what is no model folder before a lock is made in it
    with folder.locked():
        folder.tidy()
        run = open_folder(folder, given, name)
        method_of(run.config)  # refuses bad settings before the request is looked at
        asked = _asked(run)
        told = _carried_out(run, folder, options, asked)
        if options.purge:
            told += purged_after(run, folder, asked.digest, options.checkpoint_dir)
        return "\n".join(told)


def _default_method(folder: ModelFolder) -> str:
    made_by = str(folder.read(whole=False).record["model"])
    return made_by if made_by in METHODS and made_by != "Retrain" else DEFAULT_METHOD


def _asked(run: ServedModel) -> _Asked:
    options = run.config.options(ForgetOptions)
    table, ids = run.dataset.rows, run.dataset.ids
    found = select(options, run.parts.splits.train, table, ids, Fields(run.dataset))
    if found.names_nothing:
        raise InputError(f"{found.source} names nobody; {found.names_nothing}")
    digest = request_digest(run.dataset.dataset_name, table, ids, found.chosen)
    return _Asked(found, digest, found.request_id or digest)


def _preview(run: ServedModel) -> str:
    done = _done(run, _asked(run))
    if done is not None:
        return done
    parts = run.parts._replace(splits=run.parts.splits._replace(train=run.live))
    return "\n".join(preview_of(run.config, run.dataset, parts).lines())


def _done(run: ServedModel, asked: _Asked) -> str | None:
    """What to say of a request that was carried out before.

    Raises:
        InputError: its id was another one's.
    """
    for before in run.record["requests"]:
        if before["digest"] == asked.digest:
            return f"request {before['request_id']} was carried out before; nothing to do"
        if before["request_id"] == asked.request_id:
            raise InputError(f"request_id {asked.request_id} was another request's; give a new one")
    return None


def _carried_out(
    run: ServedModel, folder: ModelFolder, options: QueueOptions, asked: _Asked
) -> list[str]:
    told = [f"warning: {warning}" for warning in asked.found.warnings]
    done = _done(run, asked)
    rows = np.flatnonzero(asked.found.chosen)
    if len(rows) == 0:
        raise InputError(f"{asked.found.source} names no row that the data has; look for a slip")
    if done is None and not len(np.setdiff1d(rows, run.forgotten)):
        done = f"request {asked.request_id}: all that it names is forgotten already; nothing to do"
    if done is not None:
        folder.done()
        return [*told, done, *_certificate_again(run, folder, asked)]
    proof = execute_request(run, folder, rows, options.proof())
    entry = entry_of(run, asked.request_id, asked.digest, proof)
    run.record["requests"].append(entry)
    folder.write(run.record, run.tensors)
    folder.done()
    count = len(run.record["requests"])
    page = f"certificate: {certify(run.named, folder, count)}"
    first, *others = _lines(entry, options, count)
    return [*told, first, page, *others]


def _certificate_again(run: ServedModel, folder: ModelFolder, asked: _Asked) -> list[str]:
    """Write what somebody who was killed owed; where all is there, nothing happens."""
    for number, before in enumerate(run.record["requests"], 1):
        if before["digest"] == asked.digest:
            return certify_again(lambda: run.named, folder, before, number)
    return []


def _lines(entry: Mapping[str, Any], options: QueueOptions, count: int) -> list[str]:
    lines = [
        f"request {entry['request_id']} is carried out, the {count}. of this model, by "
        f"{entry['method']} in {entry['seconds']:.1f} s: {entry['training_rows']:,} training rows "
        f"of {entry['rows']:,} rows asked for",
        *unreached(entry["evidence"]["method"]["found"]),
    ]
    if entry["forget_loss"] is not None:
        before, after = entry["forget_loss"]
        lines.append(f"their loss: {before:.4f} before, {after:.4f} after")
    drift = entry["drift"]
    if drift is None:
        return [*lines, "drift: unknown; no validation rows of users whom no request touched"]
    lines.append(
        f"drift: the answers are {drift:.5f} nats from the first model's, on "
        f"{entry['drift_rows']:,} validation rows of users whom no request touched"
    )
    if drift > options.drift_budget:
        lines.append(f"that is above drift_budget ({options.drift_budget:g}): retraining is due")
    return lines
