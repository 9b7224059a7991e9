import dataclasses
from typing import Any, Literal

import pytest

from recbole_e2urec.config.schema import build_options, convert, option, option_class, options_of
from recbole_e2urec.errors import InputError


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (3, int),
        (True, bool),
        ("1", str),
        ({"a": 1}, dict),
        ({"a": 1}, dict[str, Any]),
        (None, int | None),
        (3, int | str),
        ("x", int | str),
        ("a", Literal["a", "b"]),
        ([1, 2], list[int]),
        ([], list[str]),
        ([[1], [2]], list[list[int]]),
        (object, Any),
    ],
)
def test_convert_keeps_what_fits(value: Any, hint: Any) -> None:
    assert convert(value, hint, "key") == value


def test_convert_makes_a_tuple_of_a_list() -> None:
    assert convert([1, 2], tuple[int, ...], "key") == (1, 2)


def test_convert_makes_a_float_of_a_whole_number() -> None:
    assert type(convert(1, float, "key")) is float


@pytest.mark.parametrize(
    ("value", "hint", "wanted"),
    [
        (True, int, "a whole number"),
        (1, bool, "True or False"),
        (1.0, int, "a whole number"),
        ("0.1", float, "a number"),
        (None, str, "text"),
        (5, str | None, "text or nothing"),
        ("c", Literal["a", "b"], "'a' or 'b'"),
        ("ab", list[str], "a list such as"),
        ([1, "x"], list[int], "key: 'x' does not do; a whole number"),
        ([], dict, "a mapping such as {a: 1}"),
    ],
)
def test_convert_says_what_is_needed(value: Any, hint: Any, wanted: str) -> None:
    with pytest.raises(InputError) as caught:
        convert(value, hint, "key")
    assert wanted in str(caught.value)


@option_class(prefix="forget_")
class Wanted:
    ratio: float = option("A share.", gt=0, le=1)
    by: Literal["user", "item"] = option("Whose.")
    file: str | None = option("A file; ~ = none.")
    words: tuple[str, ...] = option("Some words.")
    size: int = option("Rows in a step.", key="train_batch_size", ge=1)


GOOD = {
    "forget_ratio": 1,
    "forget_by": "user",
    "forget_file": None,
    "forget_words": ["a"],
    "train_batch_size": 8,
}


def test_options_fill_a_dataclass() -> None:
    wanted = build_options(Wanted, GOOD)
    assert wanted == Wanted(1.0, "user", None, ("a",), 8)
    assert isinstance(wanted.ratio, float)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("forget_ratio", "abc", "forget_ratio: 'abc' does not do; a number is needed"),
        ("forget_ratio", True, "a number is needed"),
        ("forget_by", "usr", "'user' or 'item' is needed"),
        ("forget_file", 5, "text or nothing"),
        ("forget_words", "a", r"a list such as \[text, ...\] is needed"),
        ("train_batch_size", 1.5, "a whole number is needed"),
        ("train_batch_size", 0, "train_batch_size is 0; give 1 or more"),
        ("forget_ratio", 0, r"forget_ratio is 0.0; it must be in \(0, 1\]"),
        ("forget_ratio", float("nan"), r"forget_ratio is nan; it must be in \(0, 1\]"),
    ],
)
def test_options_refuse_what_does_not_fit(key: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_options(Wanted, {**GOOD, key: value})


def test_options_refuse_a_missing_key() -> None:
    with pytest.raises(InputError, match="the setting 'forget_by' is missing"):
        build_options(Wanted, {k: v for k, v in GOOD.items() if k != "forget_by"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ratio": 2.0}, r"forget_ratio is 2.0; it must be in \(0, 1\]"),
        ({"by": "usr"}, "forget_by: 'usr' does not do; 'user' or 'item' is needed"),
        ({"words": ["a"]}, "a list such as"),
        ({"size": True}, "train_batch_size: True does not do; a whole number is needed"),
    ],
)
def test_options_made_in_python_are_checked_as_well(change: Any, message: str) -> None:
    given = {"ratio": 1, "by": "user", "file": None, "words": ("a",), "size": 8}
    with pytest.raises(InputError, match=message):
        Wanted(**{**given, **change})
    with pytest.raises(InputError, match=message):
        dataclasses.replace(Wanted(**given), **change)


def test_options_are_frozen_and_say_what_they_mean() -> None:
    wanted = build_options(Wanted, GOOD)
    with pytest.raises(dataclasses.FrozenInstanceError):
        wanted.size = 9  # type: ignore[misc]
    mapping = {"ratio": 1.0, "by": "user", "file": None, "words": ("a",), "size": 8}
    assert dataclasses.asdict(wanted) == mapping
    assert {found.key: found.comment for found in options_of(Wanted)} == {
        "forget_ratio": "(float, in (0, 1]) A share.",
        "forget_by": "(str) Whose.",
        "forget_file": "(str) A file; ~ = none.",
        "forget_words": "(list) Some words.",
        "train_batch_size": "(int, at least 1) Rows in a step.",
    }


def test_a_missing_or_unknown_field_is_the_callers_mistake() -> None:
    for given in ({}, {"foo": 1}):
        with pytest.raises(ValueError, match="validation error") as caught:
            Wanted(**given)  # type: ignore[call-arg, arg-type]
        assert not isinstance(caught.value, InputError)


@option_class()
class Parent:
    first: int = option("The first.", ge=0)
    second: int = option("The second.", default=0)

    def __post_init__(self) -> None:
        if self.first == self.second:
            raise InputError("first and second are the same")


@option_class()
class Child(Parent):
    first: int = option("Another first.", ge=1)


def test_a_class_takes_over_what_its_parent_says_and_checks() -> None:
    assert [(found.key, found.comment) for found in options_of(Child)] == [
        ("first", "(int, at least 1) Another first."),
        ("second", "(int) The second."),
    ]
    assert Child(2) == Child(first=2, second=0)
    with pytest.raises(InputError, match=r"^first and second are the same$"):
        Child(1, 1)
    with pytest.raises(InputError, match="first is 0; give 1 or more"):
        Child(0)
