"""A request carried out and measured: what the folder's ledger keeps of it.

All that a certificate says is in the ledger or in the folder's other files, so that nothing is lost
to whoever is killed between the new generation and its certificate.
"""

import secrets
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from recbole_e2urec.deployment.change import change_of, counts_of, watched_of
from recbole_e2urec.deployment.deployed import Deployed
from recbole_e2urec.deployment.evidence import measured
from recbole_e2urec.deployment.folder import ModelFolder
from recbole_e2urec.deployment.reference import check_reference, referred
from recbole_e2urec.deployment.remains import with_gone
from recbole_e2urec.deployment.succession import succeed
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment import LORA, Rows
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


def carry_out(
    run: Deployed, folder: ModelFolder, asked: Rows, options: ProofOptions
) -> dict[str, Any]:
    """Carry out a request in memory; gives what the ledger keeps of it.

    Args:
        run: the model; it has forgotten the rows afterwards.
        folder: of the model; what is needed to go on after a kill is kept there.
        asked: row ids, of training or not.
        options: what is measured besides.

    Returns:
        ``rows`` and ``training_rows`` that were forgotten anew, ``forget_loss`` of the latter
        before and after, ``drift``, ``drift_rows`` and ``evidence``, see :mod:`certificate`.

    Raises:
        InputError: no training row would be left, the merged model answers otherwise than the
            student did, or a noise floor cannot be measured.
    """
    check_reference(run, options.noise_floor)
    change = change_of(run, run.forgotten, with_gone(run, np.union1d(run.forgotten, asked)))
    if len(change.retain) == 0:
        raise InputError("the request leaves no training row; train and export anew")
    watched, before = watched_of(run, change), run.state
    measuring = _Watch()
    with measuring.running():
        first = measured(run, change, watched, change.before)
    unlearning = _Watch()
    with unlearning.running():
        cost = succeed(run, folder, change)
    with measuring.running():
        then = measured(run, change, watched, change.after)
        drift = run.drift()
    retrain = None
    if options.with_retrain and len(change.forget):
        answers = {"before": first.answers, "after": then.answers}
        retrain = referred(run, change, watched, answers, folder.work, options.noise_floor)
    losses = [one.measures["forget"]["loss"] for one in (first, then)]
    found = cost.pop("found", {})
    seconds = {"request_seconds": unlearning.seconds, "measuring_seconds": measuring.seconds}
    return {
        "seconds": unlearning.seconds,
        "rows": len(change.forgotten) - len(change.earlier),
        "training_rows": len(change.forget),
        "forget_loss": losses if len(change.forget) else None,
        "drift": drift,
        "drift_rows": len(run.sample.rows),
        "evidence": {
            "salt": secrets.token_hex(SALT),
            "asked": counts_of(run, change),
            "method": {**_method_of(run), "found": found},
            "before": before,
            "measures": {"before": first.measures, "after": then.measures},
            "retrain": retrain,
            "cost": {**seconds, **cost},
            "versions": versions(),
        },
    }


def _method_of(run: Deployed) -> dict[str, Any]:
    return {
        "name": str(run.config["model"]),
        "options": asdict(method_of(run.config).options),
        "seed": run.config["seed"],
        "model": {key: run.config[key] for key in _MODEL},
    }


class _Watch:
    """Adds up seconds."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Any:
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started
