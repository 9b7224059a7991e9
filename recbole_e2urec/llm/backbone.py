"""The backbone by its name: embedded, or loaded from where its files are."""

from collections.abc import Callable, Iterable
from typing import Any

from recbole_e2urec.errors import InputError, one_line
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
        catalogue_texts: item titles, template words and, where prompts show them, user tokens: the
            vocabulary of an embedded backbone (others ignore them). Nothing else about users.
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
    model: Any = language_model.model
    if options.attention:
        _tried(
            language_model,
            lambda: model.set_attn_implementation(options.attention),
            f"backbone_attention: {options.attention} does not work with this backbone here; "
            "choose eager or sdpa, or leave it out",
        )
    if options.gradient_checkpointing:
        # The reentrant kind gives a LoRA adapter on a frozen backbone no gradient at all.
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if options.compile:  # which torch does only when first asked
        _tried(
            language_model,
            lambda: language_model.reader.compile(dynamic=True),
            "backbone_compile does not work here: leave it out, or install a C++ compiler",
        )
    language_model.mixed = options.mixed
    return language_model


def _build(
    options: BackboneOptions, texts: Iterable[str], seed: int, size: EmbeddedOptions
) -> LanguageModel:
    """Build an embedded backbone, for which nothing is read."""
    given = {
        "source": options.source,
        "chat": options.chat or None,
        "quantization": options.quantization,
        "device_map": options.device_map,
    }
    for key, value in given.items():
        if value is not None:
            raise InputError(f"backbone_{key}: {options.name} is made on the spot; leave it out")
    answers = (options.answer_no, options.answer_yes)
    built = build_embedded(options.name, size, texts, answers, options.max_tokens, seed)
    return built.to(DTYPES[options.dtype])


def _tried(language_model: LanguageModel, change: Callable[[], Any], refusal: str) -> None:
    """Change how the model computes, and refuse what fails or alters a short prompt's answer."""
    reason = ""
    try:
        change()
        if language_model.agrees_with_its_model():
            return
    except Exception as error:  # of whatever kernel or compiler
        reason = f" ({one_line(error)[:200]})"
    raise InputError(f"{refusal}{reason}")
