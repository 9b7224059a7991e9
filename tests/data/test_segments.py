from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recbole_e2urec.data.prompt_table import SegmentStore, Wording, prompt_texts
from recbole_e2urec.data.rows import RowTable
from recbole_e2urec.data.templates import PromptTemplate

TEMPLATE = PromptTemplate(
    entry="{{ title }}{% if rating %} {{ rating }}/{{ rating_max }}{% endif %}",
    question="like {{ title }} ?",
    tail="{% if rated %}stars{% else %}plain{% endif %}",
)
TITLES, TOKENS = ["", "Heat", "Babe"], ["", "7", "8"]


def rows(rating):
    user, item = np.array([1, 1, 2]), np.array([1, 2, 1])
    return RowTable(user, item, np.arange(3.0), rating, None)


def test_prompt_texts_render_each_distinct_entry_once():
    texts = prompt_texts(Wording(TEMPLATE, TITLES, TOKENS), rows(np.array([4.0, 2.5, 4.0])))
    assert texts.entries == ["Heat 4/4\n", "Babe 2.5/4\n"]
    assert texts.entry_of_row.tolist() == [0, 1, 0]


def test_prompt_texts_ask_about_every_item_but_the_padding():
    wording = Wording(TEMPLATE, [*TITLES, "Seven"], [*TOKENS, "9"])
    texts = prompt_texts(wording, rows(np.array([4.0, 2.5, 4.0])))
    assert texts.questions == [
        "",
        "like Heat ?\nstars",
        "like Babe ?\nstars",
        "like Seven ?\nstars",
    ]


def test_prompt_texts_name_an_item_by_its_token_in_the_data():
    template = PromptTemplate(entry="{{ title }} i{{ item }}", question="i{{ item }} {{ title }} ?")
    texts = prompt_texts(Wording(template, TITLES, TOKENS), rows(None))
    assert texts.entries == ["Heat i7\n", "Babe i8\n"]
    assert texts.questions == ["", "i7 Heat ?", "i8 Babe ?"]


def test_prompt_texts_without_ratings_have_no_rating_words():
    texts = prompt_texts(Wording(TEMPLATE, TITLES, TOKENS), rows(None))
    assert texts.entries == ["Heat\n", "Babe\n"]
    assert texts.questions[1] == "like Heat ?\nplain"


def test_prompt_texts_of_missing_ratings_have_no_rating_words():
    texts = prompt_texts(Wording(TEMPLATE, TITLES, TOKENS), rows(np.full(3, np.nan)))
    assert texts.entries == ["Heat\n", "Babe\n"]


def test_prompt_texts_without_features_know_no_user():
    assert prompt_texts(Wording(TEMPLATE, TITLES, TOKENS), rows(None)).users == ["", "", ""]


def test_prompt_texts_name_a_user_by_the_token_in_the_data():
    template = replace(TEMPLATE, user="u{{ user }} {{ features.values() | join(' ') }}")
    wording = Wording(template, TITLES, TOKENS, user_tokens=["", "a7", "b8"])
    texts = prompt_texts(wording, rows(None))
    assert (texts.users, texts.name_users) == (["", "ua7 ", "ub8 "], True)
    texts = prompt_texts(wording._replace(users=[{}, {"age": "24"}, {}]), rows(None))
    assert texts.users == ["", "ua7 24\n", "ub8 "]
    assert not prompt_texts(wording._replace(template=TEMPLATE), rows(None)).name_users


def encode(texts):
    return [[ord(letter) for letter in text] for text in texts]


@given(st.lists(st.text(alphabet="ab ", max_size=6), max_size=10), st.data())
def test_segment_store_gathers_what_it_was_given(texts, data):
    store = SegmentStore.from_texts(texts, encode)
    chosen = data.draw(st.lists(st.sampled_from(range(len(texts))), max_size=6)) if texts else []
    tokens = store.gather(np.array(chosen, dtype=np.int64))
    assert "".join(map(chr, tokens)) == "".join(texts[place] for place in chosen)


def test_segment_store_shares_the_tokens_of_equal_texts():
    store = SegmentStore.from_texts(["ab", "", "c", "ab"], encode)
    assert store.tokens.tolist() == [97, 98, 99]
    assert store.starts[0] == store.starts[3]
    assert store.lengths.tolist() == [2, 0, 1, 2]
