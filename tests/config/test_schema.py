import dataclasses
from typing import Any, Literal

import pytest

from recbole_e2urec.config.schema import build_options, convert
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


@dataclasses.dataclass(frozen=True)
class Wanted:
    ratio: float
    by: Literal["user", "item"]
    file: str | None
    words: tuple[str, ...]
    size: int = dataclasses.field(metadata={"key": "train_batch_size"})


GOOD = {
    "forget_ratio": 1,
    "forget_by": "user",
    "forget_file": None,
    "forget_words": ["a"],
    "train_batch_size": 8,
}


def test_options_fill_a_dataclass() -> None:
    wanted = build_options(Wanted, GOOD, "forget_")
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
    ],
)
def test_options_refuse_what_does_not_fit(key: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_options(Wanted, {**GOOD, key: value}, "forget_")


def test_options_refuse_a_missing_key() -> None:
    with pytest.raises(InputError, match="the setting 'forget_by' is missing"):
        build_options(Wanted, {k: v for k, v in GOOD.items() if k != "forget_by"}, "forget_")
