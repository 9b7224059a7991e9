import pytest
import torch
from torch.testing import assert_close

from recbole_e2urec.data.prompt_table import TokenBatch
from recbole_e2urec.model.backbones.causal import CausalLM
from recbole_e2urec.model.backbones.loading import BackboneOptions, load_backbone


@pytest.fixture
def tiny(texts):
    return load_backbone(BackboneOptions("tiny-llama"), texts, seed=7)


def test_causal_equals_logits_of_the_last_prompt_token(tiny, batch):
    ids, mask = batch
    logits = tiny.model(input_ids=ids, attention_mask=mask).logits
    for row, length in enumerate([5, 2, 4]):
        assert_close(tiny(ids, mask)[row], logits[row, length - 1], rtol=1e-5, atol=1e-5)


def test_causal_prompt_begins_with_the_begin_token_and_stays_open(tiny):
    assert (tiny.prefix_ids, tiny.suffix_ids) == ([tiny.codec.tokenizer.bos_token_id], [])


def test_prompts_that_share_a_beginning_are_answered_as_whole_ones(tiny):
    generator = torch.Generator().manual_seed(1)

    def padded(lengths):
        ids = torch.randint(5, 20, (len(lengths), max(lengths)), generator=generator)
        mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
        return TokenBatch(ids * mask, mask)

    beginnings, endings, of = padded([3, 9, 1]), padded([2, 1, 4, 3, 2]), [1, 0, 1, 2, 0]
    wholes = [
        torch.cat([beginnings.input_ids[b][mask_b == 1], endings.input_ids[e][mask_e == 1]])
        for e, b in enumerate(of)
        for mask_b, mask_e in [(beginnings.attention_mask[b], endings.attention_mask[e])]
    ]
    alone = [tiny.hidden(ids[None], torch.ones_like(ids[None]))[0] for ids in wholes]
    assert tiny.shares_beginnings
    for tokens in (1, 6, 100):
        together = tiny.hidden_after(beginnings, endings, torch.tensor(of), tokens)
        assert_close(together, torch.stack(alone), rtol=1e-5, atol=1e-5)


def test_a_cache_that_cannot_be_shared_is_noticed(tiny, monkeypatch):
    monkeypatch.setattr(CausalLM, "hidden_after", lambda *given: torch.zeros(2, 64))
    assert not tiny.shares_beginnings
