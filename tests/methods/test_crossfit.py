"""CrossFit's and E2URecRef's losses by numbers worked by hand, and what they cost."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.deployment.forget import check_method
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.unlearning import Forgetting
from recbole_e2urec.methods import method_of
from recbole_e2urec.trainer.student import BatchPart, ForgetRetainBatch


def of(*probabilities: float) -> Tensor:  # -> [1, 2], no and yes
    return torch.tensor([probabilities]).log()


def kl(teacher: tuple[float, float], student: tuple[float, float]) -> float:
    return sum(p * math.log(p / q) for p, q in zip(teacher, student, strict=True))


def side(student: Tensor, **teachers: Tensor) -> BatchPart:
    return BatchPart(student, torch.ones(len(student)), teachers, (0, 1), len(student))


FORGET = side(
    of(0.5, 0.5), original=of(0.1, 0.9), held_out=of(0.4, 0.6), forgetting=of(0.4, 0.6),
    augmented=of(0.05, 0.95),
)  # fmt: skip
RETAIN = side(of(0.25, 0.75), original=of(0.5, 0.5))
NONE = side(of(0.5, 0.5)[:0])
REMEMBERED = kl((0.5, 0.5), (0.25, 0.75))


def test_crossfit_answers_forget_rows_as_a_held_out_model(small_config: Callable[..., Any]) -> None:
    method: Any = method_of(small_config("CrossFit", beta=0.4, true_answers=True))
    terms = method.loss(ForgetRetainBatch(FORGET, RETAIN))
    forget = kl((0.4, 0.6), (0.5, 0.5))
    remember = REMEMBERED - math.log(0.75)  # and the true answer is yes
    assert float(terms["forget"]) == pytest.approx(forget, rel=1e-4)
    assert float(terms["remember"]) == pytest.approx(remember)
    assert float(terms["loss"]) == pytest.approx(0.4 * forget + 0.6 * remember, rel=1e-4)


def test_e2urecrefs_teacher_is_as_sure_as_a_held_out_model(
    small_config: Callable[..., Any],
) -> None:
    method: Any = method_of(small_config("E2URecRef", most_alpha=1000.0))
    terms = method.loss(ForgetRetainBatch(FORGET, NONE))
    risen = math.log(0.95 / 0.9)  # of yes alone; margins are log 9 and log 1.5
    assert float(terms["alpha"]) == pytest.approx((math.log(9) - math.log(1.5)) / risen, rel=1e-4)
    assert float(terms["loss"]) == pytest.approx(kl((0.4, 0.6), (0.5, 0.5)), rel=1e-3)
    limited: Any = method_of(small_config("E2URecRef", most_alpha=2.0))
    terms = limited.loss(ForgetRetainBatch(FORGET, NONE))
    assert float(terms["alpha"]) == 2.0
    odds = 9 * (0.95 / 0.9) ** -2
    teacher = (1 / (1 + odds), odds / (1 + odds))
    assert float(terms["loss"]) == pytest.approx(kl(teacher, (0.5, 0.5)), rel=1e-4)


def test_models_of_parts_are_paid_once_and_stand_apart(small_config: Callable[..., Any]) -> None:
    config = small_config("CrossFit", train_batch_size=16)
    run = Forgetting(config, load_dataset(config))
    run.train()
    first = run.unlearned_row(config)["cost"]
    again = run.unlearned_row(small_config("CrossFit", train_batch_size=16, beta=0.3))["cost"]
    assert first["prior_seconds"] == again["prior_seconds"] > 0
    assert set(first["amortised_seconds"]) == {"1", "10", "100"}
    for count, seconds in first["amortised_seconds"].items():
        once = first["prior_seconds"] / int(count)
        assert seconds == pytest.approx(first["seconds"] + once)


def test_part_models_forget_whom_they_saw_and_it_counts(small_config: Callable[..., Any]) -> None:
    config = small_config("CrossFit", train_batch_size=16)
    run = Forgetting(config, load_dataset(config))
    run.train()
    made = run.unlearn(method_of(config))
    stages = {path.name.rpartition("-")[0] for path in run.stages.iterdir()}
    assert {"Without0Forgets", "Without1Forgets"} <= stages
    assert 0 < made.findings["parts_seconds"] < made.cost["seconds"]
    own = [one for one in run.stages.iterdir() if one.name.startswith("CrossFit-")]
    assert len(own) == 1


@pytest.mark.parametrize("name", ["CrossFit", "E2URecRef"])
def test_a_model_in_use_has_no_models_of_parts(name: str) -> None:
    with pytest.raises(InputError, match=f"--model={name}: a model in use forgets by one of E2UR"):
        check_method(name)


@pytest.mark.parametrize(
    ("model", "given"),
    [
        ("CrossFit", {"parts": 1}),
        ("CrossFit", {"overshoot": -0.5}),
        ("CrossFit", {"beta": -0.1}),
        ("CrossFit", {"warmup_epochs": -1}),
        ("E2URecRef", {"most_alpha": 0.0}),
        ("E2URecRef", {"augmented_epochs": -1}),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(
    small_config: Callable[..., Any], model: str, given: dict[str, Any]
) -> None:
    (key,) = given
    with pytest.raises(InputError, match=f"^{key} is "):
        method_of(small_config(model, **given))
