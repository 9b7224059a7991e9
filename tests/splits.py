"""A request on plain rows, without a data set, taken apart as a run does it."""

from typing import Any

from recbole_e2urec.data.request.selection import ForgetOptions, ForgetSplit, select, split_of
from recbole_e2urec.data.rows import IdMap, RowTable


def choose_forget(
    options: ForgetOptions, train_rows: Any, table: RowTable, ids: IdMap, fields: Any = None
) -> ForgetSplit:
    """Select what the request asks for, and split the training rows."""
    return split_of(select(options, train_rows, table, ids, fields), train_rows)
