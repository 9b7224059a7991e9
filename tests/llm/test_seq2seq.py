import pytest
import torch
from torch.testing import assert_close
from transformers import T5Config, T5ForConditionalGeneration

from recbole_e2urec.llm.backbone import BackboneOptions, load_backbone
from recbole_e2urec.llm.seq2seq import Seq2SeqLM


@pytest.fixture
def tiny(texts):
    return load_backbone(BackboneOptions("tiny-t5"), texts, seed=7)


def test_seq2seq_equals_logits_of_the_first_label(tiny, batch):
    ids, mask = batch
    labels = torch.full((3, 2), tiny.answer_ids[1])
    theirs = tiny.model(input_ids=ids, attention_mask=mask, labels=labels).logits[:, 0]
    assert_close(tiny(ids, mask), theirs, rtol=1e-5, atol=1e-5)


def test_seq2seq_hidden_is_scaled_when_the_head_is_tied(tiny, batch):
    assert tiny.scale == 64**-0.5
    assert_close(
        tiny.hidden(*batch) @ tiny.model.shared.weight.T,
        tiny.own_logits(*batch),
        rtol=1e-5,
        atol=1e-5,
    )


def test_seq2seq_hidden_is_not_scaled_in_t5_v1_1(tiny, batch):
    config = T5Config(
        vocab_size=400,
        d_model=16,
        d_kv=8,
        d_ff=16,
        num_layers=1,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        decoder_start_token_id=0,
        tie_word_embeddings=False,
    )
    model = Seq2SeqLM(T5ForConditionalGeneration(config).eval(), tiny.codec, 512)
    assert model.scale == 1.0
    assert_close(model(*batch), model.own_logits(*batch), rtol=1e-5, atol=1e-5)


def test_seq2seq_prompt_ends_with_the_end_token(tiny):
    assert (tiny.prefix_ids, tiny.suffix_ids) == ([], [tiny.codec.tokenizer.eos_token_id])
