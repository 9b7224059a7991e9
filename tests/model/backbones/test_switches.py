import pytest
from torch import nn

from recbole_e2urec.model.backbones.adapters import switches_kept


@pytest.fixture
def model():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.Linear(2, 2))
    model[1].eval()
    model[2].bias.requires_grad_(False)
    return model


def switches(model):
    modes = [module.training for module in model.modules()]
    return modes, [parameter.requires_grad for parameter in model.parameters()]


def test_switches_kept_restores_modes_and_flags_one_by_one(model):
    before = switches(model)
    with switches_kept(model):
        model.eval().requires_grad_(False)
    assert switches(model) == before


def turn_on_and_fail(model):
    model.train().requires_grad_(True)
    raise RuntimeError


def test_switches_kept_restores_after_an_error(model):
    before = switches(model)
    with pytest.raises(RuntimeError), switches_kept(model):
        turn_on_and_fail(model)
    assert switches(model) == before


def test_switches_kept_gives_new_modules_the_models_mode(model):
    model.eval()
    with switches_kept(model):
        model.append(nn.Linear(2, 2).train())
    assert not model[3].training
