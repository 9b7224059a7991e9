from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_e2urec.data.history import history_rows
from recbole_e2urec.data.prompt_table import PromptTable, TokenLimits, Wording, prompt_texts
from recbole_e2urec.data.rows import RowTable
from recbole_e2urec.data.templates import FieldNames, PromptTemplate
from recbole_e2urec.errors import InputError

TEMPLATE = PromptTemplate(
    user="user {{ features.values() | join(' ') }}",
    history="seen",
    entry="{{ title }}{% if rating %} {{ rating }}{% endif %}",
    question="like {{ title }} ?",
)
INSTRUCTED = replace(TEMPLATE, instruction="{% if rated %}stars{% endif %} say yes or no")
TITLES = ["", *(f"film {'x ' * number}{number}" for number in range(1, 7))]
PAD, BOS, EOS = 0, 1, 2


class Words:
    """Encodes words as numbers from 10 on and counts the texts it was given."""

    def __init__(self):
        self.numbers, self.texts = {}, []

    def __call__(self, texts):
        self.texts += texts
        return [[self.number(word) for word in text.split()] for text in texts]

    def number(self, word):
        return self.numbers.setdefault(word, 10 + len(self.numbers))

    def decode(self, ids):
        words = {number: word for word, number in self.numbers.items()}
        return " ".join(words[number] for number in ids)


def make(user, item, rating, k=3, max_tokens=100, features=(), special=True, template=TEMPLATE):
    user, item = np.array(user, dtype=np.int64), np.array(item, dtype=np.int64)
    rating = None if rating is None else np.array(rating, dtype=np.float64)
    rows = RowTable(user, item, np.arange(len(user), dtype=np.float64), rating, None)
    history = history_rows(rows.user, rows.item, rows.time, np.ones(len(user), dtype=bool), k)
    words = Words()
    limits = TokenLimits(max_tokens, PAD, [BOS], [EOS]) if special else TokenLimits(max_tokens, PAD)
    tokens = [f"n{number}" for number in range(len(features))]
    wording = Wording(template, TITLES, TITLES, features, user_tokens=tokens)
    texts = prompt_texts(wording, rows)
    return PromptTable(rows, history, texts, words, limits), words


def prompts(table, words, rows, items=None):
    """The batch read back as texts, after checking its padding."""
    batch = table.batch(np.array(rows), None if items is None else np.array(items))
    texts = []
    for ids, mask in zip(batch.input_ids.tolist(), batch.attention_mask.tolist(), strict=True):
        length = sum(mask)
        assert mask == [1] * length + [0] * (len(mask) - length)
        assert set(ids[length:]) <= {PAD}
        assert (ids[0], ids[length - 1]) == (BOS, EOS)
        texts.append(words.decode(ids[1 : length - 1]))
    return texts


def reference(user, item, rating, row, target, k, room, features, instruction=""):
    """Join the parts of one prompt in plain Python, dropping what does not fit."""
    question = f"{instruction} like {TITLES[target]} ?".split()
    earlier = [r for r in range(row) if user[r] == user[row] and item[r] != item[row]][-k:]
    entries = [
        TITLES[item[r]].split() + ([] if rating is None else [str(rating[r])])
        for r in earlier
        if item[r] != target
    ]
    head = f"user {features[user[row]]['job']}".split() if features[user[row]] else []
    if len(head) + len(question) > room:
        head = []

    def size():
        return len(head) + len(question) + bool(entries) + sum(map(len, entries))

    while entries and size() > room:
        entries.pop(0)
    lead = ["seen"] if entries else []
    return " ".join(head + lead + [word for entry in entries for word in entry] + question)


@st.composite
def cases(draw):
    n = draw(st.integers(1, 12))
    user = draw(st.lists(st.integers(1, 2), min_size=n, max_size=n))
    item = draw(st.lists(st.integers(1, 6), min_size=n, max_size=n))
    ratings = st.lists(st.integers(1, 5), min_size=n, max_size=n)
    rating = draw(st.none() | ratings)
    rows = draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=8))
    items = draw(st.lists(st.integers(1, 6), min_size=len(rows), max_size=len(rows)))
    return user, item, rating, rows, draw(st.none() | st.just(items))


@settings(max_examples=300, deadline=None)
@given(cases(), st.integers(1, 4), st.integers(17, 60), st.booleans(), st.booleans())
def test_batch_equals_the_plain_join_of_its_segments(case, k, max_tokens, known, instructed):
    user, item, rating, rows, items = case
    features = [{}, {"job": "nurse"} if known else {}, {}]
    template = INSTRUCTED if instructed else TEMPLATE
    table, words = make(user, item, rating, k, max_tokens, features, template=template)
    instruction = template.render_instruction(rating is not None)
    targets = items or [item[row] for row in rows]
    expected = [
        reference(user, item, rating, row, target, k, max_tokens - 2, features, instruction)
        for row, target in zip(rows, targets, strict=True)
    ]
    assert prompts(table, words, rows, items) == expected


@settings(max_examples=100, deadline=None)
@given(cases(), st.integers(12, 60))
def test_lengths_and_text_agree_with_batch(case, max_tokens):
    user, item, rating, rows, items = case
    table, words = make(user, item, rating, 3, max_tokens)
    items = items or [item[row] for row in rows]
    lengths = table.lengths(np.array(rows), np.array(items))
    mask = table.batch(np.array(rows), np.array(items)).attention_mask
    assert lengths.tolist() == mask.sum(1).tolist()
    assert lengths.max() <= max_tokens
    texts = [" ".join(table.text(*pair).split()) for pair in zip(rows, items, strict=True)]
    assert texts == prompts(table, words, rows, items)


def test_batch_worked_example():
    table, words = make([1, 1], [1, 2], [4, 3.5], features=[{}, {"age": "24"}])
    assert prompts(table, words, [1]) == ["user 24 seen film x 1 4 like film x x 2 ?"]


def test_the_instruction_stands_before_the_question_and_is_shared():
    table, words = make([1, 1], [1, 2], [4, 3.5], template=INSTRUCTED)
    start = "seen film x 1 4 stars say yes or no"
    assert prompts(table, words, [1]) == [f"{start} like film x x 2 ?"]
    shared = table.shared(np.array([1, 1]), np.array([2, 3]))
    (ids,) = table.beginnings(shared.beginnings).input_ids.tolist()
    assert words.decode(ids[1:]) == start


def test_batch_shows_half_stars_and_whole_ones():
    table, words = make([1, 1, 1], [1, 2, 3], [3.5, 4, 1])
    assert prompts(table, words, [2]) == ["seen film x 1 3.5 film x x 2 4 like film x x x 3 ?"]


def test_batch_leaves_out_one_missing_rating():
    table, words = make([1, 1], [1, 2], [np.nan, 4])
    assert prompts(table, words, [1]) == ["seen film x 1 like film x x 2 ?"]


def test_batch_of_a_row_without_history_is_the_question():
    table, words = make([1], [1], [4])
    assert prompts(table, words, [0]) == ["like film x 1 ?"]


def test_batch_with_a_history_of_no_length():
    table, words = make([1, 1], [1, 2], [4, 4], k=0)
    assert prompts(table, words, [1]) == ["like film x x 2 ?"]


def test_batch_drops_the_candidate_from_the_history():
    table, words = make([1, 1, 1], [1, 2, 3], [4, 5, 1])
    assert prompts(table, words, [2], [1]) == ["seen film x x 2 5 like film x 1 ?"]


def test_batch_drops_the_lead_in_with_the_last_entry():
    table, words = make([1, 1], [1, 2], [4, 5])
    assert prompts(table, words, [1], [1]) == ["like film x 1 ?"]


def test_batch_that_is_too_long_drops_the_oldest_entry_whole():
    table, words = make([1, 1, 1], [1, 2, 3], [4, 4, 4], max_tokens=2 + 7 + 1 + 5)
    assert prompts(table, words, [2]) == ["seen film x x 2 4 like film x x x 3 ?"]


def test_batch_that_is_too_long_for_the_user_keeps_the_question():
    table, words = make([1], [6], None, features=[{}, {"bio": "many words"}], max_tokens=12)
    assert prompts(table, words, [0]) == ["like film x x x x x x 6 ?"]


def test_table_refuses_a_question_that_does_not_fit():
    with pytest.raises(InputError, match="question of item 6 have 10 tokens, 9 fit") as error:
        make([1], [1], [4], max_tokens=11)
    assert "\n" not in str(error.value)
    make([1], [1], [4], max_tokens=12)
    with pytest.raises(InputError, match="instruction and question of item 6 have 15 tokens"):
        make([1], [1], [4], max_tokens=12, template=INSTRUCTED)


def test_batch_of_no_rows_is_empty():
    table, _ = make([1], [1], [4])
    none = np.zeros(0, dtype=np.int64)
    assert table.batch(none).input_ids.shape == table.batch(none).attention_mask.shape == (0, 0)
    assert table.batch(none).input_ids.dtype == torch.int64
    assert table.lengths(none).shape == (0,)


def test_table_of_no_rows_can_be_built():
    table, _ = make([], [], [])
    assert table.lengths(np.zeros(0, dtype=np.int64)).shape == (0,)


def test_batch_without_special_tokens():
    table, words = make([1], [1], [4], special=False)
    assert words.decode(table.batch(np.array([0])).input_ids[0].tolist()) == "like film x 1 ?"


def test_table_tokenises_each_distinct_segment_once():
    _, words = make([1, 2, 1, 2], [1, 1, 2, 2], [4, 4, 4, 4])
    assert len(words.texts) == len(set(words.texts))
    assert "" not in words.texts


def test_tokens_are_those_that_the_prompts_show():
    table, words = make(
        [0, 0, 1], [1, 2, 1], [5, 3, 4], k=1, features=[{"age": "30"}, {"age": "41"}]
    )
    shown = {words.decode([token]) for token in table.tokens(np.array([2]))}
    assert shown == {"user", "41", "like", "film", "x", "1", "?"}
    both = {words.decode([token]) for token in table.tokens(np.array([0, 1]))}
    assert both == {"user", "30", "seen", "film", "x", "1", "2", "5", "like", "?"}
    assert table.tokens(np.array([], dtype=np.int64)).tolist() == []


def test_named_are_all_users_if_prompts_show_their_tokens_and_nobody_else():
    features = [{"a": "x"}, {"a": "y"}, {"a": "x"}, {}]  # only y says which user it is
    users = np.array([0, 1, 2, 3, 1])
    for user, named in (("{{ features.values() | join }}", False), ("{{ user }}", True)):
        template = replace(TEMPLATE, user=user)
        table, _ = make([0, 1, 2, 3], [0] * 4, None, features=features, template=template)
        assert table.named(users).tolist() == [named] * 5


def test_named_by_a_column_are_users_who_have_one():
    names = FieldNames(users=("user_id", "age"))
    template = replace(TEMPLATE, user="{{ features.values() | join(' ') }}", names=names)
    features = [{}, {"user_id": "n1", "age": "7"}, {"user_id": "n2", "age": "7"}]
    table, _ = make([0, 1, 2], [0] * 3, None, features=features, template=template)
    assert table.named(np.array([0, 1, 2])).tolist() == [False, True, True]
