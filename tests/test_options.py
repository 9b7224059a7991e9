from typing import Any, Literal

import pytest

from recbole_e2urec.errors import InputError
from recbole_e2urec.options import convert


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
