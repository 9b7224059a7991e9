import pytest
import torch
from families import small_t5
from torch.testing import assert_close

from recbole_e2urec.model.backbones.adapters import AdapterBank
from recbole_e2urec.model.backbones.loading import BackboneOptions, load_backbone
from recbole_e2urec.model.backbones.lora import LoraOptions, seeded
from recbole_e2urec.model.backbones.seq2seq import T5LM, EagerT5LM, Seq2SeqLM


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
    plain = small_t5(feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    model = Seq2SeqLM(plain, tiny.codec, 512)
    assert model.scale == 1.0
    assert_close(model(*batch), model.own_logits(*batch), rtol=1e-5, atol=1e-5)


def test_seq2seq_prompt_ends_with_the_end_token(tiny):
    assert (tiny.prefix_ids, tiny.suffix_ids) == ([], [tiny.codec.tokenizer.eos_token_id])


@pytest.fixture(params=["relu", "gated-gelu"])
def t5(request, tiny):
    """Two layers of T5, whose decoder is asked for one position in its own way."""
    kind = {"feed_forward_proj": request.param, "tie_word_embeddings": request.param == "relu"}
    model = small_t5(num_layers=2, num_heads=4, **kind)
    return T5LM(model.double(), tiny.codec, 512)


@pytest.mark.parametrize("targets", [("q", "v"), ("q", "k", "v", "o", "wo")])
def test_one_decoder_position_is_what_the_whole_decoder_says(t5, batch, targets):
    assert_close(t5(*batch), t5.own_logits(*batch), rtol=1e-5, atol=1e-5)
    bank = AdapterBank(t5)
    bank.add("a", LoraOptions(r=2, dropout=0.0, target_modules=targets), seed=1)
    moved = {
        key: weight + 0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(4))
        for key, weight in bank.state("a").items()
    }
    bank.load("a", moved)
    gradients = []
    for answer in (t5, t5.own_logits):
        with bank.training("a"):
            t5.eval()  # its dropout is 0.1
            logits = answer(*batch)
            weights = bank.parameters("a")
            loss = logits.square().sum()
            found = torch.autograd.grad(loss, weights, materialize_grads=True)  # 0 where unused
            gradients.append(torch.cat([part.flatten() for part in found]))
    ours, theirs = gradients
    assert float((ours - theirs).norm()) <= 1e-5 * float(theirs.norm())


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("adapter", ["a", None])
def test_a_lean_encoder_says_and_learns_the_same_to_the_last_bit(tiny, batch, dropout, adapter):
    model = small_t5(num_layers=2, dropout_rate=dropout, attn_implementation="eager")
    lean = EagerT5LM(model, tiny.codec, 512)
    bank = AdapterBank(lean)
    bank.add("a", LoraOptions(r=2, target_modules=("q", "v", "embed_tokens")), seed=1)
    results = []
    for read in (EagerT5LM._read, Seq2SeqLM._read):
        with pytest.MonkeyPatch.context() as patch, bank.training(adapter), seeded(3):
            patch.setattr(EagerT5LM, "_read", read)
            logits = lean(*batch)
            found = torch.autograd.grad(
                logits.square().sum(), bank.parameters(adapter), materialize_grads=True
            )
        results.append([logits, *found])
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("option", [{"attention": "sdpa"}, {"gradient_checkpointing": True}])
def test_a_lean_encoder_leaves_to_transformers_what_it_does_not_do(texts, batch, option):
    model, calls = load_backbone(BackboneOptions("tiny-t5", **option), texts, seed=7), []
    model.reader.register_forward_hook(lambda *_: calls.append(True))
    model(*batch)
    assert calls


def test_one_decoder_position_has_the_dropout_of_the_whole_decoder(t5, batch):
    t5.train()
    many = [part.repeat(400, 1) for part in batch]
    with seeded(5):
        ours, theirs = (answer(*many).view(400, 3, -1) for answer in (t5, t5.own_logits))
    spread = theirs.std(dim=0)
    assert float(spread.min()) > 0
    assert float(((ours.mean(dim=0) - theirs.mean(dim=0)).abs() / spread).max()) < 0.35
    assert float((ours.std(dim=0) / spread).log().abs().mean()) < 0.1
