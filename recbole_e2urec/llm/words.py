"""A word-level tokenizer made from the item catalogue: short prompts for small backbones."""

from collections import Counter
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

SPECIAL = ("<pad>", "</s>", "<s>")
# Ages, stars, counts, and the groups of three digits that longer numbers are split into.
NUMBERS = [f"{number:0{width}d}" for width in (1, 2, 3) for number in range(10**width)]
# A year in brackets is one word (most film titles end in one); numbers of five digits or more (zip
# codes) give off groups of three; then words with inner apostrophes,
# points and hyphens; then single signs.
WORD = r"\(\d{4}\)|\d{3}(?=\d\d)|\w+(?:['\u2019.\-]\w+)*|[^\w\s]"


def word_tokenizer(texts: Iterable[str], max_words: int, template: str) -> PreTrainedTokenizerFast:
    """Build a tokenizer whose vocabulary is the words of ``texts`` and numbers to 999.

    Case and accents are kept. Spaces only separate words, so tokenising texts one by one gives the
    same ids as tokenising them joined by a space or a line break. A word outside the vocabulary
    falls back to its characters and a character outside it to its UTF-8 bytes: two different words
    never become the same ids, and there is no unknown token.

    Args:
        texts: item titles, the words of the prompt templates and, where these show them, users'
            tokens.
        max_words: the most frequent words to keep whole; the others are spelled by characters.
        template: the special tokens around a prompt, ``$A`` the prompt (``"$A </s>"``).

    Returns:
        The tokenizer; ids depend on the texts only, not on their order.
    """
    splitter = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(WORD), "isolated")]
    )
    tokens = _vocabulary(_count_words(texts, splitter), max_words)
    ids = {token: index for index, token in enumerate(tokens)}
    model = models.BPE(vocab=ids, merges=[], byte_fallback=True, ignore_merges=True)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = splitter
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(token, ids[token]) for token in SPECIAL]
    )
    pad, end, begin = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, eos_token=end, bos_token=begin
    )


def _count_words(texts: Iterable[str], splitter: pre_tokenizers.PreTokenizer) -> Counter[str]:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for word, _ in splitter.pre_tokenize_str(text))
    return counts


def _vocabulary(counts: Counter[str], max_words: int) -> list[str]:
    """Specials, bytes, characters, numbers, then words by frequency; each once."""
    characters = sorted(set().union(*counts) | set(map(chr, range(33, 127))))
    spelling = [f"<0x{byte:02X}>" for byte in range(256)]
    words = sorted(counts, key=lambda word: (-counts[word], word))[:max_words]
    return list(dict.fromkeys([*SPECIAL, *spelling, *characters, *NUMBERS, *words]))
