"""A request carried out and measured: what the folder's ledger keeps of it.

All that a certificate says is in the ledger or in the folder's other files, so that nothing is lost
to whoever is killed between the new generation and its certificate.
"""

import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any, NamedTuple

import numpy as np

from recbole_e2urec.deployment.change import Change, change_of, counts_of, watched_of
from recbole_e2urec.deployment.deployed import Deployed
from recbole_e2urec.deployment.evidence import Evidence, measured
from recbole_e2urec.deployment.folder import ModelFolder
from recbole_e2urec.deployment.reference import check_reference, referred
from recbole_e2urec.deployment.remains import with_gone
from recbole_e2urec.deployment.succession import succeed
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment import Experiment, Rows
from recbole_e2urec.keys import LORA
from recbole_e2urec.methods import method_of
from recbole_e2urec.results import versions

SALT = 16  # bytes
_MODEL = ("backbone", "backbone_dtype", "tuning", *LORA)


@dataclass(frozen=True)
class ProofOptions:
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


class Watch:
    """Adds up seconds."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count while the body runs."""
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started


class Proof(NamedTuple):
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

    change: Change
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


def entry_of(run: Experiment, request_id: str, digest: str, proof: Proof) -> dict[str, Any]:
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


def carry_out(run: Deployed, folder: ModelFolder, asked: Rows, options: ProofOptions) -> Proof:
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
    change = change_of(run, run.forgotten, with_gone(run, np.union1d(run.forgotten, asked)))
    if len(change.retain) == 0:
        raise InputError("the request leaves no training row; train and export anew")
    watched, before = watched_of(run, change), run.state
    measuring, unlearning = Watch(), Watch()
    with measuring.running():
        first = measured(run, change, watched, change.before)
    with unlearning.running():
        cost = succeed(run, folder, change)
    with measuring.running():
        then = measured(run, change, watched, change.after)
        drift = run.drift()
    retrain = None
    if options.with_retrain and len(change.forget):
        answers = {"before": first.answers, "after": then.answers}
        retrain = referred(run, change, watched, answers, folder.work, options.noise_floor)
    found = cost.pop("found", {})
    return Proof(
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
