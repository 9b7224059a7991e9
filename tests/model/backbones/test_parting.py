"""An adapter merged in memory answers as it did, where matrices are shared too."""

import pytest
import torch
from bank_steps import answer, shake
from families import write_family
from torch.testing import assert_close

from recbole_e2urec.errors import InputError
from recbole_e2urec.model.backbones.adapters import AdapterBank
from recbole_e2urec.model.backbones.loading import BackboneOptions, load_backbone
from recbole_e2urec.model.backbones.lora import LoraOptions

CASES = [
    ("qwen2", ("q_proj", "embed_tokens"), {"tie_word_embeddings": True}),
    ("qwen2", ("q_proj", "embed_tokens"), {"tie_word_embeddings": False}),
    ("gpt2", ("c_attn", "wte"), {}),
    ("bart", ("q_proj", "embed_tokens"), {}),
    ("flan-t5", ("q", "embed_tokens"), {"feed_forward_proj": "relu", "tie_word_embeddings": True}),
]


def bank_of(source, targets):
    bank = AdapterBank(load_backbone(BackboneOptions(source), [], seed=0))
    return bank, LoraOptions(r=2, target_modules=targets)


@pytest.mark.parametrize(("name", "targets", "more"), CASES)
def test_merged_twice_and_loaded_again_it_answers_the_same(name, targets, more, batch, tmp_path):
    source = write_family(name, tmp_path / "source", **more)
    bank, options = bank_of(source, targets)
    bare = answer(bank, batch, None)
    for turn in range(2):
        bank.add("a", options, seed=turn)
        shake(bank, "a", turn)
        bank.load("a", {key: 0.3 * weight for key, weight in bank.state("a").items()})
        wanted = answer(bank, batch, "a")
        assert not torch.allclose(wanted, answer(bank, batch, None), atol=1e-2)
        bank.merge("a")
        assert bank.names == []
        assert_close(answer(bank, batch, None), wanted, rtol=1e-5, atol=1e-5)
    again, _ = bank_of(source, targets)
    assert torch.equal(answer(again, batch, None), bare)
    again.part(bank.state(None))
    assert torch.equal(answer(again, batch, None), bare)
    again.load(None, bank.state(None))
    assert torch.equal(answer(again, batch, None), answer(bank, batch, None))


def test_a_state_of_another_model_is_refused_and_nothing_is_written(batch, tmp_path):
    bank, _ = bank_of(write_family("qwen2", tmp_path / "source"), ("q_proj",))
    before = answer(bank, batch, None)
    state = bank.state(None)
    name = next(iter(state))
    for other in ({name: state[name][:1]}, {"evil.weight": state[name]}):
        bank.part({**state, **other})
        with pytest.raises(ValueError, match="does not fit"):
            bank.load(None, {**state, **other})
    assert torch.equal(answer(bank, batch, None), before)


def test_quantised_weights_take_no_adapter(tmp_path, monkeypatch):
    bank, options = bank_of(write_family("qwen2", tmp_path / "source"), ("q_proj",))
    bank.add("a", options, seed=0)
    monkeypatch.setattr(bank.language_model.model, "is_quantized", True, raising=False)
    with pytest.raises(InputError, match="cannot be merged into quantised"):
        bank.merge("a")
