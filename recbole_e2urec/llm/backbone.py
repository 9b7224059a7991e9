"""The backbone by its name: embedded, or loaded from where its files are."""

from collections.abc import Iterable
from typing import Any

from recbole_e2urec.errors import InputError
from recbole_e2urec.llm.base import LanguageModel
from recbole_e2urec.llm.embedded import EMBEDDED, EmbeddedOptions, build_embedded
from recbole_e2urec.llm.pretrained import load_pretrained
from recbole_e2urec.llm.settings import DTYPES, BackboneOptions

__all__ = ["BackboneOptions", "load_backbone"]


def load_backbone(
    options: BackboneOptions,
    catalogue_texts: Iterable[str],
    seed: int,
    size: EmbeddedOptions | None = None,
) -> LanguageModel:
    """Load or build the language model, in evaluation mode, on the CPU unless it is quantised.

    Args:
        options: which one.
        catalogue_texts: item titles and template words: the vocabulary of an embedded backbone
            (others ignore them). No user data.
        seed: of an embedded backbone's weights; the global random state stays untouched.
        size: of an embedded backbone; the default size if None.

    Raises:
        InputError: the name is unknown or out of reach, the folder is not a usable language model,
            an answer word is not one token, or an option does not work with it or here.
    """
    if options.name in EMBEDDED:
        language_model = _build(options, catalogue_texts, seed, size or EmbeddedOptions())
    else:
        language_model = load_pretrained(options)
    if options.attention:
        _attend(language_model, options.attention)
    if options.gradient_checkpointing:
        # The reentrant kind gives a LoRA adapter on a frozen backbone no gradient at all.
        language_model.model.gradient_checkpointing_enable({"use_reentrant": False})
    if options.compile:
        _compile(language_model)
    return language_model


def _build(
    options: BackboneOptions, texts: Iterable[str], seed: int, size: EmbeddedOptions
) -> LanguageModel:
    """Build an embedded backbone, for which nothing is read."""
    given = {
        "source": options.source,
        "chat": options.chat or None,
        "quantization": options.quantization,
    }
    for key, value in given.items():
        if value is not None:
            raise InputError(f"backbone_{key}: {options.name} is made on the spot; leave it out")
    answers = (options.answer_no, options.answer_yes)
    built = build_embedded(options.name, size, texts, answers, options.max_tokens, seed)
    return built.to(DTYPES[options.dtype])


def _attend(language_model: LanguageModel, attention: str) -> None:
    """Have attention computed in another way, tried on a short prompt."""
    model: Any = language_model.model
    reason = ""
    try:
        model.set_attn_implementation(attention)
        if language_model.agrees_with_its_model():
            return
    except Exception as error:  # of whatever kernel
        reason = f" ({' '.join(str(error).split())[:200]})"
    raise InputError(
        f"backbone_attention: {attention} does not work with this backbone here; choose eager or "
        f"sdpa, or leave it out{reason}"
    )


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
