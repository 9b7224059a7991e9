"""Encoder-decoder backbones: T5, Flan-T5, mT5, BART."""

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from recbole_e2urec.llm.base import LanguageModel
from recbole_e2urec.llm.codec import PromptCodec


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
        # T5 shrinks what its head reads when head and embeddings are one matrix; transformers keeps
        # that fact in a field of its own because it ties them in every T5.
        scaled = bool(getattr(config, "scale_decoder_outputs", False))
        self.scale: float = config.d_model**-0.5 if scaled else 1.0

    @property
    def reader(self) -> nn.Module:
        """See :meth:`LanguageModel.reader`."""
        return self.model.get_encoder()

    def _state(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """One pass of the encoder and one decoder step; T5's scaling is already applied."""
        read = self.reader(input_ids=input_ids, attention_mask=attention_mask)
        return self._decode(input_ids, read.last_hidden_state, attention_mask) * self.scale

    def _decode(self, input_ids: Tensor, read: Tensor, attention_mask: Tensor) -> Tensor:
        """One decoder step upon what the encoder read: [b, t], [b, t, d], [b, t] -> [b, d]."""
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
