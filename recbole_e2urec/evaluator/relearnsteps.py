"""Relearning in few steps: cheap enough to be measured in every request on a model in use.

What was only hidden comes back after a step or two, also for rows that are not shown; see
:mod:`recbole_e2urec.evaluator.relearning`, which does the same by epochs.
"""

from typing import Any, NamedTuple

import numpy as np
import torch

from recbole_e2urec.evaluator.membership import answer_losses
from recbole_e2urec.evaluator.relearning import Rows, halves
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.trainer.loop import Clock, StepRule, adamw, seed_dropout, train_epoch

POINTS = (0, 1, 2, 4, 8, 16)  # steps after which the other half is asked about
MOST = 128  # rows, of which one half is shown
BATCH = 16  # rows a step, or all that are shown
RATE = 0.001  # of AdamW at the first step; it falls linearly to nothing


class StepCurve(NamedTuple):
    """Mean loss of the rows that are not shown, in nats, after each of ``steps``."""

    steps: list[int]
    loss: list[float]
    shown: int
    asked: int


def step_curve(model: LLMRec, rows: Rows, history: Rows, seed: int) -> StepCurve | None:
    """Train what Original's training reached on one half of the rows, and ask about the other.

    Args:
        model: answers by ``model.adapter``; its weights are as before afterwards, bit for bit.
        rows: row ids.
        history: what their prompts show, [n, k] by row id.
        seed: of the halves and of the order in which rows are shown.

    Returns:
        The curve; None where there are fewer than two rows.
    """
    shown, rest = halves(rows, seed, MOST)
    if len(shown) == 0:
        return None
    weights = model.bank.parameters(model.adapter)
    rule = StepRule(RATE, adam_epsilon=model.options.adam_epsilon)
    optimizer = adamw(weights, rule)
    batches, losses = _batches(shown, seed), []
    with model.shown(history), model.bank.kept(model.adapter):
        for step in range(POINTS[-1] + 1):
            if step in POINTS:
                losses.append(_loss(model, rest))
            if step < POINTS[-1]:
                with torch.random.fork_rng(devices=[]), model.bank.training(model.adapter):
                    seed_dropout(seed, step)
                    clock = Clock("relearning", step, POINTS[-1], show=False)
                    train_epoch(optimizer, [batches[step]], model.answer_losses, clock, rule)
    return StepCurve(list(POINTS), losses, len(shown), len(rest))


def _batches(shown: Rows, seed: int) -> list[Rows]:
    """Rows of each step: every row is shown once before any is shown again."""
    size = min(BATCH, len(shown))
    generator = np.random.default_rng([seed, len(shown)])
    passes = -(-POINTS[-1] * size // len(shown))
    order: Any = np.concatenate([generator.permutation(shown) for _ in range(passes)])
    return [order[step * size : (step + 1) * size] for step in range(POINTS[-1])]


def _loss(model: LLMRec, rows: Rows) -> float:
    assert model.labels is not None  # the model was trained on them
    yes = model.answer(rows, None).double().cpu().numpy()
    return float(answer_losses(yes, model.labels[rows]).mean())
