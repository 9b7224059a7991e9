"""What a run says about its backbone."""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from recbole_e2urec import processes
from recbole_e2urec.errors import InputError
from recbole_e2urec.llm.quantization import Quantization

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DeviceMap = Literal["auto", "balanced", "balanced_low_0", "sequential"]
Attention = Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"]


@dataclass(frozen=True)
class BackboneOptions:
    """Which language model, and how it answers; the keys begin with ``backbone_`` unless named.

    Attributes:
        name: an embedded name (``tiny-t5``, ``tiny-llama``), a name that ``properties/backbone``
            has a file for, or what ``source`` may be.
        answer_yes: the word for label 1; one token.
        answer_no: the word for label 0; one token.
        dtype: of the weights: float32, bfloat16 or float16 (T5 overflows in float16).
        mixed: read prompts in mixed precision, see :attr:`LanguageModel.mixed`.
        max_tokens: longest prompt in tokens; cut to what the model takes.
        gradient_checkpointing: recompute activations in backward: less memory, more time.
        compile: read prompts by code that torch.compile makes: minutes at first, then faster. On a
            CPU it needs a C++ compiler.
        source: a local folder, a hub id, a GGUF file or ``pip:package``; None = the name is one.
        attention: how attention is computed; None = as the model chooses.
        chat: put the prompt into the user's turn of the tokenizer's chat template.
        quantization: frozen weights in 4 or 8 bit, by bitsandbytes; None = in ``dtype``.
        device_map: how accelerate spreads the frozen layers over the GPUs; None = all on one.
        max_memory: most that each GPU may hold of them, as in ``{0: 20GiB, 1: 40GiB}``.
    """

    name: str = field(default="tiny-t5", metadata={"key": "backbone"})
    answer_yes: str = field(default="Yes", metadata={"key": "answer_yes"})
    answer_no: str = field(default="No", metadata={"key": "answer_no"})
    dtype: str = "float32"
    mixed: bool = field(default=False, metadata={"key": "enable_amp"})
    max_tokens: int = field(default=512, metadata={"key": "max_prompt_tokens"})
    gradient_checkpointing: bool = False
    compile: bool = False
    source: str | None = None
    attention: Attention | None = None
    chat: bool = False
    quantization: Quantization | None = None
    device_map: DeviceMap | None = None
    max_memory: dict[Any, Any] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        if self.dtype not in DTYPES:
            raise InputError(f"backbone_dtype is {self.dtype!r}; choose from {', '.join(DTYPES)}")
        if self.max_tokens < 1:
            raise InputError(f"max_prompt_tokens is {self.max_tokens}; it must be at least 1")
        if self.max_memory and not self.device_map:
            raise InputError("backbone_max_memory goes with backbone_device_map: auto")

    def check_tuning(self, tuning: str) -> None:
        """Refuse what cannot learn.

        Raises:
            InputError: all weights shall learn and are quantised or spread, or several processes
                shall have the same GPUs.
        """
        if tuning == "full" and self.quantization:
            raise InputError(
                "backbone_quantization: quantised weights cannot learn; choose tuning: lora"
            )
        if tuning == "full" and self.device_map:
            raise InputError("backbone_device_map: spread weights stay frozen; choose tuning: lora")
        if self.device_map and processes.count() > 1:
            raise InputError("backbone_device_map: one process has all GPUs; leave nproc out")
