import pytest
import torch
from bank_steps import LORA, answer, changed, shake, step
from peft import PeftModel

from recbole_e2urec.model.backbones.adapters import AdapterBank
from recbole_e2urec.model.backbones.loading import BackboneOptions, load_backbone
from recbole_e2urec.model.backbones.tiny import EmbeddedOptions


def test_copy_answers_like_its_source_and_goes_its_own_way(bank, batch):
    shake(bank, "a")
    bank.copy("a", "b")
    assert torch.equal(answer(bank, batch, "a"), answer(bank, batch, "b"))
    before = bank.state("a")
    step(bank, batch, "b")
    assert not changed(before, bank.state("a"))
    assert changed(before, bank.state("b"))


def test_remove_of_all_leaves_the_model_as_before(language_model, batch):
    bare, names = language_model(*batch), list(language_model.state_dict())
    kinds = [type(module) for module in language_model.modules()]
    bank = AdapterBank(language_model)
    for name in ("a", "b"):
        bank.add(name, LORA, seed=1)
        shake(bank, name)
    for name in ("a", "b"):
        bank.remove(name)
    assert bank.names == []
    assert list(language_model.state_dict()) == names
    assert [type(module) for module in language_model.modules()] == kinds
    assert torch.equal(language_model(*batch), bare)
    bank.add("again", LORA, seed=1)
    assert torch.equal(answer(bank, batch, "again"), bare)


def test_remove_of_one_leaves_the_others(bank, batch):
    bank.add("b", LORA, seed=2)
    shake(bank, "b")
    wanted = answer(bank, batch, "b")
    bank.remove("a")
    assert bank.names == ["b"]
    assert torch.equal(answer(bank, batch, "b"), wanted)


def test_remove_of_an_adapter_in_use_is_refused(bank):
    with bank.active("a"), bank.active(None), pytest.raises(ValueError, match="in use"):
        bank.remove("a")


@pytest.mark.parametrize("name", ["a", None])
def test_load_of_a_state_brings_the_answer_back(bank, batch, name):
    if name:
        shake(bank, name)
    wanted, state = answer(bank, batch, name), bank.state(name)
    step(bank, batch, name)
    assert not torch.equal(answer(bank, batch, name), wanted)
    bank.load(name, state)
    assert torch.equal(answer(bank, batch, name), wanted)


def test_state_names_do_not_depend_on_adapter_names(bank):
    bare = [name for name, _ in bank.language_model.model.named_parameters()]
    bank.add("encoder", LORA, seed=2)
    bank.add("lora_A", LORA, seed=2)
    assert list(bank.state("encoder")) == list(bank.state("a")) == list(bank.state("lora_A"))
    assert any("base_layer" in name for name in bare)
    assert not any("base_layer" in name for name in bank.state(None))


def test_backbone_state_has_the_names_of_the_bare_model(language_model):
    names = [name for name, _ in language_model.model.named_parameters()]
    bank = AdapterBank(language_model)
    bank.add("a", LORA, seed=1)
    assert list(bank.state(None)) == names


def test_load_of_another_shape_is_refused_and_writes_nothing(bank):
    before = bank.state("a")
    odd = {key: torch.ones(2, 2) for key in before}
    with pytest.raises(ValueError, match="does not fit 'a'"):
        bank.load("a", odd)
    assert not changed(before, bank.state("a"))


def test_saved_adapter_is_read_by_peft(bank, batch, texts, tmp_path):
    shake(bank, "a")
    bank.save("a", tmp_path)
    name = "tiny-t5" if bank.language_model.model.config.is_encoder_decoder else "tiny-llama"
    fresh = load_backbone(BackboneOptions(name), texts, seed=7, size=EmbeddedOptions(init=1.0))
    PeftModel.from_pretrained(fresh.model, tmp_path)
    assert torch.equal(fresh.eval()(*batch), answer(bank, batch, "a"))
