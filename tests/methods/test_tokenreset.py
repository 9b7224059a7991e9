"""TokenReset changes the request's own tokens, and nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recbole_e2urec.data.forget import ForgetSplit
from recbole_e2urec.data.loading import load_dataset
from recbole_e2urec.errors import InputError
from recbole_e2urec.forgetting import Forgetting
from recbole_e2urec.methods import method_of
from recbole_e2urec.trainer.pairing import Pairing


@pytest.fixture
def begin(small_config: Callable[..., Any]) -> Callable[..., Forgetting]:
    def make(**settings: Any) -> Forgetting:
        settings = {"control_users": 0, "prompt": "numbered", **settings}
        config = small_config("TokenReset", **settings)
        run = Forgetting(config, load_dataset(config))
        run.train()
        return run

    return make


@pytest.mark.parametrize("backbone", ["tiny-t5", "tiny-llama"])
def test_own_tokens_are_as_before_training_and_all_else_is_as_it_was(
    begin: Callable[..., Forgetting], backbone: str
) -> None:
    run = begin(backbone=backbone)
    own = Pairing(run.request, run.model.table, 1).own_tokens()
    forget = run.dataset.rows.user[run.split.forget]
    assert len(own) == len(np.unique(forget))  # a token a user
    made = run.unlearn(method_of(run.config))
    before = run.model.bank.state(None)
    (path,) = Path("saved").rglob("TokenReset-*/weights.safetensors")
    assert made.stage in str(path)
    weights = method_of(run.config).unlearn(run.model, run.request).scorer.read()
    embedding = run.model.language_model.model.get_input_embeddings().weight
    changed = {name for name in before if not torch.equal(before[name], weights[name])}
    assert changed
    for name in changed:
        assert before[name].shape == embedding.shape
        rows = (before[name] != weights[name]).any(dim=1).nonzero().flatten()
        assert rows.tolist() == own.tolist()
        assert torch.equal(weights[name][own], run.start[name][own])


def test_nobody_elses_answer_changes(begin: Callable[..., Forgetting]) -> None:
    run = begin(epochs=3, learning_rate=0.05, train_batch_size=16)
    made = run.unlearn(method_of(run.config))
    yes, first = made.answers.yes, run.original.answers.yes
    leaving = np.isin(run.dataset.rows.user, run.dataset.rows.user[run.split.forget])
    asked = ~np.isnan(yes)
    assert np.array_equal(yes[asked & ~leaving], first[asked & ~leaving])
    assert (yes != first)[run.split.forget].mean() > 0.9
    assert made.cost["steps"] == made.cost["trained_parameters"] == 0


def test_what_it_cannot_forget_is_refused_in_one_line(begin: Callable[..., Forgetting]) -> None:
    run = begin()
    train = run.parts.splits.train
    run.split = ForgetSplit(np.setdiff1d(train, train[:1]), train[:1])  # the user stays
    with pytest.raises(InputError, match="other prompts show every token"):
        run.unlearn(method_of(run.config))
    run = begin(prompt="compact")
    with pytest.raises(InputError, match="other prompts show every token"):
        run.unlearn(method_of(run.config))
    run = begin()
    user, train = run.dataset.rows.user, run.parts.splits.train
    stays = np.setdiff1d(train, run.split.forget)[:1]  # beside users who leave
    rows = np.union1d(run.split.forget, stays)
    assert user[stays] in user[np.setdiff1d(train, rows)]
    run.split = ForgetSplit(np.setdiff1d(train, rows), rows)
    with pytest.raises(InputError, match=f"1 of {len(rows)} forget rows show no token that is"):
        run.unlearn(method_of(run.config))
    told = run.unlearn(method_of(run.config.moved({"partial": True})))
    assert told.found == {"rows_not_reached": 1}
    run = begin(tuning="lora", lora_target_modules=["q", "v"])
    with pytest.raises(InputError, match="did not reach the embeddings"):
        run.unlearn(method_of(run.config))
