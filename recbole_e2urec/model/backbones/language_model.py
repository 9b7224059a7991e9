"""The common interface of all language models, whatever their family."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as LORA_TARGETS
from torch import Tensor, nn
from transformers import PreTrainedModel

from recbole_e2urec.data.prompt_table import TokenBatch
from recbole_e2urec.model.backbones.tokenizer import PromptCodec


@dataclass(frozen=True)
class LogitShape:
    """What a model does to its head's logits: it scales them, then caps them softly.

    Cohere and Granite scale; Gemma 2 caps by ``cap * tanh(logits / cap)``.

    Attributes:
        scale: factor of the logits.
        cap: bound of the logits; None: no bound.
    """

    scale: float = 1.0
    cap: float | None = None

    @classmethod
    def of(cls, config: Any) -> "LogitShape":
        """Read a transformers config; without such settings, the logits stay as they are."""
        scale = getattr(config, "logit_scale", None) or 1.0
        divisor = getattr(config, "logits_scaling", None) or 1.0
        return cls(scale / divisor, getattr(config, "final_logit_softcapping", None))

    def __call__(self, logits: Tensor) -> Tensor:  # [b, v] -> [b, v]
        """Scale and cap the logits of a plain head."""
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)


class LanguageModel(nn.Module, ABC):
    """A backbone that reads a prompt and answers at one position.

    Prompts are padded on the right and the attention mask is always passed. A score therefore
    depends neither on the padding nor on the neighbours in the batch.

    Attributes:
        model: the transformers model, with its own forward and its own weight names.
        answer_ids: token ids of (no, yes).
        pad_id: token id of the padding.
        prefix_ids, suffix_ids: token ids to put before and after a prompt's own tokens.
        max_tokens: longest prompt in tokens, prefix and suffix included.
        hidden_size: width h of the states that the head reads.
        vocab_size: number of logits; may exceed the tokenizer's vocabulary (T5: 32128, not 32100).
        lora_targets: names of the layers that LoRA adapts by default.
        mixed: whether prompts are read in mixed precision: products in bfloat16, while weights,
            sums and the head stay in the model's dtype.
    """

    task_type: str  # peft's name of the family
    spread = False  # whether the layers are spread over several devices, where they stay
    sharded = False  # whether processes share the layers, and so make every pass together

    def __init__(self, model: PreTrainedModel, codec: PromptCodec, max_tokens: int) -> None:
        super().__init__()
        self.model = model
        self.codec = codec
        self.answer_ids = codec.answer_ids
        self.pad_id = codec.pad_id
        self.prefix_ids = codec.prefix_ids
        self.suffix_ids = codec.suffix_ids
        self.max_tokens = max_tokens
        self.vocab_size, self.hidden_size = model.get_output_embeddings().weight.shape
        self.shape = LogitShape.of(model.config)
        self.mixed = False
        self.lora_targets: list[str] = list(
            LORA_TARGETS.get(model.config.model_type) or _attention_projections(model)
        )

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode each text by itself, without adding special tokens."""
        return self.codec.encode(texts)

    def hidden(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Last hidden state at the answer position: exactly what the LM head reads.

        Args:
            input_ids: int64 [b, t], padded on the right.
            attention_mask: int64 [b, t], 1 for a token and 0 for padding.

        Returns:
            [b, h], in the dtype of the model.
        """
        if len(input_ids) == 0:  # transformers cannot reshape an empty batch
            return torch.zeros(0, self.hidden_size, dtype=self.model.dtype, device=input_ids.device)
        with self.precision(input_ids):
            return self._state(input_ids, attention_mask).to(input_ids.device, self.model.dtype)

    def precision(self, ids: Tensor) -> torch.autocast:
        """Make the autocast context for prompts on the device of these tokens, see ``mixed``."""
        return torch.autocast(ids.device.type, torch.bfloat16, enabled=self.mixed)

    @property
    @abstractmethod
    def reader(self) -> nn.Module:
        """The part of the model that reads a prompt and does nearly all of the work."""

    @property
    def readers(self) -> list[nn.Module]:
        """All parts of the model that read, each called as a whole."""
        return [self.reader]

    @property
    def shares_beginnings(self) -> bool:
        """Whether :meth:`hidden_after` works for this model."""
        return False

    def hidden_after(
        self, beginnings: TokenBatch, endings: TokenBatch, of: Tensor, tokens: int
    ) -> Tensor:  # [p, t], [b, s], [b] -> [b, h]
        """Compute :meth:`hidden` for prompts that share beginnings; each beginning is read once.

        There is no gradient. All arguments are on the CPU.

        Args:
            beginnings: first parts of the prompts, at least one token each.
            endings: second parts of the prompts, at least one token each.
            of: index of each ending's beginning.
            tokens: most tokens of endings, padding included, that are read at once.
        """
        raise NotImplementedError

    @abstractmethod
    def _state(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Compute the states of :meth:`hidden`, for at least one row."""

    @abstractmethod
    def own_logits(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits at the answer position by the model's own forward: a slow reference, [b, v]."""

    def head(self, hidden: Tensor) -> Tensor:
        """Logits of hidden states, always in float32. [b, h] -> [b, v]."""
        logits = self.model.get_output_embeddings()(hidden).to(hidden.device)
        return self.shape(logits.float())

    def head_copy(self) -> Callable[[Tensor], Tensor]:
        """Copy the head as it is now, unaffected by later training: [b, h] -> [b, v]."""
        layer = copy.deepcopy(self.model.get_output_embeddings()).requires_grad_(False)
        return lambda hidden: self.shape(layer(hidden).to(hidden.device).float())

    def _apply(self, *args: Any, **options: Any) -> Any:
        """Move or cast the weights, see :class:`torch.nn.Module`; spread layers do not change."""
        return self if self.spread else super()._apply(*args, **options)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits over the vocabulary at the answer position. [b, t], [b, t] -> [b, v]."""
        return self.head(self.hidden(input_ids, attention_mask))

    def agrees_with_its_model(self) -> bool:
        """Whether head(hidden) equals the model's own forward, tested on a short prompt.

        It does not for architectures that do more to their logits than a :class:`LogitShape`.
        """
        return self.agrees_with(self.own_answer())

    @torch.no_grad()
    def agrees_with(self, logits: Tensor) -> bool:  # [1, v]
        """Whether head(hidden) equals these logits of a short prompt."""
        return self._agree(self(*self.short_prompt()), logits)

    @torch.no_grad()
    def own_answer(self) -> Tensor:  # [1, v]
        """Logits of the model's own forward on a short prompt."""
        return self.own_logits(*self.short_prompt())

    def short_prompt(self) -> tuple[Tensor, Tensor]:  # [1, t], [1, t]
        """Make a prompt that only has to be read: its token ids and their mask."""
        ids = torch.tensor([self.prefix_ids + list(self.answer_ids) + self.suffix_ids])
        ids = ids.to(self.model.device)
        return ids, torch.ones_like(ids)

    def _agree(self, ours: Tensor, theirs: Tensor) -> bool:
        """Whether two computations of the same logits or states agree up to rounding."""
        exact = self.model.dtype == torch.float32 and not self.mixed
        tolerance = 1e-4 if exact else 1e-2
        return bool((ours - theirs).abs().max() <= tolerance * (1 + theirs.abs().max()))


def _attention_projections(model: PreTrainedModel) -> list[str]:
    """Find query and value layers by their usual names; if there are none, all linear layers."""
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    for pair in (["q_proj", "v_proj"], ["query", "value"], ["q", "v"]):
        if names.issuperset(pair):
            return pair
    linear = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not model.get_output_embeddings()
    }
    return sorted(linear)
