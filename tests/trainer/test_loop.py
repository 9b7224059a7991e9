import pytest
import torch
from torch import nn

from recbole_e2urec.errors import InputError
from recbole_e2urec.trainer.loop import Average, Clock, adamw, train_epoch


def test_rate_falls_linearly_to_nothing_over_all_epochs():
    weight = nn.Parameter(torch.zeros(()))
    optimizer = adamw([weight], 0.8)
    rates = []

    def losses(_):
        rates.append(optimizer.param_groups[0]["lr"])
        return [{"loss": weight * 1.0}]

    for epoch in (0, 1):
        train_epoch(optimizer, [0, 1], losses, Clock("s", epoch, 2, show=False), 0.8)
    assert rates == pytest.approx([0.8, 0.6, 0.4, 0.2])


def test_pieces_of_a_batch_take_one_step_together_and_their_terms_add_up():
    weight = nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    seen = []

    def losses(batch):
        for part in batch:
            seen.append(weight.item())
            yield {"loss": part * weight, "part": torch.tensor(part)}

    found = train_epoch(optimizer, [[0.25, 0.5]], losses, Clock("s", 0, 1, show=False), 1.0)
    assert seen == [0.0, 0.0]
    assert weight.item() == pytest.approx(-0.75)
    assert found == {"loss": 0.0, "part": 0.75}


def test_a_gradient_as_small_as_epsilon_makes_half_a_step():
    weights = nn.Parameter(torch.zeros(2))  # Adam's first step: rate * g / (|g| + epsilon)
    optimizer = adamw([weights], 0.5, epsilon=1e-3)
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
