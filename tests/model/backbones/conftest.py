import pytest
import torch
from bank_steps import LORA

from recbole_e2urec.model.backbones.adapters import AdapterBank
from recbole_e2urec.model.backbones.loading import BackboneOptions, load_backbone
from recbole_e2urec.model.backbones.tiny import EmbeddedOptions

TEXTS = [
    "Toy Story (1995)",
    "Léon: The Professional (1994)",
    "Schindler's List (1993)",
    "千と千尋の神隠し",
    "Will the user like this ?",
]


@pytest.fixture
def texts():
    return TEXTS


@pytest.fixture(params=["tiny-t5", "tiny-llama"])
def language_model(request):
    size = EmbeddedOptions(init=1.0)  # weights large enough for every gradient to show
    return load_backbone(BackboneOptions(request.param), TEXTS, seed=7, size=size)


@pytest.fixture
def batch():
    """Three prompts of 5, 2 and 4 tokens, padded on the right with 0."""
    rows = [[300, 301, 302, 303, 304], [310, 311], [320, 321, 322, 323]]
    ids = torch.zeros(3, 5, dtype=torch.long)
    mask = torch.zeros(3, 5, dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = 1
    return ids, mask


@pytest.fixture
def bank(language_model):
    bank = AdapterBank(language_model)
    bank.add("a", LORA, seed=1)
    return bank
