"""``init``: CSV files as strangers have them become a data set, or one line says why not."""

import gzip
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from command_line import write

from recbole_e2urec import cli
from recbole_e2urec.config.config import Config
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.data.features import read_catalogue

RATINGS = (
    "userId,movieId,rating,timestamp\n1,7,4.5,1600000000\n1,8,2,1600000060\n2,7,5,1600000000\n"
)
MOVIES = 'movieId,title,genres\n7,"Quoted ""name"", the",Drama|War\n8,Plain,\n'


def init(*more: str) -> int:
    return cli.main(["init", "--from=ratings.csv", "--output=dataset/shop", *more])


def inter() -> list[list[str]]:
    text = Path("dataset/shop/shop.inter").read_text(encoding="utf-8")
    return [line.split("\t") for line in text.splitlines()]


def times() -> list[float]:
    return [float(row[3]) for row in inter()[1:]]


def seconds(*day: int) -> float:
    return datetime(*day, tzinfo=timezone.utc).timestamp()  # type: ignore[misc, arg-type]


def test_files_become_a_data_set_that_runs_can_load(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("ratings.csv"), RATINGS)
    write(Path("movies.csv"), MOVIES)
    write(Path("users.csv"), "id;userId;age\n5;1;20\n6;2;\n")
    assert init("--items=movies.csv", "--users", "users.csv") == 0
    told = capsys.readouterr().out
    assert "user = userId, item = movieId, rating = rating, time = timestamp" in told
    assert "recbole-e2urec check --dataset=shop" in told
    assert inter()[0] == ["user_id:token", "item_id:token", "rating:float", "timestamp:float"]
    assert inter()[1] == ["1", "7", "4.5", "1600000000"]
    item = Path("dataset/shop/shop.item")
    assert item.read_text(encoding="utf-8").startswith(
        "item_id:token\ttitle:token_seq\tgenres:token"
    )
    assert read_catalogue(item, "item_id", "title")["7"].strip() == 'Quoted "name", the'
    assert "user_id:token\tid:token\tage:token" in Path("dataset/shop/shop.user").read_text()
    config = Config("LLMRec", "shop", config_dict={"data_path": "dataset"})
    assert load_dataset(config).rows.label.tolist() == [1, 0, 1]


def test_columns_can_be_named_and_others_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("ratings.csv"), "who\twhat\thow much\tx\tname\na\tb\t3\t9\tB film\n")
    assert init("--user=who", "--item=what", "--rating=how_much") == 0
    told = capsys.readouterr().out
    assert "left out: x" in told
    assert "no column of times" in told
    assert inter() == [["user_id:token", "item_id:token", "rating:float"], ["a", "b", "3"]]
    assert read_catalogue("dataset/shop/shop.item", "item_id", "title") == {"b": "B film"}


@pytest.mark.parametrize(
    ("cells", "first"),
    [
        (["1600000000", "1600000001.5"], 1600000000),
        (["1600000000123", "1600000000124"], 1600000000.123),
        (["1600000000123456", "1600000000123457"], 1600000000.123456),
        (["2020-02-03", "2020-02-04T10:00:00+02:00"], seconds(2020, 2, 3)),
        (["2020-02-03 10:30:05", "2020-02-04 10:30:05"], seconds(2020, 2, 3, 10, 30, 5)),
        (["3.2.2020 10:30", "13.2.2020 10:30"], seconds(2020, 2, 3, 10, 30)),
        (["02/03/2020", "02/13/2020"], seconds(2020, 2, 3)),
        (["03/02/2020", "13/02/2020"], seconds(2020, 2, 3)),
        (["20200203", "20200204"], seconds(2020, 2, 3)),
    ],
)
def test_times_are_numbers_or_dates(cells: list[str], first: float) -> None:
    rows = [f"u{place},i,3,{cell}" for place, cell in enumerate(cells)]
    write(Path("ratings.csv"), "\n".join(["user,item,stars,date", *rows]))
    assert init() == 0
    assert times()[0] == first
    assert times()[1] > first


def test_likes_are_labels_and_repeated_pairs_and_incomplete_rows_are_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = "user,item,liked,time\n1.0,1,1,20\n1.0,1,0,10\n1.0,2,NA,10\n\n2.0,1,0,5\n"
    Path("ratings.csv.gz").write_bytes(gzip.compress(rows.encode("utf-8-sig")))
    assert cli.main(["init", "--from=ratings.csv.gz", "--output=dataset/shop"]) == 0
    told = capsys.readouterr().out
    assert "1 rows without rating are left out" in told
    assert "1 rows repeat a user and an item; the last in time counts" in told
    names = ["user_id:token", "item_id:token", "label:float", "timestamp:float"]
    assert inter() == [names, ["1", "1", "1", "20"], ["2", "1", "0", "5"]]


@pytest.mark.parametrize(
    ("ratings", "more", "message"),
    [
        (None, [], "cannot read ratings.csv"),
        ("", [], "ratings.csv is empty"),
        ("user,item,rating\n", [], "no rows below the header"),
        ("a,b,c\n1,2,3\n", [], "no column looks like the user; its columns are a, b, c"),
        ("user,item\n1,2\n", [], "no column looks like the rating"),
        (RATINGS, ["--user=usrId"], "no column 'usrId'; did you mean 'userId'?"),
        ("user,item,rating\n1,2,x\n", [], "row 2, column rating: 'x' is not a number"),
        ("user,item,rating\n1,2,3\n1,2,3,4\n", [], "line 3"),
        ("user,user,rating\n1,2,3\n", [], "two columns are called 'user'"),
        ("user,item,rating\n,2,3\n", [], "no row has all of user, item, rating"),
        ("user,item,rating,date\n1,2,3,soon\n", [], "'soon' is no date like the others"),
        ("user,item,rating,date\n1,2,3,02/03/2020\n", [], "may have the day or the month first"),
        (RATINGS, ["--encoding=utf-9"], "'utf-9' is unknown"),
        (RATINGS, ["--items=none.csv"], "cannot read none.csv"),
        (RATINGS, ["--items=other.csv"], "no item of ratings.csv is in column 'id'"),
        (RATINGS, ["--items=untitled.csv"], "no column looks like the title"),
        (RATINGS, ["--topk=3"], "--topk means nothing here"),
        (RATINGS, ["--output=dataset/a b"], "its last part names the data set"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    ratings: str | None, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if ratings is not None:
        write(Path("ratings.csv"), ratings)
    write(Path("other.csv"), "id,title\n99,x\n")
    write(Path("untitled.csv"), "id,genre\n7,x\n")
    assert init(*more) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not Path("dataset").exists() or not list(Path("dataset").rglob("*"))


def test_latin_text_is_refused_with_a_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    Path("ratings.csv").write_bytes("user,item,rating\né,2,3\n".encode("latin-1"))
    assert init() == 2
    assert "--encoding=latin-1" in capsys.readouterr().err
    assert init("--encoding=latin-1") == 0
    assert inter()[1][0] == "é"


def test_a_data_set_that_exists_stays_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("ratings.csv"), RATINGS)
    assert init() == 0
    before: Any = inter()
    write(Path("ratings.csv"), RATINGS.replace("4.5", "1"))
    assert init() == 2
    assert "exists; remove it" in capsys.readouterr().err
    assert inter() == before
