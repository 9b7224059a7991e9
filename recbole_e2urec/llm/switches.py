"""Training mode, gradient flags and warnings as state that comes back."""

import warnings
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


@contextmanager
def peft_quiet() -> Iterator[None]:
    """Silence two warnings of peft that a user can do nothing about.

    One is of a name that transformers deprecates; the other says that a layer with an adapter is
    tied to the head, which matters when adapters are merged into the weights.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")
        warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`")
        yield
