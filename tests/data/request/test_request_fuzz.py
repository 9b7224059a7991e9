"""Readers of requests under random input: a request or one clear line, never anything else.

E2UREC_FUZZ sets how much is tried, see fuzzing.py.
"""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from fuzzing import budget, one_line
from hypothesis import given
from hypothesis import strategies as st

from recbole_e2urec.config.expression import without_values
from recbole_e2urec.data.request.file import moment, read_request_file
from recbole_e2urec.data.request.filter import Column, filter_rows, parse
from recbole_e2urec.data.request.selection import ForgetOptions, select
from recbole_e2urec.data.rows import IdMap, RowTable
from recbole_e2urec.errors import InputError

FUZZ = budget(150)
BYS = st.sampled_from(["user", "item", "interaction"])
NAMES = [
    "a,b", 'q"q', "'", "ann", "user_id", "{x}", "ü ñ", "[1]", "null", "0x1", "a;b", "-",
    "\u2028", " s ",
]  # fmt: skip
IDS = IdMap(*({name: at for at, name in enumerate(names, start=1)} for names in (NAMES, NAMES)))
TOKENS = {"user": IDS.users, "item": IDS.items}
PIECES = st.sampled_from(
    [*NAMES, "user_id", "item_id", "from", "until", "request_id", ",", "\t", "\n", "\r\n", '"', "{",
     "}", ":", '"user_id"', '"from"', "2020-01-01", "1e5", "nan", " ", "\0", "\ufeff", "[", "]"]
)  # fmt: skip
FILES = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=200).map(str.encode),
    st.lists(PIECES, max_size=30).map(lambda found: "".join(found).encode()),
)


@FUZZ
@given(FILES, BYS, st.sampled_from(["r.csv", "r.jsonl"]))
def test_any_file_is_read_or_refused_in_one_line(content: bytes, by: str, name: str) -> None:
    Path(name).write_bytes(content)
    try:
        written = read_request_file(name, by, TOKENS)
    except InputError as error:
        one_line(error)
        return
    for clause in written.clauses:
        assert clause.user or clause.item or clause.is_timed
        assert clause.first <= clause.last
        assert 1 <= clause.number <= content.count(b"\n") + 1


TIMES = st.none() | st.integers(-5, 40) | st.floats(-5, 40)
NAMED = st.none() | st.sampled_from(NAMES)
LINES = st.lists(
    st.fixed_dictionaries({"user_id": NAMED, "item_id": NAMED, "from": TIMES, "until": TIMES})
    .filter(lambda line: any(value is not None for value in line.values()))
    .filter(lambda line: None in (line["from"], line["until"]) or line["from"] <= line["until"]),
    min_size=1,
    max_size=8,
)
GENERATOR = np.random.default_rng(3)
TABLE = RowTable(
    GENERATOR.integers(1, len(NAMES) + 1, 200),
    GENERATOR.integers(1, len(NAMES) + 1, 200),
    GENERATOR.integers(0, 40, 200).astype(float),
)


def fits(line: dict[str, Any]) -> np.ndarray:
    """Rows of a line, one by one."""
    found = np.ones(len(TABLE), bool)
    if line["user_id"] is not None:
        found &= TABLE.user == IDS.users[line["user_id"]]
    if line["item_id"] is not None:
        found &= TABLE.item == IDS.items[line["item_id"]]
    if line["from"] is not None:
        found &= TABLE.time >= line["from"]
    if line["until"] is not None:
        found &= TABLE.time <= line["until"]
    return found


@FUZZ
@given(LINES, st.sampled_from([",", "\t"]), st.randoms(use_true_random=False))
def test_every_format_and_order_asks_for_the_same_rows(
    lines: list[dict[str, Any]], separator: str, random: Any
) -> None:
    expected = np.logical_or.reduce([fits(line) for line in lines])
    present = [{key: value for key, value in line.items() if value is not None} for line in lines]
    random.shuffle(present)
    Path("r.jsonl").write_text("".join(json.dumps(line) + "\n" for line in present))
    files = ["r.jsonl"]
    kinds = {frozenset(line) & {"user_id", "item_id"} for line in present}
    tabbed = separator == "\t"
    if len(kinds) == 1:  # a table has the same columns on each line
        columns = [*sorted(next(iter(kinds))), "from", "until"]
        text = io.StringIO()
        cells = [
            [line.get(name, "") for name in columns]
            for line in [{name: name for name in columns}, *present]
        ]
        if tabbed:
            text.write("\n".join("\t".join(map(str, line)) for line in cells))
        else:
            csv.writer(text).writerows(cells)
        Path("r.csv").write_bytes(text.getvalue().encode())
        files.append("r.csv")
    for file in files:
        found = select(ForgetOptions(file=file), np.arange(len(TABLE)), TABLE, IDS)
        np.testing.assert_array_equal(found.chosen, expected)


@FUZZ
@given(st.one_of(st.text(max_size=40), st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9:.+-]*)?")))
def test_any_moment_is_finite_or_refused(text: str) -> None:
    try:
        found = moment(text)
    except InputError as error:
        one_line(error)
        return
    assert np.isfinite(found.first)
    assert found.first <= found.last


WORDS = st.sampled_from(
    ["a", "b", "and", "or", "not", "in", "(", ")", "[", "]", ",", "==", "!=", "<", ">=", "1",
     "-2.5", "'x'", '"', "'", "`", "`a`", "=", ".", "\\", "\0", "\n", "é", "lambda",
     "__class__", "1e999"]
)  # fmt: skip


@FUZZ
@given(st.one_of(st.text(max_size=200), st.lists(WORDS, max_size=40).map(" ".join)))
def test_any_text_is_an_expression_or_refused_in_one_line(text: str) -> None:
    try:
        parse(text)
    except InputError as error:
        one_line(error)
        return
    assert "'" not in without_values(text)
    assert '"' not in without_values(text)


A, B = np.array([1.0, 2, 3, np.nan]), ["x", "y", "x y", ""]
ORDERS = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal}


class Two:
    """Two fields of four rows."""

    def column(self, name: str, place: int) -> Column:
        alone = np.arange(4)
        kind, values = ("float", A) if name == "a" else ("token", B)
        return Column(kind, values, alone, 4, alone)


def comparisons() -> Any:
    def ordered(sign: str, number: int) -> tuple[str, np.ndarray]:
        return f"a {sign} {number}", ORDERS[sign](A, number)

    def listed(word: str, found: list[str]) -> tuple[str, np.ndarray]:
        mask = np.array([one in found for one in B])
        text = f"b {word} ({', '.join(map(repr, found))})"
        return text, ~mask if word == "not in" else mask

    return st.one_of(
        st.builds(ordered, st.sampled_from(sorted(ORDERS)), st.integers(0, 4)),
        st.builds(
            listed, st.sampled_from(["in", "not in"]), st.lists(st.sampled_from(B), min_size=1)
        ),
    )


def larger(parts: Any) -> Any:
    def joined(word: str, one: Any, other: Any) -> tuple[str, np.ndarray]:
        both = one[1] & other[1] if word == "and" else one[1] | other[1]
        return f"({one[0]}) {word} ({other[0]})", both

    return st.one_of(
        st.builds(joined, st.sampled_from(["and", "or"]), parts, parts),
        parts.map(lambda one: (f"not ({one[0]})", ~one[1])),
    )


@FUZZ
@given(st.recursive(comparisons(), larger, max_leaves=12))
def test_an_expression_means_what_numpy_says(made: tuple[str, np.ndarray]) -> None:
    text, expected = made
    fields: Any = Two()
    np.testing.assert_array_equal(filter_rows(text, fields).chosen, expected)
