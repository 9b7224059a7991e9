"""LLMRec: a language model as a RecBole recommender."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.utils import InputType, ModelType
from torch import Tensor

from recbole_e2urec.config.config import Config
from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.data.dataset import ROW_ID, RowDataMixin
from recbole_e2urec.data.prompt_table import (
    PromptTable,
    PromptTexts,
    SharedPrompts,
    TokenBatch,
    TokenLimits,
    length_grouped_batches,
    pieces,
)
from recbole_e2urec.data.rows import RowTable
from recbole_e2urec.errors import InputError
from recbole_e2urec.model.backbones.adapters import AdapterBank
from recbole_e2urec.model.backbones.loading import BackboneOptions, load_backbone
from recbole_e2urec.model.backbones.lora import LoraOptions
from recbole_e2urec.model.backbones.tiny import EMBEDDED, EmbeddedOptions, Words
from recbole_e2urec.model.losses import answer_cross_entropy, yes_probability
from recbole_e2urec.model.prompting import (
    PromptOptions,
    make_texts,
    shown_histories,
    wording_of,
)
from recbole_e2urec.utils import distributed

ORIGINAL = "original"  # name of the adapter that tuning: lora trains
Schedule = Literal["linear", "constant"]  # of a learning rate
TOKENS_AT_ONCE = {"cuda": 16384}  # default of tokens_at_once, by device type


@option_class()
class LLMRecOptions:
    """How the recommender is tuned and scored."""

    tuning: Literal["full", "lora"] = option(
        "Train all weights (full) or an adapter on the frozen backbone (lora).", default="full"
    )
    score_batch_size: int = option("Prompts scored at once.", ge=1, default=256)
    tokens_at_once: int | None = option(
        "Most tokens, padding included, that one pass of the model sees; a larger batch passes in "
        "pieces, whose gradients add up, and a longer prompt passes alone. ~ = 4096 on a CPU, "
        "16384 on a GPU.",
        ge=1,
        default=None,
    )
    rate_schedule: Schedule = option(
        "Let the learning rate of Original and Retrain fall to zero over all epochs (linear) or "
        "keep it as it is (constant).",
        default="linear",
    )
    # At the embedded backbones' rate, a burst of gradients 5 to 20 times their usual norm of about
    # .1 can destroy what was learned, since AdamW adapts to it over hundreds of steps.
    clip_norm: float | None = option(
        "Scale a gradient down to this norm if it is larger; ~ = never.", gt=0, default=0.25
    )
    # A head that shares its matrix with the embeddings gives every word that a batch does not show
    # a gradient of about 1e-7, as long as it learns from scratch. If epsilon is far smaller, AdamW
    # turns this gradient into full steps. Tokens of users without training rows then drift far
    # away, all to the same place.
    adam_epsilon: float = option(
        "AdamW's epsilon, in unlearning as well unless unlearn_adam_epsilon is set; far below, "
        "words that no prompt shows drift away.",
        gt=0,
        default=1e-06,
    )
    seed: int = option("Seed of an embedded backbone's weights and of adapters.", default=2020)


class LLMRec(GeneralRecommender):
    """Asks a language model whether a user will like an item; the score is P(yes).

    P(yes) is a softmax over the two answer words at the answer position. RecBole's loaders give the
    rows. A row's ``row_id`` selects its prompt, and its ``item_id`` is the item in question; the
    candidates of a ranking therefore share the history of their row.

    Attributes:
        language_model: the backbone.
        bank: the backbone's adapters.
        adapter: name of the adapter that answers; None: the backbone's own weights answer.
        wording: the template, titles and features of which prompts are made.
        table: the prompts.
        labels: 1 = liked, 0 = not, float32 by row id; None for data without labels.
    """

    type = ModelType.CONTEXT
    input_type = InputType.POINTWISE

    def __init__(self, config: Any, dataset: Any) -> None:
        if not isinstance(config, Config) or not isinstance(dataset, RowDataMixin):
            raise InputError(
                "LLMRec: make config and data set by recbole_e2urec.Config and "
                "recbole_e2urec.create_dataset, which know its settings and its rows"
            )
        super().__init__(config, dataset)
        self.options = config.options(LLMRecOptions)
        self.prompt_options = config.options(PromptOptions)
        self.wording = wording_of(config, dataset, self.prompt_options)
        texts, vocabulary = make_texts(dataset, self.wording)
        if dataset.remainder is not None:
            vocabulary = Words(dataset.remainder.words)
        backbone = config.options(BackboneOptions)
        backbone.check_tuning(self.options.tuning)
        embedded = backbone.name in EMBEDDED
        size = config.options(EmbeddedOptions) if embedded else None
        language_model = load_backbone(backbone, vocabulary, self.options.seed, size)
        self.language_model = language_model.to(self.device)
        self.bank = AdapterBank(language_model)
        self.lora = config.options(LoraOptions)
        self.bank.check(self.lora)  # fail now rather than after hours of training
        self.adapter: str | None = None
        if self.options.tuning == "lora":
            self.bank.add(ORIGINAL, self.lora, self.options.seed)
            self.adapter = ORIGINAL
        self.table = self.prompts(dataset.rows, self._histories(dataset), texts)
        self.labels = dataset.rows.label
        self.stand_in: Callable[..., Tensor] | None = None  # see scorers.answering

    def _histories(self, dataset: RowDataMixin) -> NDArray[np.int64]:  # -> [n, k]
        """Return the histories that prompts show; nothing unless the data are split already."""
        nothing = np.empty(0, np.int64)
        if dataset.shown_parts is None:
            return np.full((len(dataset.rows), 0), -1, dtype=np.int64)
        length = self.prompt_options.history_length
        return shown_histories(dataset.rows, dataset.shown_parts, nothing, length)

    @property
    def tokens_at_once(self) -> int:
        """Most tokens in one pass, see :class:`LLMRecOptions`."""
        return self.options.tokens_at_once or TOKENS_AT_ONCE.get(self.device.type, 4096)

    def prompts(
        self, rows: RowTable, history: NDArray[np.int64], texts: PromptTexts
    ) -> PromptTable:  # [n, k]
        """Make the prompts for this language model; see :class:`PromptTable` for the arguments."""
        lm = self.language_model
        limits = TokenLimits(lm.max_tokens, lm.pad_id, lm.prefix_ids, lm.suffix_ids)
        return PromptTable(rows, history, texts, lm.encode, limits)

    def calculate_loss(self, interaction: Any) -> Tensor:
        """Cross-entropy of the true answers in a RecBole batch; a scalar."""
        rows = interaction[ROW_ID].cpu().numpy()
        return self.answer_loss(rows, interaction[self.ITEM_ID].cpu().numpy())

    def predict(self, interaction: Any) -> Tensor:
        """P(yes) of each pair of row and item in a RecBole batch, float32 [batch]."""
        rows = interaction[ROW_ID].cpu().numpy()
        items = interaction[self.ITEM_ID].cpu().numpy()
        return self.answer(rows, items)

    def answer(
        self, rows: NDArray[np.int64], items: NDArray[np.int64] | None
    ) -> Tensor:  # [b], [b] -> [b]
        """P(yes) of each pair of row and item; None: of the rows' own items."""
        if self.stand_in is not None:
            return self.stand_in(rows, items)
        with self.bank.frozen(self.adapter):
            return self.yes(self.hidden(rows, items))

    def answer_loss(
        self, rows: NDArray[np.int64], items: NDArray[np.int64] | None = None
    ) -> Tensor:
        """Mean cross-entropy of the true answers of these rows; a scalar."""
        parts = [terms["loss"] for terms in self.answer_losses(rows, items)]
        return torch.stack(parts).sum()

    def answer_losses(
        self, rows: NDArray[np.int64], items: NDArray[np.int64] | None = None
    ) -> Iterator[dict[str, Tensor]]:
        """Compute :meth:`answer_loss` in pieces, one forward pass each, that add up to it.

        With several processes, each computes its share of the rows, and the pieces of all processes
        add up to the loss.

        Raises:
            InputError: the data has no labels.
        """
        if self.labels is None:
            raise InputError("a language model learns from labels; set threshold, or add a label")
        own_rows, own_items = (
            distributed.share(rows),
            items if items is None else distributed.share(items),
        )
        labels, words = torch.from_numpy(self.labels[own_rows]), self.language_model.answer_ids
        for part, logits in self.read_pieces(self.table.batch(own_rows, own_items)):
            losses = answer_cross_entropy(logits, labels[part].to(self.device), words)
            yield {"loss": losses.sum() / len(rows)}

    def read_pieces(
        self, prompts: TokenBatch
    ) -> Iterator[tuple[Tensor, Tensor]]:  # [b, t] -> [p], [p, v]
        """Read prompts in pieces of at most :attr:`tokens_at_once`, one forward pass each.

        Processes that share a sharded backbone make every pass together, back and forth. One that
        has fewer pieces than another reads a short prompt instead, and gives no row of its logits.

        Yields:
            The indices of a piece's prompts in the batch, and their logits.
        """
        lm = self.language_model
        pieces = list(prompts.pieces(self.tokens_at_once)) if len(prompts.input_ids) else []
        missing = max(distributed.all_gather(len(pieces))) - len(pieces) if lm.sharded else 0
        for part, piece in pieces:
            yield part, lm(*piece.to(self.device))
        for _ in range(missing):
            yield torch.empty(0, dtype=torch.int64), lm(*lm.short_prompt())[:0]

    def hidden(
        self, rows: NDArray[np.int64], items: NDArray[np.int64] | None = None
    ) -> Tensor:  # [n], [n] -> [n, hidden]
        """Hidden states that the head reads at the answer position, without gradient.

        The number of rows is not limited. If several items are in question for one row, a model
        that reads from left to right reads the text before the question once.

        Args:
            rows: row ids, [n].
            items: inner ids of the items in question, [n]; None: the rows' own items.
        """
        model = self.language_model
        several = items is not None and 2 * len(np.unique(rows)) <= len(rows)
        if items is not None and several and model.shares_beginnings:
            prompts = self.table.shared(rows, items)
            if prompts is not None and 2 * len(prompts.beginnings) <= len(rows):
                return self._hidden_after(prompts)

        def read(part: NDArray[np.int64]) -> Tensor:
            part_items = None if items is None else items[part]
            return model.hidden(*self.table.batch(rows[part], part_items).to(self.device))

        return self.states(self.score_batches(self.table.lengths(rows, items)), len(rows), read)

    @torch.no_grad()
    def states(
        self,
        batches: Iterable[NDArray[np.int64]],
        count: int,
        read: Callable[[NDArray[np.int64]], Tensor],
    ) -> Tensor:  # [n, h]
        """Compute hidden states batch by batch; with several processes, each takes its share.

        Args:
            batches: batches of indices; each index is in exactly one batch.
            count: number of indices, n.
            read: computes the states of one batch, [b, h].
        """
        model = self.language_model
        hidden = torch.zeros(count, model.hidden_size, dtype=model.model.dtype)
        batches = list(batches)
        own = distributed.share(batches)
        for part in own:
            hidden[part] = read(part).cpu()
        if model.sharded and len(own) * distributed.count() < len(batches):
            read(batches[0])  # other processes make one more pass, and none makes it alone
        return distributed.summed(hidden.to(self.device))

    def score_batches(self, lengths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Divide prompts of these lengths into batches that are scored together, as indices."""
        for batch in length_grouped_batches(lengths, self.options.score_batch_size, None):
            for piece in pieces(lengths[batch], self.tokens_at_once):
                yield batch[piece]

    def _hidden_after(self, prompts: SharedPrompts) -> Tensor:  # [b] questions -> [b, hidden]
        """See :meth:`hidden`; questions that share a beginning are batched together."""
        model, size = self.language_model, self.options.score_batch_size
        # A multiple of the most questions of one row: keeps rows whole where they fit.
        size -= size % min(size, int(np.bincount(prompts.of).max()))
        order = np.argsort(prompts.of, kind="stable")

        def read(part: NDArray[np.int64]) -> Tensor:
            shown, of = np.unique(prompts.of[part], return_inverse=True)
            return model.hidden_after(
                self.table.beginnings(prompts.beginnings[shown]),
                self.table.endings(prompts.questions[part]),
                torch.from_numpy(of),
                max(1, self.tokens_at_once // 4),  # small pieces have little padding
            )

        batches = (order[at : at + size] for at in range(0, len(order), size))
        return self.states(batches, len(order), read)

    def yes(self, hidden: Tensor) -> Tensor:  # [n, hidden] -> [n]
        """P(yes) for each hidden state, float32."""
        head, answers = self.language_model.head, self.language_model.answer_ids
        with torch.no_grad():
            parts = [yes_probability(head(part), answers) for part in hidden.split(4096)]
        return torch.cat(parts) if parts else hidden.new_zeros(0)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model as it answers, merged, and its tokenizer, for plain transformers.

        Raises:
            InputError: the weights are quantised, or the folder cannot be written to.
        """
        self.bank.save_merged(self.adapter, Path(folder))

    @classmethod
    def from_pretrained(cls, folder: str | Path, config: Any, dataset: Any) -> "LLMRec":
        """Make a recommender whose backbone is a saved model.

        Args:
            folder: where :meth:`save_pretrained` or an export wrote it, or a hub id.
            config: the run's settings, whose backbone is replaced.
            dataset: the data.

        Raises:
            InputError: the folder holds no usable language model, or a setting does not suit it.
        """
        backbone = {"backbone": str(folder), "backbone_source": None}
        return cls(config.with_settings(backbone), dataset)

    def fresh_adapter(self, name: str, seed: int) -> None:
        """Add an adapter with which the model answers as before: a new one, or a copy of its own.

        An adapter of the same name is replaced.
        """
        if name in self.bank.names:
            self.bank.remove(name)
        if self.adapter is None:
            self.bank.add(name, self.lora, seed)
        else:
            self.bank.copy(self.adapter, name)

    @contextmanager
    def using_history(self, history: NDArray[np.int64]) -> Iterator[None]:
        """Use these histories in the prompts inside the block.

        Args:
            history: ids of the rows that each prompt shows, [n, k], as from ``shown_histories``.
        """
        with self.using_prompts(self.table.with_history(history)):
            yield

    @contextmanager
    def using_prompts(self, table: PromptTable) -> Iterator[None]:
        """Use the prompts of this table inside the block."""
        before, self.table = self.table, table
        try:
            yield
        finally:
            self.table = before
