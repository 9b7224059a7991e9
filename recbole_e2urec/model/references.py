"""Targets for forget rows from a model that never saw their users: pure functions of tensors."""

import torch
from torch import Tensor


def margin_of(logits: Tensor, answer_ids: tuple[int, int]) -> Tensor:  # [batch, vocab] -> [batch]
    """Logit of yes minus logit of no."""
    no, yes = answer_ids
    return logits[:, yes] - logits[:, no]


def meeting_alpha(
    original: Tensor, augmented: Tensor, margin: Tensor, answer_ids: tuple[int, int], most: float
) -> Tensor:  # [batch, vocab], [batch, vocab], [batch] -> [batch]
    """The alpha of each row at which the forgetting teacher has the reference's margin.

    The teacher ``z_o - alpha * relu(z_a - z_o)`` has margin ``m_o - alpha * m_d``, m_d that of
    ``relu(z_a - z_o)``; so ``alpha = (m_o - m_reference) / m_d``. Where the augmented model moved
    the other way, no alpha of at least 0 meets it, and the best is 0; none is above ``most``.

    Args:
        original: logits of Original.
        augmented: those of the augmented model.
        margin: of the reference.
        answer_ids: token ids of (no, yes).
        most: the largest alpha.
    """
    moved = margin_of(torch.relu(augmented - original), answer_ids)
    wanted = margin_of(original, answer_ids) - margin
    alpha = torch.where(moved == 0, torch.zeros_like(moved), wanted / moved)
    return alpha.clamp(0, most)
