import numpy as np
import pytest
import torch
from torch import nn

from recbole_e2urec.errors import InputError
from recbole_e2urec.trainer.loop import (
    Average,
    EpochPosition,
    StepRule,
    Stream,
    adamw,
    generator_of,
    steps_until,
    train_epoch,
)


def rates_of(rule, epochs, steps, mosts):
    """The rate of every step of a stage, and the weight after it; the gradient is 1."""
    weight = nn.Parameter(torch.zeros(()))
    optimizer = adamw([weight], rule)
    rates = []

    def losses(_):
        rates.append(optimizer.param_groups[0]["lr"])
        return [{"loss": weight * 1.0}]

    for epoch, most in enumerate(mosts):
        clock = EpochPosition("s", epoch, epochs, show=False, most=most)
        train_epoch(optimizer, [0] * steps, losses, clock, rule)
    return rates


def test_rate_falls_linearly_to_nothing_over_all_epochs():
    rates = rates_of(StepRule(0.8), 2, 2, [None, None])
    assert rates == pytest.approx([0.8, 0.6, 0.4, 0.2])


def test_rate_falls_to_nothing_over_a_last_epoch_that_is_cut():
    rates = rates_of(StepRule(0.8), 1.5, 2, [None, 1])  # 3 steps
    assert rates == pytest.approx([0.8, 0.8 * 2 / 3, 0.8 / 3])


def test_a_constant_rate_stays():
    rates = rates_of(StepRule(0.8, rate_schedule="constant"), 2, 2, [None, None])
    assert rates == [0.8] * 4


@pytest.mark.parametrize(("clip", "moved"), [(None, [-3.0, -4.0]), (1.0, [-0.6, -0.8])])
def test_a_gradient_is_scaled_down_to_the_norm_or_left_alone(clip, moved):
    weights = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weights], lr=1.0)
    loss = lambda _: [{"loss": (weights * torch.tensor([3.0, 4.0])).sum()}]  # noqa: E731
    rule = StepRule(1.0, clip_norm=clip)
    train_epoch(optimizer, [0], loss, EpochPosition("s", 0, 1, show=False), rule)
    assert weights.tolist() == pytest.approx(moved)


def test_weight_decay_shrinks_weights_at_the_rate():
    weight = nn.Parameter(torch.tensor(2.0))  # AdamW: w - rate * decay * w, then the step itself
    optimizer = adamw([weight], StepRule(0.5, weight_decay=0.1))
    (weight * 0.0).backward()
    optimizer.step()
    assert weight.item() == pytest.approx(2.0 - 0.5 * 0.1 * 2.0)


@pytest.mark.parametrize(
    ("share", "steps", "until"),
    [(1.5, 812, 1218), (0.5, 3, 2), (1.0, 7, 7), (1.2, 5, 6), (0, 9, 0)],
)
def test_steps_of_a_share_are_rounded_up(share, steps, until):
    assert steps_until(share, steps) == until


def test_pieces_of_a_batch_take_one_step_together_and_their_terms_add_up():
    weight = nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    seen = []

    def losses(batch):
        for part in batch:
            seen.append(weight.item())
            yield {"loss": part * weight, "part": torch.tensor(part)}

    found = train_epoch(
        optimizer, [[0.25, 0.5]], losses, EpochPosition("s", 0, 1, show=False), StepRule(1.0)
    )
    assert seen == [0.0, 0.0]
    assert weight.item() == pytest.approx(-0.75)
    assert found == {"loss": 0.0, "part": 0.75}


def test_a_gradient_as_small_as_epsilon_makes_half_a_step():
    weights = nn.Parameter(torch.zeros(2))  # Adam's first step: rate * g / (|g| + epsilon)
    optimizer = adamw([weights], StepRule(0.5, adam_epsilon=1e-3))
    (weights * torch.tensor([1e-3, 3e-3])).sum().backward()
    optimizer.step()
    assert weights.tolist() == pytest.approx([-0.25, -0.375])


def test_average_begins_at_the_first_step_and_changes_places_with_the_weights():
    weight = nn.Parameter(torch.tensor([7.0]))
    average = Average([weight], decay=0.75, steps=999)
    for value in (1.0, 3.0, 5.0):
        weight.data.fill_(value)
        average.follow()
    average.swap()
    # 1, then a quarter of the way to 3, then a quarter of the way to 5
    assert weight.item() == pytest.approx(0.75 * 1.5 + 0.25 * 5)
    average.swap()
    assert weight.item() == 5.0


def test_average_without_decay_is_the_weights():
    weight = nn.Parameter(torch.tensor([5.0]))
    average = Average([weight], decay=0.0, steps=999)
    average.follow()
    average.follow()
    average.swap()
    assert weight.item() == 5.0
    with pytest.raises(InputError, match=r"average_decay is 1\.0"):
        Average([weight], decay=1.0, steps=999)


@pytest.mark.parametrize(("steps", "reached"), [(20, 3.0), (40, 2.0), (10, 5.0), (1, 5.0)])
def test_average_of_a_short_training_reaches_over_a_tenth_of_it(steps, reached):
    weight = nn.Parameter(torch.tensor([1.0]))
    average = Average([weight], decay=0.99, steps=steps)
    average.follow()
    weight.data.fill_(5.0)
    average.follow()
    average.swap()
    assert weight.item() == pytest.approx(reached)  # 10 of the steps, as a share of the way from 1


def test_every_purpose_epoch_and_seed_draws_other_numbers() -> None:
    """[seed, n] repeats: NumPy pads it with zeros, and counts are drawn as epochs are."""
    places = [(seed, stream, epoch) for seed in (0, 1) for stream in Stream for epoch in (0, 1, 12)]
    first = {generator_of(*place).integers(2**63) for place in places}
    first |= {generator_of(seed, stream).integers(2**63) for seed in (0, 1) for stream in Stream}
    first |= {np.random.default_rng(seed).integers(2**63) for seed in (0, 1)}
    assert len(first) == len(places) + 2 * len(Stream) + 2
