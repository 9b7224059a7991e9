"""TaskVector and NegatedE2URec take off what learning changes, as far as control users say."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.unlearning import Forgetting
from recbole_e2urec.methods import method_of
from recbole_e2urec.methods.taskvector import _retained
from recbole_e2urec.methods.tokenreset import TokenReset, TokenResetOptions
from recbole_e2urec.model.scorers import Adapted
from recbole_e2urec.trainer.strength import TargetLoss, loss_of, target_loss
from recbole_e2urec.trainer.teachers import NegationOptions, learn_direction

Begin = Callable[..., Forgetting]
LEARNS = {"epochs": 4, "learning_rate": 0.03, "train_batch_size": 16}
OPTIONS = {
    "unlearn_rate_schedule": "linear", "unlearn_clip_norm": 1.0, "unlearn_adam_epsilon": None,
    "unlearn_weight_decay": 0.0, "unlearn_batch_size": 128, "augmented_learning_rate": 0.001,
    "augmented_epochs": 2.0, "least_steps": 30, "strength": None,
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
def test_a_task_vector_takes_off_what_further_training_changes(begin: Begin, tuning: str) -> None:
    run = begin("TaskVector", strength=1.5, tuning=tuning)
    method = method_of(run.config)
    model = run.model
    before = model.bank.state(model.adapter)
    direction = learn_direction(model, run.request, method.options)
    found = method.unlearn(model, run.request)
    assert found.found == {}
    weights = found.scorer.read()
    for name, weight in before.items():
        expected = weight - 1.5 * (direction.end[name] - weight)
        torch.testing.assert_close(weights[name], expected)
        assert torch.equal(model.bank.state(model.adapter)[name], weight)
    assert any((direction.end[name] != weight).any() for name, weight in before.items())


def test_the_contrast_leaves_what_retain_rows_change_as_well(begin: Begin) -> None:
    run = begin("TaskVector", strength=1.0, contrast=True)
    method, model, request = method_of(run.config), run.model, run.request
    before = model.bank.state(None)
    forget = learn_direction(model, request, method.options)
    drawn = _retained(request)
    assert len(drawn.forget) == len(request.forget)
    assert np.isin(drawn.forget, request.retain).all()
    retain = learn_direction(model, drawn, method.options)
    weights = method.unlearn(model, request).scorer.read()
    assert any((forget.end[name] != retain.end[name]).any() for name in before)
    for name, weight in before.items():
        expected = weight - (forget.end[name] - retain.end[name])
        torch.testing.assert_close(weights[name], expected)


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
    monkeypatch.setattr("recbole_e2urec.trainer.teachers.target_loss", to_lose(0.004))
    made = method_of(run.config).unlearn(model, request)
    with model.using_history(request.forget_history):
        before, now = (
            float(loss_of(model, scorer, request.forget).mean())
            for scorer in (Adapted(None), made.scorer)
        )
    assert made.found["original_logloss"] == pytest.approx(before)
    assert made.found["target_logloss"] == pytest.approx(before + 0.004)
    assert now == pytest.approx(before + 0.004, abs=0.001)


def test_where_tokens_name_the_request_they_alone_are_put_back(begin: Begin) -> None:
    run = begin("NegatedE2URec", prompt="numbered", strength=1.5)
    made = method_of(run.config).unlearn(run.model, run.request)
    options = TokenResetOptions(partial=False, overshoot=0.5)
    alike = TokenReset(options).unlearn(run.model, run.request)
    assert made.digest == alike.digest
    assert made.cost["steps"] == 0


@pytest.mark.parametrize(("method", "settings"), [("NPO", {}), ("NegGrad", {"forget_weight": 2.0})])
def test_any_student_can_be_scaled_to_what_forget_rows_are_to_lose(
    begin: Begin, method: str, settings: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(method, scale_to_target=True, unlearn_learning_rate=0.01, **settings)
    model, request = run.model, run.request
    monkeypatch.setattr("recbole_e2urec.trainer.student.target_loss", to_lose(0.004))
    made = method_of(run.config).unlearn(model, request)
    with model.using_history(request.forget_history):
        now = float(loss_of(model, made.scorer, request.forget).mean())
    assert made.found["scale"] > 0
    assert now == pytest.approx(made.found["original_logloss"] + 0.004, abs=0.001)


def test_a_whole_model_cannot_be_scaled(small_config: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match="scale_to_target multiplies an adapter"):
        method_of(small_config("NPO", student="full", scale_to_target=True))


def test_a_data_set_without_control_users_takes_rows_held_out(begin: Begin) -> None:
    run = begin("TaskVector", control_users=0)
    unseen, user = run.request.unseen, run.dataset.rows.user
    assert len(unseen) > 0
    assert np.isin(unseen, run.parts.splits.valid).all()
    assert not np.isin(user[unseen], user[run.split.forget]).any()


def test_a_student_without_an_adapter_is_refused(small_config: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match="student: full has no adapter to turn"):
        method_of(small_config("NegatedE2URec", student="full", scale_to_target=False))
