"""A deletion request to the split of the training rows into retain and forget."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec.data.request.fields import Fields
from recbole_e2urec.data.request.identity import request_digest
from recbole_e2urec.data.request.selecting import ForgetOptions, Selection, select
from recbole_e2urec.errors import InputError

# Keys that say in which words a request is made; what it asks for is in its digest.
WORDING = ("forget_file", "forget_where", "forget_unknown", "request_id", "retrain_share")


class ForgetSplit(NamedTuple):
    """Training rows in two parts: disjoint, together all of them, each sorted."""

    retain: NDArray[np.int64]  # row ids
    forget: NDArray[np.int64]  # row ids


class Asked(NamedTuple):
    """A request that can be carried out."""

    split: ForgetSplit
    rows: NDArray[np.int64]  # row ids asked for, of training or not, sorted
    digest: str  # what is asked for on which data, however it was written
    request_id: str  # its own, or the digest
    warnings: tuple[str, ...]


def read_request(options: ForgetOptions, train_rows: NDArray[np.int64], dataset: Any) -> Asked:
    """Read a request and name it.

    Raises:
        InputError: as :func:`select` and :func:`split_of`.
    """
    table, ids = dataset.rows, dataset.ids
    found = select(options, train_rows, table, ids, Fields(dataset))
    split = split_of(found, train_rows)
    digest = request_digest(dataset.dataset_name, table, ids, found.chosen)
    own = found.request_id or digest
    return Asked(split, np.flatnonzero(found.chosen), digest, own, found.warnings)


def split_of(found: Selection, train_rows: NDArray[np.int64]) -> ForgetSplit:
    """Take the training rows apart.

    Raises:
        InputError: nothing is asked for, none of it is in training, or all of training is.
    """
    train = np.zeros(len(found.chosen), dtype=bool)
    train[np.asarray(train_rows, dtype=np.int64)] = True
    rows = np.flatnonzero(train)
    chosen = found.chosen[rows]
    if found.names_nothing:
        raise InputError(f"{found.source} names nobody; {found.names_nothing}")
    if not chosen.any():
        raise InputError(
            f"{found.source}: nothing that it names is in the training part; "
            "name users, pairs, items or times with training rows"
        )
    if chosen.all():
        raise InputError(f"the request names all {len(rows)} training rows; leave some to train on")
    return ForgetSplit(rows[~chosen], rows[chosen])
