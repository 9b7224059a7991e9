"""Decoder-only backbones: Llama, Qwen, Mistral, GPT-2."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from recbole_e2urec.llm.base import LanguageModel
from recbole_e2urec.llm.codec import PromptCodec


class CausalLM(LanguageModel):
    """Answers after the last token of the prompt.

    What a tokenizer puts after a text (an end token) is left out: the prompt must not look
    finished before the answer.
    """

    task_type = "CAUSAL_LM"

    def __init__(self, model: PreTrainedModel, codec: PromptCodec, max_tokens: int) -> None:
        super().__init__(model, codec, max_tokens)
        self.suffix_ids: list[int] = []

    def _state(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """One pass over the prompt, read at its last token."""
        states = self.model.base_model(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False
        ).last_hidden_state
        return _at_last_token(states, attention_mask)

    def own_logits(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """See :meth:`LanguageModel.own_logits`."""
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return _at_last_token(logits, attention_mask).float()


def _at_last_token(states: Tensor, attention_mask: Tensor) -> Tensor:  # [b, t, x], [b, t] -> [b, x]
    last = attention_mask.sum(dim=1) - 1
    return states[torch.arange(len(states), device=states.device), last]
