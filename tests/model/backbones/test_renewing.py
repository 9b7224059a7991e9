"""Embeddings of tokens as a model has them that was trained without these tokens."""

import pytest
import torch
from bank_steps import LORA, changed, shake, step
from families import write_family

from recbole_e2urec.model.backbones.adapters import AdapterBank
from recbole_e2urec.model.backbones.loading import BackboneOptions, load_backbone
from recbole_e2urec.model.backbones.lora import LoraOptions
from recbole_e2urec.model.backbones.merging import LEAST_UNSHOWN, reset_forget_tokens

TOKENS = torch.tensor([300, 310])  # shown in the first two prompts of ``batch``
UNSHOWN = torch.arange(330, 330 + LEAST_UNSHOWN)


def trained(language_model):
    """An embedding that moved by 1 in half of the unshown words, by 3 in the others, else by 9."""
    start = AdapterBank(language_model).state(None)
    words = language_model.model.get_input_embeddings().num_embeddings
    (name,) = [key for key, weight in start.items() if len(weight) == words]
    state = {key: weight.clone() for key, weight in start.items()}
    state[name] += 9
    state[name][UNSHOWN] = start[name][UNSHOWN] + 1
    state[name][UNSHOWN[::2]] += 2
    return name, state, start


def test_renewed_is_the_start_and_the_mean_drift_of_words_that_no_prompt_shows(language_model):
    name, state, start = trained(language_model)
    kept = {key: weight.clone() for key, weight in state.items()}
    found = reset_forget_tokens(language_model, state, start, TOKENS, UNSHOWN)
    torch.testing.assert_close(found[name][TOKENS], start[name][TOKENS] + 2)  # (1 + 3) / 2
    assert changed(state, found) == [name]
    moved = (found[name] != state[name]).any(dim=1)
    assert moved.nonzero().flatten().tolist() == TOKENS.tolist()
    assert changed(state, kept) == []


def test_overshoot_goes_on_from_what_the_tokens_were(language_model):
    name, state, start = trained(language_model)
    found = reset_forget_tokens(language_model, state, start, TOKENS, UNSHOWN, overshoot=0.5)
    expected = start[name][TOKENS] + 2 + 0.5 * (2 - 9)  # moved by 9, set to 2
    torch.testing.assert_close(found[name][TOKENS], expected)


def test_one_request_after_the_other_comes_to_the_same_as_both_together(language_model):
    name, state, start = trained(language_model)
    once = reset_forget_tokens(language_model, state, start, TOKENS, UNSHOWN)
    first = reset_forget_tokens(language_model, state, start, TOKENS[:1], UNSHOWN)
    shown_no_more = torch.cat([UNSHOWN, TOKENS[:1]])
    second = reset_forget_tokens(language_model, first, start, TOKENS[1:], shown_no_more)
    torch.testing.assert_close(second[name], once[name])


def test_of_too_few_words_no_drift_is_taken(language_model):
    name, state, start = trained(language_model)
    found = reset_forget_tokens(language_model, state, start, TOKENS, UNSHOWN[1:])
    assert torch.equal(found[name][TOKENS], start[name][TOKENS])


@pytest.mark.parametrize("tied", [True, False])
def test_words_that_no_prompt_shows_drift_only_where_the_head_is_the_embedding(
    tied, batch, tmp_path
):
    source = write_family("qwen2", tmp_path / "source", tie_word_embeddings=tied)
    bank = AdapterBank(load_backbone(BackboneOptions(source), [], seed=0))
    start = bank.state(None)
    for _ in range(2):
        step(bank, batch, None)
    state = bank.state(None)
    found = reset_forget_tokens(bank.language_model, state, start, TOKENS, UNSHOWN)
    name = "model.embed_tokens.weight"
    assert not torch.equal(state[name][TOKENS], start[name][TOKENS])
    assert torch.equal(found[name][TOKENS], start[name][TOKENS]) is not tied


def test_in_an_adapter_the_tokens_are_as_it_began(bank, batch):
    bank.add("words", LoraOptions(target_modules=(*LORA.target_modules, "embed_tokens")), seed=2)
    start = bank.state("words")
    for _ in range(2):
        step(bank, batch, "words")
    found = reset_forget_tokens(bank.language_model, bank.state("words"), start, TOKENS, UNSHOWN)
    columns = [key for key in found if key.endswith("lora_embedding_A")]
    assert columns
    for key in columns:
        assert torch.equal(found[key][:, TOKENS], start[key][:, TOKENS])


def test_an_embedding_that_a_merged_adapter_parted_from_the_head_is_renewed_too(language_model):
    bank = AdapterBank(language_model)
    bank.add("words", LoraOptions(r=2, target_modules=("embed_tokens",)), seed=2)
    shake(bank, "words")
    bank.merge("words")
    state = bank.state(None)
    start = {key: torch.zeros_like(weight) for key, weight in state.items()}
    bank.load(None, reset_forget_tokens(language_model, state, start, TOKENS, UNSHOWN[:0]))
    words = language_model.model.get_input_embeddings().num_embeddings
    for module in language_model.model.modules():
        if isinstance(module, torch.nn.Embedding) and module.num_embeddings == words:
            assert not module.weight[TOKENS].any()
