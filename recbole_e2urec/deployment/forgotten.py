"""Which rows are forgotten, and which request asked for each: ``forgotten.safetensors``.

A row has the number of its request, counted from 1; 0 stands for what was forgotten before the
model came into its folder, and -1 for what is not forgotten.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from recbole_e2urec.experiment import Rows

KEPT = -1


def numbers_of(tensors: Mapping[str, Tensor], rows: int, requests: int) -> Rows:  # -> [rows]
    """Numbers of all rows, from a file.

    Args:
        tensors: ``rows``, ids, and ``request``, their numbers; int64 [m] each.
        rows: of the data.
        requests: that were carried out.

    Raises:
        ValueError, KeyError: they are something else.
    """
    forgotten, request = row_ids(tensors["rows"], rows), tensors["request"].numpy()
    if request.dtype != np.int64 or request.shape != forgotten.shape:
        raise ValueError("requests of forgotten rows")
    if len(request) and not 0 <= request.min() <= request.max() <= requests:
        raise ValueError("requests that are not in model.json")
    numbers: Rows = np.full(rows, KEPT)
    numbers[forgotten] = request
    return numbers


def tensors_of(numbers: Rows) -> dict[str, Tensor]:
    """What :func:`numbers_of` reads."""
    rows = until(numbers, int(numbers.max(initial=0)))
    return {"rows": torch.from_numpy(rows), "request": torch.from_numpy(numbers[rows])}


def until(numbers: Rows, request: int) -> Rows:
    """Ids of rows that were forgotten when this request was carried out, sorted."""
    rows: Rows = np.flatnonzero((numbers > KEPT) & (numbers <= request))
    return rows


def row_ids(ids: Tensor, count: int) -> Rows:
    """Row ids of a file, if they are some.

    Raises:
        ValueError: they are none.
    """
    rows: Rows = ids.numpy()
    fits = rows.dtype == np.int64 and rows.ndim == 1
    if not fits or (len(rows) and not 0 <= rows.min() <= rows.max() < count):
        raise ValueError("rows")
    return rows
