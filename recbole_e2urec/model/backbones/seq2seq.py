"""Encoder-decoder backbones: T5, Flan-T5, mT5, BART."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from recbole_e2urec.model.backbones.language_model import LanguageModel
from recbole_e2urec.model.backbones.tokenizer import PromptCodec


class Seq2SeqLM(LanguageModel):
    """Answers at the first decoder position, after the model's own start token.

    The encoder and one decoder step are called directly: no key-value cache is made, and the head
    runs only when asked.
    """

    task_type = "SEQ_2_SEQ_LM"

    def __init__(self, model: PreTrainedModel, codec: PromptCodec, max_tokens: int) -> None:
        super().__init__(model, codec, max_tokens)
        config = model.config
        starts = [
            getattr(settings, "decoder_start_token_id", None)
            for settings in (config, model.generation_config)
        ]
        self.start_id: int = next((x for x in starts if x is not None), codec.pad_id)
        # T5 scales down the states that its head reads if head and embeddings are one matrix.
        # transformers ties them in every T5, so it stores that fact in a field of its own.
        scaled = bool(getattr(config, "scale_decoder_outputs", False))
        self.scale: float = config.d_model**-0.5 if scaled else 1.0

    @property
    def reader(self) -> nn.Module:
        """See :meth:`LanguageModel.reader`."""
        return self.model.get_encoder()

    @property
    def readers(self) -> list[nn.Module]:
        """See :meth:`LanguageModel.readers`."""
        return [self.reader, self.model.get_decoder()]

    def _state(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """One pass of the encoder and one decoder step; T5's scaling is already applied."""
        read = self._read(input_ids, attention_mask)
        return self._decode(input_ids, read, attention_mask) * self.scale

    def _read(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Let the encoder read prompts: [b, t], [b, t] -> [b, t, d]."""
        read: Any = self.reader(input_ids=input_ids, attention_mask=attention_mask)
        return read.last_hidden_state

    def _decode(self, input_ids: Tensor, read: Tensor, attention_mask: Tensor) -> Tensor:
        """One decoder step on the encoder's states: [b, t], [b, t, d], [b, t] -> [b, d]."""
        step: Any = self.model.get_decoder()(
            input_ids=self._start(input_ids),
            encoder_hidden_states=read,
            encoder_attention_mask=attention_mask,
            use_cache=False,
        )
        return step.last_hidden_state[:, 0]

    def own_logits(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """See :meth:`LanguageModel.own_logits`."""
        answer = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=self._start(input_ids),
        )
        return answer.logits[:, 0].float()

    def _start(self, input_ids: Tensor) -> Tensor:
        return input_ids.new_full((len(input_ids), 1), self.start_id)


class T5LM(Seq2SeqLM):
    """T5 and mT5: one decoder position, without keys and values of the encoder's states.

    Each head has a single query q. Its score for a token x is ``q (K x) = (K' q) x``, and its
    output is ``sum of a_t (V x_t) = V (sum of a_t x_t)``. Both matrices are therefore applied once
    instead of once for each token. LoRA's dropout, if any, then applies to the sum instead of to
    each token. In self-attention, the only decoder position attends to itself.
    """

    def _decode(self, input_ids: Tensor, read: Tensor, attention_mask: Tensor) -> Tensor:
        """See :meth:`Seq2SeqLM._decode`."""
        decoder = self.model.get_decoder()
        state = decoder.dropout(decoder.embed_tokens(self._start(input_ids)))  # [b, 1, d]
        for block in decoder.block:
            itself, other, forward = block.layer
            heard = _alone(itself.SelfAttention, itself.layer_norm(state))
            state = state + itself.dropout(heard)
            normed = other.layer_norm(state)
            heard = _attended(other.EncDecAttention, normed, read, attention_mask)
            state = forward(state + other.dropout(heard))
        return decoder.dropout(decoder.final_layer_norm(state))[:, 0]


class EagerT5LM(T5LM):
    """A T5 whose layers attend eagerly, without what transformers' encoder does in vain.

    It multiplies the scores by 1, copies them for position bias and for mask, and looks up what it
    is to return. A small model learns a tenth faster without that. No number changes.
    """

    def _read(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """See :meth:`Seq2SeqLM._read`."""
        encoder: Any = self.model.get_encoder()
        is_compiled = encoder._compiled_call_impl is not None
        is_eager = encoder.config._attn_implementation == "eager"
        is_plain = self.model.dtype == torch.float32 and not self.mixed
        if is_compiled or encoder.gradient_checkpointing or not (is_eager and is_plain):
            return super()._read(input_ids, attention_mask)
        state = encoder.dropout(encoder.embed_tokens(input_ids))
        length = input_ids.shape[1]
        position = encoder.block[0].layer[0].SelfAttention.compute_bias(length, length)
        absent = (attention_mask == 0)[:, None, None] * torch.finfo(torch.float32).min
        for block in encoder.block:
            itself, forward = block.layer
            normed = itself.layer_norm(state)
            heard = _attended_by_all(itself.SelfAttention, normed, position, absent)
            state = forward(state + itself.dropout(heard))
        return encoder.dropout(encoder.final_layer_norm(state))


def _attended_by_all(
    attention: Any, state: Tensor, position: Tensor, absent: Tensor
) -> Tensor:  # [b, t, d], [1, heads, t, t], [b, 1, 1, t] -> [b, t, d]
    """Self-attention of all positions."""
    shape = *state.shape[:2], attention.n_heads, attention.key_value_proj_dim
    query, key, value = (
        layer(state).view(shape).transpose(1, 2)
        for layer in (attention.q, attention.k, attention.v)
    )
    scores = query @ key.transpose(2, 3)
    scores += position
    scores += absent
    weights = F.dropout(scores.softmax(dim=-1), attention.dropout, attention.training)
    return attention.o((weights @ value).transpose(1, 2).flatten(2))


def _alone(attention: Any, state: Tensor) -> Tensor:  # [b, 1, d] -> [b, 1, d]
    """Self-attention of a single position, which has all the weight."""
    value = attention.v(state).view(len(state), 1, attention.n_heads, -1)
    if not (attention.training and attention.dropout):
        return attention.o(value.flatten(2))
    weight = F.dropout(value.new_ones(*value.shape[:-1], 1), attention.dropout, attention.training)
    return attention.o((weight * value).flatten(2))


def _attended(
    attention: Any, state: Tensor, read: Tensor, mask: Tensor
) -> Tensor:  # [b, 1, d], [b, t, d], [b, t] -> [b, 1, d]
    """Cross-attention of a single position."""
    heads, width = attention.n_heads, attention.key_value_proj_dim
    queries = attention.q(state).view(len(state), heads, width)
    if type(attention.k) is nn.Linear:
        key = attention.k.weight.view(heads, width, -1)
        scores = torch.einsum("bhe,hed->bhd", queries, key) @ read.transpose(1, 2)
    else:  # an adapter or a quantised matrix
        keys = attention.k(read).view(len(read), -1, heads, width)
        scores = torch.einsum("bhe,bthe->bht", queries, keys)
    scores = scores.float().masked_fill(mask[:, None] == 0, torch.finfo(torch.float32).min)
    weights = scores.softmax(dim=-1).to(read.dtype)
    weights = F.dropout(weights, attention.dropout, attention.training)
    values = attention.v(weights @ read).view(len(read), heads, heads, width)
    return attention.o(
        torch.diagonal(values, dim1=1, dim2=2).transpose(1, 2).reshape(len(read), 1, -1)
    )
