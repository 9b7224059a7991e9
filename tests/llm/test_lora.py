import pytest

from recbole_e2urec.errors import InputError
from recbole_e2urec.llm.lora import LoraOptions


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
