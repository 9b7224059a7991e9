"""The backbone by its name: embedded, a local folder or a hub id."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants
from huggingface_hub.utils import get_session
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from recbole_e2urec.data.nearest import nearest
from recbole_e2urec.errors import InputError
from recbole_e2urec.llm.base import LanguageModel
from recbole_e2urec.llm.causal import CausalLM
from recbole_e2urec.llm.codec import PromptCodec
from recbole_e2urec.llm.embedded import EMBEDDED, EmbeddedOptions, build_embedded
from recbole_e2urec.llm.seq2seq import Seq2SeqLM
from recbole_e2urec.llm.t5 import T5LM

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
HUB_SECONDS = 5.0
LOAD_ERRORS = (OSError, ValueError, ImportError, RuntimeError, SafetensorError)


@dataclass(frozen=True)
class BackboneOptions:
    """Which language model, and how it answers; the keys begin with ``backbone_`` unless named.

    Attributes:
        name: an embedded name (``tiny-t5``, ``tiny-llama``), a local folder or a hub id.
        answer_yes: the word for label 1; one token.
        answer_no: the word for label 0; one token.
        dtype: of the weights: float32, bfloat16 or float16 (T5 overflows in float16).
        max_tokens: longest prompt in tokens; cut to what the model takes.
        gradient_checkpointing: recompute activations in backward: less memory, more time.
        compile: read prompts by code that torch.compile makes: minutes at first, then faster. On a
            CPU it needs a C++ compiler.
    """

    name: str = field(default="tiny-t5", metadata={"key": "backbone"})
    answer_yes: str = field(default="Yes", metadata={"key": "answer_yes"})
    answer_no: str = field(default="No", metadata={"key": "answer_no"})
    dtype: str = "float32"
    max_tokens: int = field(default=512, metadata={"key": "max_prompt_tokens"})
    gradient_checkpointing: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        if self.dtype not in DTYPES:
            raise InputError(f"backbone_dtype is {self.dtype!r}; choose from {', '.join(DTYPES)}")
        if self.max_tokens < 1:
            raise InputError(f"max_prompt_tokens is {self.max_tokens}; it must be at least 1")


def load_backbone(
    options: BackboneOptions,
    catalogue_texts: Iterable[str],
    seed: int,
    size: EmbeddedOptions | None = None,
) -> LanguageModel:
    """Load or build the language model, in evaluation mode, on the CPU.

    Args:
        options: which one.
        catalogue_texts: item titles and template words: the vocabulary of an embedded backbone
            (others ignore them). No user data.
        seed: of an embedded backbone's weights; the global random state stays untouched.
        size: of an embedded backbone; the default size if None.

    Raises:
        InputError: the name is unknown or out of reach, the folder is not a usable language model,
            an answer word is not one token, or torch.compile does not work here.
    """
    answers = (options.answer_no, options.answer_yes)
    if options.name in EMBEDDED:
        size = size or EmbeddedOptions()
        language_model = build_embedded(
            options.name, size, catalogue_texts, answers, options.max_tokens, seed
        ).to(DTYPES[options.dtype])
    else:
        language_model = _load_pretrained(options, answers)
    if options.gradient_checkpointing:
        # The reentrant kind gives a LoRA adapter on a frozen backbone no gradient at all.
        language_model.model.gradient_checkpointing_enable({"use_reentrant": False})
    if options.compile:
        _compile(language_model)
    return language_model


def _compile(language_model: LanguageModel) -> None:
    """Let torch compile the model, tried on a short prompt: it does so only when first asked."""
    language_model.reader.compile(dynamic=True)
    try:
        language_model.agrees_with_its_model()
    except Exception as error:  # of whatever compiler
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"backbone_compile does not work here: leave it out, or install a C++ compiler "
            f"({reason})"
        ) from error


def _load_pretrained(options: BackboneOptions, answers: tuple[str, str]) -> LanguageModel:
    config = _read(options.name, AutoConfig.from_pretrained)
    if options.dtype == "float16" and "t5" in config.model_type:
        raise InputError(
            f"backbone {options.name!r} is a T5, which overflows in float16; "
            "use backbone_dtype bfloat16 or float32"
        )
    tokenizer = _read(options.name, AutoTokenizer.from_pretrained)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model, info = _read(
        options.name,
        auto.from_pretrained,
        dtype=DTYPES[options.dtype],
        use_safetensors=True,
        output_loading_info=True,
    )
    if info["missing_keys"]:
        raise InputError(
            f"backbone {options.name!r} is no complete language model: "
            f"{len(info['missing_keys'])} weights are missing, {min(info['missing_keys'])} first"
        )
    codec = PromptCodec(tokenizer, answers)
    limit = _most_tokens(options.max_tokens, tokenizer, config)
    language_model = _family(config)(model.eval(), codec, limit)
    if not language_model.agrees_with_its_model():
        raise InputError(
            f"backbone {options.name!r} ({config.model_type}) does more to its logits than one "
            "matrix product, which is not supported; T5, BART, Llama, Qwen, Mistral and GPT-2 are"
        )
    return language_model


def _family(config: Any) -> type[LanguageModel]:
    if config.model_type in ("t5", "mt5"):
        return T5LM
    return Seq2SeqLM if config.is_encoder_decoder else CausalLM


def _most_tokens(wanted: int, tokenizer: Any, config: Any) -> int:
    """The wanted prompt length, cut to what the tokenizer and the position table allow."""
    limits = [wanted, tokenizer.model_max_length]
    limits.append(getattr(config, "max_position_embeddings", None) or wanted)
    return int(min(limits))


def _read(name: str, load: Callable[..., Any], **settings: Any) -> Any:
    """Read a part of a model from a folder or the local cache, else from the hub."""
    try:
        return load(name, local_files_only=True, **settings)
    except LOAD_ERRORS as error:
        if _is_path(name) or not _hub_answers():
            raise _unreachable(name, error) from error
    try:
        return load(name, **settings)
    except LOAD_ERRORS as error:
        raise _unreachable(name, error) from error


def _hub_answers() -> bool:
    """Ask the hub once, for a few seconds; its own client would retry for half a minute."""
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
    except Exception:  # the HTTP library below, and so its errors, differ by hub version
        return False
    return True


def _is_path(name: str) -> bool:
    return Path(name).exists() or name.startswith(("/", ".", "~")) or name.count("/") > 1


def _unreachable(name: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200]
    return InputError(
        f"backbone {name!r} cannot be loaded; {nearest(name, EMBEDDED)} A local folder or a hub id "
        f"in the Hugging Face cache or within reach would do too ({reason})"
    )
