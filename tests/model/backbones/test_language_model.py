import torch
from torch.testing import assert_close

from recbole_e2urec.model.backbones.loading import BackboneOptions, load_backbone

LOOSE = {"rtol": 1e-5, "atol": 1e-5}


def test_forward_equals_the_models_own_logits(language_model, batch):
    assert_close(language_model(*batch), language_model.own_logits(*batch), **LOOSE)


def test_forward_is_head_of_hidden(language_model, batch):
    hidden = language_model.hidden(*batch)
    assert hidden.shape == (3, language_model.hidden_size)
    assert torch.equal(language_model.head(hidden), language_model(*batch))


def test_score_does_not_depend_on_batch_neighbours(language_model, batch):
    ids, mask = batch
    together = language_model(ids, mask)
    for row in range(3):
        assert_close(language_model(ids[[row]], mask[[row]])[0], together[row], **LOOSE)


def test_score_does_not_depend_on_the_amount_of_padding(language_model, batch):
    ids, mask = batch
    wider = [torch.nn.functional.pad(tensor, (0, 9)) for tensor in (ids, mask)]
    assert_close(language_model(*wider), language_model(ids, mask), **LOOSE)


def test_score_does_not_depend_on_what_stands_in_the_padding(language_model, batch):
    ids, mask = batch
    other = torch.where(mask == 1, ids, torch.full_like(ids, 315))
    assert_close(language_model(other, mask), language_model(ids, mask), **LOOSE)


def test_score_depends_on_every_token(language_model, batch):
    ids, mask = batch
    for position in range(5):
        changed = ids.clone()
        changed[0, position] = 330
        assert not torch.allclose(language_model(changed, mask)[0], language_model(ids, mask)[0])


def test_empty_batch_gives_no_rows(language_model):
    nothing = torch.zeros(0, 5, dtype=torch.long)
    assert language_model(nothing, nothing).shape == (0, language_model.vocab_size)


def test_agrees_with_its_model_sees_a_head_that_does_more(language_model, monkeypatch):
    assert language_model.agrees_with_its_model()
    own = language_model.own_logits
    monkeypatch.setattr(language_model, "own_logits", lambda *args: torch.tanh(own(*args)))
    assert not language_model.agrees_with_its_model()


def test_bfloat16_model_answers_in_float32(language_model, batch):
    assert language_model.to(torch.bfloat16)(*batch).dtype == torch.float32


def test_bfloat16_answers_are_those_of_float32_to_two_hundredths(language_model, batch):
    no, yes = language_model.answer_ids
    exact = language_model(*batch)[:, [no, yes]].softmax(dim=1)
    rounded = language_model.to(torch.bfloat16)(*batch)[:, [no, yes]].softmax(dim=1)
    assert 0 < float((exact - rounded).abs().max()) < 0.02


def test_mixed_precision_reads_in_bfloat16_and_keeps_weights_and_gradients(texts, batch):
    exact = load_backbone(BackboneOptions("tiny-t5"), texts, seed=7)
    mixed = load_backbone(BackboneOptions("tiny-t5", mixed=True), texts, seed=7)
    no, yes = exact.answer_ids
    answers = [lm(*batch)[:, [no, yes]].softmax(dim=1) for lm in (exact, mixed)]
    assert 0 < float((answers[0] - answers[1]).detach().abs().max()) < 0.02
    assert mixed.hidden(*batch).dtype == torch.float32
    for lm, answer in zip((exact, mixed), answers, strict=True):
        answer[:, 1].log().sum().backward()
        assert {p.dtype for p in lm.parameters()} == {torch.float32}
    used = [[p.grad for p in lm.parameters() if p.grad is not None] for lm in (exact, mixed)]
    grads = [torch.cat([grad.flatten() for grad in grads]) for grads in used]
    assert torch.cosine_similarity(*grads, dim=0) > 0.999


def test_mixed_precision_shares_beginnings_too(texts):
    mixed = load_backbone(BackboneOptions("tiny-llama", mixed=True), texts, seed=7)
    assert mixed.shares_beginnings
