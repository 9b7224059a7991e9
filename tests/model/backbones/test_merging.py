"""What is written is read by plain transformers and plain peft, with the same logits."""

import pytest
import torch
from bank_steps import answer, changed, shake
from families import write_family
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
)

from recbole_e2urec.errors import InputError
from recbole_e2urec.model.backbones.adapters import AdapterBank
from recbole_e2urec.model.backbones.loading import BackboneOptions, load_backbone
from recbole_e2urec.model.backbones.lora import LoraOptions

LOOSE = {"rtol": 1e-4, "atol": 1e-4}


def bank_of(name, folder, targets=(), **more):
    source = write_family(name, folder, **more)
    bank = AdapterBank(load_backbone(BackboneOptions(source), [], seed=0))
    for number, adapter in enumerate(("a", "b")):
        bank.add(adapter, LoraOptions(r=2, target_modules=targets), seed=number)
        shake(bank, adapter, number)
        bank.load(adapter, {key: 0.3 * weight for key, weight in bank.state(adapter).items()})
    return bank, source


def plain_logits(model, batch):
    """At the answer position, by nothing but transformers."""
    ids, mask = batch
    with torch.no_grad():
        if model.config.is_encoder_decoder:
            starts = ids.new_full((len(ids), 1), model.config.decoder_start_token_id)
            decoded = model(input_ids=ids, attention_mask=mask, decoder_input_ids=starts)
            return decoded.logits[:, 0]
        return model(input_ids=ids, attention_mask=mask).logits[range(3), mask.sum(1) - 1]


def auto(bank):
    seq2seq = bank.language_model.model.config.is_encoder_decoder
    return AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM


EMBEDDINGS = ("q_proj", "embed_tokens")
CASES = [
    ("qwen2", (), {"tie_word_embeddings": True}),
    ("qwen2", EMBEDDINGS, {"tie_word_embeddings": True}),
    ("qwen2", EMBEDDINGS, {"tie_word_embeddings": False}),
    ("gemma2", EMBEDDINGS, {}),
    ("gpt2", ("c_attn", "wte"), {}),
    ("bart", (), {}),
    ("flan-t5", ("q", "wi_0"), {}),
    ("flan-t5", ("q",), {"feed_forward_proj": "relu", "tie_word_embeddings": True}),
    ("bart", ("embed_tokens",), {}),
    ("flan-t5", ("embed_tokens",), {}),
    ("flan-t5", ("embed_tokens",), {"feed_forward_proj": "relu", "tie_word_embeddings": True}),
]


@pytest.mark.parametrize(("name", "targets", "more"), CASES)
def test_a_merged_model_answers_in_plain_transformers(name, targets, more, batch, tmp_path):
    bank, _ = bank_of(name, tmp_path / "source", targets, **more)
    wanted, bare = answer(bank, batch, "a"), answer(bank, batch, None)
    before, drawn = bank.state(None), torch.get_rng_state()
    bank.save_merged("a", tmp_path / "merged")
    assert_close(
        plain_logits(auto(bank).from_pretrained(tmp_path / "merged"), batch), wanted, **LOOSE
    )
    assert not torch.allclose(wanted, bare, atol=1e-2)
    assert not changed(before, bank.state(None))
    assert torch.equal(answer(bank, batch, "a"), wanted)
    assert torch.equal(answer(bank, batch, None), bare)
    assert torch.equal(torch.get_rng_state(), drawn)


@pytest.mark.parametrize(("name", "targets", "more"), CASES[:2])
def test_a_saved_adapter_answers_in_plain_peft(name, targets, more, batch, tmp_path):
    bank, source = bank_of(name, tmp_path / "source", targets, **more)
    bank.save("b", tmp_path / "adapter")
    plain = PeftModel.from_pretrained(auto(bank).from_pretrained(source), tmp_path / "adapter")
    assert_close(plain_logits(plain.eval(), batch), answer(bank, batch, "b"), **LOOSE)


def test_the_bare_backbone_is_written_without_adapters(batch, tmp_path):
    bank, _ = bank_of("qwen2", tmp_path / "source")
    bank.save_merged(None, tmp_path / "bare")
    again = load_backbone(BackboneOptions(str(tmp_path / "bare")), [], seed=0)
    assert torch.equal(again(*batch), answer(bank, batch, None))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "bare")
    assert (
        tokenizer("like Toy")["input_ids"]
        == bank.language_model.codec.tokenizer("like Toy")["input_ids"]
    )


def test_a_t5_keeps_a_head_of_its_own(batch, tmp_path):
    """As Flan-T5 has one, although transformers 5 ties the head of every T5 that lacks one."""
    source = write_family("flan-t5", tmp_path / "source")
    file = tmp_path / "source" / "model.safetensors"
    weights = load_file(file)
    weights["lm_head.weight"] = weights["shared.weight"].flip(0).contiguous()
    save_file(weights, file, {"format": "pt"})
    bank = AdapterBank(load_backbone(BackboneOptions(source), [], seed=0))
    bank.save_merged(None, tmp_path / "merged")
    assert_close(
        plain_logits(auto(bank).from_pretrained(tmp_path / "merged"), batch),
        answer(bank, batch, None),
        **LOOSE,
    )


@pytest.mark.parametrize("name", ["bart", "flan-t5", "qwen2"])
def test_a_model_with_parted_embeddings_is_a_backbone_again(name, batch, tmp_path):
    bank, _ = bank_of(name, tmp_path / "source", ("embed_tokens",))
    wanted = answer(bank, batch, "a")
    bank.merge("a")
    bank.save_merged(None, tmp_path / "merged")
    again = load_backbone(BackboneOptions(str(tmp_path / "merged")), [], seed=0)
    assert_close(again(*batch), wanted, **LOOSE)


def test_a_merged_model_keeps_ways_to_sample_that_nothing_turned_on(tmp_path):
    bank, _ = bank_of("qwen2", tmp_path / "source")
    settings = bank.language_model.model.generation_config
    settings.temperature, settings.do_sample = 0.6, False  # as Llama 2 was first published
    bank.save_merged("a", tmp_path / "merged")
    assert GenerationConfig.from_pretrained(tmp_path / "merged").temperature == 0.6
    assert settings.do_sample is False


def test_files_of_a_merged_model_may_be_read_like_any_other(tmp_path):
    bank, _ = bank_of("qwen2", tmp_path / "source")
    bank.save_merged("a", tmp_path / "merged")
    bank.save_merged("b", tmp_path / "merged")
    (tmp_path / "other").touch()
    modes = {file.stat().st_mode for file in (tmp_path / "merged").iterdir()}
    assert modes == {(tmp_path / "other").stat().st_mode}


def test_a_merged_model_is_not_written_over_a_file(tmp_path):
    bank, _ = bank_of("qwen2", tmp_path / "source")
    (tmp_path / "merged").write_text("mine")
    with pytest.raises(InputError, match=r"cannot be written to .*merged: .*exists.*; free some"):
        bank.save_merged("a", tmp_path / "merged")
    assert (tmp_path / "merged").read_text() == "mine"


def test_a_merged_model_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    bank, _ = bank_of("qwen2", tmp_path / "source")

    def full(folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bank.language_model.codec.tokenizer, "save_pretrained", full)
    with pytest.raises(InputError, match=r"cannot be written to .*No space left"):
        bank.save_merged("a", tmp_path / "merged")
    assert not list((tmp_path / "merged").iterdir())


def test_a_quantised_backbone_is_not_merged(tmp_path, monkeypatch):
    bank, _ = bank_of("qwen2", tmp_path / "source")
    monkeypatch.setattr(bank.language_model.model, "is_quantized", True, raising=False)
    with pytest.raises(InputError, match="cannot be merged into quantised weights"):
        bank.save_merged("a", tmp_path / "merged")


def test_an_unknown_adapter_is_not_merged(tmp_path):
    bank, _ = bank_of("qwen2", tmp_path / "source")
    with pytest.raises(ValueError, match="no adapter 'c'"):
        bank.save_merged("c", tmp_path / "merged")
