"""Prompts as the user's turn of a chat."""

from itertools import chain

import pytest
import torch
from families import write_family
from small_tokenizers import byte_level, sentence_piece
from torch.testing import assert_close

from recbole_e2urec.errors import InputError
from recbole_e2urec.model.backbones.loading import BackboneOptions, load_backbone
from recbole_e2urec.model.backbones.tokenizer import ChatCodec

LINES = (
    "{% for m in messages %}"
    "<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is false %}<think></think>{% endif %}{% endif %}"
)
BRACKETS = (
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }} </s>{% endif %}{% endfor %}"
)
ANSWERS = ("No", "Yes")
PARTS = ["Will the user like ", "Toy Story?"]


def lines_tokenizer():
    tokenizer = byte_level()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = LINES
    return tokenizer


def prompt(codec, parts=PARTS):
    return [*codec.prefix_ids, *chain(*codec.encode(parts)), *codec.suffix_ids]


def test_a_prompt_is_the_users_turn():
    codec = ChatCodec(lines_tokenizer(), ANSWERS)
    assert codec.tokenizer.decode(prompt(codec)) == (
        "<|im_start|>user\n Will the user like Toy Story?<|im_end|>\n"
        "<|im_start|>assistant\n<think></think>"
    )


def test_special_tokens_of_the_template_are_single_tokens():
    codec = ChatCodec(lines_tokenizer(), ANSWERS)
    start, end = codec.tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert codec.prefix_ids[0] == start
    assert codec.suffix_ids[0] == end
    assert start in codec.suffix_ids


def test_a_title_cannot_end_the_users_turn():
    codec = ChatCodec(lines_tokenizer(), ANSWERS)
    (ids,) = codec.encode(["Toy <|im_end|> Story"])
    assert codec.tokenizer.convert_tokens_to_ids("<|im_end|>") not in ids


def test_the_answer_begins_the_assistants_turn_without_a_space():
    codec = ChatCodec(lines_tokenizer(), ("No", "Will"))
    assert codec.tokenizer.convert_ids_to_tokens(list(codec.answer_ids)) == ["No", "Will"]


def test_the_answer_follows_a_space_where_the_template_puts_one():
    tokenizer = byte_level()
    tokenizer.chat_template = BRACKETS
    codec = ChatCodec(tokenizer, ANSWERS)
    assert tokenizer.convert_ids_to_tokens(list(codec.answer_ids)) == ["ĠNo", "ĠYes"]
    assert tokenizer.decode(prompt(codec)) == "[INST] Will the user like Toy Story? [/INST]"


def test_tokenizers_that_begin_a_word_by_themselves_get_no_second_space():
    tokenizer = sentence_piece()
    tokenizer.chat_template = BRACKETS.replace("[INST]", "the:").replace("[/INST]", "or:")
    codec = ChatCodec(tokenizer, ANSWERS)
    whole = tokenizer("the: Will the user like Toy Story? or:", add_special_tokens=False)
    assert prompt(codec) == whole["input_ids"]
    assert tokenizer.convert_ids_to_tokens(list(codec.answer_ids)) == ["▁No", "▁Yes"]


def test_a_tokenizer_without_a_template_is_one_clear_line():
    with pytest.raises(InputError, match=r"backbone_chat: the tokenizer .* has no chat template"):
        ChatCodec(byte_level(), ANSWERS)


def test_a_template_that_drops_the_prompt_is_refused():
    tokenizer = byte_level()
    tokenizer.chat_template = "nothing"
    with pytest.raises(InputError, match="shows a prompt 0 times, not once"):
        ChatCodec(tokenizer, ANSWERS)


def test_a_causal_backbone_keeps_what_opens_the_assistants_turn(tmp_path):
    folder = write_family("qwen2", tmp_path)
    tokenizer = byte_level()
    tokenizer.chat_template = LINES
    tokenizer.save_pretrained(folder)
    model = load_backbone(BackboneOptions(folder, chat=True), [], seed=0)
    codec = model.codec
    assert (model.prefix_ids, model.suffix_ids) == (codec.prefix_ids, codec.suffix_ids)
    assert codec.tokenizer.decode(model.suffix_ids).endswith("assistant\n<think></think>")
    ids = torch.tensor([prompt(codec)])
    assert_close(model(ids, torch.ones_like(ids)), model.own_logits(ids, torch.ones_like(ids)))
    assert load_backbone(BackboneOptions(folder), [], seed=0).suffix_ids == []


def test_an_encoder_decoder_has_no_chat(tmp_path):
    folder = write_family("flan-t5", tmp_path)
    with pytest.raises(InputError, match=r"backbone_chat: .* answers in a decoder of its own"):
        load_backbone(BackboneOptions(folder, chat=True), [], seed=0)
