"""E2URec moves its adapter and nothing else, whatever Original trained."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from recbole_e2urec.data.loading import load_dataset
from recbole_e2urec.forgetting import Forgetting
from recbole_e2urec.methods.e2urec import STUDENT, E2URec, E2URecOptions


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("backbone", ["tiny-t5", "tiny-llama"])
def test_only_the_student_learns_and_original_answers_bit_by_bit_as_before(
    small_config: Callable[..., Any], tuning: str, backbone: str
) -> None:
    config = small_config("E2URec", tuning=tuning, backbone=backbone, epochs=1, show_progress=False)
    run = Forgetting(config, load_dataset(config))
    run.train()
    model = run.model
    rows = run.split.forget
    weights = model.bank.state(None)
    adapter = model.bank.state(model.adapter)
    with model.bank.frozen(model.adapter):
        answers = model.hidden(rows)
    options: Any = config.options(E2URecOptions)
    unlearned = run.unlearn(E2URec(options))
    assert all(torch.equal(weights[name], now) for name, now in model.bank.state(None).items())
    assert all(
        torch.equal(adapter[name], now) for name, now in model.bank.state(model.adapter).items()
    )
    with model.bank.frozen(model.adapter):
        assert torch.equal(model.hidden(rows), answers)
    with model.bank.frozen(STUDENT):
        assert not torch.equal(model.hidden(rows), answers)
    row = run.measured("E2URec", unlearned)
    assert np.isfinite(row["to_retrain"]["jsd"])
    assert run.measured("Original", run.original)["to_retrain"]["residual"] == 1.0
    assert run.measured("Retrain", run.retrain)["to_retrain"]["residual"] == 0.0
