"""Which rows are forgotten, and which request asked for each: ``forgotten.safetensors``.

A row has the number of its request, counted from 1; 0 stands for what was forgotten before the
folder had a ledger, and -1 for what is not forgotten.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from recbole_e2urec.experiment import Rows

KEPT, FIRST = -1, 1


class Numbered(NamedTuple):
    """Who was named by which request.

    Attributes:
        dataset: the data.
        number: of the request of each row, [rows].
    """

    dataset: Any
    number: Rows


def numbers_of(tensors: Mapping[str, Tensor], rows: int, requests: int) -> Rows:  # -> [rows]
    """Numbers of all rows, from a file.

    Args:
        tensors: ``rows``, ids, and ``request``, their numbers; int64 [m] each.
        rows: of the data.
        requests: that were carried out.

    Raises:
        ValueError, KeyError: they are something else.
    """
    forgotten, request = row_ids(tensors["rows"], rows), _integers(tensors["request"])
    if request.shape != forgotten.shape:
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
    """Row ids of a file, if they are some, in ascending order.

    Raises:
        ValueError: they are none.
    """
    rows = _integers(ids)
    if len(rows) and not (rows[0] >= 0 and rows[-1] < count and (np.diff(rows) > 0).all()):
        raise ValueError("rows")
    return rows


def _integers(tensor: Tensor) -> Rows:  # [m] -> [m]
    if tensor.dtype != torch.int64 or tensor.ndim != 1:
        raise ValueError("no list of whole numbers")
    integers: Rows = tensor.numpy()
    return integers
