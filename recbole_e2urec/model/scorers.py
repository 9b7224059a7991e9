"""Everything that answers: an adapter, stored weights, or several models together.

Evaluation asks a scorer and never which method made it. What was answered is kept as hidden states:
they are small, and the heads turn them into logits again.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbole_e2urec.data.batches import length_grouped_batches
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.losses import yes_probability

CHUNK = 128  # rows whose whole distributions are looked at together: what a cache can hold
Rows = NDArray[np.int64]


class Voice(NamedTuple):
    """What one model answered."""

    states: Tensor  # [n, h]
    head: Callable[[Tensor], Tensor]  # [b, h] -> [b, vocab], float32


class Asked:
    """Kept answers to n rows.

    Args:
        voices: of the models that answered.
        weights: [n, voices], how much each of them counts in a row; None: all alike.
    """

    def __init__(self, voices: Sequence[Voice], weights: Tensor | None = None) -> None:
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


class Scorer(ABC):
    """Answers rows of a recommender's data, under the histories that its prompts show."""

    @abstractmethod
    def ask(self, model: LLMRec, rows: Rows, items: Rows | None = None) -> Asked:
        """Ask about these rows, or about other items in their place: [n], [n]."""


class Adapted(Scorer):
    """The backbone with an adapter; None = the backbone alone."""

    def __init__(self, adapter: str | None) -> None:
        self.adapter = adapter

    def ask(self, model: LLMRec, rows: Rows, items: Rows | None = None) -> Asked:
        """See :meth:`Scorer.ask`."""
        with model.bank.frozen(self.adapter):
            states = model.hidden(rows, items)
            return Asked([Voice(states, model.language_model.head_copy())])


class Stored(Scorer):
    """Weights that are read when they are needed and take an adapter's place, or the backbone's."""

    def __init__(self, adapter: str | None, read: Callable[[], Mapping[str, Tensor]]) -> None:
        self.adapter, self.read = adapter, read

    def ask(self, model: LLMRec, rows: Rows, items: Rows | None = None) -> Asked:
        """See :meth:`Scorer.ask`; the weights that were there come back."""
        with model.bank.kept(self.adapter):
            model.bank.load(self.adapter, self.read())
            return Adapted(self.adapter).ask(model, rows, items)


class Ensemble(Scorer):
    """Several models, whose logits are averaged row by row.

    Args:
        members: who answers.
        weigh: weights of the members, from what they answered ([n, members]); None: all alike.
    """

    def __init__(
        self, members: Sequence[Scorer], weigh: Callable[[list[Voice]], Tensor] | None = None
    ) -> None:
        self.members, self.weigh = list(members), weigh

    def ask(self, model: LLMRec, rows: Rows, items: Rows | None = None) -> Asked:
        """See :meth:`Scorer.ask`."""
        voices = [voice for one in self.members for voice in one.ask(model, rows, items).voices]
        return Asked(voices, self.weigh(voices) if self.weigh else None)


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
        adapters: Sequence[Callable[[], Mapping[str, Tensor]]],
        start: Callable[[], Mapping[str, Tensor]] | None,
        weigh: Callable[[Tensor], Tensor] | None,
    ) -> None:
        self.adapters, self.start, self.weigh = list(adapters), start, weigh

    def ask(self, model: LLMRec, rows: Rows, items: Rows | None = None) -> Asked:
        """See :meth:`Scorer.ask`; backbone and adapters are as before afterwards."""
        bank, lm = model.bank, model.language_model
        with on_start(model, self.start), ExitStack() as stack:
            names = [f"mixed{number}" for number in range(len(self.adapters))]
            for name, read in zip(names, self.adapters, strict=True):
                bank.add(name, model.lora, seed=0)
                stack.callback(bank.remove, name)
                bank.load(name, read())
            with bank.frozen(None):
                states = model.hidden(rows, items)
            alike = torch.full((len(rows), len(names)), 1 / len(names))
            weights = (self.weigh(states) if self.weigh else alike).to(states)
            lengths = model.table.lengths(rows, items)
            for part in length_grouped_batches(lengths, model.options.score_batch_size, None):
                batch = model.table.batch(rows[part], None if items is None else items[part])
                with bank.mixed(names, weights[part]):
                    states[part] = lm.hidden(
                        batch.input_ids.to(states.device), batch.attention_mask.to(states.device)
                    )
            return Asked([Voice(states, lm.head_copy())])


@contextmanager
def on_start(model: LLMRec, start: Callable[[], Mapping[str, Tensor]] | None) -> Iterator[None]:
    """Give the backbone the weights from before tuning; its own come back."""
    if start is None:
        yield
        return
    with model.bank.kept(None):
        model.bank.load(None, start())
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
