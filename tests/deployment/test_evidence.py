"""What is measured before and after a request: on which rows, and by which numbers."""

import numpy as np
import pytest
from in_use import opened

from recbole_e2urec.deployment.evidence import counts_of, delta_of, evaluation_rows_of, measure

pytestmark = pytest.mark.usefixtures("certified")


def rows_of(run, *users):
    inner = [run.dataset.ids.users[user] for user in users]
    return np.flatnonzero(np.isin(run.dataset.rows.user, inner))


def test_rows_that_are_asked_about():
    run = opened()
    user, splits = run.dataset.rows.user, run.parts.splits
    earlier, new = run.forgotten, rows_of(run, "u7")
    change = delta_of(run, earlier, np.union1d(earlier, new))
    watched = evaluation_rows_of(run, change)
    assert set(watched.forget) == set(new) & set(splits.train)
    assert set(watched.heldout) == set(new) & set(splits.test)
    assert len(watched.heldout) == 1
    assert set(watched.control) == set(run.parts.control)
    assert not set(user[watched.control]) & set(user[splits.train])
    gone = {run.dataset.ids.users[name] for name in ("canary-person", "u2", "u7")}
    assert set(watched.test) == {row for row in splits.test if user[row] not in gone}


def test_a_control_user_whom_a_request_names_is_no_control_any_more():
    run = opened()
    row = run.parts.control[0]
    change = delta_of(run, run.forgotten, np.union1d(run.forgotten, [row]))
    user = run.dataset.rows.user
    assert user[row] not in user[evaluation_rows_of(run, change).control]


def test_counts_are_those_of_training_rows():
    run = opened()
    new = rows_of(run, "u7")
    change = delta_of(
        run, run.forgotten, np.union1d(run.forgotten, [*new, *rows_of(run, "u8")[:1]])
    )
    counts = counts_of(run, change)
    assert counts["rows"] == 13
    assert counts["training_rows"] == 11
    assert counts["training_rows_before"] == len(run.live) == 170
    assert counts["share_of_training"] == pytest.approx(11 / 170)
    assert counts["users"] == {"some": 2, "whole": 1}


def test_measures_are_what_the_answers_say():
    run = opened()
    change = delta_of(run, run.forgotten, np.union1d(run.forgotten, rows_of(run, "u7", "u8")))
    watched = evaluation_rows_of(run, change)
    label = run.dataset.rows.label

    def losses(rows):
        yes = run.yes(rows, change.before).double().numpy()
        return -np.log(np.where(label[rows] == 1, yes, 1 - yes))

    found = measure(run, change, watched, change.before).measures
    forget, control = losses(watched.forget), losses(watched.control)
    assert found["forget"] == {"loss": pytest.approx(forget.mean(), abs=1e-6), "rows": 20}
    assert found["control"]["loss"] == pytest.approx(control.mean(), abs=1e-6)
    wins = [(one < other) + (one == other) / 2 for one in forget for other in control]
    assert found["mia"]["auc"] == pytest.approx(np.mean(wins), abs=1e-6)
    low, high = found["mia"]["interval"]
    assert low <= found["mia"]["auc"] <= high
    assert (found["mia"]["users"], found["mia"]["other_users"]) == (2, 5)
    held = losses(watched.heldout)
    wins = [(one < other) + (one == other) / 2 for one in forget for other in held]
    assert found["mia_same_users"]["auc"] == pytest.approx(np.mean(wins), abs=1e-6)
    yes = run.yes(watched.test, change.before).numpy()
    assert found["test"]["acc"] == pytest.approx(np.mean((yes > 0.5) == (label[watched.test] == 1)))
    assert found["test"]["rows"] == len(watched.test)
    assert found["relearning"]["control"]["shown"] == 25


def test_where_nothing_is_to_be_measured_there_is_no_number():
    run = opened()
    row = run.parts.splits.test[0]
    change = delta_of(run, run.forgotten, np.union1d(run.forgotten, [row]))
    nobody = evaluation_rows_of(run, change)._replace(control=np.empty(0, np.int64))
    found = measure(run, change, nobody, change.after).measures
    assert found["forget"] == found["heldout"] == found["control"] == {"loss": None, "rows": 0}
    assert found["mia"] is None
    assert found["mia_same_users"] is None
    assert found["relearning"] == {"forget": None, "control": None}
