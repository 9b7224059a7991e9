import pytest
from atomic_files import write_table

from recbole_e2urec.data.validation import check_cells, find_bad_number
from recbole_e2urec.errors import InputError

HEADER = "user_id:token rating:float time:float"


def find(tmp_path, rows, columns=("rating", "time"), missing_is_bad=True):
    path = write_table(tmp_path / "a.inter", HEADER, rows)
    return find_bad_number(path, "\t", "utf-8", columns, missing_is_bad)


def test_find_bad_number_names_line_column_and_value(tmp_path):
    rows = [["a", 3, 1], ["b", "three", 2]]
    assert find(tmp_path, rows) == "line 3, column rating: 'three' is not a number"


def test_find_bad_number_looks_at_the_named_columns_only(tmp_path):
    assert find(tmp_path, [["a", "x", 1]], ["time", "absent"]) is None


@pytest.mark.parametrize("cell", ["", "NA", "nan", "inf"])
def test_find_bad_number_counts_a_missing_value_if_asked(tmp_path, cell):
    rows = [["a", cell, 1]]
    assert find(tmp_path, rows) == f"line 2, column rating: {cell!r} is not a number"
    assert find(tmp_path, rows, missing_is_bad=False) is None


@pytest.mark.parametrize("cell", ["1_000", "\uff13", "1e400", "0x10", "1,5", " "])
def test_find_bad_number_takes_only_what_pandas_takes(tmp_path, cell):
    rows = [["a", cell, 1]]
    message = f"line 2, column rating: {cell!r} is not a number"
    assert find(tmp_path, rows, missing_is_bad=False) == message


def test_find_bad_number_reads_a_short_line_as_missing_cells(tmp_path):
    assert find(tmp_path, [["a", 3]]) == "line 2, column time: '' is not a number"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.inter is empty"),
        ("a:token\tb:token\nu\ti\nu\ti\t5\n", "line 3: 3 cells where the header has 2"),
        ("a:token\tb:token\nu\ti\rj\n", "line 2: a carriage return inside"),
    ],
)
def test_check_cells_refuses_what_pandas_would_move_or_cut(tmp_path, text, message):
    path = tmp_path / "x.inter"
    path.write_text(text, newline="")
    with pytest.raises(InputError, match=message) as error:
        check_cells(path, "\t", "utf-8")
    assert "u\t" not in str(error.value)


def test_check_cells_takes_short_lines_and_both_ends_of_lines(tmp_path):
    path = tmp_path / "x.inter"
    path.write_text("a:token\tb:token\r\nu\ti\r\n\r\nu\r\n", newline="")
    check_cells(path, "\t", "utf-8")
