"""E2URec's steps against its formula, computed plainly."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from atomic_files import RUN
from numpy.typing import NDArray
from torch import Tensor

from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.data.prompt_table import PromptTable
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.unlearning import Forgetting
from recbole_e2urec.methods.e2urec import E2URec, E2URecOptions
from recbole_e2urec.model.scorers import Adapted
from recbole_e2urec.trainer.student import ORIGINAL
from recbole_e2urec.trainer.teachers import AUGMENTED


def kl(teacher: Tensor, student: Tensor) -> Tensor:
    teacher, student = teacher.log_softmax(dim=-1), student.log_softmax(dim=-1)
    return (teacher.exp() * (teacher - student)).sum(dim=-1).mean()


@pytest.mark.parametrize("backbone", ["tiny-t5", "tiny-llama", "t5-base", "flan-t5-base"])
def test_defaults_are_the_papers_whatever_the_backbone(
    small_config: Callable[..., Any], backbone: str
) -> None:
    found = asdict(small_config("E2URec", backbone=backbone).options(E2URecOptions))
    paper = {
        "alpha": 2.0, "beta": 0.4, "student": "lora", "unlearn_batch_size": 16,
        "unlearn_learning_rate": 0.001, "augmented_learning_rate": 5e-5,
        "augmented_epochs": 1.5, "warmup_epochs": 1, "joint_epochs": 0.2315,
        "unlearn_rate_schedule": "constant", "unlearn_clip_norm": None,
        "unlearn_adam_epsilon": 1e-8, "unlearn_weight_decay": 0.01,
        "forget_tokens_only": False, "forget_tokens_until": 0.0, "unlearn_share": 1.0,
        "unlearn_stop": 1.0, "scale_to_target": False,
        "forgetting_teacher": True, "remembering_teacher": True,
    }  # fmt: skip
    assert {key: found[key] for key in paper} == paper
    assert found.keys() - paper.keys() == {"unlearn_dropout"}


@pytest.mark.parametrize("backbone", ["tiny-t5", "tiny-llama"])
def test_the_loss_of_a_step_is_the_formula_with_teachers_asked_on_the_spot(
    small_config: Callable[..., Any], backbone: str
) -> None:
    settings = {
        "tuning": "lora",
        "learning_rate": 0.1,
        "train_batch_size": 16,
        "augmented_learning_rate": 0.05,
        "alpha": 25.0,
        "beta": 0.3,
    }
    config = small_config("E2URec", backbone=backbone, **settings)
    run = Forgetting(config, load_dataset(config))
    run.train()
    model = run.model
    options: Any = config.options(E2URecOptions)
    method = E2URec(options)
    student = method.student(model, run.request)
    with model.using_history(run.after):
        student.teach(ORIGINAL, Adapted(model.adapter), forget=True, retain=True)
        method.teach(student)
        student.train(method.loss)
    step = student.pairing.steps(options.warmup_epochs, joint=True)[0]
    with model.bank.frozen(student.name):
        (found,) = map(method.loss, student.batches(step))

    def asked(adapter: str | None, history: NDArray[np.int64], rows: NDArray[np.int64]) -> Tensor:
        with model.bank.frozen(adapter), model.using_history(history):
            return model.language_model.head(model.hidden(rows))

    original, augmented, answered = (
        asked(name, run.before, step.forget) for name in (model.adapter, AUGMENTED, student.name)
    )
    target = original - 25.0 * torch.relu(augmented - original)
    kept, now = (asked(name, run.after, step.retain) for name in (model.adapter, student.name))
    no, yes = model.language_model.answer_ids
    labels = run.dataset.rows.label[step.retain]
    answers = torch.tensor([yes if label == 1 else no for label in labels])
    truth = -now.log_softmax(dim=-1)[torch.arange(len(answers)), answers].mean()
    expected = 0.3 * kl(target, answered) + 0.7 * (kl(kept, now) + truth)
    assert float(kl(target, original)) > 1e-4  # the teacher says something else than Original
    assert float(found["loss"]) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.thorough
def test_another_share_of_the_rows_is_another_augmented_model(
    small_config: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recbole_e2urec.trainer.batches.LEAST_ROWS", 1)
    monkeypatch.setattr(PromptTable, "named", lambda table, users: np.ones(len(users), dtype=bool))
    given = {"train_batch_size": 16, "unlearn_batch_size": 4}
    config = small_config("E2URec", **given)
    run = Forgetting(config, load_dataset(config))
    run.train()
    rows = [
        run.unlearned_row(small_config("E2URec", unlearn_share=share, **given))
        for share in (1.0, 0.3)
    ]
    assert len(list((RUN / "stages").glob("augmented-*"))) == 2
    steps = [row["cost"]["steps"] for row in rows]
    assert steps[1] < steps[0]


def taught(config: Any) -> tuple[Forgetting, E2URec, Any]:
    """A run, its method, and a student that has learned."""
    run = Forgetting(config, load_dataset(config))
    run.train()
    method = E2URec(config.options(E2URecOptions))
    student = method.student(run.model, run.request)
    with run.model.using_history(run.after):
        student.teach(ORIGINAL, Adapted(run.model.adapter), forget=True, retain=True)
        method.teach(student)
        student.train(method.loss)
    return run, method, student


def step_of(config: Any) -> tuple[Any, dict[str, float]]:
    """What the loss sees of a joint step, and its terms."""
    run, method, student = taught(config)
    (step, *_) = student.pairing.steps(student.warmup, joint=True)
    with run.model.bank.frozen(student.name):
        (batch,) = student.batches(step)
    return batch, {name: float(value) for name, value in method.loss(batch).items()}


ABLATED = {"learning_rate": 0.03, "train_batch_size": 16, "unlearn_batch_size": 4, "alpha": 9.0}


def test_without_the_forgetting_teacher_the_loss_is_the_remembering_loss_alone(
    small_config: Callable[..., Any],
) -> None:
    batch, terms = step_of(small_config("E2URec", forgetting_teacher=False, **ABLATED))
    retain = batch.retain
    logits, labels = retain.logits, retain.labels
    truth = -logits.log_softmax(-1)[torch.arange(4), torch.tensor(retain.answer_ids)[labels.long()]]
    expected = float(kl(retain.teachers[ORIGINAL], logits) + truth.mean())
    assert terms == {"loss": pytest.approx(expected), "remember": pytest.approx(expected)}
    assert not list((RUN / "stages").glob("augmented-*"))  # nor is anything trained for it
    with pytest.raises(InputError, match="keep one"):
        E2URec(
            small_config("E2URec", forgetting_teacher=False, remembering_teacher=False).options(
                E2URecOptions
            )
        )


def test_without_the_remembering_teacher_the_true_answers_stay(
    small_config: Callable[..., Any],
) -> None:
    batch, terms = step_of(small_config("E2URec", remembering_teacher=False, beta=0.3, **ABLATED))
    assert terms["remember"] == pytest.approx(float(batch.retain.answer_loss()))
    assert terms["loss"] == pytest.approx(0.3 * terms["forget"] + 0.7 * terms["remember"])
    assert terms["forget"] > 0


@pytest.mark.parametrize("student", ["lora", pytest.param("full", marks=pytest.mark.thorough)])
def test_a_student_that_stops_half_way_is_one_of_half_the_training_at_a_constant_rate(
    small_config: Callable[..., Any], student: str
) -> None:
    given = {**ABLATED, "student": student, "joint_epochs": 1}
    runs = {"unlearn_stop": 0.5}, {"joint_epochs": 0}, {}
    stages = [taught(small_config("E2URec", **{**given, **more}))[2].stage for more in runs]
    stopped, half, whole = (stage.weights() for stage in stages)
    steps = [stage.summary()["steps"] for stage in stages]
    assert steps == [steps[2] // 2, steps[2] // 2, steps[2]]
    assert all(torch.equal(value, half[name]) for name, value in stopped.items())
    assert not all(torch.equal(value, whole[name]) for name, value in stopped.items())


@pytest.mark.parametrize("stop", [0, 1.5])
def test_a_stop_outside_the_training_is_refused(
    small_config: Callable[..., Any], stop: float
) -> None:
    with pytest.raises(InputError, match="unlearn_stop is"):
        small_config("E2URec", unlearn_stop=stop).options(E2URecOptions)
