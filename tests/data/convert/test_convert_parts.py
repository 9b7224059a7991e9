"""Reading raw files, writing atomic ones, counting repeated pairs."""

import gzip
import tracemalloc
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_files import write_json, write_lines

from recbole_e2urec.data.convert.common import (
    PairCounter,
    Table,
    atomic_files,
    cell,
    find,
    interactions,
    quoted_cells,
    records,
    text_lines,
    title,
)
from recbole_e2urec.errors import InputError

ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=12)


# writing


@settings(max_examples=40)
@given(st.lists(st.tuples(ANY_TEXT, ANY_TEXT), min_size=1))
def test_any_text_stays_in_its_cell_for_recboles_reader(rows: list[tuple[str, str]]) -> None:
    file = StringIO()
    table = Table(file, ("item_id:token", "title:token_seq", "n:token"))
    for number, row in enumerate(rows):
        table.write(*row, str(number))
    file.seek(0)
    frame = pd.read_csv(file, delimiter="\t", engine="python", dtype=str, keep_default_na=False)
    assert frame["n:token"].tolist() == [str(number) for number in range(len(rows))]
    assert frame["title:token_seq"].tolist() == [cell(text) for _, text in rows]


@given(ANY_TEXT)
def test_a_cell_is_its_text_where_nothing_is_in_the_way(text: str) -> None:
    if text.isprintable() and not text.startswith(('"', " ")) and not text.endswith(" "):
        assert cell(text) == text


@pytest.mark.parametrize(
    ("published", "text"),
    [
        ("a\tb\nc\r\nd", "a b c d"),
        ('"A" is for', ' "A" is for'),
        (" padded ", "padded"),
        ("two  spaces", "two  spaces"),
    ],
)
def test_cell_has_no_separator_in_it(published: str, text: str) -> None:
    assert cell(published) == text


@pytest.mark.parametrize(
    ("published", "text"),
    [
        ("Mary &amp; Max", "Mary & Max"),
        ("&#39;t &#x27;t", "'t 't"),
        ("AT&T; R&B", "AT&T; R&B"),
        ("&copy me", "&copy me"),
        (None, ""),
    ],
)
def test_title_has_characters_for_entities(published: Any, text: str) -> None:
    assert title(published) == text


def test_lone_surrogates_of_json_do_not_stop_the_writing() -> None:
    with atomic_files(Path("out"), "x") as files:
        files.table("item", ("item_id:token",)).write("a\ud83d")
        files.finish()
    assert Path("out/x.item").read_text(encoding="utf-8") == "item_id:token\na?\n"


# repeated pairs


@settings(max_examples=20)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"))), st.integers(1, 5))
def test_pair_counter_counts_what_a_set_does(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]], limit: int
) -> None:
    with PairCounter(tmp_path_factory.getbasetemp(), limit) as counter:
        for pair in pairs:
            counter.add(*pair)
        assert counter.repeated() == len(pairs) - len(set(pairs))


def peak_of_writing(rows: int, folder: Path) -> int:
    """Bytes at most held while so many interactions are written."""
    with atomic_files(folder, "x") as files:
        tracemalloc.start()
        with interactions(files) as written:
            for row in range(rows):
                written.add(f"u{row}", "i", 3.0, "1")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_interactions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PairCounter.__init__, "__defaults__", (256,))
    assert peak_of_writing(8_000, tmp_path) < 1.2 * peak_of_writing(2_000, tmp_path)


# reading


def test_text_lines_ends_a_line_at_a_newline_alone(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.txt", ["\ufeffone\u2028\x0c", "", "two\r"])
    assert [(place.line, text) for place, text in text_lines(path)] == [
        (1, "one\u2028\x0c"),
        (3, "two"),
    ]


def test_gzip_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n' * 10_000)[:-12])
    with pytest.raises(InputError, match=r"after line \d+: the gzip file is damaged or cut off"):
        list(records(path, ("a",)))


def test_file_that_is_no_gzip_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(b"plain")
    with pytest.raises(InputError, match="damaged"):
        list(text_lines(path))


def test_bytes_of_another_encoding_are_refused_with_their_line(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.txt", ["one", "Amélie"], "latin-1")
    with pytest.raises(InputError, match="line 2: not utf-8 text"):
        list(text_lines(path))


@pytest.mark.parametrize(
    ("last", "message"),
    [
        ('{"a": 1, "b', "line 3: not JSON; if it is the last line, the file is cut off"),
        ('{"a": 1}', "line 3: no 'b'"),
        ("[1]", "line 3: no 'a'"),
    ],
)
def test_records_refuses_a_bad_line(tmp_path: Path, last: str, message: str) -> None:
    path = write_json(tmp_path / "a.json", [{"a": 1, "b": 2}])
    path.write_text(f"{path.read_text()}\n{last}")
    with pytest.raises(InputError, match=message):
        list(records(path, ("a", "b")))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a,b", "1,2"], "line 1: the header must begin with a;b"),
        (['"a";"b"', "", '"1"'], "line 3: 1 cells where the header has 2"),
        (['"a";"b"', '"1;2' + "x" * 200_000], "line 2: field larger"),
    ],
)
def test_quoted_cells_refuses_another_table(tmp_path: Path, lines: list[str], message: str) -> None:
    path = write_lines(tmp_path / "a.csv", lines)
    with pytest.raises(InputError, match=message):
        list(quoted_cells(path, ("a", "b"), "latin-1"))


def test_find_refuses_to_choose(tmp_path: Path) -> None:
    for name in ("a.json", "a.json.gz"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="several files that could be a: "):
        find(tmp_path, ["a.json"], "a")
