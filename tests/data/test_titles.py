import pytest

from recbole_e2urec.data.features import (
    item_titles,
    item_tokens,
    read_catalogue,
    read_features,
    user_features,
)
from recbole_e2urec.data.rows import IdMap
from recbole_e2urec.errors import InputError

ODD_TITLES = [
    '"Quoted" at the start',
    '"Unclosed',
    "None",
    "NA",
    "nan",
    "null",
    "Usual Suspects, The",
    "two  spaces   and more",
    " leading and trailing ",
    "Амели",
    "千と千尋の神隠し",
    "{{ title }} {% raw %}",
    "line\u2028separator\x0cform feed",
    "back\\slash 'n' quotes",
]


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "data.item"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def catalogue(path, separator="\t"):
    return read_catalogue(path, "item_id", "title", separator)


@pytest.mark.parametrize("title", ODD_TITLES)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_read_catalogue_keeps_a_title_as_published(write, title, end):
    path = write(end.join(["item_id:token\ttitle:token_seq\tyear:token", f"7\t{title}\t1995", ""]))
    assert catalogue(path) == {"7": title}


def test_read_catalogue_does_not_join_lines_at_an_open_quote(write):
    path = write('item_id:token\ttitle:token_seq\n1\t"One\n2\tTwo"\n')
    assert catalogue(path) == {"1": '"One', "2": 'Two"'}


def test_read_catalogue_cuts_at_its_separator_only(write):
    path = write("item_id:token,title:token_seq\n1,a\ttab\n")
    assert catalogue(path, ",") == {"1": "a\ttab"}


def test_read_catalogue_finds_columns_in_any_order(write):
    assert catalogue(write("title:token_seq\titem_id:token\nOne\t1\n")) == {"1": "One"}


def test_read_catalogue_skips_a_byte_order_mark(write):
    content = "\ufeffitem_id:token\ttitle:token_seq\n1\tOne"
    assert catalogue(write(content)) == {"1": "One"}


def test_read_catalogue_reads_another_encoding(write):
    path = write("item_id:token\ttitle:token_seq\n1\tAmélie\n".encode("latin-1"))
    assert read_catalogue(path, "item_id", "title", "\t", "latin-1") == {"1": "Amélie"}


def test_read_catalogue_leaves_out_blank_titles_and_lines(write):
    path = write("item_id:token\ttitle:token_seq\n1\t\n\n2\t  \n3\tThree\n")
    assert catalogue(path) == {"3": "Three"}


def test_read_catalogue_keeps_the_first_title_of_a_token(write):
    assert catalogue(write("item_id:token\ttitle:token\n1\tOne\n1\tUno\n")) == {"1": "One"}


def test_read_catalogue_of_a_header_alone_is_empty(write):
    assert catalogue(write("item_id:token\ttitle:token_seq\n")) == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("item_id:token\tname:token\n1\tOne\n", "no column 'title'"),
        ("item_id:token\ttitles:token\n1\tOne\n", "did you mean 'titles'"),
        ("title:token\nOne\n", "no column 'item_id'"),
        ("item_id:token\ttitle:token\n1\tOne\n2\n", "line 3: 1 cells where the header has 2"),
        ("item_id:token\ttitle:token\n1\tOne\tmore\n", "line 2: 3 cells where the header has 2"),
        (b"item_id:token\ttitle:token\n1\tOne\n2\tAm\xe9lie\n", "line 3: not utf-8 text"),
    ],
)
def test_read_catalogue_refuses_in_one_line(write, content, message):
    with pytest.raises(InputError, match=message) as error:
        catalogue(write(content))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["missing.item", "."])
def test_read_catalogue_refuses_a_path_that_is_no_file(tmp_path, name):
    with pytest.raises(InputError, match="cannot read"):
        catalogue(tmp_path / name)


def test_read_catalogue_refuses_an_unknown_encoding(write):
    with pytest.raises(InputError, match="unknown encoding 'utf-nine'"):
        read_catalogue(write("x"), "item_id", "title", "\t", "utf-nine")


def test_read_features_leaves_out_missing_values(write):
    path = write("user_id:token\tage:float\tjob:token\n1\t24\tnone\n2\tnan\t\n3\t\tNone\n")
    features = read_features(path, "user_id", ["age", "job"])
    assert features == {"1": {"age": "24", "job": "none"}, "2": {}, "3": {}}


def test_read_features_keep_the_order_asked_for(write):
    path = write("user_id:token\tage:float\tjob:token\n1\t24\tnurse\n")
    features = read_features(path, "user_id", ["job", "age"])
    assert list(features["1"]) == ["job", "age"]


def test_item_titles_name_the_token_when_there_is_no_title():
    ids = IdMap(users={}, items={"a": 2, "b": 1})
    assert item_titles(ids, {"a": "Alpha", "unused": "x"}) == ["", "item b", "Alpha"]
    assert item_tokens(ids) == ["", "b", "a"]


def test_user_features_are_empty_for_unknown_users():
    ids = IdMap(users={"a": 2, "b": 1}, items={})
    assert user_features(ids, {"a": {"age": "24"}}) == [{}, {}, {"age": "24"}]
