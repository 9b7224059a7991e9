"""The language of forget_where: what fits, and one line for whatever is no expression."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from atomic_files import INTER, small_interactions, write_table

from recbole_e2urec.config.expression import Value, without_values
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.data.request.filter import Comparison, Fields, filter_rows, parse
from recbole_e2urec.errors import InputError

FIRST = 1_600_000_000  # 2020-09-13T12:26:40Z; later rows of a user every seven seconds


@pytest.fixture
def dataset(small_config: Any) -> Any:
    """``small``, with a class of several words, an empty cell and a line too few."""
    config = small_config("LLMRec", forget_where="rating == 1", load_col={"inter": ["*"]})
    folder = Path(config["data_path"])
    films = [
        [f"i{item}", f"Film {item}", ["Horror War", "War", ""][item % 3]] for item in range(19)
    ]
    write_table(folder / "small.item", "item_id:token movie_title:token_seq class:token_seq", films)
    header = f"{INTER} device:token"
    rows = [[*row, ["phone", "tv"][place % 2]] for place, row in enumerate(small_interactions())]
    write_table(folder / "small.inter", header, rows)
    config.final_config_dict["load_col"] = {
        "inter": ["user_id", "item_id", "rating", "timestamp", "device"]
    }
    return load_dataset(config)


def test_a_filter_means_the_published_values(dataset: Any) -> None:
    users = {inner: int(token[1:]) for token, inner in dataset.ids.users.items()}
    items = {inner: int(token[1:]) for token, inner in dataset.ids.items.items()}
    user = np.array([users[one] for one in dataset.rows.user])
    item = np.array([items[one] for one in dataset.rows.item])
    rating, time = dataset.rows.rating, dataset.rows.time - FIRST
    listed, kind = item < 19, item % 3
    horror, war, empty = kind == 0, kind < 2, kind == 2
    tv = np.arange(len(user)) % 2 == 1
    expected = {
        "rating < 3": rating < 3,
        "3 > rating": rating < 3,
        "2 <= rating < 4": (rating >= 2) & (rating < 4),
        "rating in (1, 5)": (rating == 1) | (rating == 5),
        "rating not in [1, 5,]": (rating > 1) & (rating < 5),
        "label == 1": rating >= 4,
        "age < 23": user < 3,  # published ages are 20 + user; RecBole scales them to 0..1
        "age >= 23 and gender == 'F'": (user >= 3) & (user % 2 == 0),
        "user_id == 'u3' or item_id == 'i4'": (user == 3) | (item == 4),
        "class == 'Horror'": horror & listed,
        "'Horror' in class": horror & listed,
        "class != 'Horror'": ~(horror & listed),
        "class in ('Horror', 'War')": war & listed,
        "class == 'Horror War'": horror & listed,  # a text with a space is the whole cell
        "class == ''": empty & listed,
        "not (class == 'War' or rating < 3)": ~(war & listed) & (rating >= 3),
        "not class == 'War' and rating < 3": ~(war & listed) & (rating < 3),
        "rating < 3 or class == 'Horror' and age < 23": (rating < 3)
        | (horror & listed & (user < 3)),
        "movie_title == 'Film 3'": item == 3,
        '`movie_title` == "Film 3"': item == 3,
        "device == 'tv'": tv,
        "timestamp >= '2020-09-13T12:26:47Z'": time >= 7,
        "timestamp > '2020-09-12' and timestamp < '2020-09-13'": np.zeros(len(user), bool),
        "timestamp == '2020-09-13'": np.ones(len(user), bool),
        "timestamp <= 1600000007": time <= 7,
        "user_id == 3": np.zeros(len(user), bool),  # equal is equal as text: u3 is not 3
    }
    fields = Fields(dataset)
    for text, rows in expected.items():
        np.testing.assert_array_equal(filter_rows(text, fields).chosen, rows, err_msg=text)


def test_users_and_items_without_rows_fit_nothing(small_config: Any) -> None:
    config = small_config("LLMRec", forget_where="age < 0", load_col={"user": ["user_id", "age"]})
    people = [[f"u{user}", user] for user in range(40)]  # 24 have rows
    write_table(Path(config["data_path"]) / "small.user", "user_id:token age:float", people)
    config.final_config_dict["load_col"]["inter"] = ["user_id", "item_id", "rating", "timestamp"]
    data = load_dataset(config)
    assert len(data.ids.users) == 40
    assert not filter_rows("age > 23 or user_id == 'u39'", Fields(data)).chosen.any()
    assert filter_rows("age <= 23", Fields(data)).chosen.all()


def test_tokens_that_are_numbers_can_be_ordered(small_config: Any) -> None:
    config = small_config("LLMRec")
    people = [[f"u{user}", ["", "abc", "7", "30"][user % 4]] for user in range(24)]
    write_table(Path(config["data_path"]) / "small.user", "user_id:token age:token", people)
    data = load_dataset(config)
    users = {inner: int(token[1:]) for token, inner in data.ids.users.items()}
    kind = np.array([users[one] for one in data.rows.user]) % 4
    found = filter_rows("age < 18", Fields(data)).chosen
    np.testing.assert_array_equal(found, kind == 2)
    found = filter_rows("age == 7 or age in (30, 31)", Fields(data)).chosen
    np.testing.assert_array_equal(found, kind >= 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clas == 'Horror'", "column 1: no field 'clas'; did you mean 'class'?; known: age, class"),
        ("rating < 3 and hair == 'red'", "column 16: no field 'hair'; known: age, class, device"),
        ("age == 'old'", "column 1: 'age' holds numbers; compare it with a number"),
        ("gender < 'M'", "column 1: 'gender' holds tokens; give a number after <"),
        ("gender == 1.5", "column 1: 'gender' holds tokens; put the number in quotes"),
        ("'a' in gender", "column 1: 'gender' holds one value; write == or in (...)"),
        ("timestamp < 'soon'", "column 1: this is no moment; a number of the data, 1998-04-20 or"),
    ],
)
def test_a_filter_that_does_not_fit_the_data(dataset: Any, text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        filter_rows(text, Fields(dataset))
    assert f"forget_where, {message}" in str(error.value)


def test_a_comparison_that_nothing_fits_is_warned_of(dataset: Any) -> None:
    found = filter_rows("rating < 3 or class == 'Horrror'", Fields(dataset))
    assert found.warnings == ["forget_where, column 15: no value of 'class' fits"]


def test_a_field_of_users_and_items_is_ambiguous(dataset: Any) -> None:
    people = [[f"u{user}", "x"] for user in range(24)]
    path = Path(dataset.config["data_path"]) / "small.user"
    write_table(path, "user_id:token class:token", people)
    with pytest.raises(InputError, match="'class' is a field of users and of items"):
        filter_rows("class == 'x'", Fields(dataset))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; write a comparison"),
        ("   ", "is empty"),
        ("rating", "column 7: a comparison: ==, !=, <, <=, >, >=, in or not in is needed"),
        ("rating <", "column 9: a field, a number or a quoted text is needed, not the end"),
        ("rating = 3", "column 8: write == to compare"),
        ("rating < 3 & age < 2", "column 12: write and, or, not"),
        ("rating < 3 age < 2", "column 12: and, or, or the end is needed, not a word"),
        ("(rating < 3", "column 12: ')' is needed, not the end"),
        ("rating < 3)", "column 11: and, or, or the end is needed, not ')'"),
        ("class == 'Horror", "column 10: this quote is not closed"),
        ("`class == 'Horror'", "column 1: this quote is not closed"),
        ("class in 'Horror'", "column 1: write field in ('a', 'b'), or 'a' in field"),
        ("class in ()", "column 11: a field, a number or a quoted text is needed, not ')'"),
        ("class == ('a', 'b')", "column 1: a list of values goes with in or not in"),
        ("(age) < 3", "column 5: a comparison: ==, !=, <, <=, >, >=, in or not in is needed"),
        ("age in ((1, 2))", "column 9: a field, a number or a quoted text is needed, not '('"),
        ("(age < 3) < 4", "column 11: and, or, or the end is needed, not '<'"),
        ("1 < 2", "compare a field with values, not two fields or two values"),
        ("age < rating", "compare a field with values, not two fields or two values"),
        ("age < 1e999", "column 7: this number is too large"),
        ("age < 5years", "column 7: this character does not belong here"),
        ("age < 0x10", "column 7: this character does not belong here"),
        ("__import__('os').system('ls')", "column 17: this character does not belong here"),
        ("print('a') == 1", "column 6: a comparison: ==, !=, <, <=, >, >=, in or not in is needed"),
        ("rating.__class__ == 1", "column 7: this character does not belong here"),
        ("age < 3; import os", "column 8: this character does not belong here"),
        ("lambda: 1", "column 7: this character"),
        ("[x for x in age]", "column 2: a field, a number or a quoted text is needed, not a word"),
        ("age < 3 if 1 else 2", "and, or, or the end is needed, not a word"),
        ("and", "a field, a number or a quoted text is needed, not 'and'"),
        ("not", "is needed, not the end"),
        ("age not 3", "a comparison"),
        ("age < 3\0", "column 8: this character does not belong here"),
        ("(" * 51 + "age < 3" + ")" * 51, "nested over 50 deep"),
        ("not " * 2_000 + "age < 3", "nested over 50 deep"),
        ("(" * 9_999, "nested over 50 deep"),
        ("a" * 10_001, "10,001 characters where 10,000 do; use a forget_file"),
    ],
)
def test_what_is_no_expression_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        parse(text)
    (line,) = str(error.value).splitlines()
    assert line.startswith("forget_where")
    assert message in line


@pytest.mark.parametrize(
    ("piece", "times", "message"),
    [
        ("not ", 10_000, "40,007 characters where 10,000 do"),
        ("(", 10_000, "10,007 characters where 10,000 do"),
        ("age < 3 or ", 100_000, "1,100,007 characters where 10,000 do"),
        ("not ", 2_498, "column 201: nested over 50 deep"),
        ("(", 9_993, "column 51: nested over 50 deep"),
    ],
)
def test_length_and_depth_are_refused_in_one_line(piece: str, times: int, message: str) -> None:
    with pytest.raises(InputError) as error:
        parse(piece * times + "age < 3")
    (line,) = str(error.value).splitlines()
    assert message in line


@pytest.mark.parametrize(
    "text", ["user_id == 'Zoe' x", "user_id == Zoe Zoe", "'Zoe", "user_id < < 'Zoe'", "Zoe Zoe"]
)
def test_an_error_does_not_repeat_what_was_typed(text: str) -> None:
    with pytest.raises(InputError) as error:
        parse(text)
    assert "Zoe" not in str(error.value)


def test_quotes_and_backslashes_in_a_text() -> None:
    for text in (r"t == 'it\'s \\ \n'", r't == "it' r"'" r's \\ \n"'):
        assert parse(text) == Comparison("t", "==", (Value("it's \\ n", None),), 1)


def test_results_keep_a_filter_without_its_values() -> None:
    assert (
        without_values("user_id == 'Zoe' and not (age < 30)") == "user_id == ? and not ( age < ? )"
    )
