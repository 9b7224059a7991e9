"""Pretrained backbones, whatever their family: from a folder, a hub's repository or a GGUF file."""

from typing import Any

import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from recbole_e2urec import processes
from recbole_e2urec.errors import InputError
from recbole_e2urec.llm.base import LanguageModel
from recbole_e2urec.llm.causal import CausalLM
from recbole_e2urec.llm.chat import ChatCodec
from recbole_e2urec.llm.codec import PromptCodec
from recbole_e2urec.llm.quantization import quantized_as
from recbole_e2urec.llm.reading import Reader
from recbole_e2urec.llm.seq2seq import Seq2SeqLM
from recbole_e2urec.llm.settings import DTYPES, BackboneOptions
from recbole_e2urec.llm.sources import find_source
from recbole_e2urec.llm.t5 import T5LM


def load_pretrained(options: BackboneOptions) -> LanguageModel:
    """Load a language model and its tokenizer, in evaluation mode.

    Weights of a GGUF file are unpacked to ``options.dtype``, whatever they are in the file.

    Raises:
        InputError: out of reach, not a whole language model, or options that do not suit it.
    """
    if not processes.is_writer():
        transformers.utils.logging.disable_progress_bar()
    read = Reader(options.name, find_source(options.source or options.name))
    config = read(AutoConfig.from_pretrained)
    _check(options, read, config)
    tokenizer = read(AutoTokenizer.from_pretrained)
    make_codec = ChatCodec if options.chat else PromptCodec
    codec = make_codec(tokenizer, (options.answer_no, options.answer_yes))
    model = _load_model(options, read, config)
    limit = _most_tokens(options.max_tokens, tokenizer, config)
    language_model = _family(config, options)(model.eval(), codec, limit)
    language_model.spread = options.device_map is not None
    if not language_model.agrees_with_its_model():
        raise InputError(
            f"backbone {options.name!r} ({config.model_type}) does more to its logits than scale "
            "or cap them, which is not supported; T5, BART, Llama, Qwen, Mistral, Gemma and GPT-2 "
            "are"
        )
    return language_model


def _check(options: BackboneOptions, read: Reader, config: Any) -> None:
    """Refuse options that do not suit the architecture, before its weights are read."""
    if options.dtype == "float16" and "t5" in config.model_type:
        raise InputError(
            f"backbone {options.name!r} is a T5, which overflows in float16; "
            "use backbone_dtype bfloat16 or float32"
        )
    if options.chat and config.is_encoder_decoder:
        raise InputError(
            f"backbone_chat: {options.name!r} ({config.model_type}) answers in a decoder of its "
            "own, not in a turn of a chat; leave it out"
        )
    if options.quantization and read.source.gguf:
        raise InputError(
            "backbone_quantization: a GGUF file is unpacked to backbone_dtype; leave it out"
        )


def _load_model(options: BackboneOptions, read: Reader, config: Any) -> Any:
    settings: dict[str, Any] = {"dtype": DTYPES[options.dtype], "use_safetensors": True}
    if options.quantization:
        settings["quantization_config"] = quantized_as(options.quantization, DTYPES[options.dtype])
    if options.device_map:
        settings.update(device_map=options.device_map, max_memory=options.max_memory)
    if read.source.gguf and hasattr(transformers, "GgufConfig"):  # else it unpacks them anyway
        settings["quantization_config"] = transformers.GgufConfig(dequantize=True)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model, info = read(auto.from_pretrained, config=config, output_loading_info=True, **settings)
    if info["missing_keys"]:
        raise InputError(
            f"backbone {options.name!r} is no complete language model: "
            f"{len(info['missing_keys'])} weights are missing, {min(info['missing_keys'])} first"
        )
    if any(weight.device.type == "meta" for weight in model.parameters()):
        raise InputError(
            "backbone_device_map: the devices do not hold the whole backbone, and what is read "
            "again for each pass cannot be trained on; raise backbone_max_memory, take "
            "backbone_quantization or backbone_dtype: bfloat16, or more GPUs"
        )
    if read.source.gguf and getattr(model, "hf_quantizer", None) is not None:
        model.hf_quantizer.remove_quantization_config(model)  # plain weights now
    return model


def _family(config: Any, options: BackboneOptions) -> type[LanguageModel]:
    # 8-bit layers round what they are given, so T5LM's other order of the same products differs; it
    # also takes layers apart, whose parts then do not find their inputs' device.
    plain = options.quantization is None and options.device_map is None
    if config.model_type in ("t5", "mt5") and plain:
        return T5LM
    return Seq2SeqLM if config.is_encoder_decoder else CausalLM


def _most_tokens(wanted: int, tokenizer: Any, config: Any) -> int:
    """The wanted prompt length, cut to what the tokenizer and the position table allow."""
    limits = [wanted, tokenizer.model_max_length]
    limits.append(getattr(config, "max_position_embeddings", None) or wanted)
    return int(min(limits))
