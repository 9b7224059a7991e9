"""TokenReset changes the request's own tokens, and nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.data.request.selection import ForgetSplit
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.unlearning import Forgetting
from recbole_e2urec.methods import method_of
from recbole_e2urec.methods.tokenreset import TokenReset, TokenResetOptions
from recbole_e2urec.trainer.batches import ForgetRetainBatches
from recbole_e2urec.trainer.checkpoint import Stage
from recbole_e2urec.trainer.strength import CLOSE, TargetLoss, loss_of, target_loss
from recbole_e2urec.trainer.teachers import unshown_tokens


@pytest.fixture
def begin(small_config: Callable[..., Any]) -> Callable[..., Forgetting]:
    def make(**settings: Any) -> Forgetting:
        settings = {"control_users": 0, "prompt": "numbered", "overshoot": 0.0, **settings}
        config = small_config("TokenReset", **settings)
        run = Forgetting(config, load_dataset(config))
        run.train()
        return run

    return make


@pytest.mark.parametrize("backbone", ["tiny-t5", "tiny-llama"])
def test_own_tokens_have_their_start_and_the_mean_drift_and_all_else_is_as_it_was(
    begin: Callable[..., Forgetting], backbone: str
) -> None:
    run = begin(backbone=backbone)
    own = ForgetRetainBatches(run.request, run.model.table, 1).forget_only_tokens()
    forget = run.dataset.rows.user[run.split.forget]
    assert len(own) == len(np.unique(forget))  # a token a user
    unshown = unshown_tokens(run.model, run.request)
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
        drift = (before[name] - run.start[name])[unshown].mean(dim=0)
        assert drift.abs().max() > 1e-3
        torch.testing.assert_close(weights[name][own], run.start[name][own] + drift)


@pytest.mark.parametrize("backbone", ["tiny-t5", "tiny-llama"])
def test_reset_tokens_are_nearer_to_retrains_than_their_start_is(
    begin: Callable[..., Forgetting], backbone: str
) -> None:
    last = {"epochs": 6, "eval_step": 6}  # both models are those of the last epoch
    run = begin(backbone=backbone, train_batch_size=16, **last)
    own = ForgetRetainBatches(run.request, run.model.table, 1).forget_only_tokens()
    embedding = run.model.language_model.model.get_input_embeddings().weight
    (name,) = [key for key, weight in run.start.items() if weight.shape == embedding.shape]
    retrained = Stage.of(run.stages, "Retrain", run.retrain.stage).weights()[name][own]
    reset = method_of(run.config).unlearn(run.model, run.request).scorer.read()[name][own]
    to_reset, to_start = ((one - retrained).norm(dim=1) for one in (reset, run.start[name][own]))
    assert (to_reset < 0.8 * to_start).all()


def test_overshoot_goes_further_from_original_by_this_share(
    begin: Callable[..., Forgetting],
) -> None:
    run = begin()
    own = ForgetRetainBatches(run.request, run.model.table, 1).forget_only_tokens()
    before = run.model.bank.state(None)
    plain, further = (
        method_of(run.config.with_settings({"overshoot": share})).unlearn(run.model, run.request)
        for share in (0.0, 0.5)
    )
    assert plain.digest != further.digest
    (name,) = [key for key, weight in plain.scorer.read().items() if not weight.equal(before[key])]
    way, longer = (one.scorer.read()[name][own] - before[name][own] for one in (plain, further))
    torch.testing.assert_close(longer, 1.5 * way)


@pytest.mark.parametrize("share", [-0.1, float("nan"), float("inf")])
def test_overshoot_below_nothing_or_without_end_is_refused(
    small_config: Callable[..., Any], share: float
) -> None:
    with pytest.raises(InputError, match="overshoot is"):
        method_of(small_config("TokenReset", overshoot=share))


def test_unshown_are_the_words_that_no_training_prompt_has(
    begin: Callable[..., Forgetting],
) -> None:
    run = begin()
    lm, table = run.model.language_model, run.model.table
    shown = table.with_history(run.before).batch(run.parts.splits.train).input_ids.unique()
    unshown = set(unshown_tokens(run.model, run.request).tolist())
    apart = {*shown.tolist(), *lm.answer_ids, *lm.codec.tokenizer.all_special_ids}
    assert unshown == set(range(lm.vocab_size)) - apart
    assert len(unshown) > 1000


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
    told = run.unlearn(method_of(run.config.with_settings({"partial": True})))
    assert told.findings == {"rows_not_reached": 1}
    run = begin(tuning="lora", lora_target_modules=["q", "v"])
    with pytest.raises(InputError, match="did not reach the embeddings"):
        run.unlearn(method_of(run.config))


def test_without_an_overshoot_tokens_go_as_far_as_the_target_asks(
    begin: Callable[..., Forgetting], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(overshoot=None, epochs=3, learning_rate=0.05, train_batch_size=16)
    model, request = run.model, run.request
    fixed = TokenResetOptions(partial=False, overshoot=0.7)
    known = TokenReset(fixed).unlearn(model, request).scorer
    with model.using_history(request.forget_history):
        wanted = float(loss_of(model, known, request.forget).mean())

    def target(*given: Any) -> TargetLoss:
        return target_loss(*given)._replace(loss=wanted)

    monkeypatch.setattr("recbole_e2urec.methods.tokenreset.target_loss", target)
    made = method_of(run.config).unlearn(model, request)
    with model.using_history(request.forget_history):
        reached = float(loss_of(model, made.scorer, request.forget).mean())
    near_enough = CLOSE * (wanted - made.findings["original_logloss"])
    assert reached == pytest.approx(wanted, abs=near_enough)
    assert made.findings["overshoot"] > 0
