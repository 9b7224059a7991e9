"""What is measured before and after a request: on which rows, and by which numbers."""

import numpy as np
import pytest
from in_use import opened

from recbole_e2urec.deployment.evidence import (
    ROWS_OF_USER,
    attack,
    counts_of,
    delta_of,
    evaluation_rows_of,
    measure,
)
from recbole_e2urec.evaluator.measure import Answers

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
    assert set(watched.stay) <= set(splits.train)
    assert {user[row] for row in watched.stay} == set(user[run.live]) - gone
    assert set(np.unique(user[watched.stay], return_counts=True)[1]) == {ROWS_OF_USER}


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
    coarse = found["rounding"]
    assert list(coarse["forget"]) == ["loss", "loss_8_bits", "loss_4_bits", "rows"]
    assert coarse["forget"]["loss"] == found["forget"]["loss"]  # few rows: it is all of them
    assert coarse["control"]["loss_8_bits"] == pytest.approx(found["control"]["loss"], abs=0.02)


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
    assert found["rounding"]["forget"]["loss_4_bits"] is None
    nothing = Answers(np.empty(0), None)
    assert attack(run, change, nobody, nothing, nothing) is None


def answers(run, change, forget: float, others: float, rounded: float) -> Answers:
    """P(true answer) of forgotten rows, of all others, and of forgotten rows after rounding."""
    label, is_forgotten = run.dataset.rows.label, np.zeros(len(run.dataset.rows), dtype=bool)
    is_forgotten[change.forget] = True

    def yes(of_forgotten: float) -> np.ndarray:
        right = np.where(is_forgotten, of_forgotten, others)
        return np.where(label == 1, right, 1 - right)

    return Answers(yes(forget), None, {8: yes(forget), 4: yes(rounded)})


def test_attacks_say_how_much_comes_back_and_who_is_told_apart():
    run = opened()
    change = delta_of(run, run.forgotten, np.union1d(run.forgotten, rows_of(run, "u7", "u8")))
    before = answers(run, change, 0.8, 0.5, rounded=0.8)
    after = answers(run, change, 0.5, 0.5, rounded=0.8)
    found = attack(run, change, evaluation_rows_of(run, change), before, after)
    assert found["rounding"]["8"]["back"] == pytest.approx(0)
    assert found["rounding"]["4"] == {"back": pytest.approx(1), "interval": pytest.approx([1, 1])}
    both = found["both_models"]
    for group in ("stay", "control"):
        for score in ("change", "rise"):
            assert both[f"forgotten_from_{group}"][score] == {"auc": 1, "interval": [1, 1]}
    assert both["staying"]["after"]["auc"] == both["staying"]["both"]["auc"] == 0.5
    assert both["staying"]["more_interval"] == [0, 0]


def test_attacks_say_nothing_without_a_gap_or_without_control_users():
    run = opened()
    change = delta_of(run, run.forgotten, np.union1d(run.forgotten, rows_of(run, "u7", "u8")))
    same = answers(run, change, 0.5, 0.5, rounded=0.5)
    rows = evaluation_rows_of(run, change)
    found = attack(run, change, rows, same, same)
    assert found["rounding"] == {"8": None, "4": None}
    assert found["both_models"]["forgotten_from_stay"]["change"]["auc"] == 0.5
    rows = rows._replace(control=np.empty(0, np.int64))
    alone = attack(run, change, rows, answers(run, change, 0.8, 0.5, 0.8), same)
    assert alone["rounding"] == {"8": None, "4": None}
    assert alone["both_models"]["forgotten_from_control"] == {"change": None, "rise": None}
    assert alone["both_models"]["forgotten_from_stay"]["rise"]["auc"] == 1
    assert alone["both_models"]["staying"] is None
