"""``recbole-e2urec forget``: requests on a model in use, one after the other.

The student of a request is the Original of the next one. Rows that were forgotten are never trained
on again and are in no history; a request that was carried out does nothing the second time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from recbole_e2urec.data.forget import ForgetOptions
from recbole_e2urec.data.request.fields import Fields
from recbole_e2urec.data.request.identity import request_digest
from recbole_e2urec.data.request.selecting import Selection, select
from recbole_e2urec.deployment.certificate import certify, certify_again
from recbole_e2urec.deployment.clearing import purged_after
from recbole_e2urec.deployment.deployed import Deployed, open_folder
from recbole_e2urec.deployment.folder import ModelFolder
from recbole_e2urec.deployment.plainwords import unreached
from recbole_e2urec.deployment.proving import ProofOptions, carry_out, entry_of
from recbole_e2urec.deployment.purging import purge_beside
from recbole_e2urec.deployment.succession import check_method
from recbole_e2urec.errors import InputError
from recbole_e2urec.launch import layers_of
from recbole_e2urec.methods import METHODS, method_of
from recbole_e2urec.preview import preview_of
from recbole_e2urec.yamlfiles import read_switch

DEFAULT = "NegatedE2URec"


@dataclass(frozen=True)
class QueueOptions:
    """A request on a model folder.

    Attributes:
        checkpoint: the folder.
        request: file of the request; None where ``forget_where`` is the request.
        drift_budget: mean KL, in nats, of yes and no between the first model's answers and the
            present one's above which retraining is due. The default is what Retrain itself moves
            them on ml-100k, see docs/explanation/queue.md.
        with_retrain, noise_floor: see :class:`ProofOptions`.
        purge: afterwards, remove what still holds the forgotten data.
        checkpoint_dir: of the run that made the model, for that; None: what the folder says.
    """

    checkpoint: str = field(default="", metadata={"text": True})
    request: str | None = field(default=None, metadata={"text": True})
    drift_budget: float = 0.009
    with_retrain: bool = False
    noise_floor: bool = False
    purge: bool = False
    checkpoint_dir: str | None = field(default=None, metadata={"text": True})

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        if not self.checkpoint:
            raise InputError("forget: in which model? write --checkpoint=DIR")
        if not self.drift_budget > 0:
            raise InputError(f"drift_budget is {self.drift_budget}; it must be above 0")
        if self.checkpoint_dir is not None and not self.purge:
            raise InputError("checkpoint_dir says what is purged; write --purge as well")
        self.proof()

    def proof(self) -> ProofOptions:
        """What is measured."""
        return ProofOptions(self.with_retrain, self.noise_floor)


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
    name = model or _method_of(folder)
    check_method(name)
    if read_switch(given.get("dry_run", False), "dry_run"):
        run, where = open_folder(folder, given, name), options.checkpoint_dir
        would = purge_beside(folder, run.record, where, dry_run=True)[1] if options.purge else []
        return "\n".join([_preview(run), *would])
    folder.read(whole=False)  # refuses what is no model folder before a lock is made in it
    with folder.alone():
        folder.tidy()
        run = open_folder(folder, given, name)
        method_of(run.config)  # refuses bad settings before the request is looked at
        asked = _asked(run)
        told = _carried_out(run, folder, options, asked)
        if options.purge:
            told += purged_after(run, folder, asked.digest, options.checkpoint_dir)
        return "\n".join(told)


def _method_of(folder: ModelFolder) -> str:
    made_by = str(folder.read(whole=False).record["model"])
    return made_by if made_by in METHODS and made_by != "Retrain" else DEFAULT


def _asked(run: Deployed) -> _Asked:
    options = run.config.options(ForgetOptions, "forget_")
    table, ids = run.dataset.rows, run.dataset.ids
    found = select(options, run.parts.splits.train, table, ids, Fields(run.dataset))
    if found.names_nothing:
        raise InputError(f"{found.source} names nobody; {found.names_nothing}")
    digest = request_digest(run.dataset.dataset_name, table, ids, found.chosen)
    return _Asked(found, digest, found.request_id or digest)


def _preview(run: Deployed) -> str:
    done = _done(run, _asked(run))
    if done is not None:
        return done
    parts = run.parts._replace(splits=run.parts.splits._replace(train=run.live))
    return "\n".join(preview_of(run.config, run.dataset, parts).lines())


def _done(run: Deployed, asked: _Asked) -> str | None:
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
    run: Deployed, folder: ModelFolder, options: QueueOptions, asked: _Asked
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
    proof = carry_out(run, folder, rows, options.proof())
    entry = entry_of(run, asked.request_id, asked.digest, proof)
    run.record["requests"].append(entry)
    folder.write(run.record, run.tensors)
    folder.done()
    count = len(run.record["requests"])
    page = f"certificate: {certify(run.named, folder, count)}"
    first, *others = _lines(entry, options, count)
    return [*told, first, page, *others]


def _certificate_again(run: Deployed, folder: ModelFolder, asked: _Asked) -> list[str]:
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
