"""What the tables of a certificate's page have in their lines."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from recbole_e2urec.deployment.plainwords import NO_CONTROL, no_residual


class Line(NamedTuple):
    """A line of a table."""

    title: str
    cells: list[str]


def measures(whole: Mapping[str, Any]) -> list[Line]:
    """Every measure under every model."""
    told = [whole["measures"]["before"], whole["measures"]["after"]]
    told += [whole["retrain"]["measures"]] if whole["retrain"] else []
    lines = [
        Line(f"test {title}", [_number(one["test"][key]) for one in told])
        for title, key in (("AUC", "auc"), ("ACC", "acc"), ("LogLoss", "logloss"))
    ]
    for name, title, otherwise in (
        ("forget", "loss, forgotten rows", "-"),
        ("heldout", "loss, held-out rows of the same users", "-"),
        ("control", "loss, rows of control users", NO_CONTROL),
    ):
        lines.append(Line(title, [_number(one[name]["loss"], otherwise) for one in told]))
    lines += _attacks("control users", [one["mia"] for one in told], NO_CONTROL)
    lines += _attacks("held-out rows", [one["mia_same_users"] for one in told], "-")
    for name, title in (("test", "test"), ("heldout", "held-out"), ("control", "control users'")):
        lines.append(Line(f"{title} rows asked", [f"{one[name]['rows']:,}" for one in told]))
    return lines


def curves(whole: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Relearning curves by the words of the legend."""
    sides = {side: whole["measures"][side]["relearning"] for side in ("before", "after")}
    if whole["retrain"]:
        sides["Retrain"] = whole["retrain"]["measures"]["relearning"]
    found = {f"{side}, forgotten rows": one["forget"] for side, one in sides.items()}
    found |= {f"{side}, control users": one["control"] for side, one in sides.items()}
    return {title: curve for title, curve in found.items() if curve}


def distances(whole: Mapping[str, Any]) -> list[Line]:
    """JSD, L2 and, beside its floor alone, residual of each model, where there is a Retrain."""
    if not whole["retrain"]:
        return []
    keys = ("jsd", "l2") if no_residual(whole) else ("jsd", "l2", "residual")
    return [
        Line(name, [_number(one[key]) for key in keys])
        for name, one in whole["retrain"]["distances"].items()
    ]


def _number(value: Any, otherwise: str = "-") -> str:
    return otherwise if value is None else f"{value:.4f}"


def _attacks(against: str, found: Sequence[Mapping[str, Any] | None], otherwise: str) -> list[Line]:
    """Membership inference: AUC, and the interval below it."""
    whole = Line(
        f"MIA AUC, against {against}", [_number(one and one["auc"], otherwise) for one in found]
    )
    bounds = [one["interval"] for one in found if one and one["interval"]]
    if len(bounds) < len(found):
        return [whole]
    return [whole, Line("its 95 % interval", [f"{low:.3f} to {high:.3f}" for low, high in bounds])]


def flat(value: Mapping[str, Any], before: str = "") -> list[Line]:
    """A nested mapping as lines."""
    lines = []
    for key, one in value.items():
        if isinstance(one, Mapping):
            lines += flat(one, f"{before}{key}.")
        else:
            lines.append(
                Line(f"{before}{key}", [f"{one:g}" if isinstance(one, float) else f"{one}"])
            )
    return lines
