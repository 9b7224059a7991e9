"""A small request changes the tokens of those who leave, and nobody else's answers."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.experiment.unlearning import Forgetting
from recbole_e2urec.methods import method_of

NAMED = {
    "prompt": "numbered",
    "user_fields": ["age"],
    "lora_target_modules": ["q", "v", "embed_tokens"],
    "unlearn_learning_rate": 0.02,
    "joint_epochs": 2,
    "forget_tokens_only": True,
}


def moved(config: Any) -> tuple[float, float, dict[str, Any]]:
    """How far P(yes) moved at most, on forget and on retain rows; and what it cost."""
    run = Forgetting(config, load_dataset(config))
    run.train()
    made = run.unlearn(method_of(config))
    apart = np.abs(made.answers.yes - run.original.answers.yes)
    return apart[run.split.forget].max(), apart[run.split.retain].max(), dict(made.cost)


@pytest.mark.parametrize("method", ["E2URec", "NPO", "NegGrad", "FlipLabel", "BadT"])
def test_a_small_request_leaves_the_answers_to_others_alone(
    small_config: Callable[..., Any], method: str
) -> None:
    forget, retain, cost = moved(small_config(method, forget_tokens_until=0.5, **NAMED))
    assert forget > 0
    assert retain == 0
    assert cost["steps"] > 0


def test_a_large_request_moves_them_and_so_does_a_small_one_if_told_to(
    small_config: Callable[..., Any],
) -> None:
    for until in (0.02, 0.0):  # a fifth of the users is asked for
        assert moved(small_config("E2URec", forget_tokens_until=until, **NAMED))[1] > 1e-4


def test_without_a_name_in_the_prompt_more_is_learned(small_config: Callable[..., Any]) -> None:
    nameless = {**NAMED, "prompt": "compact", "user_fields": []}
    assert moved(small_config("E2URec", forget_tokens_until=0.5, **nameless))[1] > 1e-4


def test_a_finished_student_is_found_again(small_config: Callable[..., Any]) -> None:
    config = small_config("E2URec", forget_tokens_until=0.5, **NAMED)
    first, again = moved(config), moved(config)
    assert first[:2] == again[:2]
    assert first[2]["trained_parameters"] == again[2]["trained_parameters"]
