"""A step that passes in pieces is the step."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.experiment.unlearning import Forgetting
from recbole_e2urec.methods import METHODS, method_of
from recbole_e2urec.methods.unlearner import GradientUnlearner
from recbole_e2urec.model.scorers import Adapted
from recbole_e2urec.trainer.student import ORIGINAL, Student

WITH_STUDENT = [name for name, known in METHODS.items() if issubclass(known, GradientUnlearner)]


@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stages")


@pytest.mark.parametrize("name", WITH_STUDENT)
def test_the_terms_and_gradients_of_a_steps_pieces_add_up_to_those_of_the_step(
    small_config: Callable[..., Any], stages: Path, name: str
) -> None:
    config = small_config(name, checkpoint_dir=str(stages), lora_dropout=0.0)
    run = Forgetting(config, load_dataset(config))
    run.train()
    model, method = run.model, method_of(config)
    assert isinstance(method, GradientUnlearner)
    student = method.student(model, run.request)
    student.teach(ORIGINAL, Adapted(None), forget=True, retain=True)
    method.teach(student)
    model.fresh_adapter(name, 1)
    for weight in model.bank.parameters(name):  # or B's zeros would hide A's gradients
        weight.data += 0.1
    whole, pieces = (found(run, method, student, tokens) for tokens in (10**6, 200))
    assert len(whole.pop()) == 1
    assert len(pieces.pop()) > 2
    for one, other in zip(whole, pieces, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def found(run: Forgetting, method: GradientUnlearner, student: Student, tokens: int) -> list[Any]:
    """Sums of the terms of a joint step, the gradients, and the pieces' own terms."""
    model = run.model
    model.options = replace(model.options, tokens_at_once=tokens)
    step = student.pairing.steps(student.warmup, joint=True)[0]
    pieces = []
    with model.bank.training(student.name):
        for terms in map(method.loss, student.batches(step)):
            terms["loss"].backward()
            pieces.append({key: term.detach() for key, term in terms.items()})
    weights = model.bank.parameters(student.name)
    gradients = torch.cat([weight.grad.flatten() for weight in weights if weight.grad is not None])
    for weight in weights:
        weight.grad = None
    sums = {key: sum(piece[key] for piece in pieces) for key in pieces[0]}
    return [sums, gradients, pieces]
