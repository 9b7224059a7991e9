"""Embedded backbones: a small T5 and Llama with a word tokenizer, which need no download."""

from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable
from typing import Any

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.errors import InputError
from recbole_e2urec.model.backbones.causal import CausalLM
from recbole_e2urec.model.backbones.language_model import LanguageModel
from recbole_e2urec.model.backbones.lora import seeded
from recbole_e2urec.model.backbones.seq2seq import EagerT5LM
from recbole_e2urec.model.backbones.tokenizer import PromptCodec

SPECIAL = ("<pad>", "</s>", "<s>")
SPELLING = [f"<0x{byte:02X}>" for byte in range(256)]
PRINTABLE = [chr(code) for code in range(33, 127)]
# Ages, stars, counts, and the groups of three digits into which longer numbers are split.
NUMBERS = [f"{number:0{width}d}" for width in (1, 2, 3) for number in range(10**width)]
# A year in brackets is one word, because most film titles end in one. Numbers of five digits or
# more, such as zip codes, are split into groups of three digits. Then follow words with inner
# apostrophes, points and hyphens, and single signs.
WORD = r"\(\d{4}\)|\d{3}(?=\d\d)|\w+(?:['\u2019.\-]\w+)*|[^\w\s]"


class Words(list[str]):
    """A vocabulary that is made already, in the order of its ids; in the place of its texts."""


def word_tokenizer(texts: Iterable[str], max_words: int, template: str) -> PreTrainedTokenizerFast:
    """Build a tokenizer whose vocabulary is the words of ``texts`` and numbers to 999.

    Case and accents are kept. Spaces only separate words, so tokenising texts one by one gives the
    same ids as tokenising them joined by a space or a line break. A word outside the vocabulary
    falls back to its characters and a character outside it to its UTF-8 bytes: two different words
    never become the same ids, and there is no unknown token.

    Args:
        texts: item titles, the words of the prompt templates and, where these show them, users'
            tokens. Or the finished vocabulary, as :class:`Words`.
        max_words: number of the most frequent words to keep whole; others are spelled by
            characters.
        template: special tokens around a prompt, with ``$A`` for the prompt (``"$A </s>"``).

    Returns:
        The tokenizer; ids depend on the texts only, not on their order.
    """
    splitter = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(WORD), "isolated")]
    )
    made = isinstance(texts, Words)
    tokens = texts if made else _vocabulary(_count_words(texts, splitter), max_words)
    ids = {token: index for index, token in enumerate(tokens)}
    model = models.BPE(vocab=ids, merges=[], byte_fallback=True, ignore_merges=True)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = splitter
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(token, ids[token]) for token in SPECIAL]
    )
    pad, end, begin = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        eos_token=end,
        bos_token=begin,
        model_input_names=["input_ids", "attention_mask"],
    )


def _count_words(texts: Iterable[str], splitter: pre_tokenizers.PreTokenizer) -> Counter[str]:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for word, _ in splitter.pre_tokenize_str(text))
    return counts


def _vocabulary(counts: Counter[str], max_words: int) -> list[str]:
    """List special tokens, bytes, characters, numbers, then words by frequency; each once."""
    characters = sorted(set().union(*counts) | set(PRINTABLE))
    words = sorted(counts, key=lambda word: (-counts[word], word))[:max_words]
    return list(dict.fromkeys([*SPECIAL, *SPELLING, *characters, *NUMBERS, *words]))


def shown_words(tokenizer: PreTrainedTokenizerFast, shown: Container[int]) -> Words:
    """Return the vocabulary of a word tokenizer without words that no text shows.

    All others keep their ids. Something that no text can hold stands in the place of what is left
    out.

    Args:
        tokenizer: made by :func:`word_tokenizer`.
        shown: ids of the tokens that texts show.
    """
    always = {*SPECIAL, *SPELLING, *PRINTABLE, *NUMBERS}
    ids = tokenizer.get_vocab()
    return Words(
        token if token in always or ids[token] in shown else f"<erased {ids[token]}>"
        for token in sorted(ids, key=ids.__getitem__)
    )


TEMPLATES = {"tiny-t5": "$A </s>", "tiny-llama": "<s> $A"}  # special tokens around a prompt


def without_words(
    name: str, tokenizer: PreTrainedTokenizerFast, hidden: Collection[int]
) -> PreTrainedTokenizerFast:
    """Make an embedded backbone's tokenizer without some words; all others keep their ids.

    Args:
        name: the backbone, a key of :data:`EMBEDDED`.
        tokenizer: its tokenizer.
        hidden: ids of these words.
    """
    shown = set(range(len(tokenizer))).difference(hidden)
    return word_tokenizer(shown_words(tokenizer, shown), 0, TEMPLATES[name])


# Eager attention trains faster than the fused kernel at these widths on a CPU.
ATTENTION = "eager"


@option_class(prefix="backbone_")
class EmbeddedOptions:
    """Size of an embedded backbone."""

    d_model: int = option(
        "Width of the hidden states, a multiple of twice backbone_heads.", ge=1, default=64
    )
    d_ff: int = option("Width of the feed-forward layers.", ge=1, default=128)
    layers: int = option("Encoder layers of a T5, or layers of a Llama.", ge=1, default=1)
    decoder_layers: int = option("Decoder layers of a T5; a Llama ignores it.", ge=1, default=1)
    heads: int = option("Attention heads.", ge=1, default=2)
    dropout: float = option(
        "Share of activations (of a Llama: attention weights) dropped in training.",
        ge=0,
        lt=1,
        default=0.0,
    )
    init: float = option(
        "A T5's initializer_factor; its own default, 1.0, makes embeddings so large that a small "
        "model hardly moves them. A Llama ignores it.",
        default=0.1,
    )
    max_words: int = option(
        "Most words that the tokenizer keeps whole; it spells rarer ones.", ge=1, default=30_000
    )

    def __post_init__(self) -> None:
        """Refuse a width that is not a multiple of twice the number of heads."""
        if self.d_model % (2 * self.heads):
            raise InputError(
                f"backbone_d_model {self.d_model} is not a multiple of twice backbone_heads "
                f"{self.heads}; try {2 * self.heads * max(1, self.d_model // (2 * self.heads))}"
            )


def build_embedded(
    name: str,
    options: EmbeddedOptions,
    texts: Iterable[str],
    answers: tuple[str, str],
    max_tokens: int,
    seed: int,
) -> LanguageModel:
    """Build an embedded backbone with weights drawn from ``seed``.

    Args:
        name: a key of :data:`EMBEDDED`.
        options: its size.
        texts: texts of the vocabulary, see :func:`word_tokenizer`.
        answers: the answer words (no, yes); they join the vocabulary.
        max_tokens: longest prompt in tokens.
        seed: seed of the weights; the global random state is neither read nor changed.

    Returns:
        The model in evaluation mode, on the CPU in float32. The same texts, options and seed give
        the same weights bit for bit.
    """
    texts = texts if isinstance(texts, Words) else [*texts, *answers]
    return EMBEDDED[name](options, texts, answers, max_tokens, seed)


def _tiny_t5(
    options: EmbeddedOptions,
    texts: list[str],
    answers: tuple[str, str],
    max_tokens: int,
    seed: int,
) -> LanguageModel:
    tokenizer = word_tokenizer(texts, options.max_words, TEMPLATES["tiny-t5"])
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=options.d_model,
        d_kv=options.d_model // options.heads,
        d_ff=options.d_ff,
        num_layers=options.layers,
        num_decoder_layers=options.decoder_layers,
        num_heads=options.heads,
        dropout_rate=options.dropout,
        initializer_factor=options.init,
        **_special_ids(tokenizer, decoder_start_token_id=tokenizer.pad_token_id),
    )
    model = _untrained(T5ForConditionalGeneration, config, seed)
    return EagerT5LM(model, PromptCodec(tokenizer, answers), max_tokens)


def _tiny_llama(
    options: EmbeddedOptions,
    texts: list[str],
    answers: tuple[str, str],
    max_tokens: int,
    seed: int,
) -> LanguageModel:
    tokenizer = word_tokenizer(texts, options.max_words, TEMPLATES["tiny-llama"])
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=options.d_model,
        intermediate_size=options.d_ff,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        max_position_embeddings=max_tokens,
        attention_dropout=options.dropout,
        tie_word_embeddings=True,
        **_special_ids(tokenizer, bos_token_id=tokenizer.bos_token_id),
    )
    model = _untrained(LlamaForCausalLM, config, seed)
    return CausalLM(model, PromptCodec(tokenizer, answers), max_tokens)


def _untrained(
    architecture: type[PreTrainedModel], config: PretrainedConfig, seed: int
) -> PreTrainedModel:
    config._attn_implementation = ATTENTION
    with seeded(seed):
        return architecture(config).eval()


def _special_ids(tokenizer: PreTrainedTokenizerFast, **more: int) -> dict[str, Any]:
    return {
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        **more,
    }


EMBEDDED: dict[str, Callable[..., LanguageModel]] = {"tiny-t5": _tiny_t5, "tiny-llama": _tiny_llama}
