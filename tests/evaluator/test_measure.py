import numpy as np
import pytest

from recbole_e2urec.data.rows import RowTable
from recbole_e2urec.evaluator.measure import Answers, Groups, who_pays

NONE = np.empty(0, dtype=np.int64)


@pytest.fixture
def rows() -> RowTable:
    """Ten users; user u has u training rows, of items 1 to u, and two test rows, of items u, u."""
    user = np.array([u for u in range(1, 11) for _ in range(u + 2)])
    item = np.array([i for u in range(1, 11) for i in [*range(1, u + 1), u, u]])
    label = np.tile(np.float32([0, 1]), len(user))[: len(user)]
    return RowTable(user, item, np.arange(len(user)).astype(float), label=label)


def test_who_pays_names_fifths_of_users_and_of_rows(rows: RowTable, small_config):
    ends = np.flatnonzero(np.diff(rows.user, append=99))
    test = np.sort(np.concatenate([ends - 1, ends]))
    train = np.setdiff1d(np.arange(len(rows)), test)
    label = rows.label
    label[test] = np.tile([0, 1], 10)  # each user dislikes one film and likes another one
    yes = np.where(label == 1, 0.9, 0.1)
    worst = test[(rows.user[test] <= 2)]  # the two least active users; rarest items are 10 and 9
    yes[worst] = 1 - yes[worst]
    popular = test[rows.item[test] >= 9]
    yes[popular] = 0.5
    groups = Groups(NONE, NONE, test, NONE, test, NONE)
    found = who_pays(small_config("FM"), Answers(yes, None), groups, rows, train)
    assert found == {"activity": [0, 1, 1, 1, 0.5], "popularity": [0.5, 1, 1, 1, 0]}


def test_who_pays_has_no_auc_where_all_labels_are_alike(rows: RowTable, small_config):
    test = np.flatnonzero(rows.user == 10)[-2:]
    train = np.setdiff1d(np.arange(len(rows)), test)
    rows.label[test] = 1
    groups = Groups(NONE, NONE, test, NONE, test, NONE)
    found = who_pays(small_config("FM"), Answers(rows.label * 1.0, None), groups, rows, train)
    assert found == {"activity": [None] * 5, "popularity": [None] * 5}
