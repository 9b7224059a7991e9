"""Training mode and gradient flags of a model as state that comes back."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def switches_kept(model: nn.Module) -> Iterator[None]:
    """Put every module's mode and every parameter's ``requires_grad`` back after the body.

    Modules and parameters that the body added take the model's own mode and keep their flag;
    those that it removed are forgotten. The switches come back after an exception too.
    """
    modes = {module: module.training for module in model.modules()}
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        yield
    finally:
        for module in model.modules():
            module.training = modes.get(module, modes[model])
        for parameter in model.parameters():
            parameter.requires_grad_(flags.get(parameter, parameter.requires_grad))
