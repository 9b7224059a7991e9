"""Mixed adapters answer as weights merged for each sample alone would."""

from typing import Any

import pytest
import torch

from recbole_e2urec.model.backbones.adapters import AdapterBank
from recbole_e2urec.model.backbones.lora import LoraOptions

NAMES = ("one", "two")


@pytest.fixture
def bank(language_model: Any) -> AdapterBank:
    """Two adapters with weights that change every adapted layer, embeddings too."""
    bank = AdapterBank(language_model)
    layers = [*language_model.lora_targets, "embed_tokens"]
    generator = torch.Generator().manual_seed(5)
    for number, name in enumerate(NAMES):
        bank.add(name, LoraOptions(r=2, alpha=4, target_modules=tuple(layers)), seed=number)
        state = bank.state(name)
        bank.load(
            name, {k: torch.randn(w.shape, generator=generator) * 0.3 for k, w in state.items()}
        )
    return bank


def test_a_weight_of_one_is_that_adapter_alone(bank: AdapterBank, batch: Any) -> None:
    model = bank.language_model
    for place, name in enumerate(NAMES):
        weights = torch.zeros(len(batch[0]), 2)
        weights[:, place] = 1
        with bank.frozen(name):
            alone = model(*batch)
        with bank.mixed(NAMES, weights):
            assert torch.allclose(model(*batch), alone, atol=1e-5)


def test_weights_of_nothing_are_the_bare_backbone(bank: AdapterBank, batch: Any) -> None:
    model = bank.language_model
    with bank.frozen(None):
        bare = model(*batch)
    with bank.mixed(NAMES, torch.zeros(len(batch[0]), 2)):
        assert torch.equal(model(*batch), bare)
    with bank.frozen(None):
        assert torch.equal(model(*batch), bare)


def test_each_sample_has_weights_of_its_own(bank: AdapterBank, batch: Any) -> None:
    model = bank.language_model
    weights = torch.rand(len(batch[0]), 2)
    with bank.mixed(NAMES, weights):
        together = model(*batch)
    for row in range(len(batch[0])):
        one = [part[row : row + 1] for part in batch]
        with bank.mixed(NAMES, weights[row : row + 1]):
            assert torch.allclose(model(*one)[0], together[row], atol=1e-5)


def test_equal_halves_of_one_adapter_are_the_whole(bank: AdapterBank, batch: Any) -> None:
    model = bank.language_model
    bank.copy("one", "again")
    halves = torch.full((len(batch[0]), 2), 0.5)
    with bank.frozen("one"):
        whole = model(*batch)
    with bank.mixed(("one", "again"), halves):
        assert torch.allclose(model(*batch), whole, atol=1e-5)
