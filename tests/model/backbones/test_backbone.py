from itertools import chain

import pytest
import torch
from bank_steps import answer, gradients, shake
from families import small_t5
from small_tokenizers import byte_level, sentence_piece
from torch.testing import assert_close
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
)

from recbole_e2urec.errors import InputError
from recbole_e2urec.model.backbones import loading
from recbole_e2urec.model.backbones.adapters import AdapterBank
from recbole_e2urec.model.backbones.loading import BackboneOptions, load_backbone
from recbole_e2urec.model.backbones.lora import LoraOptions
from recbole_e2urec.model.backbones.seq2seq import Seq2SeqLM


@pytest.fixture
def gpt2_folder(tmp_path):
    tokenizer = byte_level()
    config = GPT2Config(
        vocab_size=len(tokenizer) + 3, n_embd=16, n_layer=1, n_head=2, n_positions=99
    )
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return str(tmp_path)


@pytest.fixture
def t5_folder(tmp_path):
    tokenizer = sentence_piece()
    small_t5(vocab_size=128).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return str(tmp_path)


def prompt(model, *parts):
    ids = [*model.prefix_ids, *chain(*model.encode(list(parts))), *model.suffix_ids]
    return torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long)


def test_gpt2_folder_answers_like_its_model(gpt2_folder):
    model = load_backbone(BackboneOptions(gpt2_folder), [], seed=0)
    batch = prompt(model, "Will the user like", "Toy Story?")
    assert_close(model(*batch), model.own_logits(*batch), rtol=1e-5, atol=1e-5)
    assert model.lora_targets == ["c_attn"]


def test_gpt2_folder_encodes_parts_like_their_join(gpt2_folder):
    model = load_backbone(BackboneOptions(gpt2_folder), [], seed=0)
    text = "Will the user like Toy Story? Yes or No:"
    parts = model.encode(["Will the user like ", "Toy Story? ", "Yes or No:"])
    assert list(chain(*parts)) == model.codec.tokenizer(" " + text)["input_ids"]


def test_gpt2_folder_takes_the_answer_after_a_space(gpt2_folder):
    model = load_backbone(BackboneOptions(gpt2_folder), [], seed=0)
    tokens = model.codec.tokenizer.convert_ids_to_tokens(list(model.answer_ids))
    assert tokens == ["ĠNo", "ĠYes"]


def test_gpt2_folder_pads_with_the_end_token_and_adds_nothing(gpt2_folder):
    model = load_backbone(BackboneOptions(gpt2_folder), [], seed=0)
    assert model.pad_id == model.codec.tokenizer.eos_token_id
    assert (model.prefix_ids, model.suffix_ids) == ([], [])
    assert model.vocab_size == len(model.codec.tokenizer) + 3


def test_max_tokens_is_cut_to_the_position_table(gpt2_folder):
    assert load_backbone(BackboneOptions(gpt2_folder), [], seed=0).max_tokens == 99
    assert load_backbone(BackboneOptions(gpt2_folder, max_tokens=50), [], seed=0).max_tokens == 50


def test_t5_folder_answers_like_its_model(t5_folder):
    model = load_backbone(BackboneOptions(t5_folder), [], seed=0)
    batch = prompt(model, "Will the user like", "Toy Story?")
    assert_close(model(*batch), model.own_logits(*batch), rtol=1e-5, atol=1e-5)
    assert model.lora_targets == ["q", "v"]


def test_t5_folder_encodes_prompts_like_its_tokenizer(t5_folder):
    model = load_backbone(BackboneOptions(t5_folder), [], seed=0)
    ids, _ = prompt(model, "Will the user like ", "Toy Story?")
    text = "Will the user like Toy Story?"
    assert ids[0].tolist() == model.codec.tokenizer(text)["input_ids"]


def test_t5_folder_takes_the_answer_as_it_stands(t5_folder):
    model = load_backbone(BackboneOptions(t5_folder), [], seed=0)
    tokens = model.codec.tokenizer.convert_ids_to_tokens(list(model.answer_ids))
    assert tokens == ["▁No", "▁Yes"]


def test_special_token_in_a_title_is_text(t5_folder):
    model = load_backbone(BackboneOptions(t5_folder), [], seed=0)
    assert model.encode(["the </s> user"]) == model.encode(["the < / s > user"])
    assert model.codec.tokenizer.eos_token_id not in model.encode(["the</s>user"])[0]


def test_answer_of_several_tokens_is_refused_with_them(texts):
    options = BackboneOptions(answer_yes="Yes please")
    with pytest.raises(
        InputError, match=r"'Yes please' is not one token .* 2: \['Yes', 'please'\]"
    ):
        load_backbone(options, texts, seed=0)


def test_answer_outside_the_vocabulary_is_refused(t5_folder):
    with pytest.raises(InputError, match="'Ж' is not one token"):
        load_backbone(BackboneOptions(t5_folder, answer_yes="Ж"), [], seed=0)


def test_equal_answers_are_refused(texts):
    with pytest.raises(InputError, match="same token"):
        load_backbone(BackboneOptions(answer_yes="No"), texts, seed=0)


def test_unknown_name_offline_names_the_nearest_without_asking_the_hub(texts, monkeypatch):
    monkeypatch.setattr(loading.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(loading, "get_session", lambda: pytest.fail("the hub was asked"))
    with pytest.raises(InputError, match="'tiny-t6' cannot be loaded; did you mean 'tiny-t5'"):
        load_backbone(BackboneOptions("tiny-t6"), texts, seed=0)


def test_unreachable_hub_is_asked_once(texts, monkeypatch):
    class Session:
        calls = 0

        def head(self, url, timeout):
            Session.calls += 1
            raise ConnectionError("no network")

    monkeypatch.setattr(loading.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(loading, "get_session", Session)
    with pytest.raises(InputError) as error:
        load_backbone(BackboneOptions("nobody/no-such-model"), texts, seed=0)
    assert Session.calls == 1
    assert "\n" not in str(error.value)


def test_missing_folder_is_refused_without_asking_the_hub(texts, monkeypatch):
    monkeypatch.setattr(loading, "get_session", lambda: pytest.fail("the hub was asked"))
    with pytest.raises(InputError, match=r"'\./nowhere' cannot be loaded"):
        load_backbone(BackboneOptions("./nowhere"), texts, seed=0)


def test_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be loaded"):
        load_backbone(BackboneOptions(str(tmp_path)), [], seed=0)


def test_model_without_a_language_head_is_refused(tmp_path):
    config = BertConfig(
        vocab_size=128,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    BertModel(config).save_pretrained(tmp_path)
    sentence_piece().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="weights are missing"):
        load_backbone(BackboneOptions(str(tmp_path)), [], seed=0)


def test_t5_in_float16_is_refused(t5_folder):
    with pytest.raises(InputError, match="overflows in float16"):
        load_backbone(BackboneOptions(t5_folder, dtype="float16"), [], seed=0)


def test_dtype_is_what_was_asked(t5_folder):
    model = load_backbone(BackboneOptions(t5_folder, dtype="bfloat16"), [], seed=0)
    assert model.model.dtype == torch.bfloat16


@pytest.mark.parametrize(("key", "value"), [("dtype", "int8"), ("max_tokens", 0)])
def test_backbone_options_refuse_what_cannot_work(key, value):
    with pytest.raises(InputError, match=key.rpartition("_")[2]):
        BackboneOptions(**{key: value})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny-t5", "tiny-llama"])
def test_a_compiled_backbone_answers_and_learns_as_the_plain_one(name, texts, batch):
    found = []
    for compiled in (False, True):
        model = load_backbone(BackboneOptions(name, compile=compiled), texts, seed=7)
        bank = AdapterBank(model)
        for adapter in ("a", "b"):
            bank.add(adapter, LoraOptions(dropout=0.0), seed=1)
            shake(bank, adapter)
        weights = torch.tensor([[0.2, 0.9]] * 3)
        with bank.mixed(["a", "b"], weights):
            mixed = model(*batch)
        answers = [answer(bank, batch, adapter) for adapter in (None, "a", "b")]
        found.append([mixed, *answers, *gradients(bank, batch)])
    for plain, other in zip(*found, strict=True):
        torch.testing.assert_close(plain, other, rtol=1e-4, atol=1e-5)


def test_a_backbone_that_cannot_be_compiled_is_one_clear_line(monkeypatch, texts):
    def broken(*_, **__):
        raise RuntimeError("no\ncompiler")

    monkeypatch.setattr(Seq2SeqLM, "agrees_with_its_model", broken)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda *_, **__: None)  # seconds of imports
    with pytest.raises(InputError, match=r"backbone_compile.*\(no compiler\)"):
        load_backbone(BackboneOptions("tiny-t5", compile=True), texts, seed=7)
