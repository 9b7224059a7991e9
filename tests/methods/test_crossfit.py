"""CrossFit's and E2URecRef's losses by numbers worked by hand, and what they cost."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from recbole_e2urec.data.loading import load_dataset
from recbole_e2urec.deployment.succession import check_method
from recbole_e2urec.errors import InputError
from recbole_e2urec.forgetting import Forgetting
from recbole_e2urec.methods import method_of
from recbole_e2urec.model.references import Line
from recbole_e2urec.trainer.sides import Batch, Side


def of(*probabilities: float) -> Tensor:  # -> [1, 2], no and yes
    return torch.tensor([probabilities]).log()


def kl(teacher: tuple[float, float], student: tuple[float, float]) -> float:
    return sum(p * math.log(p / q) for p, q in zip(teacher, student, strict=True))


def side(student: Tensor, **teachers: Tensor) -> Side:
    return Side(student, torch.ones(len(student)), teachers, (0, 1), len(student))


FORGET = side(
    of(0.5, 0.5), original=of(0.1, 0.9), stranger=of(0.4, 0.6), renewed=of(0.3, 0.7),
    augmented=of(0.05, 0.95),
)  # fmt: skip
RETAIN = side(of(0.25, 0.75), original=of(0.5, 0.5))
NONE = side(of(0.5, 0.5)[:0])
PLAIN = {"renewed": False, "calibrated": False, "overshoot": 0.0, "true_answers": True}
REMEMBERED = kl((0.5, 0.5), (0.25, 0.75))


def test_crossfits_target_is_the_mean_of_stranger_and_original(
    small_config: Callable[..., Any],
) -> None:
    method: Any = method_of(small_config("CrossFit", **PLAIN, crossfit_weight=0.5, beta=0.4))
    forget = kl((0.25, 0.75), (0.5, 0.5))  # (.4 + .1) / 2
    assert float(method.loss(Batch(FORGET, NONE))["loss"]) == pytest.approx(forget)
    terms = method.loss(Batch(FORGET, RETAIN))
    remember = REMEMBERED - math.log(0.75)  # and the true answer is yes
    assert float(terms["remember"]) == pytest.approx(remember)
    assert float(terms["loss"]) == pytest.approx(0.4 * forget + 0.6 * remember)


def test_crossfit_can_take_renewed_words_for_original_and_leave_true_answers_out(
    small_config: Callable[..., Any],
) -> None:
    given = {**PLAIN, "crossfit_weight": 0.5, "renewed": True, "true_answers": False}
    config = small_config("CrossFit", **given)
    terms = method_of(config).loss(Batch(FORGET, RETAIN))  # type: ignore[attr-defined]
    assert float(terms["forget"]) == pytest.approx(kl((0.35, 0.65), (0.5, 0.5)))  # (.4 + .3) / 2
    assert float(terms["remember"]) == pytest.approx(REMEMBERED)


def test_a_calibrated_stranger_has_the_lines_margin(small_config: Callable[..., Any]) -> None:
    method: Any = method_of(small_config("CrossFit", **{**PLAIN, "calibrated": True}))
    method._line = Line(2.0, math.log(4 / 9))  # odds of yes: (6 / 4) ** 2 * 4 / 9 = 1
    terms = method.loss(Batch(FORGET, NONE))
    assert float(terms["forget"]) == pytest.approx(0.0, abs=1e-6)
    assert method.found([{name: float(term) for name, term in terms.items()}]) == pytest.approx(
        {"slope": 2.0, "bias": math.log(4 / 9)}
    )


def test_an_overshot_target_lies_as_much_further_from_original(
    small_config: Callable[..., Any],
) -> None:
    method: Any = method_of(small_config("CrossFit", **{**PLAIN, "overshoot": 0.5}))
    terms = method.loss(Batch(FORGET, NONE))
    odds = 1.5 * (1.5 / 9) ** 0.5  # of yes: the stranger's, once more half of the way from 9 to it
    teacher = (1 / (1 + odds), odds / (1 + odds))
    assert float(terms["forget"]) == pytest.approx(kl(teacher, (0.5, 0.5)), rel=1e-4)


def test_e2urecrefs_teacher_is_as_sure_as_the_stranger(small_config: Callable[..., Any]) -> None:
    method: Any = method_of(small_config("E2URecRef", most_alpha=1000.0))
    terms = method.loss(Batch(FORGET, NONE))
    risen = math.log(0.95 / 0.9)  # of yes alone; margins are log 9 and log 1.5
    assert float(terms["alpha"]) == pytest.approx((math.log(9) - math.log(1.5)) / risen, rel=1e-4)
    assert float(terms["loss"]) == pytest.approx(kl((0.4, 0.6), (0.5, 0.5)), rel=1e-3)
    limited: Any = method_of(small_config("E2URecRef", most_alpha=2.0))
    terms = limited.loss(Batch(FORGET, NONE))
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
    free = run.unlearned_row(small_config("CrossFit", crossfit_weight=0.0, train_batch_size=16))
    assert "prior_seconds" not in free["cost"]


@pytest.mark.parametrize("name", ["CrossFit", "E2URecRef"])
def test_a_model_in_use_has_no_models_of_parts(name: str) -> None:
    with pytest.raises(InputError, match=f"--model={name}: a model in use forgets by one of E2UR"):
        check_method(name)


@pytest.mark.parametrize(
    ("model", "given"),
    [
        ("CrossFit", {"parts": 1}),
        ("CrossFit", {"crossfit_weight": 1.5}),
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
