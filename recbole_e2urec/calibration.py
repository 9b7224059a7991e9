"""What a rehearsal found, kept beside the model, and how a later request uses it.

The file is JSON: ``method`` and ``settings`` (options by key), ``strength`` and ``power``,
``remembered``, ``fingerprint`` of the model and its data, how well it ``matched``, the whole
``curve``, the ``request`` that was rehearsed and what it cost.
"""

from dataclasses import dataclass, fields
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec import writer
from recbole_e2urec.config import Config
from recbole_e2urec.errors import InputError
from recbole_e2urec.evaluator.membership import answer_losses
from recbole_e2urec.methods import METHODS
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.scorers import Adapted
from recbole_e2urec.options import build_options
from recbole_e2urec.storage import read_json, write_json
from recbole_e2urec.tables import Cells

Rows = NDArray[np.int64]
CERTAIN = 1000  # held-out rows from which a request's own memorisation counts as much as A's
FARTHEST = 2.0  # a request is taken to remember at most so many times what A did, or a part of it


class Remembered(NamedTuple):
    """How much Original remembers of a request.

    Attributes:
        gap: mean loss of its users' validation rows minus that of its forget rows, in nats.
        rows: number of these validation rows.
    """

    gap: float
    rows: int


class Asking(NamedTuple):
    """What is asked to see how much a model remembers of a request.

    Attributes:
        forget: training rows of the request.
        yes: what the model answers there, P(yes), [forget rows].
        valid: validation rows of the same users.
        history: that prompts show, before the request, [all rows, k].
    """

    forget: Rows
    yes: NDArray[np.float64]
    valid: Rows
    history: Rows


@dataclass(frozen=True)
class Calibration:
    """A rehearsal's outcome; see the module.

    Attributes:
        method: that was rehearsed.
        settings: of it, which match Retrain best.
        strength: one of these, which decides how strongly it forgets.
        power: of what is remembered in proportion to which the strength is set.
        remembered: gap and rows of the rehearsed request.
        fingerprint: of the model and its data.
        matched: the best point.
        curve: all points.
        request: what was rehearsed, in counts.
        cost: seconds of it all.
    """

    method: str
    settings: dict[str, Any]
    strength: str
    power: float
    remembered: dict[str, Any]
    fingerprint: str
    matched: dict[str, Any]
    curve: list[Any]
    request: dict[str, Any]
    cost: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> "Calibration":
        """Read the file.

        Raises:
            InputError: it cannot be read, or is no calibration.
        """
        try:
            values = read_json(path)
            if not isinstance(values, dict):
                raise InputError("it is no mapping")
            made = build_options(cls, values)
            if made.method not in METHODS or made.strength not in made.settings:
                raise InputError("it names no method with a strength")
            own = {field.name for field in fields(METHODS[made.method].options_class)}
            if not made.settings.keys() <= own or made.remembered.keys() != {"gap", "rows"}:
                raise InputError("its settings are not those of its method")
            numbers = [*made.settings.values(), *made.remembered.values(), made.power]
            numbers += [made.matched["badness"], made.cost["seconds"]]
            if not all(type(one) in (int, float) and isfinite(one) for one in numbers):
                raise InputError("its settings are not numbers")
        except (OSError, ValueError, KeyError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(
                f"calibration: {path} is no file of recbole-e2urec rehearse ({reason})"
            ) from error
        return made

    def write(self, path: Path) -> None:
        """Write the file."""
        write_json(path, {field.name: getattr(self, field.name) for field in fields(self)})

    def check(self, config: Config) -> None:
        """Refuse another method, and settings that are given besides.

        Raises:
            InputError: says which.
        """
        if config.model != self.method:
            raise InputError(
                f"calibration: it was made for {self.method}, not for {config.model}; rehearse that"
            )
        given, values = set(config.external_config_dict), config.final_config_dict
        twice = sorted(given.intersection(self.settings))
        if twice:
            raise InputError(
                f"calibration: {twice[0]} is both calibrated and set; drop one of them"
            )
        if self.strength not in METHODS[self.method].searched(given, values):
            raise InputError(
                f"calibration: it sets {self.strength}, which these settings leave without effect; "
                "give those that were rehearsed"
            )

    def check_model(self, fingerprint: str) -> None:
        """Refuse another model than the one that was rehearsed.

        Raises:
            InputError: it is another.
        """
        if fingerprint != self.fingerprint:
            raise InputError(
                "calibration: it was made for another model (other data, settings, seed or "
                "versions); run recbole-e2urec rehearse on this one"
            )

    def adapted(self, seen: Remembered) -> dict[str, float]:
        """The settings for a request; see :func:`ratio_of`."""
        ratio = ratio_of(seen, Remembered(**self.remembered))
        return {**self.settings, self.strength: self.settings[self.strength] * ratio**self.power}


def remembered_of(model: LLMRec, asking: Asking) -> Remembered:
    """How much a model remembers of a request; no test row is asked about."""
    valid, label = asking.valid, model.labels
    if len(valid) == 0:
        return Remembered(0.0, 0)
    assert label is not None  # the model was trained on them
    with model.shown(asking.history):
        asked = Adapted(model.adapter).ask(model, valid)
    yes = asked.yes(model.language_model.answer_ids).double().cpu().numpy()
    apart = answer_losses(yes, label[valid]).mean()
    known = answer_losses(asking.yes, label[asking.forget]).mean()
    return Remembered(writer.agreed(float(apart - known)), len(valid))


def calibration_of(config: Config) -> Calibration | None:
    """The calibration that the settings name; None where they name none.

    Raises:
        InputError: it cannot be read, or does not go with the settings.
    """
    if config["calibration"] is None:
        return None
    found = Calibration.read(Path(str(config["calibration"])))
    found.check(config)
    return found


def ratio_of(seen: Remembered, rehearsed: Remembered) -> float:
    """How much more of a request is remembered than of the rehearsed one.

    ``1 + n / (n + 1000) * (gap / rehearsed gap - 1)``, between 1/2 and 2, n being the request's
    validation rows. A gap of few rows is mostly noise (a row's loss varies by about 0.4, gaps of
    requests by about 0.013, and (0.4 / 0.013)^2 is about 1,000), so a small request is taken to be
    like the rehearsed one. Where nothing was remembered there, or there are no rows, it is 1.
    """
    if seen.rows == 0 or rehearsed.gap <= 0:
        return 1.0
    weight = seen.rows / (seen.rows + CERTAIN)
    ratio = 1 + weight * (seen.gap / rehearsed.gap - 1)
    return min(max(ratio, 1 / FARTHEST), FARTHEST)


def told(calibration: Calibration, seen: Remembered) -> dict[str, Any]:
    """What the results of a request say about it."""
    return {
        "rehearsed": dict(calibration.request),
        "settings": dict(calibration.settings),
        "badness": calibration.matched["badness"],
        "remembered": seen._asdict(),
    }


def drawn(calibration: Calibration, path: Path) -> str:
    """A rehearsal for the terminal."""
    keys = list(calibration.curve[0]["settings"])
    lines = [
        [
            "best" if point == calibration.matched else "",
            *(f"{point['settings'][key]:g}" for key in keys),
            f"{point['stop']:.2f}",
            *(f"{point[name]:.2f}" for name in ("closed_loss", "closed_auc")),
            f"{point['lost']:.4f}",
            f"{point['badness']:.3f}",
        ]
        for point in calibration.curve
    ]
    names = ["stop", "loss gap closed", "AUC gap closed", "AUC lost", "badness"]
    request = calibration.request
    return (
        f"{calibration.method}: {request['rows']} rows of {request['kind']} rehearsed "
        f"({request['of_training']:.1%} of training); Retrain is {request['gap_loss']:.4f} above "
        f"Original in forget LogLoss and {request['gap_auc']:.4f} below in forget AUC\n\n"
        f"{Cells(['', *keys, *names], lines).drawn()}\n\n"
        f"{calibration.cost['seconds']:.0f} seconds of training; calibration: {path}\n"
        f"to use it: --calibration={path}"
    )
