"""Who answers for a user never saw a row of that user."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from atomic_files import RUN
from numpy.typing import NDArray

from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.data.request.selection import ForgetSplit
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.unlearning import Forgetting, RunServices
from recbole_e2urec.model.scorers import Adapted
from recbole_e2urec.trainer.adapter import Fit, UnlearningTask
from recbole_e2urec.trainer.teachers import cross_fit, token_reset_scorer, unshown_tokens

Rows = NDArray[np.int64]


@pytest.fixture
def run(small_config: Callable[..., Any]) -> Forgetting:
    settings = {"learning_rate": 0.05, "train_batch_size": 16, "prompt": "numbered"}
    config = small_config("CrossFit", **settings)
    made = Forgetting(config, load_dataset(config))
    made.train()
    return made


def watched(run: Forgetting) -> tuple[UnlearningTask, list[tuple[Rows, Rows]]]:
    """A run's task whose trainings are written down: rows, and the histories that prompts show."""
    seen: list[tuple[Rows, Rows]] = []

    class Watched(RunServices):
        def fit(self, name: str, rows: Rows, history: Rows) -> Fit:
            seen.append((rows, history))
            return super().fit(name, rows, history)

    return replace(run.request, services=Watched(run, lambda: run.original.stage)), seen


@pytest.mark.parametrize("parts", [2, 3])
def test_who_answers_for_a_user_learned_from_no_row_of_that_user(
    run: Forgetting, parts: int
) -> None:
    request, seen = watched(run)
    held_out = cross_fit(request, parts).held_out_model
    assert len(seen) == parts
    user, train = request.user, request.train
    shares = held_out.shares[user[train]]
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert np.count_nonzero(shares) == len(train)  # one model a row
    for member, (rows, history) in enumerate(seen):
        own = user[train[shares[:, member] > 0]]
        assert len(own)
        assert not np.isin(user[rows], own).any()
        assert set(user[rows]) | set(own) == set(user[train])  # and from all others
        shown = history[rows]
        assert ((shown < 0) | (user[shown] == user[rows][:, None])).all()


def test_a_held_out_model_answers_row_by_row_as_its_model_and_all_answer_for_the_unknown(
    run: Forgetting,
) -> None:
    request, model = run.request, run.model
    held_out = cross_fit(request, 2).held_out_model
    words = model.language_model.answer_ids
    rows = np.random.default_rng(1).permutation(np.r_[request.forget, run.parts.control])
    with model.using_history(request.forget_history):
        found = held_out.ask(model, rows)
        each = [one.ask(model, rows).logits() for one in held_out.members]
    shares = torch.from_numpy(held_out.shares[request.user[rows]])
    expected = shares[:, :1] * each[0] + shares[:, 1:] * each[1]
    torch.testing.assert_close(found.logits(), expected, rtol=1e-5, atol=1e-5)
    unknown = np.isin(rows, run.parts.control)
    assert shares[unknown].tolist() == [[0.5, 0.5]] * unknown.sum()
    assert (found.yes(words) - torch.softmax(each[0][:, list(words)], 1)[:, 1]).abs().max() > 1e-5


def test_another_request_on_the_same_original_trains_none_of_them_anew(run: Forgetting) -> None:
    first = cross_fit(run.request, 2)
    train = run.parts.splits.train
    forget = train[run.dataset.rows.user[train] == run.dataset.rows.user[run.split.retain[0]]]
    run.split = ForgetSplit(np.setdiff1d(train, forget), forget)
    again = cross_fit(run.request, 2)
    assert again.costs == first.costs  # their stages' own
    assert len(list((RUN / "stages").glob("Without*"))) == 2


def test_one_user_alone_cannot_be_left_out(run: Forgetting) -> None:
    request = run.request
    rows = request.train[request.user[request.train] == request.user[request.train[0]]]
    with pytest.raises(InputError, match="one user"):
        cross_fit(replace(request, forget=rows[:1], retain=rows[1:]), 2)


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_renewed_tokens_are_as_if_never_shown_and_all_others_stay(
    small_config: Callable[..., Any], tuning: str
) -> None:
    config = small_config(
        "CrossFit", epochs=3, learning_rate=0.05, clip_norm=1.0, train_batch_size=16,
        prompt="numbered",
        tuning=tuning,
        lora_target_modules=["q", "v", "embed_tokens"],
    )  # fmt: skip
    run = Forgetting(config, load_dataset(config))
    run.train()
    model, request = run.model, run.request
    rows = request.train
    shown = [set(model.table.tokens(rows[at : at + 1])) for at in range(len(rows))]
    tokens = np.array(sorted(shown[0] - shown[-1]))  # what the first row shows, not the last
    scorer = token_reset_scorer(model, request, torch.from_numpy(tokens))(0.0)
    before = model.bank.state(model.adapter)
    after = scorer.read()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    (name,) = changed
    axis = 1 if tuning == "lora" else 0
    moved = (before[name] != after[name]).any(dim=1 - axis)
    assert np.flatnonzero(moved.numpy()).tolist() == tokens.tolist()
    index = torch.from_numpy(tokens)
    unshown = unshown_tokens(model, request)
    drift = (before[name] - run.start[name]).index_select(axis, unshown).mean(axis, keepdim=True)
    assert bool(drift.any()) == (tuning == "full")  # an adapter's unshown tokens stay
    expected = run.start[name].index_select(axis, index) + drift
    torch.testing.assert_close(after[name].index_select(axis, index), expected)
    words = model.language_model.answer_ids
    now, then = (one.ask(model, rows).yes(words) for one in (scorer, Adapted(model.adapter)))
    assert (now - then)[0].abs() > 1e-5
    assert (now - then)[-1].abs() < 1e-7
