"""TaskVector and NegatedE2URec: an adapter's sign is turned, as strongly as control users say."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from recbole_e2urec.data.loading import load_dataset
from recbole_e2urec.errors import InputError
from recbole_e2urec.forgetting import Forgetting
from recbole_e2urec.methods import method_of
from recbole_e2urec.model.scorers import Adapted
from recbole_e2urec.trainer.negation import NegationOptions, learn_direction
from recbole_e2urec.trainer.strength import TargetLoss, loss_of, target_loss

Begin = Callable[..., Forgetting]
LEARNS = {"epochs": 4, "learning_rate": 0.03, "train_batch_size": 16}
OPTIONS = {
    "unlearn_rate_schedule": "linear", "unlearn_clip_norm": 1.0, "unlearn_adam_epsilon": None,
    "unlearn_weight_decay": 0.0, "unlearn_batch_size": 128, "augmented_learning_rate": 0.001,
    "token_learning_rate": 0.005, "augmented_epochs": 2.0, "least_steps": 30, "strength": None,
}  # fmt: skip


@pytest.fixture
def begin(small_config: Callable[..., Any]) -> Begin:
    """Train Original and Retrain on ``small``."""

    def make(method: str, **settings: Any) -> Forgetting:
        config = small_config(method, **{"control_users": 0.2, **LEARNS, **settings})
        run = Forgetting(config, load_dataset(config))
        run.train()
        return run

    return make


@pytest.mark.parametrize(
    ("rows", "size"), [(0, 1), (20, 1), (300, 10), (301, 11), (3840, 128), (9999, 128)]
)
def test_a_small_request_has_smaller_batches(rows: int, size: int) -> None:
    assert NegationOptions(**OPTIONS).batch_size(rows) == size


@pytest.mark.parametrize(
    ("key", "value"),
    [("strength", 0.0), ("strength", 65.0), ("least_steps", 0), ("augmented_epochs", -1.0)],
)
def test_options_refuse_what_cannot_work(key: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{key} is {value}"):
        NegationOptions(**{**OPTIONS, key: value})


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_task_vector_of_minus_one_is_what_the_adapter_learned(begin: Begin, tuning: str) -> None:
    run = begin("TaskVector", strength=1.5, tuning=tuning)
    method = method_of(run.config)
    direction = learn_direction(run.model, run.request, method.options, None)
    found = method.unlearn(run.model, run.request)
    weights = run.model.bank.state("TaskVector")
    assert found.found == {}
    for name, weight in direction.at(-1.5).items():
        assert torch.equal(weights[name], weight)
    assert any((direction.end[name] != weight).any() for name, weight in weights.items())


def to_lose(more: float) -> Callable[..., TargetLoss]:
    """A target that is so much above what Original loses."""

    def target(*given: Any) -> TargetLoss:
        found = target_loss(*given)
        return found._replace(loss=found.original + more)

    return target


@pytest.mark.parametrize("method", ["TaskVector", "NegatedE2URec"])
def test_the_forget_rows_lose_what_they_are_to_lose(
    begin: Begin, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(method)
    model, request = run.model, run.request
    monkeypatch.setattr("recbole_e2urec.trainer.negation.target_loss", to_lose(0.004))
    made = method_of(run.config).unlearn(model, request)
    with model.shown(request.forget_history):
        before, now = (
            float(loss_of(model, scorer, request.forget).mean())
            for scorer in (Adapted(None), made.scorer)
        )
    assert made.found["original_logloss"] == pytest.approx(before)
    assert made.found["target_logloss"] == pytest.approx(before + 0.004)
    assert now == pytest.approx(before + 0.004, abs=0.001)


@pytest.mark.parametrize("method", ["TaskVector", "NegatedE2URec"])
def test_where_tokens_name_the_request_nobody_elses_answers_change(
    begin: Begin, method: str
) -> None:
    run = begin(method, prompt="numbered", strength=8.0)
    retain = run.split.retain
    made = method_of(run.config).unlearn(run.model, run.request)
    with run.model.shown(run.after):
        now, before = (one.ask(run.model, retain).logits() for one in (made.scorer, Adapted(None)))
        ours, originals = (
            one.ask(run.model, run.split.forget).logits() for one in (made.scorer, Adapted(None))
        )
    torch.testing.assert_close(now, before, atol=1e-5, rtol=1e-5)
    assert (ours - originals).abs().max() > 1e-3


def test_a_data_set_without_control_users_takes_rows_held_out(begin: Begin) -> None:
    run = begin("TaskVector", control_users=0)
    unseen, user = run.request.unseen, run.dataset.rows.user
    assert len(unseen) > 0
    assert np.isin(unseen, run.parts.splits.valid).all()
    assert not np.isin(user[unseen], user[run.split.forget]).any()


def test_a_student_without_an_adapter_is_refused(small_config: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match="student: full has no adapter to turn"):
        method_of(small_config("NegatedE2URec", student="full"))
