"""Negation: an adapter learns the forget rows better still, and then its sign is turned."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from math import ceil, inf
from typing import Any, NamedTuple

from torch import Tensor

from recbole_e2urec.llm.lora import on_line
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.scorers import Scorer, Stored
from recbole_e2urec.trainer.pairing import Pairing
from recbole_e2urec.trainer.strength import TargetLoss, loss_of, strength_for, target_loss
from recbole_e2urec.trainer.studentoptions import StepOptions
from recbole_e2urec.trainer.unlearning import Plan, Request, train_adapter

DIRECTION = "direction"  # adapter and stage
LEAST_STRENGTH = 0.1  # a request never does nothing, whatever its rows seem to be remembered
MOST_STRENGTH = 64.0


@dataclass(frozen=True)
class NegationOptions(StepOptions):
    """How the adapter learns the forget rows, and how far its sign is turned.

    Attributes:
        augmented_learning_rate: AdamW's rate at the first step.
        token_learning_rate: the same where only the request's own tokens learn, which each row
            moves alone.
        augmented_epochs: passes over the forget rows; a fraction cuts the last one.
        least_steps: steps that a pass over the forget rows has at least: a small request has
            smaller batches.
        strength: how far the sign is turned, in (0, 64]: 1 = as far back as the adapter learned
            forward. None = as far as forget rows are to lose, see :func:`target_loss`; then the
            outcome is set to it as well.
    """

    augmented_learning_rate: float
    token_learning_rate: float
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
    """An adapter that learned the forget rows, and where it began.

    Attributes:
        name: of the adapter.
        start: its weights before, which answer as Original does.
        end: its weights afterwards.
        cost: of its training.
    """

    name: str
    start: Mapping[str, Tensor]
    end: Mapping[str, Tensor]
    cost: dict[str, Any]

    def at(self, share: float) -> dict[str, Tensor]:
        """Weights of the adapter: 0 = Original, 1 = as it learned, -1 = as far before Original."""
        return on_line(self.start, self.end, share)

    def scorer(self, share: float) -> Stored:
        """Who answers with these weights."""
        return Stored(self.name, lambda: self.at(share))


def naming_tokens(model: LLMRec, pairing: Pairing) -> Tensor | None:
    """Tokens that are the request's own, int64 [m], if each of its rows shows one.

    They name it, as user numbers do in prompts that show them. Then they alone need to change, and
    nobody else's answers do. None where a row shows none, or adapters do not reach embeddings.
    """
    if not model.bank.reaches_words(model.lora):
        return None
    own = pairing.own_tokens()
    return own if len(own) and pairing.reached(own).all() else None


def learn_direction(
    model: LLMRec, request: Request, options: NegationOptions, tokens: Tensor | None
) -> Direction:
    """Train an adapter on the forget rows, from Original on, or take it from its stage.

    With ``tuning: full`` it is a fresh one, with ``tuning: lora`` a copy of Original's.

    Args:
        model: Original.
        request: what to forget.
        options: how to learn.
        tokens: the only ones that learn, see :func:`naming_tokens`; None: the whole adapter does.
    """
    size = options.batch_size(len(request.forget))
    pairing = Pairing(request, model.table, size)
    rate = options.augmented_learning_rate if tokens is None else options.token_learning_rate
    rule = options.rule(rate, model.options.adam_epsilon)
    settings = {**asdict(rule), "epochs": options.augmented_epochs, "batch_size": size}
    plan = Plan(
        options.augmented_epochs,
        rule,
        request.seed,
        lambda epoch: [step.forget for step in pairing.steps(epoch, joint=False)],
        model.answer_losses,
        request.show,
        tokens=tokens,
        alone=tokens is not None,
        dropout=False,
    )
    model.fresh_adapter(DIRECTION, request.seed)
    start = model.bank.state(DIRECTION)
    with model.shown(request.forget_history):
        cost = train_adapter(model, DIRECTION, request.stage(DIRECTION, settings), plan)
    return Direction(DIRECTION, start, model.bank.state(DIRECTION), cost)


def turned(
    model: LLMRec, request: Request, direction: Direction, strength: float | None
) -> tuple[float, TargetLoss | None]:
    """How far to turn the sign of a direction, and what forget rows are then to lose.

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


def reaching(
    model: LLMRec,
    request: Request,
    target: TargetLoss,
    scorer: Callable[[float], Scorer],
    most: float,
) -> float:
    """The share, of at most ``most``, at which a scorer loses on forget rows what it is to lose."""

    def loss(share: float) -> float:
        return float(loss_of(model, scorer(share), target.rows).mean())

    with model.shown(request.forget_history):
        return strength_for(loss, target, most)
