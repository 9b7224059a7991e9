import pytest
from torch.testing import assert_close

from recbole_e2urec.llm.backbone import BackboneOptions, load_backbone


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
