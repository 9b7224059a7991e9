"""The id of a request: the same for the same rows, however they were asked for."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recbole_e2urec.data.request.selection import request_digest
from recbole_e2urec.data.rows import IdMap, RowTable

USERS, ITEMS = {"ann": 1, "ben": 2, "cai": 3}, {"i1": 1, "i2": 2, "i3": 3}
IDS = IdMap(USERS, ITEMS)
#               row  0  1  2  3  4  5  6
USER = np.array([1, 1, 2, 2, 3, 3, 1])
ITEM = np.array([1, 2, 1, 3, 2, 3, 1])  # rows 0 and 6 differ in time alone
TIME = np.arange(7.0)
CHOSEN = np.array([1, 0, 0, 1, 0, 0, 0], bool)
TABLE = RowTable(USER, ITEM, TIME, np.array([1.0, 2, 3, 4, 5, 1, 2]))


@given(st.permutations(range(7)), st.permutations(range(1, 4)))
def test_the_order_of_file_and_numbers_of_users_play_no_part(order: list, inner: list) -> None:
    order, numbers = np.array(order), np.array([0, *inner])
    moved = RowTable(numbers[USER[order]], ITEM[order], TIME[order], TABLE.rating[order])
    users = {token: int(numbers[one]) for token, one in USERS.items()}
    digest = request_digest("small", moved, IdMap(users, ITEMS), CHOSEN[order])
    assert digest == request_digest("small", TABLE, IDS, CHOSEN)


def test_other_rows_and_other_data_have_other_ids() -> None:
    other = CHOSEN.copy()
    other[6] = True
    later = RowTable(USER, ITEM, TIME + 1, TABLE.rating)
    renamed = IdMap({"ann": 1, "ben": 2, "caj": 3}, ITEMS)
    found = {
        request_digest("small", TABLE, IDS, CHOSEN),
        request_digest("large", TABLE, IDS, CHOSEN),
        request_digest("small", TABLE, IDS, other),
        request_digest("small", later, IDS, CHOSEN),
        request_digest("small", TABLE, renamed, CHOSEN),
    }
    assert len(found) == 5
