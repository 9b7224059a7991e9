import pytest
import torch

from recbole_e2urec.model.backbones.lora import seeded


def test_seeded_repeats_the_same_numbers():
    with seeded(3):
        first = torch.rand(4)
    with seeded(3):
        assert torch.equal(torch.rand(4), first)


def draw_and_fail():
    torch.rand(4)
    raise RuntimeError


def test_seeded_leaves_the_global_state_even_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError), seeded(3):
        draw_and_fail()
    assert torch.equal(torch.get_rng_state(), before)
