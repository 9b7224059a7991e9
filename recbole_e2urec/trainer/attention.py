"""Attention over the models of shards: how much each of them counts in a row."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recbole_e2urec.model.asked import Asked, Voice
from recbole_e2urec.model.losses import answer_cross_entropy
from recbole_e2urec.trainer.loop import StepRule, adamw


@dataclass(frozen=True)
class AttentionPlan:
    """How attention learns.

    Attributes:
        size: width of the space in which answers are compared.
        learning_rate: of AdamW.
        epochs: passes over the rows.
        batch_size: rows a step.
        seed: of its start and of the order of rows.
    """

    size: int
    learning_rate: float
    epochs: int
    batch_size: int
    seed: int


class ShardAttention(nn.Module):
    """``softmax over shards of h . relu(W_s x_s + b_s)``, x_s what shard s's head reads.

    Source: Chen et al., WWW 2022, whose aggregator weighs the shards' embeddings by such an
    attention; here each shard has a projection of its own, which is their transfer into one space.
    """

    def __init__(self, hidden: int, shards: int, size: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(hidden, size) for _ in range(shards))
        self.direction = nn.Linear(size, 1, bias=False)

    def forward(self, states: Sequence[Tensor]) -> Tensor:  # shards x [n, h] -> [n, shards]
        """Weights of the shards; each line sums to 1."""
        scores = [
            self.direction(torch.relu(project(state.float())))
            for project, state in zip(self.projections, states, strict=True)
        ]
        return torch.softmax(torch.cat(scores, dim=1), dim=1)

    @torch.no_grad()
    def weigh(self, voices: Sequence[Voice]) -> Tensor:  # -> [n, shards]
        """Weights for what the shards' models answered."""
        return self([voice.states for voice in voices])


def train_attention(
    asked: Asked, labels: Tensor, answer_ids: tuple[int, int], plan: AttentionPlan
) -> tuple[ShardAttention, int]:
    """Learn to weigh the shards by the cross-entropy of their weighted answers.

    Args:
        asked: what the shards' models answered to n rows.
        labels: 1 = yes, 0 = no, [n].
        answer_ids: token ids of (no, yes).
        plan: how.

    Returns:
        The attention, and the number of steps it took.
    """
    voices, steps = asked.voices, 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        attention = ShardAttention(voices[0].states.shape[1], len(voices), plan.size)
        attention.to(voices[0].states.device)
        optimizer = adamw(list(attention.parameters()), StepRule(plan.learning_rate))
        for _ in range(plan.epochs):
            for part in torch.randperm(len(labels)).split(plan.batch_size):
                weights = attention([voice.states[part] for voice in voices])
                with torch.no_grad():
                    heard = torch.stack([voice.head(voice.states[part]) for voice in voices], 1)
                logits = (weights[:, :, None] * heard).sum(dim=1)
                loss = answer_cross_entropy(logits, labels[part], answer_ids).mean()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                steps += 1
    return attention.requires_grad_(False), steps
