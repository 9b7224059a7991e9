"""APA's weights of adapters, worked by hand."""

from collections.abc import Callable
from math import exp
from typing import Any

import pytest
import torch

from recbole_e2urec.methods.apa import APAOptions, _Judge


def test_adapters_count_by_their_mean_errors_on_the_validation_rows_most_like_a_sample(
    small_config: Callable[..., Any],
) -> None:
    options = small_config("APA", neighbours=2).options(APAOptions)
    assert options.temperature == 0.001  # the paper's
    looks = torch.tensor([[5.0, 0.0], [0.1, 0.01], [0.0, 1.0]])
    errors = torch.tensor([[0.300, 0.301], [0.200, 0.201], [0.9, 0.0]])
    (weights,) = _Judge(looks, errors, options)(torch.tensor([[1.0, 0.0]])).tolist()
    # the first two rows are nearest: means .25 and .251, which differ by one temperature
    assert weights == pytest.approx([1 / (1 + exp(-1)), 1 / (1 + exp(1))], abs=1e-4)
