"""What each published format becomes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from raw_files import (
    CLEAN_TITLE,
    WRITERS,
    write_amazon,
    write_book_crossing,
    write_goodreads,
    write_goodreads_csv,
    write_json,
    write_lines,
    write_ml_1m,
    write_quoted,
)

from recbole_e2urec.data.convert.__main__ import CONVERTERS
from recbole_e2urec.data.convert.common import Findings, Place, atomic_files, rounded
from recbole_e2urec.data.convert.ucsd import seconds
from recbole_e2urec.errors import InputError

Convert = Callable[[str], Findings]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return tmp_path / "raw"


@pytest.fixture
def convert(raw: Path) -> Convert:
    """Convert the files of ``raw`` into ``out``."""

    def run(name: str) -> Findings:
        with atomic_files(Path("out"), name) as files:
            findings = CONVERTERS[name](raw, files)
            files.finish()
        return findings

    return run


def rows_of(name: str) -> list[list[str]]:
    """Cells of a file of ``out``, without the header."""
    lines = (Path("out") / name).read_text(encoding="utf-8").split("\n")[1:-1]
    return [line.split("\t") for line in lines]


def notes(findings: Findings, words: str) -> list[str]:
    return [line for line in findings.lines if words in line]


# MovieLens 1M


def test_ml_1m_title_loses_the_year_and_codes_become_words(raw: Path, convert: Convert) -> None:
    write_ml_1m(raw)
    convert("ml-1m")
    assert rows_of("ml-1m.item")[0] == ["1", "Café No. 1, The", "1981", "Drama Sci-Fi"]
    assert rows_of("ml-1m.user")[1] == ["2", "25-34", "F", "artist", "12342"]
    assert rows_of("ml-1m.inter")[0] == ["1", "1", "5", "978301001"]


def test_ml_1m_title_without_a_year_stays_whole(raw: Path, convert: Convert) -> None:
    write_ml_1m(raw)
    write_lines(raw / "movies.dat", ["1::12:01 PM (a film)::Drama", "2::(500) Days (2009)::Drama"])
    convert("ml-1m")
    assert [row[1:3] for row in rows_of("ml-1m.item")] == [
        ["12:01 PM (a film)", ""],
        ["(500) Days", "2009"],
    ]


def test_ml_1m_half_stars_stay(raw: Path, convert: Convert) -> None:
    write_ml_1m(raw)
    write_lines(raw / "ratings.dat", ["1::1::3.5::978300000", "1::2::4::978300001"])
    convert("ml-1m")
    assert [row[2] for row in rows_of("ml-1m.inter")] == ["3.5", "4"]


def test_users_and_items_that_the_other_files_lack_are_counted(raw: Path, convert: Convert) -> None:
    write_ml_1m(raw)
    lines = ["77::1::3::978300000", "77::2::3::978300000", "1::88::3::978300000"]
    write_lines(raw / "ratings.dat", lines)
    findings = convert("ml-1m")
    assert notes(findings, "a user without")[0].startswith("2 rows")
    assert notes(findings, "an item without")[0].startswith("1 rows")
    assert len(rows_of("ml-1m.inter")) == 3


def test_repeated_rows_are_counted_and_kept(raw: Path, convert: Convert) -> None:
    write_ml_1m(raw)
    lines = ["1::1::3::978300000", "1::1::4::978300009", "1::2::3::978300000", "1::1::3::978300000"]
    write_lines(raw / "ratings.dat", lines)
    assert notes(convert("ml-1m"), "repeat")[0].startswith("2 rows")
    assert len(rows_of("ml-1m.inter")) == 4


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1::2::x::978300000", "the rating is 'x'; a number from 0 to 5"),
        ("1::2::6::978300000", "the rating is '6'"),
        ("1::2::nan::978300000", "the rating is 'nan'"),
        ("1::2::3::soon", "the timestamp is 'soon'; a number from 0 on"),
        ("::2::3::978300000", "the user is ''"),
        ("1::2::3::978300000::9", "5 cells between '::' where 4"),
    ],
)
def test_ml_1m_bad_rating_is_refused_with_its_line(
    raw: Path, convert: Convert, line: str, message: str
) -> None:
    write_ml_1m(raw)
    write_lines(raw / "ratings.dat", ["1::1::3::978300000", line])
    with pytest.raises(InputError) as caught:
        convert("ml-1m")
    assert f"ratings.dat, line 2: {message}" in str(caught.value)


def test_an_item_that_comes_twice_keeps_its_first_row(raw: Path, convert: Convert) -> None:
    write_ml_1m(raw)
    write_lines(raw / "movies.dat", ["1::One (1990)::Drama", "1::Two (1991)::Drama"])
    assert notes(convert("ml-1m"), "movies.dat: 1 rows repeat an identifier")
    assert [row[1] for row in rows_of("ml-1m.item")] == ["One"]


# Goodreads


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("Thu Jan 01 00:00:00 +0000 1970", 0),
        ("Fri Nov 10 15:54:00 -0800 2017", 1_510_358_040),  # 23:54 UTC
        ("Sat Nov 11 05:24:00 +0530 2017", 1_510_358_040),
    ],
)
def test_goodreads_date_is_in_seconds_of_utc(date: str, expected: int) -> None:
    assert seconds(date, Place(Path("x"), 1)) == expected


@pytest.mark.parametrize("date", ["2017-11-10", "Fri Foo 10 15:54:00 -0800 2017", 5])
def test_goodreads_date_of_another_form_is_refused(date: object) -> None:
    with pytest.raises(InputError, match="x, line 3: date_added is"):
        seconds(date, Place(Path("x"), 3))


def test_goodreads_shelf_without_a_date_is_left_out_and_counted(
    raw: Path, convert: Convert
) -> None:
    shelf = {"user_id": "u", "book_id": "1", "rating": 4, "date_added": ""}
    write_json(raw / "goodreads_interactions.json", [shelf])
    assert notes(convert("goodreads"), "no date_added")[0].startswith("1 rows")
    assert rows_of("goodreads.inter") == []


def test_goodreads_without_books_says_how_to_run(raw: Path, convert: Convert) -> None:
    write_goodreads(raw)
    (raw / "goodreads_books_poetry.json.gz").unlink()
    assert notes(convert("goodreads"), "--title_field=~")
    assert not Path("out/goodreads.item").exists()


def test_goodreads_unrated_shelves_are_counted(raw: Path, convert: Convert) -> None:
    write_goodreads(raw)
    assert notes(convert("goodreads"), "not rated")[0].startswith("8 rows")


def test_goodreads_in_one_csv_file_is_the_same_without_times(raw: Path, convert: Convert) -> None:
    write_goodreads(raw)
    convert("goodreads")
    timed = rows_of("goodreads.inter")
    for path in raw.iterdir():
        path.unlink()
    write_goodreads_csv(raw)
    findings = convert("goodreads")
    assert rows_of("goodreads.inter") == [row[:3] for row in timed]
    assert ["2", "Verse 2"] in rows_of("goodreads.item")
    assert "runs split at random" in notes(findings, "no dates")[0]
    assert "90 rows where 228,648,342 were published" in findings.warnings[-1]


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("goodreads_interactions.csv", ["user,book"], "line 1: 2 cells"),
        ("goodreads_interactions.csv", ["a,b,c,d,e"], "line 1: the header must be user_id,"),
        ("user_id_map.csv", ["user_id_csv,user_id", "0,u1"], "user_id 1 is not in the map"),
        ("book_id_map.csv", [], "book_id_map.csv is empty"),
    ],
)
def test_goodreads_csv_of_another_form_is_refused(
    name: str, lines: list[str], message: str, raw: Path, convert: Convert
) -> None:
    write_lines(write_goodreads_csv(raw) / name, lines)
    with pytest.raises(InputError, match=message):
        convert("goodreads")


def test_goodreads_csv_needs_the_map_of_books_for_titles(raw: Path, convert: Convert) -> None:
    (write_goodreads_csv(raw) / "book_id_map.csv").unlink()
    with pytest.raises(InputError, match="without which books have no titles"):
        convert("goodreads")
    (raw / "goodreads_books.json.gz").unlink()
    (raw / "user_id_map.csv").unlink()
    assert len(notes(convert("goodreads"), "name the")) == 2
    assert rows_of("goodreads.inter")[0][:2] == ["0", "6"]


# Amazon Reviews 2023


def test_amazon_times_are_seconds_and_ratings_short(raw: Path, convert: Convert) -> None:
    write_amazon(raw)
    convert("amazon")
    assert rows_of("amazon.inter")[0] == ["AE1", "B1", "5", "1588774128.923"]


def test_amazon_titles_have_no_entities_and_may_be_missing(raw: Path, convert: Convert) -> None:
    write_amazon(raw)
    convert("amazon")
    titles = [row[1] for row in rows_of("amazon.item")]
    assert titles[:3] == ["Card 1", CLEAN_TITLE, ""]


def test_amazon_refuses_two_categories(raw: Path, convert: Convert) -> None:
    write_amazon(raw)
    write_json(raw / "Books.jsonl", [])
    with pytest.raises(InputError, match="several categories; keep one"):
        convert("amazon")


# Book-Crossing


def test_book_crossing_quotes_are_read_and_null_ages_are_blank(raw: Path, convert: Convert) -> None:
    write_book_crossing(raw)
    convert("book-crossing")
    books, people = rows_of("book-crossing.item"), rows_of("book-crossing.user")
    assert books[0] == ["0441X", "Livre é 1", "A. Uthor", "1991", "P & Q"]
    assert books[1][1] == CLEAN_TITLE
    assert people[:2] == [["1", 'york, "old", uk', ""], ["2", 'york, "old", uk', "32"]]


def test_book_crossing_title_may_end_in_a_quote(raw: Path, convert: Convert) -> None:
    write_book_crossing(raw)
    path = raw / "BX-Books.csv"
    path.write_text(path.read_text("latin-1").replace("Livre é 1", 'Un \\"Livre\\"'), "latin-1")
    convert("book-crossing")
    assert rows_of("book-crossing.item")[0][1:3] == ['Un "Livre"', "A. Uthor"]


def test_book_crossing_files_may_lack_the_prefix(raw: Path, convert: Convert) -> None:
    write_book_crossing(raw)
    for path in raw.iterdir():
        path.rename(raw / path.name.removeprefix("BX-"))
    convert("book-crossing")
    assert len(rows_of("book-crossing.inter")) == 90


def test_book_crossing_cell_may_hold_a_line_end_and_begin_with_a_quote(
    raw: Path, convert: Convert
) -> None:
    write_book_crossing(raw)
    header = ("User-ID", "ISBN", "Book-Rating")
    write_quoted(raw / "BX-Book-Ratings.csv", header, [(1, '\\"04\n41X', 5), (1, "0441X", "z")])
    with pytest.raises(InputError, match=r"BX-Book-Ratings.csv, line 4: Book-Rating is 'z'"):
        convert("book-crossing")
    write_quoted(raw / "BX-Book-Ratings.csv", header, [(1, '\\"04\n41X', 5)])
    convert("book-crossing")
    assert rows_of("book-crossing.inter") == [["1", ' "04 41X', "5"]]


# all


@pytest.mark.parametrize("name", WRITERS)
def test_an_empty_file_is_refused(raw: Path, convert: Convert, name: str) -> None:
    for path in list(WRITERS[name](raw).iterdir()):
        whole = path.read_bytes()
        path.write_bytes(b"")
        with pytest.raises(
            InputError, match=f"{path.name}.* (is empty|cut off); download it again"
        ):
            convert(name)
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("rows", "published", "warns"),
    [(90, 90, False), (90, 91, True), (701_528, "701.5K", False), (701_600, "701.5K", True)],
)
def test_a_count_is_compared_with_the_published_one(rows: int, published: Any, warns: bool) -> None:
    findings = Findings()
    findings.count(Path("x"), rows, published)
    assert bool(findings.warnings) == warns


@pytest.mark.parametrize(("rows", "text"), [(641, "641"), (15_234, "15.2K"), (2_128_605, "2.1M")])
def test_rounded_counts_are_written_as_published(rows: int, text: str) -> None:
    assert rounded(rows) == text
