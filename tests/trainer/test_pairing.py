"""What gradient unlearning walks through."""

from dataclasses import replace

import numpy as np
import pytest

from recbole_e2urec.data import prompt_table
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.experiment.unlearning import Forgetting
from recbole_e2urec.trainer.batches import ForgetRetainBatches, share_of_each


@pytest.fixture
def pairing(small_config):
    """The steps of a request, a fifth of the users of ``small``, and the run it belongs to."""
    config = small_config("E2URec", prompt="numbered")
    run = Forgetting(config, load_dataset(config))
    request = run.request
    return ForgetRetainBatches(request, run.model.table, 16), run


@pytest.mark.parametrize("at_once", [1, 8192])
def test_own_tokens_are_in_prompts_of_forget_rows_and_in_no_other(pairing, at_once, monkeypatch):
    monkeypatch.setattr(prompt_table, "FEW", at_once)
    pairs, run = pairing
    own = pairs.forget_only_tokens()
    assert 0 < len(own) < 1000
    shown = {
        name: table.batch(rows).input_ids.unique()
        for name, table, rows in (
            ("forget", pairs.forget_table, run.split.forget),
            ("retain", pairs.retain_table, run.split.retain),
        )
    }
    assert set(own.tolist()) == set(shown["forget"].tolist()) - set(shown["retain"].tolist())


def test_joint_epoch_has_all_forget_rows_beside_as_many_of_the_others(pairing):
    pairs, run = pairing
    steps = pairs.steps(3, joint=True)
    assert sorted(np.concatenate([step.forget for step in steps])) == run.split.forget.tolist()
    assert all(set(step.retain) <= set(run.split.retain) for step in steps)
    alone = pairs.steps(3, joint=False)
    assert all(len(step.retain) == 0 for step in alone)


def test_a_cut_joint_epoch_asks_about_the_retain_rows_of_its_steps_alone(pairing):
    pairs, _ = pairing
    whole, cut = (pairs.steps(epoch, joint=True) for epoch in (1, 2))
    assert len(cut) > 2
    end = 2 + 2 / len(cut)  # one whole epoch and two steps, after one of warm-up
    shown = np.concatenate([step.retain for step in [*whole, *cut[:2]]])
    assert pairs.retain_rows_of(1, end).tolist() == np.unique(shown).tolist()
    drawn = np.union1d(pairs.retain_rows(1), pairs.retain_rows(2))
    assert pairs.retain_rows_of(1, 3).tolist() == drawn.tolist()
    assert len(pairs.retain_rows_of(1, 1)) == 0


def test_a_small_request_takes_smaller_steps_beside_more_of_the_others(pairing):
    pairs, run = pairing
    forget = run.split.forget
    assert not pairs.is_small
    small = ForgetRetainBatches(run.request, run.model.table, 16, least=(10, 12))
    assert small.is_small
    steps = small.steps(1, joint=True)
    assert sorted(np.concatenate([step.forget for step in steps])) == forget.tolist()
    assert len(steps) == -(-len(forget) // -(-len(forget) // 10))  # steps of rows / 10, rounded up
    assert {len(step.retain) for step in steps} == {12}
    large = ForgetRetainBatches(run.request, run.model.table, 16, least=(2, 12))
    assert not large.is_small
    for mine, others in zip(large.steps(1, joint=True), pairs.steps(1, joint=True), strict=True):
        assert np.array_equal(mine.forget, others.forget)
        assert np.array_equal(mine.retain, others.retain)


def test_a_share_of_the_rows_leaves_no_user_out() -> None:
    user = np.array([7, 7, 7, 7, 7, 8, 9, 9, 9, 9])
    rows = np.array([0, 1, 2, 3, 4, 5, 7, 8, 9])
    drawn = share_of_each(user, rows, 0.4, seed=1)
    assert np.bincount(user[drawn])[7:].tolist() == [2, 1, 2]  # of 5, 1 and 3 rows, rounded up
    assert np.isin(drawn, rows).all()
    assert np.array_equal(drawn, share_of_each(user, rows, 0.4, seed=1))
    assert not np.array_equal(drawn, share_of_each(user, rows, 0.4, seed=2))
    assert share_of_each(user, rows, 1.0, seed=1) is rows
    assert len(share_of_each(user, rows[:0], 0.4, seed=1)) == 0


def test_a_small_request_learns_from_all_of_its_rows(pairing):
    _, run = pairing
    assert len(run.split.forget) < 512
    shown = ForgetRetainBatches(run.request, run.model.table, 16, share=0.3).forget
    assert np.array_equal(shown, run.split.forget)


def test_without_names_every_forget_row_is_shown(pairing, small_config, monkeypatch):
    monkeypatch.setattr("recbole_e2urec.trainer.batches.LEAST_ROWS", 1)
    _, run = pairing
    named = ForgetRetainBatches(run.request, run.model.table, 16, share=0.3).forget
    assert len(named) < len(run.split.forget)
    config = small_config("E2URec", user_fields=["age"])  # each user has another one
    nameless = Forgetting(config, load_dataset(config))
    shown = ForgetRetainBatches(nameless.request, nameless.model.table, 16, share=0.3).forget
    assert np.array_equal(shown, run.split.forget)


def test_of_users_who_stay_every_forget_row_is_shown(pairing, monkeypatch):
    monkeypatch.setattr("recbole_e2urec.trainer.batches.LEAST_ROWS", 1)
    _, run = pairing
    request, user = run.request, run.request.user
    rows = request.train
    stays, leaves = user[rows][0], user[rows][-1]
    forget = np.concatenate([rows[user[rows] == stays][:4], rows[user[rows] == leaves]])
    forget = np.sort(forget)
    asked = replace(request, forget=forget, retain=np.setdiff1d(rows, forget))
    shown = ForgetRetainBatches(asked, run.model.table, 16, share=0.3).forget
    assert (user[shown] == stays).sum() == 4
    assert (user[shown] == leaves).sum() == -(-3 * (user[forget] == leaves).sum() // 10)
