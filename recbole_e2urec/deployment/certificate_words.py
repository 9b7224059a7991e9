"""What a certificate says in words: what must be said first, what was found, what it cannot show.

No sentence is stronger than the numbers that it is made of.
"""

from collections.abc import Mapping
from typing import Any

from recbole_e2urec.methods.base import NOT_REACHED
from recbole_e2urec.report.tables import NOISE, is_high

LOST = 0.02  # test AUC; a loss above this is said first
LITTLE = 0.01  # nats; a rise of the loss up to this is said first
SOON = 4  # steps after which forgotten rows that are known again are said first
NOTHING_PURGED = (
    "Nothing was purged: Original and what was trained on the way may still lie in the run's "
    "folder, and the rows themselves in the data files."
)
NO_RETRAIN = (
    "No Retrain was made for this request (--with_retrain makes one): how far the model is from "
    "one that never saw the rows is not known."
)
NO_CONTROL = "none: train with control_users"
RETRAINED = (
    "The model was trained anew and never saw the rows: that is exact, as long as the data were as "
    "told. Copies elsewhere are another matter."
)
CANNOT = (
    "Approximate unlearning is evidence, not a guarantee: answers were compared, and weights may "
    "hold what answers do not show. The exact methods are Retrain, SISA and APA.",
    "It is one model and one seed. Another training might show something else.",
    "Rows of control users are those of other people and differ in difficulty; held-out rows of "
    "the same users are no unseen ones, as a user is remembered as a whole. What the loss of the "
    "forgotten rows should be, only a Retrain tells.",
    "Intervals say what other users might have shown, not another training; with few users "
    "they are too narrow.",
    "A slow relearning curve is no proof: another attack may be faster.",
    "Test rows are read for this report and choose nothing.",
    "The salt keeps hashes of two certificates, and tables made beforehand, from being compared. "
    "It protects no name from somebody who has a list of names: each can be tried. That is also "
    "how an auditor who knows a name checks it. The request's hash can be tried by whoever "
    "has the whole data set. Row numbers of what is forgotten stay in the model folder.",
    "Hashes find damage and slips. They are no signature: whoever can write to the folder "
    "can write all of them anew. Keep a copy elsewhere, or sign it.",
)


def words_of(whole: Mapping[str, Any]) -> dict[str, list[str]]:
    """Sentences for a certificate: ``first``, ``found`` and ``cannot_show``."""
    if whole["asked"]["training_rows"] == 0:
        first = [
            "No model was trained on anything that was asked for: there was nothing to unlearn, "
            "and the weights are as before."
        ]
    else:
        first = [
            *unreached(whole["method"]["found"]),
            *_not_risen(whole),
            *_relearned(whole),
            *_overshot(whole),
            *_astray(whole),
        ]
    return {
        "first": [*first, *_lost(whole)],
        "found": [*_found(whole), *_reference(whole), *_drift(whole), *_purged(whole)],
        "cannot_show": [RETRAINED if _retrained(whole) else CANNOT[0], *CANNOT[1:]],
    }


def unreached(found: Mapping[str, float]) -> list[str]:
    """What a method that forgets in part left out, by what it found."""
    missed = int(found.get(NOT_REACHED, 0))
    if not missed:
        return []
    return [f"{missed:,} training rows were not reached: the model knows them as well as before."]


def _both(whole: Mapping[str, Any], *path: str) -> tuple[Any, Any]:
    """A measure before and after; None where there is none."""
    found = []
    for side in ("before", "after"):
        value: Any = whole["measures"][side]
        for name in path:
            value = None if value is None else value[name]
        found.append(value)
    return found[0], found[1]


def _retrained(whole: Mapping[str, Any]) -> bool:
    """Whether the model itself is a Retrain."""
    return bool(whole["method"]["name"] == "Retrain")


def _not_risen(whole: Mapping[str, Any]) -> list[str]:
    before, after = _both(whole, "forget", "loss")
    if after > before + LITTLE:
        return []
    how = ("hardly rose", "hardly") if after > before else ("did not rise", "not")
    return [
        f"The loss of the forgotten rows {how[0]} ({before:.4f} before, {after:.4f} after): by "
        f"this measure the model has {how[1]} forgotten them, unless it had not learned them."
    ]


def _relearned(whole: Mapping[str, Any]) -> list[str]:
    before, after = _both(whole, "relearning", "forget")
    if after is None or not after["loss"][0] > before["loss"][0]:
        return []
    back = [
        step
        for step, loss in zip(after["steps"], after["loss"], strict=True)
        if step <= SOON and loss <= before["loss"][0]
    ]
    if not back:
        return []
    return [
        f"{back[0]} steps on one half of the forgotten rows are enough for the model to know the "
        "other half as well as before the request: they may only be hidden."
    ]


def _overshot(whole: Mapping[str, Any]) -> list[str]:
    attack = whole["measures"]["after"]["mia"]
    if attack is None or attack["interval"] is None or attack["interval"][1] >= 0.5:
        return []
    told = f"MIA AUC {attack['auc']:.4f}, {_between(attack['interval'])}"
    reference = whole["retrain"] and whole["retrain"]["measures"]["mia"]
    if reference:
        told += f"; Retrain's {reference['auc']:.4f}"
    return [
        "The forgotten rows have larger losses than rows of users whom no model saw "
        f"({told}): too much may have been forgotten, and who can ask the model may tell by that "
        "who was forgotten."
    ]


def no_residual(whole: Mapping[str, Any]) -> str | None:
    """Say why a certificate with a Retrain shows no residual; None where it does.

    A residual never stands without its floor, that of a second Retrain.
    """
    floor = whole["retrain"]["distances"].get(NOISE, {}).get("residual")
    if floor is None:
        return "The residual is not shown: it needs a second Retrain (--noise_floor)."
    if is_high(floor):
        return (
            f"The residual is not shown: two Retrains of different seeds are {floor:.2f} apart on "
            "this request."
        )
    return None


def _astray(whole: Mapping[str, Any]) -> list[str]:
    if not whole["retrain"] or no_residual(whole):
        return []
    residual = whole["retrain"]["distances"]["after"]["residual"]
    if residual is None or residual <= 1:
        return []
    return [
        "Row by row the answers to the forgotten rows are further from Retrain's than before "
        f"(residual {residual:.3f}, 1 = did nothing): they were changed, but not to what a model "
        "says that never saw the rows."
    ]


def _lost(whole: Mapping[str, Any]) -> list[str]:
    before, after = _both(whole, "test", "auc")
    if before is None or after is None or before - after <= LOST:
        return []
    return [f"Users who stay lost {before - after:.4f} of test AUC."]


def _found(whole: Mapping[str, Any]) -> list[str]:
    asked, method = whole["asked"], whole["method"]["name"]
    told = []
    if asked["training_rows"]:
        before, after = _both(whole, "forget", "loss")
        held = _both(whole, "heldout", "loss")
        control = _both(whole, "control", "loss")
        told.append(
            f"{method} was to make the model forget {asked['training_rows']:,} training rows of "
            f"{asked['users']['some']:,} users ({asked['share_of_training']:.2%} of what it was "
            f"trained on). Their mean loss was {before:.4f} nats before and is {after:.4f} after."
        )
        told.append(f"Held-out rows of the same users: {_change(held, 'none')}.")
        told.append(f"Rows of users whom no model was trained on: {_change(control, NO_CONTROL)}.")
    utility = _both(whole, "test", "auc")
    told.append(f"Test AUC of users who stay: {_change(utility, 'no such rows of two labels')}.")
    return told


def _change(values: tuple[Any, Any], otherwise: str) -> str:
    if None in values:
        return otherwise
    return f"{values[0]:.4f} before, {values[1]:.4f} after"


def _reference(whole: Mapping[str, Any]) -> list[str]:
    if whole["retrain"] is None:
        return [] if _retrained(whole) else [NO_RETRAIN]
    loss = whole["retrain"]["measures"]["forget"]["loss"]
    found = [f"A Retrain, which never saw the rows, has a loss of {loss:.4f} on them."]
    hidden = no_residual(whole)
    for name, one in whole["retrain"]["distances"].items():
        title = f"{name.capitalize()} the request" if name in ("before", "after") else name
        shown = hidden is None and one["residual"] is not None
        residual = f", residual {one['residual']:.3f}" if shown else ""
        found.append(f"{title}: JSD {one['jsd']:.5f} nats to Retrain{residual}.")
    return found if hidden is None else [*found, hidden]


def _drift(whole: Mapping[str, Any]) -> list[str]:
    drift, rows = whole["drift"]["kl"], whole["drift"]["rows"]
    if drift is None:
        return ["Drift is unknown: there are no validation rows of users whom no request touched."]
    return [
        f"The model's answers are {drift:.5f} nats (mean KL) from those of the first model in its "
        f"folder, on {rows:,} validation rows of users whom no request touched."
    ]


def _purged(whole: Mapping[str, Any]) -> list[str]:
    purged = whole["purged"]
    if purged is None:
        return [NOTHING_PURGED]
    files = sum(one["files"] for one in purged["removed"].values())
    size = sum(one["bytes"] for one in purged["removed"].values())
    told = [f"{files:,} files of {size:,} bytes were purged; {len(purged['kept']):,} were kept."]
    if purged["unknown"]:
        told.append(
            f"{len(purged['unknown']):,} files were left that the purge does not know: look at "
            "them."
        )
    return told


def _between(bounds: list[float]) -> str:
    return f"95 % between {bounds[0]:.4f} and {bounds[1]:.4f}"
