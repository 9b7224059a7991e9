import pytest
import torch
from torch import nn

from recbole_e2urec.trainer.loop import Clock, adamw, train_epoch


def test_rate_falls_linearly_to_nothing_over_all_epochs():
    weight = nn.Parameter(torch.zeros(()))
    optimizer = adamw([weight], 0.8)
    rates = []

    def losses(_):
        rates.append(optimizer.param_groups[0]["lr"])
        return {"loss": weight * 1.0}

    for epoch in (0, 1):
        train_epoch(optimizer, [0, 1], losses, Clock("s", epoch, 2, show=False), 0.8)
    assert rates == pytest.approx([0.8, 0.6, 0.4, 0.2])
