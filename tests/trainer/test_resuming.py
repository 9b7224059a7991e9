"""Interrupted after any epoch, a stage ends with an uninterrupted stage's numbers."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.experiment.run import Experiment
from recbole_e2urec.experiment.unlearning import Forgetting
from recbole_e2urec.trainer.checkpoint import Stage


class Interrupted(BaseException):
    pass


def recommend(config: Any) -> list[dict[str, Any]]:
    return untimed(Experiment(config, load_dataset(config)).recommend()[0])


def forget(config: Any) -> list[dict[str, Any]]:
    return untimed(Forgetting(config, load_dataset(config)).run()[0])


def untimed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for row in rows:
        row.pop("settings")  # the folder differs
        for name in ("seconds", "relative_to_retrain", "peak_memory_mb"):
            row["cost"].pop(name, None)
    return rows


def interrupted(monkeypatch: pytest.MonkeyPatch, run: Callable[[], Any]) -> tuple[Any, int]:
    """Run again and again, each time up to the next progress written; gives also their number."""
    write = Stage.save_progress

    def stop(stage: Stage, *given: Any) -> None:
        write(stage, *given)
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(Stage, "save_progress", stop)
        for times in range(30):
            try:
                return run(), times
            except Interrupted:
                continue
    raise AssertionError("it does not get on")


@pytest.mark.parametrize(
    ("settings", "times"),
    [
        ({"epochs": 3, "eval_step": 0}, 3),
        ({"epochs": 3, "eval_step": 2}, 1),
        ({"epochs": 2, "eval_step": 2, "average_decay": 0}, 1),
        ({"epochs": 3, "eval_step": 9}, 1),
        ({"epochs": 2, "tuning": "lora", "backbone": "tiny-llama", "weight_decay": 0.1}, 2),
        ({"epochs": 0}, 0),
    ],
    ids=str,
)
def test_a_recommender_goes_on_after_each_epoch(
    small_config: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    times: int,
) -> None:
    given = {"train_batch_size": 32, **settings}
    whole = recommend(small_config("LLMRec", checkpoint_dir="whole", **given))
    config = small_config("LLMRec", checkpoint_dir="parts", **given)
    assert interrupted(monkeypatch, lambda: recommend(config)) == (whole, times)
    assert math.isfinite(whole[0]["test"]["auc"])
    assert recommend(config) == whole


def test_a_recommender_that_stopped_early_stops_there_again(
    small_config: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"train_batch_size": 32, "epochs": 30, "stopping_step": 0, "learning_rate": 0.03}
    whole = recommend(small_config("LLMRec", checkpoint_dir="whole", **given))
    epochs = len(whole[0]["train_loss"])
    assert epochs < 30
    config = small_config("LLMRec", checkpoint_dir="parts", **given)
    assert interrupted(monkeypatch, lambda: recommend(config)) == (whole, epochs)


@pytest.mark.parametrize(
    ("epochs", "times"),
    [
        pytest.param({"augmented_epochs": 2, "joint_epochs": 3}, 1 + 3, marks=pytest.mark.thorough),
        ({"augmented_epochs": 1.5, "joint_epochs": 0.5}, 1 + 1),
    ],
)
def test_forgetting_with_adapters_goes_on_after_each_epoch(
    small_config: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    epochs: dict[str, float],
    times: int,
) -> None:
    given = {"tuning": "lora", "epochs": 2, "learning_rate": 0.01, "unlearn_batch_size": 8}
    given |= {"warmup_epochs": 1, **epochs}
    whole = forget(small_config("E2URec", checkpoint_dir="whole", **given))
    config = small_config("E2URec", checkpoint_dir="parts", **given)
    # after a student's last epoch its outcome is written at once
    assert interrupted(monkeypatch, lambda: forget(config)) == (whole, 2 + 2 + times)


def test_validation_rows_of_one_label_are_passed_over(toy_config: Callable[..., Any]) -> None:
    config = toy_config("LLMRec", epochs=2)
    dataset = load_dataset(config)
    run = Experiment(config, dataset)
    dataset.rows.label[run.parts.splits.valid] = 1
    (row,) = run.recommend()[0]
    assert row["valid"] == {}
    assert row["cost"]["steps"] > 0
