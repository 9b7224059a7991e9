"""What the adapter tests do to a bank again and again."""

import torch
from torch.nn.functional import cross_entropy

from recbole_e2urec.model.backbones.lora import LoraOptions

LORA = LoraOptions(r=4, alpha=8, dropout=0.1)


def answer(bank, batch, name):
    with bank.frozen(name):
        return bank.language_model(*batch)


def shake(bank, name, seed=0):
    """Give an adapter weights that matter, B too."""
    torch.manual_seed(seed)
    bank.load(name, {key: torch.randn_like(w) for key, w in bank.state(name).items()})


def step(bank, batch, name, tokens=None, alone=False):
    """One plain gradient step on what is trained under this name."""
    with bank.training(name, tokens, alone=alone):
        cross_entropy(bank.language_model(*batch), torch.tensor([261, 262, 261])).backward()
        with torch.no_grad():
            for parameter in bank.language_model.parameters():
                if parameter.grad is not None:
                    parameter -= 0.1 * parameter.grad
    bank.language_model.zero_grad()


def changed(before, after):
    return [key for key in before if not torch.equal(before[key], after[key])]


def switches(bank):
    model = bank.language_model
    return (
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
    )


def gradients(bank, batch, dropout=True):
    torch.manual_seed(5)
    with bank.training("a", dropout=dropout):
        loss = bank.language_model(*batch).square().mean()
        grads = torch.autograd.grad(loss, bank.parameters("a"), allow_unused=True)
    return [grad for grad in grads if grad is not None]
