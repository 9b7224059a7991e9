"""Training loop: one epoch of AdamW steps, gradients of several processes, averaged weights.

Also stores optimizer states as named tensors.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from recbole_e2urec.errors import Diverged, InputError
from recbole_e2urec.model.llmrec import Schedule
from recbole_e2urec.utils import distributed


class SummedGradients:
    """Sums the gradients of all processes, by torch's DistributedDataParallel.

    Accelerate makes the latter. A step's backward passes may be of any number in each process,
    none included, and through any adapter. DistributedDataParallel therefore does not wrap the
    language model, whose passes it would count, but the learning weights alone: one more backward
    pass, which adds nothing to the gradients, ends each step and exchanges them.

    Losses are sums over the step's rows, so the sum is the gradient of the step. Weights without a
    gradient in any process stay without one, and the optimizer skips them. A single process has
    nothing to sum.

    Args:
        weights: weights of the optimizer; those that learn now are summed.
    """

    def __init__(self, weights: Iterable[nn.Parameter]) -> None:
        self._ending: nn.Module | None = None
        if distributed.count() > 1:
            learning = [weight for weight in weights if weight.requires_grad]
            self._ending = distributed.data_parallel(_Ending(learning))

    def add(self, loss: Tensor) -> None:
        """Add the gradient of a part of the step's loss, in this process."""
        (loss * distributed.count()).backward()  # DistributedDataParallel takes the mean

    def exchange(self) -> None:
        """Sum the gradients that were added; all processes must call this after each step."""
        if self._ending is not None:
            with distributed.translate_dist_errors():
                self._ending().backward()


class _Ending(nn.Module):
    """Zero, computed from the weights that have a gradient, or else from one of no other use."""

    def __init__(self, weights: Iterable[nn.Parameter]) -> None:
        super().__init__()
        self.weights = nn.ParameterList(weights)
        self.own = nn.Parameter(torch.zeros(()))

    def forward(self) -> Tensor:
        touched = [weight for weight in self.weights if weight.grad is not None] or [self.own]
        return torch.stack([0.0 * weight.sum().float() for weight in touched]).sum()


Losses = Callable[[Any], Iterable[Mapping[str, Tensor]]]  # loss terms of a batch, by pieces


@dataclass(frozen=True)
class StepRule:
    """How a gradient becomes a step of AdamW.

    Attributes:
        learning_rate: learning rate of the first step of the stage.
        rate_schedule: ``linear``: the rate falls to zero over the stage; ``constant``: it does not
            change.
        clip_norm: largest norm of a gradient; larger gradients are scaled down. None: no limit.
        adam_epsilon: AdamW's epsilon.
        weight_decay: AdamW's weight decay.
    """

    learning_rate: float
    rate_schedule: Schedule = "linear"
    clip_norm: float | None = 1.0
    adam_epsilon: float = 1e-8
    weight_decay: float = 0.0

    def rate(self, step: int, total: int) -> float:
        """Learning rate of a step.

        Args:
            step: number of the step, from 0.
            total: number of steps in the stage.
        """
        falls = self.rate_schedule == "linear"
        return self.learning_rate * (1 - step / total) if falls else self.learning_rate


class Average:
    """Exponential moving average of the weights, which replaces them between epochs.

    At a large learning rate, weights scatter around their optimum: the model ranks well, but is
    badly calibrated. With averaged weights it is well calibrated, too. Source: Polyak and Juditsky,
    SIAM J. Control Optim. 30(4), 1992.

    Args:
        weights: weights that learn.
        decay: in [0, 1); the average covers about ``1 / (1 - decay)`` steps, and 0 leaves the
            weights as they are.
        steps: number of steps of the whole training; the average covers at most a tenth of them.
    """

    def __init__(self, weights: Sequence[nn.Parameter], decay: float, steps: int) -> None:
        if not 0 <= decay < 1:
            raise InputError(f"average_decay is {decay}; it must be in [0, 1)")
        decay = min(decay, max(0.0, 1 - 10 / max(1, steps)))
        self._weights = nn.ParameterList(weights if decay else [])
        self._average = AveragedModel(self._weights, multi_avg_fn=get_ema_multi_avg_fn(decay))

    def follow(self) -> None:
        """Update the average after a step; after the first one, it equals the weights."""
        if len(self._weights) > 0:
            self._average.update_parameters(self._weights)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the weights and their average; a second call restores both."""
        pairs = zip(self._average.parameters(), self._weights, strict=True)
        for average, weight in pairs:
            kept = weight.detach().clone()
            weight.copy_(average)
            average.copy_(kept)

    def goes_on(self) -> None:
        """Continue the average of an earlier run, which was loaded before."""
        self._average.n_averaged.fill_(1)


@dataclass(frozen=True)
class EpochPosition:
    """Where an epoch lies in its stage."""

    stage: str  # what is trained, for the progress bar
    epoch: int  # from 0
    epochs: float  # in the whole stage; a fraction cuts the last one
    show: bool = True  # whether to draw a progress bar
    most: int | None = None  # steps after which the epoch ends early; the rate ignores this


def steps_until(share: float, steps: int) -> int:
    """Compute a share of the steps, rounded up; the share may exceed 1, as in 1.5 epochs."""
    return ceil(share * steps - 1e-9)


def train_epoch(
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Any],
    losses: Losses,
    clock: EpochPosition,
    rule: StepRule,
    follow: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Take one step for each batch.

    Args:
        optimizer: optimizer of the parameters that learn.
        batches: batches that ``losses`` takes.
        losses: gives the loss terms of a batch in pieces that add up; the term ``loss`` is
            minimised. Each piece is requested after the backward pass of the one before, so that
            memory holds one. With several processes, each computes its share of the step.
        clock: position of the epoch in its stage.
        rule: how a gradient becomes a step, the same in all epochs of the stage.
        follow: called after each step.

    Returns:
        The mean of each term over the steps.

    Raises:
        InputError: the loss is not a finite number.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    gradients = SummedGradients(parameters)
    totals: dict[str, float] = {}
    total, done = steps_until(clock.epochs, len(batches)), clock.epoch * len(batches)
    title = f"{clock.stage} {clock.epoch + 1}/{ceil(clock.epochs)}"
    with tqdm(total=total, initial=done, desc=title, disable=not clock.show, leave=False) as bar:
        for step, batch in enumerate(batches[: clock.most], start=done):
            for group in optimizer.param_groups:
                group["lr"] = rule.rate(step, total)
            optimizer.zero_grad(set_to_none=True)
            pieces = []
            for terms in losses(batch):
                gradients.add(terms["loss"])
                pieces.append({name: term.detach() for name, term in terms.items()})
            gradients.exchange()
            if rule.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(parameters, rule.clip_norm)
            optimizer.step()
            follow()
            for terms in pieces:  # only now, so that each step waits for a GPU once
                for name, term in terms.items():
                    totals[name] = totals.get(name, 0.0) + float(term)
            loss = distributed.total(totals.get("loss", 0.0))
            if not np.isfinite(loss):
                raise Diverged(f"{clock.stage}: the loss became NaN; try a smaller learning rate")
            bar.set_postfix(loss=f"{loss / (step - done + 1):.4f}", refresh=False)
            bar.update()
    taken = max(1, len(batches[: clock.most]))
    return {name: value / taken for name, value in distributed.added(totals).items()}


def adamw(weights: list[nn.Parameter], rule: StepRule) -> torch.optim.AdamW:
    """Make the optimizer of all training; fused, which is fast for many small weights on a CPU."""
    rate, decay, epsilon = rule.learning_rate, rule.weight_decay, rule.adam_epsilon
    return torch.optim.AdamW(weights, lr=rate, weight_decay=decay, eps=epsilon, fused=True)


class Stream(IntEnum):
    """What random numbers are drawn for; each purpose has a stream of its own.

    The numbers are part of the seed. Changing one changes the results of every run.
    """

    ORDER = 0
    DROPOUT = 1
    RETAIN_ROWS = 2
    FORGET_SHARE = 3
    TARGET_ROWS = 4
    CONTRAST_ROWS = 5
    SHARDS = 6
    CLUSTERS = 7
    ATTENTION_ROWS = 8
    RELEARNED_HALF = 9
    RELEARNING_ORDER = 10
    RELEARNING_DROPOUT = 11


def seed_of(seed: int, stream: Stream, *place: int) -> np.random.SeedSequence:
    """Seed of a stream, independent of every other stream and place.

    Args:
        seed: seed of the run.
        stream: what the numbers are for.
        place: where they are used, such as the epoch, so that no earlier state is needed.
    """
    return np.random.SeedSequence(seed, spawn_key=(stream, *place))


def generator_of(seed: int, stream: Stream, *place: int) -> np.random.Generator:
    """Create the generator of a stream; arguments as of :func:`seed_of`."""
    return np.random.default_rng(seed_of(seed, stream, *place))


def seed_dropout(seed: int, epoch: int, stream: Stream = Stream.DROPOUT) -> None:
    """Seed torch's global generator for an epoch; call it inside ``torch.random.fork_rng``.

    Each process gets a seed of its own.
    """
    sequence = seed_of(seed, stream, epoch, distributed.rank())
    torch.manual_seed(int(sequence.generate_state(1)[0]))


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Convert the state of an optimizer to named tensors."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{index}.{name}": torch.as_tensor(value)
        for index, entries in state.items()
        for name, value in entries.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Load the tensors of :func:`optimizer_tensors` into an optimizer."""
    whole = optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            index, _, entry = rest.partition(".")
            state.setdefault(int(index), {})[entry] = value
    optimizer.load_state_dict({**whole, "state": state})


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename tensors to ``prefix.name``."""
    return {f"{prefix}.{name}": value for name, value in tensors.items()}


def without_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Pick the tensors that :func:`with_prefix` renamed, under their own names."""
    start = f"{prefix}."
    names: Iterable[str] = (name for name in tensors if name.startswith(start))
    return {name[len(start) :]: tensors[name] for name in names}
