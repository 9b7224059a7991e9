"""Everything that answers: an adapter, stored weights, or several models together.

Evaluation asks a scorer and never which method made it.
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

CHUNK = 128  # rows whose whole distributions are looked at together: what a cache can hold


class ModelOutput(NamedTuple):
    """What one model answered."""

    states: Tensor  # [n, h]
    head: Callable[[Tensor], Tensor]  # [b, h] -> [b, vocab], float32


class CachedAnswers:
    """Kept answers to n rows.

    Args:
        voices: of the models that answered.
        weights: [n, voices], how much each of them counts in a row; None: all alike.
    """

    def __init__(self, voices: Sequence[ModelOutput], weights: Tensor | None = None) -> None:
        self.voices, self.weights = list(voices), weights

    def __len__(self) -> int:
        """Give the number of rows."""
        return len(self.voices[0].states)

    @torch.no_grad()
    def logits(self, part: slice | Tensor = slice(None)) -> Tensor:  # -> [b, vocab]
        """Logits at the answer position of a part of the rows: the weighted mean over voices."""
        heard = [voice.head(voice.states[part]) for voice in self.voices]
        if len(heard) == 1:
            return heard[0]
        if self.weights is None:
            return torch.stack(heard).mean(dim=0)
        weights = self.weights[part].unbind(dim=1)
        return torch.stack([w[:, None] * z for w, z in zip(weights, heard, strict=True)]).sum(dim=0)

    def chunks(self) -> Iterator[slice]:
        """Parts whose logits fit into memory."""
        return (slice(start, start + CHUNK) for start in range(0, len(self), CHUNK))

    def yes(self, answer_ids: tuple[int, int]) -> Tensor:  # -> [n]
        """P(yes) of each row, float32."""
        parts = [yes_probability(self.logits(part), answer_ids) for part in self.chunks()]
        return torch.cat(parts) if parts else self.voices[0].states.new_zeros(0)


Rows = NDArray[np.int64]
Weights = Mapping[str, Tensor]
# Trains what answers under an adapter, in the weights of an adapter or, None, of the backbone, and
# gives these weights after each part of the training: (adapter, place) -> weights.
Learn = Callable[[str | None, str | None], Sequence[Weights]]


class Scorer(ABC):
    """Answers rows of a recommender's data, under the histories that its prompts show."""

    @abstractmethod
    def ask(self, model: LLMRec, rows: Rows, items: Rows | None = None) -> CachedAnswers:
        """Ask about these rows, or about other items in their place: [n], [n]."""

    @abstractmethod
    def further(self, model: LLMRec, learn: Learn) -> list["Scorer"]:
        """Train a copy of what answers; gives who answers after each part of the training.

        What learns is what Original's training reached: all weights under a student's adapter, or
        an adapter. The model is as before afterwards.
        """


class Adapted(Scorer):
    """The backbone with an adapter; None = the backbone alone."""

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
    """Weights that are read when they are needed and take the place of others.

    Args:
        place: whose weights they replace: an adapter's, or, None, the backbone's.
        read: gives them.
        adapter: a student's adapter that answers upon such a backbone.
    """

    def __init__(
        self, place: str | None, read: Callable[[], Weights], adapter: str | None = None
    ) -> None:
        self.place, self.read = place, read
        self.adapter = adapter if place is None else place

    def ask(self, model: LLMRec, rows: Rows, items: Rows | None = None) -> CachedAnswers:
        """See :meth:`Scorer.ask`; the weights that were there come back."""
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
        members: who answers.
        weigh: weights of the members, from what they answered ([n, members]); None: all alike.
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
    """Adapters on the untrained backbone, merged anew for every sample.

    Args:
        adapters: read the weights of each.
        start: reads the backbone's weights before tuning; None: it has them.
        weigh: weights of the adapters from what the untrained backbone makes of each row
            ([n, h] -> [n, adapters]); None: all alike.
    """

    def __init__(
        self,
        adapters: Sequence[Callable[[], Weights]],
        start: Callable[[], Weights] | None,
        weigh: Callable[[Tensor], Tensor] | None,
    ) -> None:
        self.adapters, self.start, self.weigh = list(adapters), start, weigh

    def ask(self, model: LLMRec, rows: Rows, items: Rows | None = None) -> CachedAnswers:
        """See :meth:`Scorer.ask`; backbone and adapters are as before afterwards."""
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
        """See :meth:`Scorer.further`; every adapter learns all of it, the backbone nothing."""
        with self._loaded(model) as names:
            parts = zip(*(learn(name, name) for name in names), strict=True)
            return [Mixture([*map(_giving, part)], self.start, self.weigh) for part in parts]

    @contextmanager
    def _loaded(self, model: LLMRec) -> Iterator[list[str]]:
        """Have the adapters beside the untrained backbone; both are gone afterwards."""
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
    """Give the backbone the weights from before tuning; its own come back."""
    if start is None:
        yield
        return
    with model.bank.swapped_weights(None, start()):
        yield


@contextmanager
def answering(model: LLMRec, scorer: Scorer) -> Iterator[None]:
    """Let the scorer answer in the model's place when RecBole's evaluator asks it."""
    before = model.answer
    model.answer = lambda rows, items: scorer.ask(model, rows, items).yes(
        model.language_model.answer_ids
    )
    try:
        yield
    finally:
        model.answer = before
