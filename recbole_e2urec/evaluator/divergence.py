"""How far the answers of two models are apart: pure functions of logits.

All are over the vocabulary at the answer position, in nats, one value a row.
"""

from torch import Tensor
from torch.nn import functional as F


def kl(p: Tensor, q: Tensor) -> Tensor:  # log probabilities [batch, vocab] twice -> [batch]
    """KL(p || q) of log probabilities."""
    return F.kl_div(q, p, reduction="none", log_target=True).sum(dim=-1)


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:  # logits [batch, vocab] twice -> [batch]
    """1/2 KL(p || m) + 1/2 KL(q || m), m the mean distribution; between 0 and ln 2."""
    log_p, log_q = F.log_softmax(p.double(), -1), F.log_softmax(q.double(), -1)
    middle = ((log_p.exp() + log_q.exp()) / 2).clamp_min(1e-300).log()
    return (kl(log_p, middle) + kl(log_q, middle)) / 2


def jeffreys_half(p: Tensor, q: Tensor) -> Tensor:  # logits [batch, vocab] twice -> [batch]
    """1/2 KL(p || q) + 1/2 KL(q || p), unbounded; the public E2URec code prints it as "JSD"."""
    log_p, log_q = F.log_softmax(p.double(), -1), F.log_softmax(q.double(), -1)
    return (kl(log_p, log_q) + kl(log_q, log_p)) / 2


def euclidean(p: Tensor, q: Tensor) -> Tensor:  # logits [batch, vocab] twice -> [batch]
    """Euclidean norm of the difference of the two distributions; at most the root of 2."""
    return (p.double().softmax(-1) - q.double().softmax(-1)).norm(dim=-1)


def residual(
    unlearned: Tensor, original: Tensor, retrained: Tensor
) -> float:  # P(yes) [n] each -> number
    """Mean distance to Retrain, as a share of Original's: 1 = did nothing, above 1 = did harm.

    NaN when Original and Retrain answer alike, so that there is nothing to compare with.
    """
    gap = (original - retrained).abs().mean()
    return float((unlearned - retrained).abs().mean() / gap) if gap > 0 else float("nan")
