"""Somebody's own atomic files, as they come: each is read right, refused in one line, or warned of.

Each case changes the files of one small data set, ``shop``, which is fine as it is.
"""

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from atomic_files import small_interactions
from command_line import as_arguments

from recbole_e2urec import cli
from recbole_e2urec.config.config import Config
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.data.features import find_title_field, find_user_fields
from recbole_e2urec.data.request.filter import Fields, filter_rows
from recbole_e2urec.model.prompting import PromptOptions, wording_of

Cells = list[list[str]]
RUN = {"dataset": "shop", "data_path": "data", "show_progress": False, "epochs": 1}


class Case(NamedTuple):
    """A change of the files, what is typed, and what the line says."""

    name: str
    change: Callable[[], None]
    says: tuple[str, ...]
    typed: Mapping[str, Any] = MappingProxyType({})


def shop(folder: Path = Path("data/shop"), name: str = "shop") -> None:
    """Write the data set: 24 users of 12 rows, 20 items with titles, ages and zip codes."""
    inter = [list(map(str, row)) for row in small_interactions()]
    items = [[f"i{item}", f"Film {item}", f"g{item % 3}"] for item in range(20)]
    users = [[f"u{user}", str(20 + user), "FM"[user % 2], str(10_000 + user)] for user in range(24)]
    header = ["user_id:token", "item_id:token", "rating:float", "timestamp:float"]
    put([header, *inter], folder / f"{name}.inter")
    put([["item_id:token", "title:token_seq", "genre:token"], *items], folder / f"{name}.item")
    header = ["user_id:token", "age:float", "gender:token", "zip_code:token"]
    put([header, *users], folder / f"{name}.user")


def put(cells: Cells, path: Path, separator: str = "\t") -> None:
    """Write a table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{separator.join(row)}\n" for row in cells), encoding="utf-8")


def cells_of(kind: str) -> tuple[Cells, Path]:
    """Read a table of the data set."""
    path = Path(f"data/shop/shop.{kind}")
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()], path


def header(kind: str, *names: str) -> Callable[[], None]:
    """Change the first line."""

    def change() -> None:
        cells, path = cells_of(kind)
        put([list(names), *cells[1:]], path)

    return change


def column(kind: str, place: int, value: Callable[[str], str]) -> Callable[[], None]:
    """Change each cell of a column."""

    def change() -> None:
        cells, path = cells_of(kind)
        for row in cells[1:]:
            row[place] = value(row[place])
        put(cells, path)

    return change


def further(kind: str, name: str, value: Callable[[list[str]], str], first: bool = False) -> Any:
    """Add a column."""

    def change() -> None:
        cells, path = cells_of(kind)
        added = [name, *map(value, cells[1:])]
        put(
            [[new, *row] if first else [*row, new] for new, row in zip(added, cells, strict=True)],
            path,
        )

    return change


def separated(separator: str, kind: str = "inter") -> Callable[[], None]:
    """Write the table with another separator."""

    def change() -> None:
        cells, path = cells_of(kind)
        put(cells, path, separator)

    return change


def moved(*names: str) -> Callable[[], None]:
    """Put the files elsewhere."""

    def change() -> None:
        for path in Path("data/shop").iterdir():
            path.unlink()
        shop(*(Path(name) for name in names[:1]), *names[1:])

    return change


def text(kind: str, edit: Callable[[str], str]) -> Callable[[], None]:
    """Change the whole text."""

    def change() -> None:
        path = Path(f"data/shop/shop.{kind}")
        path.write_text(edit(path.read_text(encoding="utf-8")), encoding="utf-8")

    return change


def nothing() -> None:
    """Leave the files as they are."""


def then(*changes: Callable[[], None]) -> Callable[[], None]:
    """Make several changes."""

    def change() -> None:
        for one in changes:
            one()

    return change


def cut_off(line: str) -> Callable[[], None]:
    """Let the file end within a line."""
    return text("inter", lambda whole: whole + line)


NAMES = ("user_id:token", "item_id:token", "rating:float", "timestamp:float")
THERE = ("shop.inter, line 1",)
REFUSED = [
    Case(
        "the folder itself",
        moved("data/my/shop"),
        (
            "no data/my/shop/shop/shop.inter",
            "data/my/shop/shop.inter is there",
            "--data_path=data/my",
        ),
        {"data_path": "data/my/shop"},
    ),
    Case(
        "the folder itself, ml-100k",
        moved("data/my/ml-100k", "ml-100k"),
        ("no data/my/ml-100k/ml-100k/ml-100k.inter", "write --data_path=data/my"),
        {"data_path": "data/my/ml-100k", "dataset": "ml-100k"},
    ),
    Case(
        "files without their folder",
        moved("data/my", "shop"),
        ("no data/my/shop/shop.inter", "move it into a folder data/my/shop"),
        {"data_path": "data/my"},
    ),
    Case(
        "the folder itself, beside others",
        moved("shop"),
        ("no shop/shop/shop.inter", "shop/shop.inter is there, so write --data_path=."),
        {"data_path": "shop"},
    ),
    Case(
        "the file itself",
        nothing,
        ("data/shop/shop.inter is a file", "the folder around the folder shop"),
        {"data_path": "data/shop/shop.inter"},
    ),
    Case(
        "files of another name",
        lambda: Path("data/shop/shop.inter").rename("data/shop/ratings.inter"),
        ("no data/shop/shop.inter", "data/shop/ratings.inter is there, so rename it"),
    ),
    Case(
        "item ids that a classic model does not find",
        column("item", 0, lambda token: f"{token}.0"),
        ("shop: 288 of 288 rows are left out", "ids must be written alike"),
        {"model": "FM", "load_col": "{inter: [user_id, item_id, rating], item: [item_id, genre]}"},
    ),
    Case(
        "no such folder, ml-100k",
        nothing,
        ("no nope/ml-100k/ml-100k.inter", "leave data_path out"),
        {"data_path": "nope", "dataset": "ml-100k"},
    ),
    Case(
        "a data set that RecBole could download",
        nothing,
        ("no data/ml-1m/ml-1m.inter", "--download=True"),
        {"dataset": "ml-1m"},
    ),
    Case(
        "no interactions",
        lambda: Path("data/shop/shop.inter").unlink(),
        ("no data/shop/shop.inter",),
    ),
    *(
        Case(
            f"item ids with {name}",
            column("item", 0, change),
            ("shop.item: 0 of 20 items have a title", f"shop.item '{shown}'", "title_field=none"),
        )
        for name, change, shown in (
            ("a space", lambda token: f"{token} ", "i2 "),
            ("a prefix", lambda token: f"item-{token}", "item-i0"),
        )
    ),
    Case(
        "item ids as fractions",
        then(
            column("inter", 1, lambda token: f"{token[1:]}.0"),
            column("item", 0, lambda token: token[1:]),
        ),
        ("0 of 20 items have a title", ".0', shop.item '"),
    ),
    Case(
        "item ids with leading zeros",
        then(
            column("inter", 1, lambda token: token[1:]),
            column("item", 0, lambda token: token[1:].zfill(4)),
        ),
        ("0 of 20 items have a title", "shop.item '00"),
    ),
    Case(
        "user ids as fractions",
        column("user", 0, lambda token: f"{token}.0"),
        ("shop.user: 0 of 24 users have a line", "--user_fields=[]"),
    ),
    Case(
        "titles that are empty",
        column("item", 1, lambda title: ""),
        ("0 of 20 items have a title",),
    ),
    Case(
        "a last line cut off within its cells",
        cut_off("u24\ti20"),
        ("shop.inter, line 290", "'' is not a number"),
    ),
    Case("spaces", separated(" "), (*THERE, "one column", "--field_separator=' '")),
    Case("commas", separated(","), (*THERE, "one column", "--field_separator=','")),
    Case("spaces between items", separated(" ", "item"), ("shop.item, line 1", "one column")),
    Case(
        "a separator that is not there",
        nothing,
        (*THERE, r"--field_separator='\t'"),
        {"field_separator": ";"},
    ),
    Case("no separator", nothing, ("field_separator: ''",), {"field_separator": "''"}),
    Case(
        "no types",
        header("inter", "user_id", "item_id", "rating", "timestamp"),
        (*THERE, "'user_id' has no type", "user_id:token"),
    ),
    Case(
        "no types of items",
        header("item", "item_id", "title", "genre"),
        ("shop.item, line 1", "item_id:token"),
    ),
    Case(
        "no type of a number",
        header("inter", *NAMES[:2], "rating", NAMES[3]),
        (*THERE, "rating:float"),
    ),
    Case(
        "no header",
        text("inter", lambda whole: whole.partition("\n")[2]),
        (*THERE, "has no type", "the first line names the columns"),
    ),
    Case(
        "an unknown type",
        header("inter", "user_id:str", *NAMES[1:]),
        (*THERE, "'user_id:str'", "token"),
    ),
    Case(
        "a space in a name",
        header("inter", "user_id :token", *NAMES[1:]),
        (*THERE, "'user_id :token'"),
    ),
    Case(
        "pandas' index without a name",
        further("inter", "", lambda row: row[3], first=True),
        (*THERE, "column 1 has no name", "index=False"),
    ),
    Case(
        "pandas' index of a file read again",
        further("item", "Unnamed: 0", lambda row: row[0], first=True),
        ("shop.item, line 1", "column 1 has no name", "index=False"),
    ),
    Case(
        "a column that stands twice",
        further("inter", "rating:float", lambda row: "1"),
        (*THERE, "2 columns are called 'rating'"),
    ),
    Case(
        "user ids as numbers",
        then(
            column("inter", 0, lambda token: token[1:]),
            header("inter", "user_id:float", *NAMES[1:]),
        ),
        (*THERE, "user_id:float", "write user_id:token"),
    ),
    Case(
        "item ids as several tokens",
        header("inter", NAMES[0], "item_id:token_seq", *NAMES[2:]),
        (*THERE, "write item_id:token"),
    ),
    Case(
        "ratings of one kind",
        column("inter", 2, lambda rating: "3"),
        ("every rating is 3", "a column of labels"),
    ),
    Case(
        "no rows", text("inter", lambda whole: whole.partition("\n")[0] + "\n"), ("no row below",)
    ),
    Case(
        "names in quotes",
        header("inter", *(f'"{name}"' for name in NAMES)),
        (*THERE, "has quotes", "recbole-e2urec init"),
    ),
    Case(
        "a CSV file with quotes",
        then(header("inter", *(f'"{name}"' for name in NAMES)), separated(",")),
        (*THERE, "has quotes", "recbole-e2urec init"),
    ),
    Case(
        "ids by other names",
        header("inter", "userId:token", "movieId:token", *NAMES[2:]),
        (*THERE, "no column 'user_id' among userId, movieId, rating", "USER_ID_FIELD"),
    ),
    Case(
        "dates",
        column("inter", 3, lambda time: "2020-01-02"),
        ("shop.inter, line 2, column timestamp: '2020-01-02'", "recbole-e2urec init reads dates"),
    ),
    Case(
        "one user",
        column("inter", 0, lambda user: "u1"),
        ("the training part has 1 users",),
    ),
    Case(
        "a filter that compares words",
        nothing,
        ("forget_where, column 1",),
        {"forget_where": "rating < five"},
    ),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_refused_in_one_line(case: Case, capfd: pytest.CaptureFixture[str]) -> None:
    shop()
    case.change()
    assert cli.main(as_arguments({**RUN, **case.typed})) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("recbole-e2urec: error: ")
    assert all(part in line for part in case.says), line
    assert not Path("saved").exists()


def test_a_refused_run_leaves_the_log_of_the_run_before(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # those of pytest keep RecBole's out
    shop()
    given = {**RUN, "model": "Pop"}
    assert cli.main(as_arguments(given)) == 0
    (log,) = Path("saved").rglob("*.log")
    before = log.read_text(encoding="utf-8")
    Path("data/shop/shop.inter").write_text("user_id:token\n", encoding="utf-8")
    assert cli.main(as_arguments(given)) == 2
    assert [*Path("saved").rglob("*.log")] == [log]
    assert log.read_text(encoding="utf-8").startswith(before)
    for handler in logging.getLogger().handlers:
        handler.close()


def rated(values: tuple[str, ...]) -> Callable[[], None]:
    """Put another rating for each of 1 to 5."""
    return column("inter", 2, lambda rating: values[int(rating) - 1])


WARNED = [
    Case(
        "a threshold beside labels",
        further("inter", "label:float", lambda row: str(int(row[2] == "1"))),
        ("labels are made by the threshold rating >= 4", "of 288 labels of the data differ"),
        {"threshold": "{rating: 4}"},
    ),
    Case(
        "labels by another name",
        further("inter", "Clicked:float", lambda row: str(int(row[2] == "1"))),
        ("shop.inter: labels are not read from column Clicked", "--LABEL_FIELD=Clicked"),
    ),
    Case(
        "no column with titles",
        header("item", "item_id:token", "caption:token_seq", "genre:token"),
        ("items are named by their ids", "item_id, caption, genre"),
    ),
    Case(
        "few titles",
        column("item", 0, lambda token: token if int(token[1:]) < 8 else f"{token}.0"),
        ("only 40% of the items have a title in shop.item",),
    ),
    Case(
        "few likes",
        rated(("1", "1", "1", "1", "5")),
        ("liked",),
        {"threshold": "{rating: 6}", "eval_mode": "full", "model": "BPR"},
    ),
    Case("stars out of ten under a threshold of 4", rated(("2", "4", "6", "8", "10")), (), {}),
    Case(
        "a scale with a stray cell",
        text("inter", lambda whole: whole.replace("\t5\t", "\t50\t", 1)),
        ("ratings are from 1 to 50; 0.3% of the rows are liked",),
    ),
    Case(
        "nearly all are liked",
        rated(("8", "9", "10", "10", "10")),
        ("ratings are from 8 to 10; 100.0%",),
        {"threshold": "{rating: 8}", "eval_mode": "full", "model": "BPR"},
    ),
    Case(
        "a last line cut off in its time",
        cut_off("u24\ti20\t2\t34"),
        (
            "shop.inter, line 290: the last line has no line end",
            "shop.inter, line 290: time 34 is far",
        ),
    ),
    Case(
        "a time of zero for a missing one",
        text("inter", lambda whole: whole.replace("\t1600000007", "\t0")),
        ("time 0 is far outside of all others (1600000000 to",),
    ),
    Case(
        "milliseconds among seconds",
        text("inter", lambda whole: whole.replace("\t1600000077", "\t1600000077000", 1)),
        ("time 1600000077000 is far outside",),
    ),
    Case(
        "an item file that was cut off",
        text("item", lambda whole: whole[:-1]),
        ("shop.item, line 21: the last line has no line end",),
    ),
    Case(
        "ages that cannot be read",
        column("user", 1, lambda age: "30-39" if age == "21" else age),
        ("forget_where, column 1: 1 values of 'age' are no numbers",),
        {"forget_where": "age < 25"},
    ),
    Case(
        "tokens that are no numbers",
        then(
            header("user", "user_id:token", "age:token", "gender:token", "zip_code:token"),
            column("user", 1, lambda age: "old" if age > "40" else age),
        ),
        ("forget_where, column 1: 3 values of 'age' are no numbers",),
        {"forget_where": "age < 25"},
    ),
]


@pytest.mark.parametrize("case", WARNED, ids=lambda case: case.name)
def test_warned_of(
    case: Case, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    shop()
    case.change()
    assert cli.main(as_arguments({**RUN, "model": "Retrain", **case.typed, "dry_run": True})) == 0
    warnings = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    told = "\n".join([*warnings, capfd.readouterr().out])
    assert all(part in told for part in case.says), told
    assert case.says or not warnings
    assert not Path("saved").exists()


def test_a_byte_order_mark_is_read_over() -> None:
    shop()
    for kind in ("inter", "item", "user"):
        text(kind, lambda whole: f"\ufeff{whole}")()
    data = load_dataset(Config("LLMRec", config_dict=RUN))
    assert (len(data.rows), data.findings.titled, data.findings.described) == (288, 1, 1)


@pytest.mark.parametrize("typed", [r"\t", "'\\t'", "\t"])
def test_a_tab_may_be_typed_as_an_escape(typed: str) -> None:
    shop()
    config = Config("LLMRec", config_dict=RUN, overrides={"field_separator": typed})
    assert len(load_dataset(config).rows) == 288


def taken(**typed: Any) -> tuple[Config, str]:
    """Load the data; gives the settings, and what was taken from the data."""
    config = Config("LLMRec", config_dict={**RUN, **typed})
    return config, "\n".join(load_dataset(config).findings.taken)


def test_labels_of_the_data_win_over_a_default_threshold() -> None:
    shop()
    further("inter", "label:float", lambda row: str(int(row[2] == "1")))()
    config = Config("LLMRec", config_dict=RUN)
    data = load_dataset(config)
    assert config["threshold"] is None
    assert "labels are those of the data" in data.findings.taken[0]
    assert data.rows.rating is not None
    assert data.rows.label is not None
    assert ((data.rows.rating == 1) == data.rows.label).all()


def test_labels_of_the_data_win_over_the_threshold_of_a_known_data_set() -> None:
    shop(Path("data/ml-100k"), "ml-100k")
    Path("data/shop").mkdir()
    Path("data/ml-100k/ml-100k.inter").rename("data/shop/shop.inter")
    further("inter", "label:float", lambda row: "1" if row[2] == "1" else "0")()
    Path("data/shop/shop.inter").rename("data/ml-100k/ml-100k.inter")
    config = Config("FM", config_dict={**RUN, "dataset": "ml-100k"})
    assert load_dataset(config).findings.liked == pytest.approx(59 / 288, abs=0.02)
    assert config["threshold"] is None


@pytest.mark.parametrize(
    ("values", "threshold"),
    [
        (("1", "2", "3", "4", "5"), 4),
        (("2", "4", "6", "8", "10"), 8),
        (("0", "25", "50", "75", "100"), 80),
        (("0.5", "2", "3.5", "4.5", "5"), 4),
        (("3", "3", "4", "4", "5"), 4),
        (("-10", "-5", "0", "5", "10"), 6),
        (("0", "0", "0", "1", "1"), 0.8),
    ],
)
def test_liked_is_the_upper_part_of_the_scale(values: tuple[str, ...], threshold: float) -> None:
    shop()
    rated(values)()
    config, told = taken()
    assert config["threshold"] == {"rating": threshold}
    assert f"liked = rating {threshold:g} and above, four fifths" in told
    assert f"ratings are from {values[0]} to {values[-1]}; " in told


@pytest.mark.parametrize(
    ("names", "title"),
    [
        (("genre", "name", "movie_title", "Title"), "Title"),
        (("subtitle", "brand_name", "name", "product_name"), "name"),
        (("genre", "item_name"), "item_name"),
        (("book_title", "name"), "book_title"),
        (("author_name", "year"), None),
    ],
)
def test_the_title_is_found_by_its_name(names: tuple[str, ...], title: str | None) -> None:
    assert find_title_field(names) == title


def test_titles_and_what_users_say_are_taken_and_said() -> None:
    shop()
    config, told = taken()
    assert (config["title_field"], config["user_fields"]) == ("title", ["age", "gender"])
    assert "titles are column title of shop.item; title_field says otherwise" in told
    assert "prompts say of users age, gender, but not zip_code (shop.user)" in told


def test_titles_and_what_users_say_can_be_switched_off() -> None:
    shop()
    config = Config("LLMRec", None, None, RUN, {"title_field": "none", "user_fields": "[]"})
    data = load_dataset(config)
    assert wording_of(config, data, config.options(PromptOptions)).titles[1].startswith("item i")
    assert (data.findings.title_field, data.findings.user_fields) == (None, ())


def test_a_column_that_tells_users_apart_is_left_out() -> None:
    path = Path("data/shop/shop.user")
    rows = [[str(user), str(user % 300), str(user % 301)] for user in range(400)]
    put([["user_id:token", "few:token", "many:token"], *rows], path)
    assert find_user_fields(path, "user_id") == ("few",)


def test_the_results_say_what_was_taken(caplog: pytest.LogCaptureFixture) -> None:
    shop()
    rated(("2", "4", "6", "8", "10"))()
    caplog.set_level(logging.INFO)
    assert cli.main(as_arguments({**RUN, "model_list": "NegGrad,FM"})) == 0
    assert "shop: liked = rating 8 and above" in caplog.text
    lines = Path("saved/results.jsonl").read_text(encoding="utf-8").splitlines()
    settings = {row["model"]: row["settings"] for row in map(json.loads, lines)}
    taken = {"threshold": {"rating": 8}, "title_field": "title", "user_fields": ["age", "gender"]}
    assert settings.pop("FM")["threshold"] == taken["threshold"]
    assert set(settings) == {"Original", "Retrain", "NegGrad"}
    assert all(taken.items() <= each.items() for each in settings.values())


def test_equal_times_are_said() -> None:
    shop()
    column("inter", 3, lambda time: str(int(time) // 14))()
    told = taken()[1]
    assert "of the rows have the same time as another row of their user" in told


def test_a_missing_number_of_an_interaction_fits_no_filter() -> None:
    shop()
    further("inter", "price:float", lambda row: "" if row[0] == "u1" else "2")()
    typed = {"load_col": {"inter": [*(name.split(":")[0] for name in NAMES), "price"]}}
    config = Config("LLMRec", config_dict={**RUN, **typed, "forget_where": "price < 3"})
    data = load_dataset(config)
    fits = filter_rows("price < 3", Fields(data)).chosen
    assert set(data.rows.user[~fits]) == {data.ids.users["u1"]}


def test_the_data_of_recbole_are_read_beside_a_folder_of_that_name() -> None:
    shop(Path("dataset/ml-100k"), "ml-100k")
    data = load_dataset(Config("LLMRec", "ml-100k"))
    assert len(data.rows) == 100_000
    assert "not dataset/ml-100k; for those write --data_path=dataset" in data.findings.warnings[0]
    assert data.config["threshold"] == {"rating": 4}


PROMPT = """\
M technician 32
Blues Brothers, The 3
Thin Man, The 4
Babe 4
Silence of the Lambs, The 5
Citizen Kane 5
When Harry Met Sally... 5
This Is Spinal Tap 2
When a Man Loves a Woman 4
Shawshank Redemption, The 5
Benny & Joon 3
Braveheart ?
"""


def test_the_prompt_of_ml_100k_is_what_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    shown = {"model": "LLMRec", "show_prompts": 1000, "prompt_users": 311}
    assert cli.main(as_arguments(shown)) == 0
    assert PROMPT in capfd.readouterr().out
