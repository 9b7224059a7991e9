"""Decoder-only backbones: Llama, Qwen, Mistral, Gemma, GPT-2."""

import copy
from functools import cached_property
from inspect import signature

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from recbole_e2urec.data.prompt_table import TokenBatch
from recbole_e2urec.model.backbones.language_model import LanguageModel
from recbole_e2urec.model.backbones.tokenizer import PromptCodec


class CausalLM(LanguageModel):
    """Answers after the last token of the prompt.

    The tokens that a tokenizer adds after a text (an end token) are left out, because the prompt
    must not look finished before the answer. Those that a chat template adds begin the answer, and
    stay.
    """

    task_type = "CAUSAL_LM"

    def __init__(self, model: PreTrainedModel, codec: PromptCodec, max_tokens: int) -> None:
        super().__init__(model, codec, max_tokens)
        if not codec.ends_open:
            self.suffix_ids = []

    @property
    def reader(self) -> nn.Module:
        """See :meth:`LanguageModel.reader`."""
        return self.model.base_model

    def _state(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """One pass over the prompt, read at its last token."""
        states = self.reader(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False
        ).last_hidden_state
        return _at_last_token(states, attention_mask)

    @cached_property
    @torch.no_grad()
    def shares_beginnings(self) -> bool:
        """Whether prompts can share the model's cache.

        A short prompt is tested, because few models declare it.
        A model with a short sliding window cannot, because the window also counts the padding
        between the parts of a prompt. Nor can a sharded model, whose processes may have different
        numbers of beginnings.
        """
        window = getattr(self.model.config, "sliding_window", None)
        if self.sharded or (window and window < 2 * self.max_tokens):
            return False
        ids = torch.tensor([[*self.prefix_ids, *self.answer_ids]] * 2, device=self.model.device)
        whole, ones = ids[:1, [*range(ids.shape[1]), -1, -2]], torch.ones_like
        parts = (part.cpu() for part in (ids, whole[:, ids.shape[1] :].repeat(2, 1)))
        beginnings, endings = (TokenBatch(part, ones(part)) for part in parts)
        try:
            ours = self.hidden_after(beginnings, endings, torch.tensor([0, 1]), len(ids))
        except (AttributeError, NotImplementedError, TypeError, ValueError, RuntimeError):
            return False
        return self._agree(ours, self.hidden(whole, ones(whole)))

    @torch.no_grad()
    @torch.compiler.set_stance("force_eager")  # compiled code would depend on the cache's length
    def hidden_after(
        self, beginnings: TokenBatch, endings: TokenBatch, of: Tensor, tokens: int
    ) -> Tensor:  # [p, t], [b, s], [b] -> [b, h]
        """See :meth:`LanguageModel.hidden_after`; keys and values of the beginnings are cached."""
        device, model = self.model.device, self.reader
        known = signature(type(model).forward).parameters
        name = "cache" if "cache" in known else "past_key_values"  # the latter in older releases
        ids, mask = beginnings.to(device)
        states = torch.empty(len(of), self.hidden_size, dtype=self.model.dtype, device=device)
        with self.precision(ids):
            cache = model(input_ids=ids, attention_mask=mask, use_cache=True)[name]
            for part, ending in endings.pieces(tokens):
                prompts, last = ending.to(device)
                beginning, again = of[part].to(device), copy.deepcopy(cache)
                again.batch_select_indices(beginning)
                place = torch.arange(prompts.shape[1], device=device)
                output = model(
                    input_ids=prompts,
                    attention_mask=torch.cat([mask[beginning], last], dim=1),
                    position_ids=mask.sum(dim=1)[beginning][:, None] + place,
                    use_cache=True,
                    **{name: again},
                ).last_hidden_state
                states[part.to(device)] = _at_last_token(output, last).to(states)
        return states

    def own_logits(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """See :meth:`LanguageModel.own_logits`."""
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return _at_last_token(logits, attention_mask).float()


def _at_last_token(states: Tensor, attention_mask: Tensor) -> Tensor:  # [b, t, x], [b, t] -> [b, x]
    last = (attention_mask.sum(dim=1) - 1).to(states.device)
    return states[torch.arange(len(states), device=states.device), last]
