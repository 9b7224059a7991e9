"""Scorers: an adapter, stored weights, or several models together.

Evaluation works on scorers alone; it does not depend on the method that made them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.losses import yes_probability

Rows = NDArray[np.int64]
Weights = Mapping[str, Tensor]
# Trains the model that answers with an adapter: (adapter, place) -> weights. The weights of
# ``place`` learn: those of an adapter or, None, of the backbone. Returns them after each part of
# the training.
Learn = Callable[[str | None, str | None], Sequence[Weights]]
CHUNK = 128  # rows whose logits over the vocabulary are computed at once; they fit into a cache


class ModelOutput(NamedTuple):
    """The answers of one model.

    Attributes:
        states: what its head reads at the answer position, [n, h].
        head: gives the logits of such states, [b, h] -> [b, vocab], float32.
    """

    states: Tensor
    head: Callable[[Tensor], Tensor]


class CachedAnswers:
    """Cached answers to n rows.

    Args:
        voices: outputs of the models that answered.
        weights: weight of each model in each row, [n, voices]; None: all weights are equal.
    """

    def __init__(self, voices: Sequence[ModelOutput], weights: Tensor | None = None) -> None:
        self.voices, self.weights = list(voices), weights

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.voices[0].states)

    @torch.no_grad()
    def logits(self, part: slice | Tensor = slice(None)) -> Tensor:  # -> [b, vocab]
        """Logits of some of the rows at the answer position: the weighted mean over models."""
        heard = [voice.head(voice.states[part]) for voice in self.voices]
        if len(heard) == 1:
            return heard[0]
        if self.weights is None:
            return torch.stack(heard).mean(dim=0)
        weights = self.weights[part].unbind(dim=1)
        return torch.stack([w[:, None] * z for w, z in zip(weights, heard, strict=True)]).sum(dim=0)

    def chunks(self) -> Iterator[slice]:
        """Slices of rows, each small enough to hold its logits in memory."""
        return (slice(start, start + CHUNK) for start in range(0, len(self), CHUNK))

    def yes(self, answer_ids: tuple[int, int]) -> Tensor:  # -> [n]
        """P(yes) of each row, float32."""
        parts = [yes_probability(self.logits(part), answer_ids) for part in self.chunks()]
        return torch.cat(parts) if parts else self.voices[0].states.new_zeros(0)


class Scorer(ABC):
    """Answers rows of a recommender's data, with the histories that the prompts show."""

    @abstractmethod
    def ask(self, model: LLMRec, rows: Rows, items: Rows | None = None) -> CachedAnswers:
        """Answer the prompts of some rows.

        Args:
            model: the recommender.
            rows: row ids, [n].
            items: inner ids of the items in question, [n]; None: the rows' own items.
        """

    @abstractmethod
    def further(self, model: LLMRec, learn: Learn) -> list["Scorer"]:
        """Train a copy of this scorer's model further.

        The weights that Original's training changed learn: an adapter, or all weights of the
        backbone, also where a student's adapter answers on it. The model is restored afterwards.

        Args:
            model: the recommender.
            learn: trains the weights.

        Returns:
            One scorer for each part of the training.
        """


class Adapted(Scorer):
    """Answers with the backbone and an adapter of the model.

    Args:
        adapter: name of the adapter; None: the backbone alone.
    """

    def __init__(self, adapter: str | None) -> None:
        self.adapter = adapter

    def ask(self, model: LLMRec, rows: Rows, items: Rows | None = None) -> CachedAnswers:
        """See :meth:`Scorer.ask`."""
        with model.bank.frozen(self.adapter):
            states = model.hidden(rows, items)
            return CachedAnswers([ModelOutput(states, model.language_model.head_copy())])

    def further(self, model: LLMRec, learn: Learn) -> list[Scorer]:
        """See :meth:`Scorer.further`."""
        place = None if model.adapter is None else self.adapter
        with model.bank.restored_after(place):
            return [Stored(place, _giving(w), self.adapter) for w in learn(self.adapter, place)]


class Stored(Scorer):
    """Answers with stored weights, which are read when they are needed.

    Args:
        place: name of the adapter whose weights they replace; None: the backbone's.
        read: reads the weights.
        adapter: name of a student's adapter that answers on the replaced backbone.
    """

    def __init__(
        self, place: str | None, read: Callable[[], Weights], adapter: str | None = None
    ) -> None:
        self.place, self.read = place, read
        self.adapter = adapter if place is None else place

    def ask(self, model: LLMRec, rows: Rows, items: Rows | None = None) -> CachedAnswers:
        """See :meth:`Scorer.ask`; the model's own weights are restored afterwards."""
        with model.bank.swapped_weights(self.place, self.read()):
            return Adapted(self.adapter).ask(model, rows, items)

    def further(self, model: LLMRec, learn: Learn) -> list[Scorer]:
        """See :meth:`Scorer.further`."""
        with model.bank.restored_after(self.place):
            model.bank.load(self.place, self.read())
            return Adapted(self.adapter).further(model, learn)


class Ensemble(Scorer):
    """Several models, whose logits are averaged row by row.

    Args:
        members: scorers that answer.
        weigh: computes the members' weights from their outputs, [n, members]; None: all weights are
            equal.
    """

    def __init__(
        self, members: Sequence[Scorer], weigh: Callable[[list[ModelOutput]], Tensor] | None = None
    ) -> None:
        self.members, self.weigh = list(members), weigh

    def ask(self, model: LLMRec, rows: Rows, items: Rows | None = None) -> CachedAnswers:
        """See :meth:`Scorer.ask`."""
        voices = [
            voice for member in self.members for voice in member.ask(model, rows, items).voices
        ]
        return CachedAnswers(voices, self.weigh(voices) if self.weigh else None)

    def further(self, model: LLMRec, learn: Learn) -> list[Scorer]:
        """See :meth:`Scorer.further`; every member learns all of it."""
        parts = zip(*(member.further(model, learn) for member in self.members), strict=True)
        return [Ensemble(members, self.weigh) for members in parts]


class Mixture(Scorer):
    """Adapters on the untuned backbone, mixed with different weights for each sample.

    Args:
        adapters: functions that read the weights of each adapter.
        start: reads the backbone's weights before tuning; None: the backbone has these weights.
        weigh: computes the adapters' weights from the untuned backbone's hidden states,
            [n, h] -> [n, adapters]; None: all weights are equal.
    """

    def __init__(
        self,
        adapters: Sequence[Callable[[], Weights]],
        start: Callable[[], Weights] | None,
        weigh: Callable[[Tensor], Tensor] | None,
    ) -> None:
        self.adapters, self.start, self.weigh = list(adapters), start, weigh

    def ask(self, model: LLMRec, rows: Rows, items: Rows | None = None) -> CachedAnswers:
        """See :meth:`Scorer.ask`; backbone and adapters are restored afterwards."""
        bank, lm = model.bank, model.language_model
        with self._loaded(model) as names:
            with bank.frozen(None):
                states = model.hidden(rows, items)
            alike = torch.full((len(rows), len(names)), 1 / len(names))
            weights = (self.weigh(states) if self.weigh else alike).to(states)
            lengths = model.table.lengths(rows, items)

            def read(part: Rows) -> Tensor:
                batch = model.table.batch(rows[part], None if items is None else items[part])
                with bank.mixed(names, weights[part]):
                    return lm.hidden(*batch.to(states.device))

            mixed = model.states(model.score_batches(lengths), len(rows), read)
            return CachedAnswers([ModelOutput(mixed, lm.head_copy())])

    def further(self, model: LLMRec, learn: Learn) -> list[Scorer]:
        """See :meth:`Scorer.further`; each adapter learns all of it, and the backbone is frozen."""
        with self._loaded(model) as names:
            parts = zip(*(learn(name, name) for name in names), strict=True)
            return [Mixture([*map(_giving, part)], self.start, self.weigh) for part in parts]

    @contextmanager
    def _loaded(self, model: LLMRec) -> Iterator[list[str]]:
        """Load the untuned backbone and the adapters; both are removed afterwards.

        Yields:
            The names of the adapters.
        """
        bank = model.bank
        with on_start(model, self.start), ExitStack() as stack:
            names = [f"mixed{number}" for number in range(len(self.adapters))]
            for name, read in zip(names, self.adapters, strict=True):
                bank.add(name, model.lora, seed=0)
                stack.callback(bank.remove, name)
                bank.load(name, read())
            yield names


def _giving(weights: Weights) -> Callable[[], Weights]:
    return lambda: weights


@contextmanager
def on_start(model: LLMRec, start: Callable[[], Weights] | None) -> Iterator[None]:
    """Let the backbone have its weights from before tuning; its own are restored afterwards."""
    if start is None:
        yield
        return
    with model.bank.swapped_weights(None, start()):
        yield


@contextmanager
def answering(model: LLMRec, scorer: Scorer) -> Iterator[None]:
    """Let the scorer answer in place of the model when RecBole's evaluator calls the model."""
    before, model.stand_in = model.stand_in, stand_in(model, scorer)
    try:
        yield
    finally:
        model.stand_in = before


def stand_in(model: LLMRec, scorer: Scorer) -> Callable[..., Tensor]:
    """Return what gives the scorer's P(yes) of rows and items, [n], [n] -> [n]."""
    return lambda rows, items: scorer.ask(model, rows, items).yes(model.language_model.answer_ids)
