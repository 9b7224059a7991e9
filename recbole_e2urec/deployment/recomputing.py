"""Measures of the present model, computed once more for a certificate."""

from collections.abc import Iterator, Mapping
from typing import Any

from recbole_e2urec.deployment.change import Change, change_of, counts_of, watched_of
from recbole_e2urec.deployment.checks import UNKNOWN, Check, same
from recbole_e2urec.deployment.deployed import Deployed
from recbole_e2urec.deployment.evidence import measured
from recbole_e2urec.deployment.forgotten import until

TOLERANCE = 1e-4
RELEARNED = 1e-2  # training of some steps adds up what machines round otherwise
_GROUPS = {
    "test utility": ("test",),
    "losses of forgotten, held-out and control users' rows": ("forget", "heldout", "control"),
    "membership inference": ("mia", "mia_same_users"),
}


def change_by(run: Deployed, number: int) -> Change:
    """What a request of the model's changed."""
    return change_of(run, until(run.number, number - 1), until(run.number, number))


def recomputed(run: Deployed, whole: Mapping[str, Any]) -> Iterator[Check]:
    """Check counts, and what of the measures can be computed again.

    Args:
        run: the present model on its data.
        whole: the certificate of one of its requests, made of the ledger.
    """
    number, requests = whole["request"]["number"], run.record["requests"]
    change = change_by(run, number)
    yield same("counts of what was asked for", counts_of(run, change), whole["asked"])
    yield Check(UNKNOWN, "measures before", "that model is gone, as it should be")
    if whole["retrain"] is not None:
        yield Check(UNKNOWN, "distance to Retrain", "Retrain was not kept")
    last = len(requests)
    if number == last:
        yield from _measures(run, number, whole["measures"]["after"], whole["drift"]["kl"])
        return
    now = ""
    if len(change.forget):
        then = whole["measures"]["after"]["forget"]["loss"]
        loss = run.loss(change.forget, change.before)
        now = f"; the loss of its forgotten rows is {loss:.4f} now and was {then:.4f} then"
    yield Check(UNKNOWN, "measures after", f"{last - number} later requests changed the model{now}")
    entry = requests[-1]
    told = f" of the present model, as after request {last}"
    yield from _measures(run, last, entry["evidence"]["measures"]["after"], entry["drift"], told)


def _measures(
    run: Deployed, number: int, told: Mapping[str, Any], drift: float | None, of: str = " after"
) -> Iterator[Check]:
    change = change_by(run, number)
    found = measured(run, change, watched_of(run, change), change.after).measures
    for title, names in _GROUPS.items():
        ours, theirs = ({name: one[name] for name in names} for one in (found, told))
        yield same(f"{title}{of}, within {TOLERANCE:g}", ours, theirs, TOLERANCE)
    ours, theirs = found["relearning"], told["relearning"]
    yield same(f"relearning{of}, within {RELEARNED:g}", ours, theirs, RELEARNED)
    yield same(f"drift{of}, within {TOLERANCE:g}", run.drift(), drift, TOLERANCE)
