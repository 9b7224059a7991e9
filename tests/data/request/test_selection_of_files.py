import numpy as np
import pytest
from splits import choose_forget

from recbole_e2urec.data.request.selection import ForgetOptions
from recbole_e2urec.data.rows import IdMap, RowTable
from recbole_e2urec.errors import InputError

#               row  0  1  2  3  4  5  6
USER = np.array([1, 1, 2, 2, 3, 3, 4])
ITEM = np.array([1, 2, 1, 3, 2, 3, 1])
IDS = IdMap(users={"ann": 1, "ben": 2, "cai": 3, "dan": 4}, items={"i1": 1, "i2": 2, "i3": 3})
TABLE = RowTable(USER, ITEM, np.arange(7.0), None, None)
TRAIN = np.array([5, 4, 3, 2, 1, 0])  # dan's only row is held out


@pytest.fixture
def split(tmp_path):
    def split(content, by="user"):
        path = tmp_path / "requests.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return choose_forget(ForgetOptions(by=by, file=path), TRAIN, TABLE, IDS)

    return split


@pytest.mark.parametrize(
    ("content", "by", "forget"),
    [
        ("ann\n", "user", [0, 1]),
        ("ann", "user", [0, 1]),
        ("user_id\nann\ncai\n", "user", [0, 1, 4, 5]),
        ("\ufeffuser_id:token\r\nann\r\n\r\n", "user", [0, 1]),
        ('"user_id"\n"ann"\n', "user", [0, 1]),
        ("ann\nann\nann\n", "user", [0, 1]),
        ("ann\ndan\n", "user", [0, 1]),
        ("user_id,reason\nann,left\n", "user", [0, 1]),
        ("ann,i2\nben,i1\n", "user", [1, 2]),
        ("ann\ti2\nben\ti1\nben\ti1\n", "interaction", [1, 2]),
        ("user_id\titem_id\nann\ti2\n", "interaction", [1]),
        ("when,item_id:token,user_id:token\n9,i2,ann\n", "interaction", [1]),
        ("ann, i2\ndan, i1\nann, i3\n", "interaction", [1]),
        ("i2\n", "item", [1, 4]),
        ("item_id\ni2\n", "item", [1, 4]),
    ],
)
def test_choose_forget_reads_a_file(split, content, by, forget):
    retain, found = split(content, by)
    assert found.tolist() == forget
    assert sorted([*retain, *found]) == sorted(TRAIN)


@pytest.mark.parametrize(
    ("content", "by", "message"),
    [
        ("", "user", "names nobody"),
        ("\n \n", "user", "names nobody"),
        ("user_id\n", "user", "names nobody"),
        ("ann\neve\nzoe\n", "user", "2 of 3 lines name users .* \\(lines 2 and 3\\)"),
        ("user_id\n\neve\n", "user", "1 of 1 lines .* \\(line 3\\)"),
        ("Customer\nann\n", "user", "\\(line 1\\); .* the header"),
        ("ann,i9\n", "user", "name items .* \\(line 1\\)"),
        ("ann,i1,5\n", "user", "line 1: columns do not fit"),
        ("ann\nben,i1\n", "user", "line 2: 2 columns where 1 were expected"),
        ("ann\n", "interaction", "columns do not fit .* give user_id,item_id pairs"),
        ("user_id\nann\n", "interaction", "columns do not fit"),
        ("user_id\nann\n", "item", "columns do not fit"),
        ("user_id,item_id\nann,i1\n", "item", "columns do not fit"),
        ("ann\nben\ncai\n", "user", "all 6 training rows"),
        ("i1\ni2\ni3\n", "item", "all 6 training rows"),
        ("dan\n", "user", "nothing that it names is in the training part"),
        ("ann,i3\n", "interaction", "nothing that it names is in the training part"),
        (b"ann\nb\xe9n\n", "user", "line 2: not utf-8 text"),
        ('"' + "x" * 200_000, "user", "line 1: 200,001 characters where 100,000 do"),
        ('"a\tb\x0b', "user", "1 of 1 lines name users"),
    ],
)
def test_choose_forget_refuses_a_file_in_one_line(split, content, by, message):
    with pytest.raises(InputError, match=message) as error:
        split(content, by)
    assert len(str(error.value).splitlines()) == 1


def test_choose_forget_refuses_a_missing_file(tmp_path):
    options = ForgetOptions(file=tmp_path / "nothing.csv")
    with pytest.raises(InputError, match=r"cannot read .*nothing\.csv"):
        choose_forget(options, TRAIN, TABLE, IDS)


def test_choose_forget_takes_the_first_line_as_data_when_it_is_a_user(tmp_path):
    (tmp_path / "f").write_text("user\n")
    ids = IdMap({"user": 1, "b": 2, "c": 3, "d": 4}, IDS.items)
    split = choose_forget(ForgetOptions(file=tmp_path / "f"), TRAIN, TABLE, ids)
    assert split.forget.tolist() == [0, 1]


def test_choose_forget_knows_a_token_with_a_comma(tmp_path):
    (tmp_path / "f").write_text("Lee, Ann\n")
    ids = IdMap({"Lee, Ann": 1, "b": 2, "c": 3, "d": 4}, IDS.items)
    split = choose_forget(ForgetOptions(file=tmp_path / "f"), TRAIN, TABLE, ids)
    assert split.forget.tolist() == [0, 1]
