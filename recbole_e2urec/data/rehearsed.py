"""Which request is rehearsed: one like those to come, among users who stay."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec.data.forget import Asked, ForgetSplit
from recbole_e2urec.data.request.drawing import draw_others
from recbole_e2urec.data.request.identity import request_digest
from recbole_e2urec.errors import InputError

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class RehearseOptions:
    """What is rehearsed, and how long.

    Attributes:
        kind: who is drawn among those who stay: any users, users in proportion to their training
            rows (heavy), or items.
        share: of all training users (items) that is drawn; None = as many as the settings' request
            has.
        count: or their number.
        draw_seed: of the draw.
        trials: how many settings are tried, each at several stopping steps.
        output_file: where the calibration goes; None = ``calibration.json`` in ``checkpoint_dir``.
    """

    kind: Literal["users", "heavy", "items"] = "users"
    share: float | None = None
    count: int | None = None
    draw_seed: int = 1
    trials: int = 12
    output_file: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        if self.share is not None and self.count is not None:
            raise InputError("share and count: both say how many are drawn; keep one")
        if self.share is not None and not 0 < self.share < 1:
            raise InputError(f"share is {self.share}; it must be above 0 and below 1")
        for name in ("count", "trials"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; give 1 or more")
        if self.draw_seed < 0:
            raise InputError(f"draw_seed is {self.draw_seed}; give 0 or more")


def rehearsed_request(options: RehearseOptions, dataset: Any, train: Rows, real: Asked) -> Asked:
    """Draw a request among users (items) who stay; no row of the real request is in it.

    Raises:
        InputError: nobody would be left.
    """
    rows, ids = dataset.rows, dataset.ids
    items = options.kind == "items"
    unit, tokens = (rows.item, ids.items) if items else (rows.user, ids.users)
    everyone, stay = np.unique(unit[train]), real.split.retain
    asked = len(np.unique(unit[real.split.forget]))
    count = options.count or (round(options.share * len(everyone)) if options.share else asked)
    others = np.unique(unit[stay])
    if not 0 < count < len(others):
        raise InputError(
            f"rehearse: {count} of {len(others)} {'items' if items else 'users'} outside of the "
            "request cannot be drawn; give a --share or a --count with some left"
        )
    drawn = draw_others(unit[stay], tokens, count, options.draw_seed, options.kind == "heavy")
    chosen = np.isin(unit, drawn)
    chosen[real.rows] = False
    training = np.zeros(len(unit), dtype=bool)
    training[train] = True
    split = ForgetSplit(np.flatnonzero(training & ~chosen), np.flatnonzero(training & chosen))
    digest = request_digest(dataset.dataset_name, rows, ids, chosen)
    return Asked(split, np.flatnonzero(chosen), digest, "rehearsal", ())
