"""Targets for forget rows from a model that never saw their users: pure functions of tensors.

Such a reference answers rows of strangers as Retrain will. It was trained on fewer users than
Retrain, so its answers may be less sure than Retrain's; a :class:`Line` corrects that.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F


class Line(NamedTuple):
    """``slope * margin + bias``: what becomes of the margin by which a model says yes."""

    slope: float
    bias: float


SAME = Line(1.0, 0.0)


def margin_of(logits: Tensor, answer_ids: tuple[int, int]) -> Tensor:  # [batch, vocab] -> [batch]
    """Logit of yes minus logit of no."""
    no, yes = answer_ids
    return logits[:, yes] - logits[:, no]


def with_margin(
    logits: Tensor, margin: Tensor, answer_ids: tuple[int, int]
) -> Tensor:  # [batch, vocab], [batch] -> [batch, vocab]
    """The logits with another margin: the two answer words share the same probability anew."""
    no, yes = answer_ids
    both = torch.logsumexp(logits[:, [no, yes]], dim=-1)
    changed = logits.clone()
    changed[:, yes] = both + F.logsigmoid(margin)
    changed[:, no] = both + F.logsigmoid(-margin)
    return changed


def mixed_target(
    reference: Tensor, original: Tensor, weight: float
) -> Tensor:  # [batch, vocab], [batch, vocab] -> [batch, vocab]
    """Log-probabilities of ``weight * p_reference + (1 - weight) * p_original``."""
    parts = torch.stack([reference, original]).log_softmax(dim=-1)
    weights = parts.new_tensor([weight, 1 - weight]).log()
    return torch.logsumexp(parts + weights[:, None, None], dim=0)


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


def calibration(margins: NDArray[np.floating], labels: NDArray[np.float32]) -> Line:
    """The line whose sigmoid of margins is nearest to the answers: least log loss.

    Platt scaling (1999). Answers of one kind alone, or that the margins rank no better than chance
    does, tell nothing: the line is then the identity.

    Args:
        margins: of yes over no, [n].
        labels: 1 = yes, 0 = no, [n].
    """
    if len(np.unique(labels)) < 2:
        return SAME
    fitted = LogisticRegression(C=np.inf).fit(np.asarray(margins, np.float64)[:, None], labels)
    slope, bias = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    return Line(slope, bias) if slope > 0 else SAME


def carried(reference: Line, original: Line) -> Line:
    """The line after which margins are calibrated as Original's are, not as the reference's.

    If ``reference`` calibrates m and ``original`` m', then ``original(carried(m)) = reference(m)``:
    slope ``a / a_o``, bias ``(b - b_o) / a_o``.
    """
    bias = (reference.bias - original.bias) / original.slope
    return Line(reference.slope / original.slope, bias)
