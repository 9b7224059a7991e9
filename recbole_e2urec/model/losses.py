"""Losses and teacher targets as pure functions of tensors and arrays, without model or config.

All distributions are over the vocabulary at the answer position. They stay in log space, because
``log(p + epsilon)`` would distort the gradient where a teacher is confident.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F


def margin_of(logits: Tensor, answer_ids: tuple[int, int]) -> Tensor:  # [batch, vocab] -> [batch]
    """Logit of yes minus logit of no."""
    no, yes = answer_ids
    return logits[:, yes] - logits[:, no]


def meeting_alpha(
    original: Tensor, augmented: Tensor, margin: Tensor, answer_ids: tuple[int, int], most: float
) -> Tensor:  # [batch, vocab], [batch, vocab], [batch] -> [batch]
    """Compute, for each row, the alpha at which the forgetting teacher has the reference's margin.

    The teacher ``z_o - alpha * relu(z_a - z_o)`` has the margin ``m_o - alpha * m_d``, where m_d is
    the margin of ``relu(z_a - z_o)``. Hence ``alpha = (m_o - m_reference) / m_d``. If the augmented
    model moved the other way, no alpha of at least 0 reaches the reference, and the best is 0.

    Args:
        original: logits of Original.
        augmented: logits of the augmented model.
        margin: margin of the reference.
        answer_ids: token ids of (no, yes).
        most: the largest alpha.
    """
    moved = margin_of(torch.relu(augmented - original), answer_ids)
    wanted = margin_of(original, answer_ids) - margin
    alpha = torch.where(moved == 0, torch.zeros_like(moved), wanted / moved)
    return alpha.clamp(0, most)


def answer_cross_entropy(
    logits: Tensor, labels: Tensor, answer_ids: tuple[int, int]
) -> Tensor:  # [batch, vocab], [batch] -> [batch]
    """Minus log P(true answer word) of each row.

    Args:
        logits: at the answer position.
        labels: 1 = yes, 0 = no.
        answer_ids: token ids of (no, yes).
    """
    answers = torch.tensor(answer_ids, device=logits.device)
    return F.cross_entropy(logits, answers[labels.long()], reduction="none")


def kl_divergence(
    teacher_logits: Tensor, student_logits: Tensor
) -> Tensor:  # [batch, vocab], [batch, vocab] -> [batch]
    """KL(teacher || student) of each row in nats."""
    teacher = F.log_softmax(teacher_logits, dim=-1)
    student = F.log_softmax(student_logits, dim=-1)
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=-1)


def forgetting_teacher(
    original: Tensor, augmented: Tensor, alpha: float | Tensor
) -> Tensor:  # [batch, vocab], [batch, vocab] -> [batch, vocab]
    """Logits of the forgetting teacher: ``z_o - alpha * relu(z_a - z_o)``.

    The augmented model knows the forget data even better than Original. Logits that are higher in
    the augmented model than in Original are lowered. ``alpha`` may be [batch, 1]. Source: E2URec,
    arXiv 2403.03536; the target is that of Eldan and Russinovich (2023).
    """
    return original - alpha * torch.relu(augmented - original)


def e2urec_loss(forget: Tensor, remember: Tensor, beta: float) -> Tensor:  # [], [] -> []
    """``beta * forget + (1 - beta) * remember`` (arXiv 2403.03536)."""
    return beta * forget + (1 - beta) * remember


def yes_probability(
    logits: Tensor, answer_ids: tuple[int, int]
) -> Tensor:  # [batch, vocab] -> [batch]
    """P(yes) of a softmax over the two answer words, float32."""
    two = logits[:, list(answer_ids)].float()
    return torch.softmax(two, dim=-1)[:, 1]


def log_losses(
    yes: NDArray[np.float64],
    labels: NDArray[np.float32],
    least: float = np.finfo(np.float64).tiny,
) -> NDArray[np.float64]:  # [n], [n] -> [n]
    """Minus log P(true answer) of each row, from P(yes).

    Args:
        yes: P(yes).
        labels: 1 = yes, 0 = no.
        least: smaller probabilities of the true answer count as this.
    """
    return -np.log(np.clip(np.where(labels == 1, yes, 1 - yes), least, None))


def npo_loss(
    student: Tensor, reference: Tensor, beta: float
) -> Tensor:  # [batch], [batch] -> [batch]
    """Negative preference optimisation: ``-2/beta * log sigmoid(-beta * (s - r))``.

    Args:
        student: the student's log-probabilities of the answers to forget.
        reference: log-probabilities of the model before unlearning.
        beta: inverse temperature; as it approaches 0, the gradient becomes that of gradient ascent.

    Source: Zhang et al., arXiv 2404.05868.
    """
    return -2 / beta * F.logsigmoid(-beta * (student - reference))


def simnpo_loss(student: Tensor, beta: float, gamma: float) -> Tensor:  # [batch] -> [batch]
    """NPO without a reference: ``-2/beta * log sigmoid(-beta * s - gamma)``.

    The answer is one token, so the normalisation by its length has no effect.

    Source: Fan et al., arXiv 2410.07163.
    """
    return -2 / beta * F.logsigmoid(-beta * student - gamma)
