"""Requests as files: every format, and what an attacker or a hurried clerk would hand in."""

import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from splits import choose_forget

from recbole_e2urec.data.request.file import moment
from recbole_e2urec.data.request.selection import ForgetOptions, select
from recbole_e2urec.data.rows import IdMap, RowTable
from recbole_e2urec.errors import InputError

#               row  0  1  2  3  4  5  6
USER = np.array([1, 1, 2, 2, 3, 3, 4])
ITEM = np.array([1, 2, 1, 3, 2, 3, 1])
DAY = 86_400.0
START = datetime(2020, 1, 1, tzinfo=timezone.utc).timestamp()
TIME = START + DAY * np.arange(7)  # a row a day, at midnight
IDS = IdMap(users={"ann": 1, "ben": 2, "cai": 3, "dan": 4}, items={"i1": 1, "i2": 2, "i3": 3})
TABLE = RowTable(USER, ITEM, TIME)
TRAIN = np.array([5, 4, 3, 2, 1, 0])  # dan's only row is held out


def written(content: str | bytes, name: str = "requests.csv") -> Path:
    path = Path(name)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def forgotten(content: str | bytes, name: str = "requests.csv", **options: Any) -> list[int]:
    given = ForgetOptions(file=written(content, name), **options)
    return choose_forget(given, TRAIN, TABLE, IDS).forget.tolist()


def refusal(content: str | bytes, name: str = "requests.csv", **options: Any) -> str:
    with pytest.raises(InputError) as error:
        forgotten(content, name, **options)
    (line,) = str(error.value).splitlines()
    return line


def warnings(content: str, **options: Any) -> list[str]:
    given = ForgetOptions(file=written(content, "r.jsonl"), **options)
    return list(select(given, TRAIN, TABLE, IDS).warnings)


@pytest.mark.parametrize(
    ("content", "forget"),
    [
        ("user_id,from,until\nann,2020-01-02,\n", [1]),
        ("user_id,from,until\nann,,2020-01-01\ncai,,\n", [0, 4, 5]),
        ("user_id\tfrom\nann\t2020-01-02\n", [1]),
        ("from,until\n2020-01-02,2020-01-03\n", [1, 2]),
        ("item_id,since,to\ni2,2020-01-01,2020-01-02T12:00\n", [1]),
        ("user_id,item_id,until\nben,i1,2020-01-03T00:00:00Z\nben,i3,2020-01-03\n", [2]),
        ("item_id\ni2\n", [1, 4]),  # the header says it: forget_by need not
        (f"from,until\n{START + DAY:.0f},{START + 2 * DAY:.1f}\n", [1, 2]),
        ("from,until\n2020-01-02T01:00:00+01:00,2020-01-02T00:00:00.000001\n", [1]),
        ("user_id,from\nann,2019-01-01\nann,\n", [0, 1]),
        ('user_id,note\nann,"left, and\nsaid ""why"""\nben,\n', [0, 1, 2, 3]),
        ('"user_id","note"\r\n"ann","two\r\nlines"\r\n', [0, 1]),
    ],
)
def test_a_table_of_users_items_pairs_and_times(content: str, forget: list[int]) -> None:
    assert forgotten(content) == forget


@pytest.mark.parametrize(
    ("content", "forget"),
    [
        ('{"user_id": "ann"}\n{"item_id": "i3"}\n', [0, 1, 3, 5]),
        ('{"user_id": "ann", "item_id": "i2", "reason": ["x"]}\n\n', [1]),
        ('\ufeff{"user": "cai", "from": "2020-01-06"}\r\n', [5]),
        (f'{{"from": {START}, "until": {START:.0f}}}', [0]),
        ('{"user_id": "\\u0061nn"}', [0, 1]),
    ],
)
def test_json_lines_may_each_ask_for_something_else(content: str, forget: list[int]) -> None:
    assert forgotten(content, "request.jsonl") == forget
    assert forgotten(content) == forget  # told by the opening brace


def test_numbers_of_json_are_tokens_as_written() -> None:
    ids = IdMap({"7": 1, "07": 2, "b": 3, "d": 4}, IDS.items)
    options = ForgetOptions(file=written('{"user_id": 7}'))
    assert choose_forget(options, TRAIN, TABLE, ids).forget.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"user_id": "ann"', "line 1: not valid JSON, Expecting ',' delimiter at column 18"),
        ('{"user_id": "ann"}\n{"user_id": "be', "line 2: not valid JSON"),
        ('{"user_id": "ann"}\nben\n', "line 2: not valid JSON"),
        ('{"user_id": "ann"}\n["ben"]\n', "line 2: no JSON object"),
        ('{"user_id": "ann", "user_id": "ben"}', "columns 1 and 2 both give the user"),
        ('{"user_id": "ann", "uid": "ann"}', "columns 1 and 2 both give the user"),
        ('{"user_id": null}', "line 1: the user is neither text nor a number"),
        ('{"user_id": true}', "the user is neither"),
        ('{"user_id": {"a": 1}}', "the user is neither"),
        ('{"user_id": NaN}', "NaN and Infinity are no values"),
        ('{"user_id": "ann", "until": Infinity}', "NaN and Infinity are no values"),
        ('{"user_id": "ann", "untill": 3}', "column 2: no such column; did you mean 'until'?"),
        ("{}", "columns do not fit"),
        ('{"reason": "x"}', "columns do not fit"),
        ('{"user_id": ""}', "the user is empty"),
        ('{"user_id": "ann", "from": {}}', "the from is neither"),
        ("{" * 100_000, "line 1: not valid JSON"),
        ('{"user_id": ' + "[" * 90_000, "line 1: too deeply nested"),
        ('{"user_id": "' + "x" * 200_000 + '"}', "line 1: 200,015 characters"),
        ('{"user_id": "ann", "until": ' + "9" * 5_000 + "}", "'until' is no moment"),
        ('{"request_id": "a", "user_id": "ann"}\n{"request_id": "b", "user_id": "ben"}',
         "lines 1 and 2: different request_ids"),
        ('{"request_id": "../../x", "user_id": "ann"}', "a request_id has 1 to 64 letters"),
        ('{"request_id": "a\\nb", "user_id": "ann"}', "a request_id has 1 to 64 letters"),
    ],
)  # fmt: skip
def test_bad_json_lines_name_the_line(content: str, message: str) -> None:
    assert message in refusal(content, "request.jsonl")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("user_id,form\nann,2020-01-01\n", "column 2: no such column; did you mean 'from'?"),
        ("user_id,user\nann,ann\n", "columns 1 and 2 both give the user"),
        ("from,until\n2020-01-03,2020-01-02\n", "line 2: the time range is reversed"),
        ("from,until\nnan,\n", "line 2: 'from' is no moment"),
        ("from,until\n,inf\n", "'until' is no moment"),
        ("from,until\n1e999,\n", "'from' is no moment"),
        ("from,until\n2020-02-30,\n", "'from' is no moment"),
        ("from,until\n2020-01-01T10:00+99:00,\n", "'from' is no moment"),
        ("from,until\nyesterday,\n", "1998-04-20T10:30:00+02:00 does"),
        ("user_id,item_id\nann,\n", "line 2: the item is empty"),
        ("from,until\n,\n", "line 2 names nothing"),
        ('user_id,item_id\nann,"i1\n', "line 2: unexpected end of data; is it text, and is each"),
        ('user_id,item_id\n"ann"x,i1\n', "line 2: ',' expected after"),
        ("ann\nb\0n\n", "line 2: a NUL byte"),
        ("ann\nben".encode("utf-16"), "line 1: not utf-8 text"),
        ("ann\nben".encode("utf-16-le"), "line 1: a NUL byte"),
        ("ann\nbén".encode("latin-1"), "line 2: not utf-8 text"),
        ("x" * 100_001, "line 1: 100,001 characters"),
        ("request_id\nmine\n", "columns do not fit"),
        ("user_id,request_id\nann,a b\n", "line 2: a request_id has"),
        ("user_id,request_id\nann,a\nben,b\n", "lines 2 and 3: different request_ids"),
    ],
)
def test_a_bad_table_names_the_line(content: str | bytes, message: str) -> None:
    assert message in refusal(content)


@pytest.mark.parametrize(
    "content",
    [
        "Zoe Secret\nann\n",
        "user_id,item_id\nZoe Secret,i1\n",
        '{"user_id": "Zoe Secret"}\n',
        '{"user_id": "Zoe Secret", "from": "Zoe Secret"}\n',
        'user_id,from\n"Zoe Secret",Zoe Secret\n',
        '{"Zoe Secret": 1}\n',
        '{"user_id": "Zoe Secret"\n',
        '{"user_id": "ann", "request_id": "Zoe Secret"}',
        '"Zoe Secret\n',
        "Zoe Secret\tann\n",
        "user_id,Zoe Secret\nZoe Secret\n",
    ],
)
def test_nothing_that_a_line_says_is_repeated(content: str) -> None:
    assert "Zoe" not in refusal(content)
    try:
        found = warnings(content, unknown="skip")
    except InputError as error:
        found = [str(error)]
    assert "Zoe" not in " ".join(found)


def test_a_request_that_is_no_regular_file_is_refused() -> None:
    os.mkfifo("pipe")
    for name in ("pipe", "/dev/zero", "."):
        with pytest.raises(InputError, match="is no regular file"):
            choose_forget(ForgetOptions(file=name), TRAIN, TABLE, IDS)


def test_unknown_users_are_skipped_where_the_settings_say_so() -> None:
    content = "ann\n" + "".join(f"nobody{number}\n" for number in range(12))
    assert "12 of 13 lines name users" in refusal(content)
    assert "(lines 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 2 more)" in refusal(content)
    assert forgotten(content, unknown="skip") == [0, 1]


def test_odd_lines_are_warned_of() -> None:
    lines = [
        '{"user_id": "ann"}',
        '{"user_id": "ann", "item_id": "i2"}',  # a part of line 1
        '{"item_id": "i3", "until": 5}',  # nothing is that old
        '{"user_id": "dan"}',  # held out
        '{"user_id": "ben", "item_id": "i1"}',
        '{"item_id": "i1", "user_id": "ben", "why": "asked"}',  # line 5 again
        '{"user_id": "eve"}',
    ]
    assert warnings("\n".join(lines), unknown="skip") == [
        "line 7: names a user that the data does not have",
        "lines 3 and 4: no training row fits, so nothing was learned from what is asked for",
        "lines 5 and 6: the same is asked for more than once",
        "line 2: a part of a user, item or pair that another line asks for as a whole; the whole "
        "is forgotten",
        "columns or keys that mean nothing here: 1",
    ]


def test_a_time_needs_times_and_a_date_needs_seconds() -> None:
    options = ForgetOptions(file=written("from\n2020-01-02\n"))
    bare = RowTable(USER, ITEM, np.arange(7.0), has_time=False)
    with pytest.raises(InputError, match="line 2: a time range, but the data has no times"):
        choose_forget(options, TRAIN, bare, IDS)
    milliseconds = RowTable(USER, ITEM, TIME * 1000)
    with pytest.raises(InputError, match="line 2: dates need times in seconds since 1970"):
        choose_forget(options, TRAIN, milliseconds, IDS)


def test_a_request_names_itself_once() -> None:
    path = written('{"user_id": "ann", "request_id": "R-1"}\n{"user_id": "ben"}')
    assert select(ForgetOptions(file=path), TRAIN, TABLE, IDS).request_id == "R-1"
    again = ForgetOptions(file=path, request_id="R-1")
    assert select(again, TRAIN, TABLE, IDS).request_id == "R-1"
    with pytest.raises(InputError, match="has another request_id than the settings"):
        select(ForgetOptions(file=path, request_id="R-2"), TRAIN, TABLE, IDS)
    with pytest.raises(InputError, match="a request_id has 1 to 64"):
        ForgetOptions(request_id="a/b")


def test_options_refuse_two_requests() -> None:
    with pytest.raises(InputError, match="are two requests"):
        ForgetOptions(file="a.csv", where="rating < 3")


def test_a_token_of_white_space_is_no_blank_line() -> None:
    ids = IdMap({"\u2028": 1, " b ": 2, "c": 3, "d": 4}, IDS.items)
    for content in ("\u2028\n b \n", "user_id\tfrom\n\u2028\t\n b \t\n"):
        options = ForgetOptions(file=written(content))
        assert choose_forget(options, TRAIN, TABLE, ids).forget.tolist() == [0, 1, 2, 3]


def test_a_pair_with_an_item_without_rows_asks_for_nobody_else() -> None:
    ids = IdMap(IDS.users, {**IDS.items, "new": 5})  # 1 * (3 + 1) + 5 = 2 * (3 + 1) + 1
    options = ForgetOptions(file=written("ann,new\nann,i1\n"))
    assert choose_forget(options, TRAIN, TABLE, ids).forget.tolist() == [0]


def test_moments_by_hand() -> None:
    assert moment("1970-01-01T00:00:10Z")[:2] == (10.0, 10.0)
    assert moment("1970-01-01 01:00+01:00").first == 0.0
    assert moment("1970-01-01T00:00:00.5").first == 0.5
    day = moment("1970-01-02")
    assert day.first == DAY
    assert 2 * DAY - 1e-9 < day.last < 2 * DAY
    assert moment("-3.5e2") == (-350.0, -350.0, False)
