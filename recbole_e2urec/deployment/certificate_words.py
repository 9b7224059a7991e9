"""What a certificate says in words: warnings first, then findings, then what it cannot show.

No sentence claims more than the numbers that it is made from.
"""

from collections.abc import Mapping
from typing import Any

from recbole_e2urec.methods.unlearner import NOT_REACHED
from recbole_e2urec.report.tables import NOISE, is_high

# Bounds above or below which something is said first.
MAX_AUC_LOSS = 0.02  # test AUC
MIN_LOSS_RISE = 0.01  # nats, of the forgotten rows
FEW_STEPS = 4  # after which the model knows forgotten rows again

NOTHING_PURGED = (
    "Nothing was purged: Original and what was trained on the way may still lie in the run's "
    "folder, and the rows themselves in the data files."
)
NO_RETRAIN = (
    "No Retrain was made for this request (--with_retrain makes one). How far the model is from "
    "one that never saw the rows is therefore not known."
)
NO_CONTROL = "none: train with control_users"
EXACT = (
    "The model was trained anew and never saw the rows. That is exact, as long as the data were as "
    "stated. It says nothing about copies elsewhere."
)
APPROXIMATE = (
    "Approximate unlearning is evidence, not a guarantee. Answers were compared, and weights may "
    "hold what answers do not show. The exact methods are Retrain, SISA and APA."
)
LIMITS = (
    "This is one model and one seed. Another training might show something else.",
    "Rows of control users belong to other people and differ in difficulty. Held-out rows of the "
    "same users are not unseen ones, because a user is remembered as a whole. Only a Retrain shows "
    "what the loss of the forgotten rows should be.",
    "Intervals show how much other users might have changed the result, not how much another "
    "training might have. With few users they are too narrow.",
    "A slow relearning curve is no proof. Another attack may be faster.",
    "Test rows are read for this report and choose nothing.",
    "Because of the salt, hashes cannot be compared between two certificates, or with tables made "
    "in advance. The salt does not protect a name from somebody who has a list of names and tries "
    "each. In the same way, an auditor who knows a name can check it. Whoever has the whole data "
    "set can try the request's hash. The model folder keeps the row numbers of what is forgotten.",
    "Hashes reveal damage and mistakes. They are no signature: whoever can write to the folder can "
    "replace all of them. Keep a copy elsewhere, or sign it.",
)


def words_of(certificate: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the sentences for a certificate: ``first``, ``found`` and ``cannot_show``."""
    if certificate["asked"]["training_rows"] == 0:
        first = [
            "No model was trained on anything that was asked for: there was nothing to unlearn, "
            "and the weights are unchanged."
        ]
    else:
        first = [
            *unreached(certificate["method"]["found"]),
            *_loss_not_risen(certificate),
            *_relearned(certificate),
            *_forgotten_too_much(certificate),
            *_further_from_retrain(certificate),
        ]
    return {
        "first": [*first, *_lost_utility(certificate)],
        "found": [
            *_losses_and_utility(certificate),
            *_retrain(certificate),
            *_drift(certificate),
            *_purged(certificate),
        ],
        "cannot_show": [EXACT if _is_retrain(certificate) else APPROXIMATE, *LIMITS],
    }


def unreached(findings: Mapping[str, float]) -> list[str]:
    """Return a warning if a method left out some rows; ``findings`` is what it found out."""
    missed = int(findings.get(NOT_REACHED, 0))
    if not missed:
        return []
    return [f"{missed:,} training rows were not reached: the model knows them as well as before."]


def no_residual(certificate: Mapping[str, Any]) -> str | None:
    """Return why a certificate with a Retrain shows no residual; None if it shows one.

    A residual is shown only beside its noise floor, the residual of a second Retrain.
    """
    floor = certificate["retrain"]["distances"].get(NOISE, {}).get("residual")
    if floor is None:
        return "The residual is not shown: it needs a second Retrain (--noise_floor)."
    if is_high(floor):
        return (
            f"The residual is not shown: two Retrains of different seeds are {floor:.2f} apart on "
            "this request."
        )
    return None


def _loss_not_risen(certificate: Mapping[str, Any]) -> list[str]:
    before, after = _before_and_after(certificate, "forget", "loss")
    if after > before + MIN_LOSS_RISE:
        return []
    rose, forgotten = ("hardly rose", "hardly") if after > before else ("did not rise", "not")
    return [
        f"The loss of the forgotten rows {rose} ({before:.4f} before, {after:.4f} after): by "
        f"this measure the model has {forgotten} forgotten them, unless it had never learned them."
    ]


def _relearned(certificate: Mapping[str, Any]) -> list[str]:
    before, after = _before_and_after(certificate, "relearning", "forget")
    if after is None or not after["loss"][0] > before["loss"][0]:
        return []
    relearned_at = [
        step
        for step, loss in zip(after["steps"], after["loss"], strict=True)
        if step <= FEW_STEPS and loss <= before["loss"][0]
    ]
    if not relearned_at:
        return []
    return [
        f"{relearned_at[0]} steps on one half of the forgotten rows are enough for the model to "
        "know the other half as well as before the request: they may only be hidden."
    ]


def _forgotten_too_much(certificate: Mapping[str, Any]) -> list[str]:
    attack = certificate["measures"]["after"]["mia"]
    if attack is None or attack["interval"] is None or attack["interval"][1] >= 0.5:
        return []
    low, high = attack["interval"]
    numbers = f"MIA AUC {attack['auc']:.4f}, 95 % between {low:.4f} and {high:.4f}"
    reference = certificate["retrain"] and certificate["retrain"]["measures"]["mia"]
    if reference:
        numbers += f"; Retrain's {reference['auc']:.4f}"
    return [
        "The forgotten rows have larger losses than rows of users whom no model saw "
        f"({numbers}): too much may have been forgotten, and whoever can query the model may be "
        "able to tell who was forgotten."
    ]


def _further_from_retrain(certificate: Mapping[str, Any]) -> list[str]:
    if not certificate["retrain"] or no_residual(certificate):
        return []
    residual = certificate["retrain"]["distances"]["after"]["residual"]
    if residual is None or residual <= 1:
        return []
    return [
        "Row by row, the answers to the forgotten rows are further from Retrain's than before "
        f"(residual {residual:.3f}, 1 = did nothing): they were changed, but not to what a model "
        "answers that never saw the rows."
    ]


def _lost_utility(certificate: Mapping[str, Any]) -> list[str]:
    before, after = _before_and_after(certificate, "test", "auc")
    if before is None or after is None or before - after <= MAX_AUC_LOSS:
        return []
    return [f"Users who stay lost {before - after:.4f} of test AUC."]


def _losses_and_utility(certificate: Mapping[str, Any]) -> list[str]:
    counts, method = certificate["asked"], certificate["method"]["name"]
    sentences = []
    if counts["training_rows"]:
        before, after = _before_and_after(certificate, "forget", "loss")
        heldout = _before_and_after(certificate, "heldout", "loss")
        control = _before_and_after(certificate, "control", "loss")
        sentences += [
            f"{method} was to make the model forget {counts['training_rows']:,} training rows of "
            f"{counts['users']['some']:,} users ({counts['share_of_training']:.2%} of what it was "
            f"trained on). Their mean loss was {before:.4f} nats before and is {after:.4f} after.",
            f"Held-out rows of the same users: {_change(heldout, 'none')}.",
            f"Rows of users whom no model was trained on: {_change(control, NO_CONTROL)}.",
        ]
    utility = _before_and_after(certificate, "test", "auc")
    sentences.append(
        f"Test AUC of users who stay: {_change(utility, 'no such rows with both labels')}."
    )
    return sentences


def _retrain(certificate: Mapping[str, Any]) -> list[str]:
    if certificate["retrain"] is None:
        return [] if _is_retrain(certificate) else [NO_RETRAIN]
    loss = certificate["retrain"]["measures"]["forget"]["loss"]
    sentences = [f"A Retrain, which never saw the rows, has a loss of {loss:.4f} on them."]
    why_hidden = no_residual(certificate)
    for name, distance in certificate["retrain"]["distances"].items():
        title = f"{name.capitalize()} the request" if name in ("before", "after") else name
        is_shown = why_hidden is None and distance["residual"] is not None
        residual = f", residual {distance['residual']:.3f}" if is_shown else ""
        sentences.append(f"{title}: JSD {distance['jsd']:.5f} nats to Retrain{residual}.")
    return sentences if why_hidden is None else [*sentences, why_hidden]


def _drift(certificate: Mapping[str, Any]) -> list[str]:
    drift, rows = certificate["drift"]["kl"], certificate["drift"]["rows"]
    if drift is None:
        return ["Drift is unknown: there are no validation rows of users whom no request touched."]
    return [
        f"The model's answers are {drift:.5f} nats (mean KL) from those of the first model in its "
        f"folder, on {rows:,} validation rows of users whom no request touched."
    ]


def _purged(certificate: Mapping[str, Any]) -> list[str]:
    purged = certificate["purged"]
    if purged is None:
        return [NOTHING_PURGED]
    files = sum(kind["files"] for kind in purged["removed"].values())
    size = sum(kind["bytes"] for kind in purged["removed"].values())
    sentences = [
        f"{files:,} files of {size:,} bytes were purged; {len(purged['kept']):,} were kept."
    ]
    if purged["unknown"]:
        sentences.append(
            f"{len(purged['unknown']):,} files that the purge does not know were left: check what "
            "they hold."
        )
    return sentences


def _before_and_after(certificate: Mapping[str, Any], *path: str) -> tuple[Any, Any]:
    """Return a measure before and after the request; None where it is missing."""
    values = []
    for side in ("before", "after"):
        value: Any = certificate["measures"][side]
        for name in path:
            value = None if value is None else value[name]
        values.append(value)
    return values[0], values[1]


def _is_retrain(certificate: Mapping[str, Any]) -> bool:
    """Return whether the model itself is a Retrain."""
    return bool(certificate["method"]["name"] == "Retrain")


def _change(values: tuple[Any, Any], otherwise: str) -> str:
    if None in values:
        return otherwise
    return f"{values[0]:.4f} before, {values[1]:.4f} after"
