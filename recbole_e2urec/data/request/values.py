"""Values of a field, as a flat column with the owner of each."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Column(NamedTuple):
    """Values of a field; a row, user or item may have several, or none.

    Attributes:
        kind: ``token``, ``float`` or ``time``.
        values: [m] numbers, NaN where one is missing, or tokens, '' where one is missing.
        owner: [m] whose value each is, below ``owners``.
        owners: how many rows, users or items there are.
        spread: [n] whose value each row of the data has.
        is_sequence: whether there may be several.
    """

    kind: str
    values: Any
    owner: NDArray[np.int64]
    owners: int
    spread: NDArray[np.int64]
    is_sequence: bool = False


def column_of(
    kind: str,
    values: list[list[Any]],
    owner: NDArray[np.int64],
    spread: NDArray[np.int64],
    owners: int,
) -> Column:
    """Values by owner as one flat column."""
    counts = [len(cell) for cell in values]
    flat: list[Any] = [value for cell in values for value in cell]
    is_float = kind.startswith("float")
    column = np.array([number_of(value) for value in flat], np.float64) if is_float else flat
    several = kind.endswith("_seq") or max(counts, default=0) > 1
    return Column(
        "float" if is_float else "token", column, np.repeat(owner, counts), owners, spread, several
    )


def number_of(value: Any) -> float:
    """The number that a cell holds, NaN for none."""
    try:
        return float(value)
    except ValueError:
        return float("nan")
