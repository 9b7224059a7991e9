"""What is asked of bitsandbytes, and the lines where it cannot be asked."""

import logging
from importlib.util import find_spec

import pytest
import torch
from bank_steps import LORA, answer, changed, step
from families import write_family
from torch.testing import assert_close

from recbole_e2urec.errors import InputError
from recbole_e2urec.model.backbones import loading
from recbole_e2urec.model.backbones.adapters import AdapterBank
from recbole_e2urec.model.backbones.loading import BackboneOptions, load_backbone
from recbole_e2urec.model.backbones.seq2seq import Seq2SeqLM


def asked_of(monkeypatch, kind, dtype, folder):
    """The settings with which transformers is asked for weights."""
    found = {}
    auto = loading.AutoModelForCausalLM
    load = auto.from_pretrained

    def seen(*names, quantization_config, **settings):
        found.update(quantization_config=quantization_config, **settings)
        return load(*names, **settings)

    monkeypatch.setattr(loading, "find_spec", lambda name: name)
    monkeypatch.setattr(auto, "from_pretrained", seen)
    load_backbone(BackboneOptions(folder, quantization=kind, dtype=dtype), [], seed=0)
    return found


def test_4_bit_weights_are_asked_for_as_qlora_has_them(monkeypatch, tmp_path):
    found = asked_of(monkeypatch, "4bit", "bfloat16", write_family("qwen2", tmp_path))
    config = found["quantization_config"]
    assert (config.load_in_4bit, config.load_in_8bit) == (True, False)
    assert (config.bnb_4bit_quant_type, config.bnb_4bit_use_double_quant) == ("nf4", True)
    assert config.bnb_4bit_compute_dtype == found["dtype"] == torch.bfloat16


def test_8_bit_weights_are_asked_for(monkeypatch, tmp_path, caplog):
    config = asked_of(monkeypatch, "8bit", "float32", write_family("qwen2", tmp_path))
    assert config["quantization_config"].load_in_8bit
    assert not config["quantization_config"].load_in_4bit
    logging.getLogger(loading.PER_PRODUCT).warning("inputs will be cast")
    assert not caplog.records


def test_without_bitsandbytes_it_is_one_clear_line(monkeypatch, tmp_path):
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    options = BackboneOptions(write_family("qwen2", tmp_path), quantization="4bit")
    with pytest.raises(InputError, match=r"^backbone_quantization: 4bit needs .* pip install bits"):
        load_backbone(options, [], seed=0)


def test_an_embedded_backbone_is_not_quantised(texts):
    options = BackboneOptions("tiny-t5", quantization="8bit")
    with pytest.raises(InputError, match="backbone_quantization: tiny-t5 is made on the spot"):
        load_backbone(options, texts, seed=0)


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.parametrize("kind", ["4bit", "8bit"])
@pytest.mark.parametrize("name", ["qwen2", "flan-t5"])
def test_a_quantised_backbone_answers_and_its_adapter_learns(name, kind, batch, tmp_path, caplog):
    folder = write_family(name, tmp_path)
    model = load_backbone(BackboneOptions(folder, quantization=kind), [], seed=0)
    plain = load_backbone(BackboneOptions(folder), [], seed=0)
    assert isinstance(model, Seq2SeqLM) == (name == "flan-t5")
    with torch.no_grad():
        assert_close(model(*batch), model.own_logits(*batch), rtol=1e-4, atol=1e-4)
        moved = float((model(*batch) - plain(*batch)).norm() / plain(*batch).norm())
    assert 0 < moved < {"8bit": 0.3, "4bit": 0.9}[kind]  # the weights are large, and random
    bank = AdapterBank(model)
    bank.add("a", LORA, seed=1)
    before, bare = bank.state("a"), answer(bank, batch, None)
    step(bank, batch, "a")
    assert changed(before, bank.state("a"))
    assert not torch.equal(answer(bank, batch, "a"), bare)
    assert torch.equal(answer(bank, batch, None), bare)
    assert not [one for one in caplog.records if one.name == loading.PER_PRODUCT]
