"""Negation: a model learns the forget rows better still, and the change is taken off Original."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from math import ceil, inf
from typing import Any, NamedTuple

from torch import Tensor

from recbole_e2urec.llm.lora import on_line
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.scorers import Stored
from recbole_e2urec.trainer.pairing import Pairing
from recbole_e2urec.trainer.strength import TargetLoss, reaching, target_loss
from recbole_e2urec.trainer.studentoptions import StepOptions
from recbole_e2urec.trainer.unlearning import Plan, Request, train_adapter

DIRECTION = "direction"  # stage
LEAST_STRENGTH = 0.1  # a request never does nothing, whatever its rows seem to be remembered
MOST_STRENGTH = 64.0


@dataclass(frozen=True)
class NegationOptions(StepOptions):
    """How the forget rows are learned, and how far the change is taken off.

    Attributes:
        augmented_learning_rate: AdamW's rate at the first step.
        augmented_epochs: passes over the forget rows; a fraction cuts the last one.
        least_steps: steps that a pass over the forget rows has at least: a small request has
            smaller batches.
        strength: how many times the change is taken off, in (0, 64]. None = as often as forget rows
            are to lose, see :func:`target_loss`.
    """

    augmented_learning_rate: float
    augmented_epochs: float
    least_steps: int
    strength: float | None

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        super().__post_init__()
        self._check(["augmented_epochs"], lambda epochs: 0 <= epochs < inf, "at least 0")
        self._check(["least_steps"], lambda steps: steps >= 1, "at least 1")
        self._check(["strength"], lambda s: 0 < s <= MOST_STRENGTH, f"in (0, {MOST_STRENGTH:g}]")

    def batch_size(self, rows: int) -> int:
        """Forget rows a step, of a request of so many."""
        return max(1, min(self.unlearn_batch_size, ceil(rows / self.least_steps)))


class Direction(NamedTuple):
    """What learning the forget rows changed.

    Attributes:
        place: the adapter that learned; None: the backbone's own weights did.
        start: its weights before, which answer as Original does.
        end: its weights afterwards.
        cost: of its training.
    """

    place: str | None
    start: Mapping[str, Tensor]
    end: Mapping[str, Tensor]
    cost: dict[str, Any]

    def at(self, share: float) -> dict[str, Tensor]:
        """Weights: 0 = Original, 1 = as learned, -1 = as far before Original."""
        return on_line(self.start, self.end, share)

    def scorer(self, share: float) -> Stored:
        """Who answers with these weights."""
        return Stored(self.place, lambda: self.at(share))


def learn_direction(
    model: LLMRec, request: Request, options: NegationOptions, adapter: str | None = None
) -> Direction:
    """Learn the forget rows, from Original on, or take what was learned from its stage.

    Args:
        model: Original, which answers as before afterwards.
        request: what to forget.
        options: how to learn.
        adapter: its name, if one is to learn: with ``tuning: full`` a fresh one, with ``tuning:
            lora`` a copy of Original's. None: whatever Original trained learns.
    """
    size = options.batch_size(len(request.forget))
    pairing = Pairing(request, model.table, size)
    rule = options.rule(options.augmented_learning_rate, model.options.adam_epsilon)
    settings = {**asdict(rule), "epochs": options.augmented_epochs, "batch_size": size}
    plan = Plan(
        options.augmented_epochs,
        rule,
        request.seed,
        lambda epoch: [step.forget for step in pairing.steps(epoch, joint=False)],
        model.answer_losses,
        request.show,
        dropout=False,
    )
    if adapter is not None:
        model.fresh_adapter(adapter, request.seed)
    place = adapter or model.adapter
    stage = request.stage(DIRECTION, {**settings, "adapter": adapter is not None})
    start = model.bank.state(place)
    kept = nullcontext() if adapter is not None else model.bank.kept(place)
    with kept, model.shown(request.forget_history):
        cost = train_adapter(model, place, stage, plan)
        return Direction(place, start, model.bank.state(place), cost)


def turned(
    model: LLMRec, request: Request, direction: Direction, strength: float | None
) -> tuple[float, TargetLoss | None]:
    """How often to take a change off Original, and what forget rows are then to lose.

    Args:
        model: Original.
        request: what to forget, at least one row.
        direction: what was learned of it.
        strength: None = as far as forget rows are to lose; else it is given back, and no target.
    """
    if strength is not None:
        return strength, None
    target = target_loss(model, request)
    found = reaching(model, request, target, lambda share: direction.scorer(-share), MOST_STRENGTH)
    return max(LEAST_STRENGTH, found), target
