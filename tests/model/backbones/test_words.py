from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_e2urec.model.backbones.tiny import word_tokenizer

TEXTS = ["Toy Story (1995)", "Léon: The Professional (1994)", "Schindler's List", "千と千尋"]
TOKENIZER = word_tokenizer([*TEXTS, "Yes", "No"], 1000, "$A </s>")


def ids(text):
    return TOKENIZER(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def words(text):
    return TOKENIZER.convert_ids_to_tokens(ids(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Toy Story (1995)", ["Toy", "Story", "(1995)"]),
        ("Léon: The Professional", ["Léon", ":", "The", "Professional"]),
        ("Schindler's List", ["Schindler's", "List"]),
        ("千と千尋", ["千と千尋"]),
        ("toy", ["t", "o", "y"]),
        ("Жé", ["<0xD0>", "<0x96>", "é"]),
        ("120 7", ["120", "7"]),
        ("<pad>", ["<", "p", "a", "d", ">"]),
        ("  two   spaces\n", ["t", "w", "o", "s", "p", "a", "c", "e", "s"]),
        ("", []),
    ],
)
def test_word_tokenizer_splits(text, expected):
    assert words(text) == expected


@given(st.lists(st.text(), max_size=4), st.sampled_from([" ", "\n", " \n "]))
def test_word_tokenizer_of_parts_equals_that_of_their_join(parts, separator):
    assert list(chain(*map(ids, parts))) == ids(separator.join(parts))


@given(st.text(st.characters(categories=["L", "Nd"]), min_size=1))
def test_word_tokenizer_loses_nothing_of_a_word(word):
    spelled = bytearray()
    for token in words(word):
        byte = token.startswith("<0x") and len(token) == 6
        spelled += bytes([int(token[3:5], 16)]) if byte else token.encode()
    assert spelled.decode() == word


def test_word_tokenizer_does_not_depend_on_the_order_of_the_texts():
    other = word_tokenizer(["No", "Yes", *reversed(TEXTS)], 1000, "$A </s>")
    assert other.get_vocab() == TOKENIZER.get_vocab()


def test_word_tokenizer_keeps_the_most_frequent_words_whole():
    small = word_tokenizer(["Star Wars", "Star Trek"], 1, "$A </s>")
    encoded = small("Star Wars", add_special_tokens=False)["input_ids"]
    assert small.convert_ids_to_tokens(encoded) == ["Star", "W", "a", "r", "s"]


def test_word_tokenizer_puts_the_special_tokens_around():
    assert TOKENIZER("Yes")["input_ids"] == [*ids("Yes"), TOKENIZER.eos_token_id]
