"""Every architecture through the one interface: answers, padding, adapters, shared beginnings."""

import pytest
import torch
from bank_steps import LORA, answer, step
from families import CONFIGS, write_family
from torch.testing import assert_close
from transformers import (
    CohereConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GraniteConfig,
    Qwen2Config,
)

from recbole_e2urec.data.prompt_table import TokenBatch
from recbole_e2urec.errors import InputError
from recbole_e2urec.model.backbones.adapters import AdapterBank
from recbole_e2urec.model.backbones.language_model import LanguageModel, LogitShape
from recbole_e2urec.model.backbones.loading import BackboneOptions, load_backbone

LOOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module", params=CONFIGS)
def family(request, tmp_path_factory):
    name = request.param
    folder = write_family(name, tmp_path_factory.mktemp(name))
    return name, load_backbone(BackboneOptions(folder), [], seed=0)


def test_a_family_answers_like_its_own_forward(family, batch):
    _, model = family
    with torch.no_grad():
        assert_close(model(*batch), model.own_logits(*batch), **LOOSE)
        assert_close(model.head_copy()(model.hidden(*batch)), model(*batch))


def test_a_family_is_not_moved_by_padding(family, batch):
    _, model = family
    ids, mask = batch
    with torch.no_grad():
        together = model(ids, mask)
        wider = (
            torch.nn.functional.pad(ids, (0, 7), value=315),
            torch.nn.functional.pad(mask, (0, 7)),
        )
        assert_close(model(*wider), together, **LOOSE)
        for row in range(3):
            length = int(mask[row].sum())
            alone = model(ids[[row], :length], mask[[row], :length])[0]
            assert_close(alone, together[row], **LOOSE)


def test_a_family_has_its_lora_targets_and_learns_by_them(family, batch):
    _, model = family
    assert model.lora_targets == ["q_proj", "v_proj"]
    bank = AdapterBank(model)
    bank.add("a", LORA, seed=1)
    try:
        bare = answer(bank, batch, None)
        assert torch.equal(answer(bank, batch, "a"), bare)
        step(bank, batch, "a")
        assert not torch.equal(answer(bank, batch, "a"), bare)
    finally:
        bank.remove("a")


def test_a_family_shares_beginnings_or_says_that_it_does_not(family):
    name, model = family
    slides = name in ("mistral", "gemma2", "gemma3")
    assert model.shares_beginnings == (not model.model.config.is_encoder_decoder and not slides)
    if not model.shares_beginnings:
        return
    ids = torch.tensor([[300, 301, 302, 303], [310, 311, 0, 0]])
    ends, of = torch.tensor([[320, 321], [322, 0], [323, 324]]), torch.tensor([0, 1, 1])
    beginnings, endings = (TokenBatch(part, (part > 0).long()) for part in (ids, ends))
    wholes = [[300, 301, 302, 303, 320, 321], [310, 311, 322], [310, 311, 323, 324]]
    with torch.no_grad():
        alone = [model.hidden(torch.tensor([x]), torch.ones(1, len(x)).long())[0] for x in wholes]
        for tokens in (2, 100):
            together = model.hidden_after(beginnings, endings, of, tokens)
            assert_close(together, torch.stack(alone), **LOOSE)


def test_a_wide_enough_window_shares_beginnings(tmp_path):
    folder = write_family("mistral", tmp_path, sliding_window=64)
    assert not load_backbone(BackboneOptions(folder, max_tokens=33), [], seed=0).shares_beginnings
    assert load_backbone(BackboneOptions(folder, max_tokens=32), [], seed=0).shares_beginnings


def test_logits_are_scaled_then_capped():
    shape = LogitShape(scale=2.0, cap=3.0)
    assert_close(shape(torch.tensor([3.0, -300.0, 0.0])), torch.tensor([2.892083, -3.0, 0.0]))
    bare = torch.tensor([5.0])
    assert LogitShape()(bare) is bare


def test_a_config_says_how_logits_are_shaped():
    assert LogitShape.of(GraniteConfig(logits_scaling=4.0)) == LogitShape(scale=0.25)
    assert LogitShape.of(CohereConfig(logit_scale=0.5)) == LogitShape(scale=0.5)
    assert LogitShape.of(Gemma2Config(final_logit_softcapping=30.0)) == LogitShape(cap=30.0)
    assert LogitShape.of(Gemma3TextConfig()) == LogitShape.of(Qwen2Config()) == LogitShape()


def test_an_architecture_that_does_still_more_is_refused(tmp_path, monkeypatch):
    folder = write_family("gemma2", tmp_path)
    monkeypatch.setattr(LogitShape, "of", classmethod(lambda cls, config: cls()))
    with pytest.raises(InputError, match=r"\(gemma2\) does more to its logits than scale or cap"):
        load_backbone(BackboneOptions(folder), [], seed=0)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["qwen2", "tiny-t5"])
def test_attention_is_computed_as_asked(name, attention, batch, texts, tmp_path):
    source = name if name.startswith("tiny") else write_family(name, tmp_path)
    plain = load_backbone(BackboneOptions(source), texts, seed=7)
    model = load_backbone(BackboneOptions(source, attention=attention), texts, seed=7)
    assert {module.config._attn_implementation for module in model.model.modules()
            if hasattr(module, "config")} == {attention}  # fmt: skip
    assert_close(model(*batch), plain(*batch), **LOOSE)


def test_attention_that_does_not_work_here_is_one_clear_line(texts):
    options = BackboneOptions("tiny-llama", attention="flash_attention_2")
    with pytest.raises(InputError, match="backbone_attention: flash_attention_2 does not work"):
        load_backbone(options, texts, seed=7)


def test_attention_of_another_result_is_refused(texts, monkeypatch):
    monkeypatch.setattr(LanguageModel, "agrees_with_its_model", lambda model: False)
    with pytest.raises(InputError, match="backbone_attention: sdpa does not work"):
        load_backbone(BackboneOptions("tiny-llama", attention="sdpa"), texts, seed=7)
