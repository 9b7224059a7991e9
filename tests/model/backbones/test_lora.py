import pytest
import torch

from recbole_e2urec.errors import InputError
from recbole_e2urec.model.backbones.lora import LoraOptions, interpolated


def test_unknown_target_module_is_refused_with_the_known_ones(bank):
    query = bank.language_model.lora_targets[0]
    with pytest.raises(InputError, match=f"'qq'.*choose from .*'{query}'"):
        bank.add("b", LoraOptions(target_modules=(query, "qq")), seed=1)
    assert bank.names == ["a"]


@pytest.mark.parametrize("setting", [{"r": 0}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_lora_options_refuse_what_cannot_work(setting):
    with pytest.raises(InputError, match=f"lora_{next(iter(setting))}"):
        LoraOptions(**setting)


def test_lora_weights_are_two_thin_matrices_a_layer(bank):
    widths = [p.numel() for p in bank.parameters("a")]
    projections = 3 * 2 if bank.language_model.model.config.is_encoder_decoder else 2
    assert sum(widths) == projections * 4 * (64 + 64)


def test_on_line_multiplies_the_matrix_that_began_as_zeros():
    start = {"l.lora_A.weight": torch.ones(2, 3), "l.lora_B.weight": torch.zeros(3, 2)}
    end = {"l.lora_A.weight": torch.full((2, 3), 2.0), "l.lora_B.weight": torch.ones(3, 2)}
    found = interpolated(start, end, -0.5)
    assert torch.equal(found["l.lora_A.weight"], end["l.lora_A.weight"])
    assert torch.equal(found["l.lora_B.weight"], torch.full((3, 2), -0.5))
    update = found["l.lora_B.weight"] @ found["l.lora_A.weight"]
    assert torch.equal(update, -0.5 * end["l.lora_B.weight"] @ end["l.lora_A.weight"])


@pytest.mark.parametrize("name", ["weight", "lora_B.weight"])
def test_on_line_of_other_weights_is_straight(name):
    start, end = {name: torch.tensor([1.0, 2.0])}, {name: torch.tensor([2.0, 0.0])}
    assert interpolated(start, end, 0.0)[name].tolist() == [1.0, 2.0]
    assert interpolated(start, end, 1.0)[name].tolist() == [2.0, 0.0]
    assert interpolated(start, end, -2.0)[name].tolist() == [-1.0, 6.0]
