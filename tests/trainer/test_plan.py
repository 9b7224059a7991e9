"""How many steps a training takes, and that whatever decides its outcome names its stage."""

from collections.abc import Callable
from math import ceil
from typing import Any

import pytest

from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.run import Experiment
from recbole_e2urec.experiment.unlearning import Forgetting
from recbole_e2urec.methods.e2urec import E2URec, E2URecOptions
from recbole_e2urec.model.llmrec import LLMRecOptions
from recbole_e2urec.trainer.adapter import AdapterTrainingPlan
from recbole_e2urec.trainer.loop import StepRule


def unused(*given: Any) -> Any:
    raise AssertionError(given)


@pytest.mark.parametrize(
    ("epochs", "stop", "taken"),
    [
        (2, 1.0, [812, 812]),
        (1.2315, 1.0, [812, 188]),  # .2315 * 812 = 187.98
        (1.4778, 1.0, [812, 388]),
        (0.001, 1.0, [1]),
        (1.5, 0.5, [609, 0]),  # half of 1,218
        (0, 1.0, []),
    ],
)
def test_a_fraction_cuts_the_last_epoch(epochs: float, stop: float, taken: list[int]) -> None:
    plan = AdapterTrainingPlan(epochs, StepRule(0.1), 1, unused, unused, stop=stop)
    clocks = [plan.clock("s", epoch, 812) for epoch in range(ceil(epochs))]
    assert [min(812, clock.most or 0) for clock in clocks] == taken


CHANGES = [
    {"unlearn_rate_schedule": "constant"},
    {"unlearn_clip_norm": None},
    {"unlearn_clip_norm": 0.0005},
    {"unlearn_adam_epsilon": 1e-7},
    {"unlearn_weight_decay": 0.1},
]
STEPS = {
    "unlearn_rate_schedule": "linear", "unlearn_clip_norm": 0.001, "unlearn_adam_epsilon": 1e-6,
    "unlearn_weight_decay": 0.0, "augmented_epochs": 1, "joint_epochs": 1, "unlearn_batch_size": 16,
    "alpha": 9.0, "augmented_learning_rate": 0.01, "unlearn_learning_rate": 0.01,
}  # fmt: skip


def test_how_students_step_decides_their_outcome_and_names_their_stages(
    small_config: Callable[..., Any],
) -> None:
    found = []
    for change in ({}, *CHANGES):
        config = small_config("E2URec", learning_rate=0.02, **{**STEPS, **change})
        run = Forgetting(config, load_dataset(config))
        run.train()
        made = run.unlearn(E2URec(config.options(E2URecOptions)))
        (augmented,) = set(run.stages.glob("augmented-*")) - {p for _, p, _ in found}
        found.append((run.original.stage, augmented, made))
    assert len({original for original, _, _ in found}) == 1  # none of them decides Original
    assert len({made.stage for _, _, made in found}) == len(found)
    answers = [made.answers.yes[run.split.forget].tolist() for _, _, made in found]
    assert all(one != answers[0] for one in answers[1:])


def test_how_original_steps_names_its_stage(small_config: Callable[..., Any]) -> None:
    def stage(**more: Any) -> str:
        config = small_config("LLMRec", **more)
        run = Experiment(config, load_dataset(config))
        rows = run.parts.splits
        with run.model.using_history(run.history(rows.train[:0])):
            return run.trainer("LLMRec", rows.train, rows.valid).stage.digest

    changes = [{}, {"rate_schedule": "constant"}, {"clip_norm": None}, {"weight_decay": 0.1}]
    assert len({stage(**change) for change in changes}) == len(changes)


def test_original_learns_at_a_constant_rate_and_clipped_as_it_is_told(
    small_config: Callable[..., Any],
) -> None:
    losses = []
    for change in ({}, {"rate_schedule": "constant"}, {"clip_norm": 0.01}):
        config = small_config("LLMRec", epochs=2, train_batch_size=32, **change)
        (row,) = Experiment(config, load_dataset(config)).recommend()[0]
        losses.append(row["train_loss"])
    assert losses[1] != losses[0] != losses[2]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("unlearn_clip_norm", 0, "unlearn_clip_norm is 0.0; it must be above 0"),
        ("unlearn_adam_epsilon", -1.0, "unlearn_adam_epsilon is -1.0; it must be above 0"),
        (
            "unlearn_weight_decay",
            -0.1,
            "unlearn_weight_decay: -0.1 does not do; a number from 0 on",
        ),
        ("unlearn_rate_schedule", "cosine", "'linear' or 'constant' is needed"),
        ("joint_epochs", -0.5, "joint_epochs is -0.5; it must be at least 0"),
        ("joint_epochs", float("inf"), "joint_epochs is inf"),
        ("augmented_epochs", float("nan"), "augmented_epochs is nan"),
    ],
)
def test_steps_that_do_not_do_are_refused(
    small_config: Callable[..., Any], key: str, value: Any, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        small_config("E2URec", **{key: value}).options(E2URecOptions)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("clip_norm", 0, "clip_norm is 0.0; it must be above 0"),
        ("rate_schedule", "cosine", "'linear' or 'constant' is needed"),
    ],
)
def test_steps_of_original_that_do_not_do_are_refused(
    small_config: Callable[..., Any], key: str, value: Any, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        small_config("LLMRec", **{key: value}).options(LLMRecOptions)
