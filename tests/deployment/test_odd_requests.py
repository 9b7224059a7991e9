"""Requests that ask for nothing, twice or for two things at once, odd ids, and a wrong clock.

Nothing that is said names a user.
"""

import csv
import io
import json
import os
import time
from datetime import datetime as real_datetime
from pathlib import Path
from typing import Any

import pytest
from atomic_files import INTER, small_interactions, write_table
from in_use import SETTINGS, opened

from recbole_e2urec import cli
from recbole_e2urec.config.config import RunSettings
from recbole_e2urec.deployment import forget
from recbole_e2urec.deployment.export import ExportOptions, export
from recbole_e2urec.deployment.model_folder import ModelFolder
from recbole_e2urec.quick_start import run_recbole_e2urec
from recbole_e2urec.trainer.checkpoint import Stage

pytestmark = pytest.mark.usefixtures("short_relearning")
FORGET = ["forget", "--checkpoint=model", "--model=NegGrad", "--joint_epochs=1",
          "--show_progress=False"]  # fmt: skip
USERS = ("u1", "u2", "u23")


def told(capfd: pytest.CaptureFixture[str], code: int, text: str, *more: str) -> str:
    """What the command says of a request with this text, of which nothing names a user."""
    name = "r.jsonl" if text.startswith("{") else "r.csv"
    Path(name).write_text(text, encoding="utf-8")
    capfd.readouterr()
    assert cli.main([*FORGET, f"--request={name}", *more]) == code
    said = capfd.readouterr()
    everything = said.out + said.err
    assert not any(user in everything.split() or f"'{user}'" in everything for user in USERS)
    assert "secret" not in everything
    if code:
        (line,) = [line for line in said.err.splitlines() if "error" in line]
        return line
    return everything


@pytest.mark.usefixtures("in_use")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "r.csv names nobody"),
        ("user_id\n", "r.csv names nobody"),
        ("\n\n", "r.csv names nobody"),
        ("secret1\nsecret2\n", "(lines 1 and 2)"),
        ("user_id\nu1\nsecret\n", "(line 3)"),
        ("user_id,from,until\nu1,2021-02-01,2021-01-01\n", "the time range is reversed"),
        ("user_id,user\nu1,u2\n", "user"),
        ('{"user_id": "u1", "user_id": "u2"}\n', "line 1"),
        ('{"request_id": "A", "user_id": "u1"}\n{"request_id": "B", "user_id": "u2"}\n',
         "different request_ids"),
    ],
)  # fmt: skip
def test_an_empty_unknown_or_contradictory_request_changes_nothing(text, message, capfd):
    before = Path("model/current.json").read_bytes()
    assert message in told(capfd, 2, text)
    assert Path("model/current.json").read_bytes() == before
    assert not Path("model/work").exists()


@pytest.mark.usefixtures("in_use")
def test_a_request_of_unknown_users_alone_is_told_when_they_are_skipped(capfd):
    line = told(capfd, 2, "user_id\nsecret1\nsecret2\n", "--forget_unknown=skip")
    assert "names no row that the data has" in line
    said = told(capfd, 0, "user_id\nu1\nsecret\n", "--forget_unknown=skip")
    assert "warning: line 3" in said
    assert "10 training rows of 12" in said


@pytest.mark.thorough
@pytest.mark.usefixtures("in_use")
def test_requests_again_and_against_each_other(capfd):
    assert "is carried out, the 1." in told(capfd, 0, "user_id\nu1\nu1\n", "--request_id=A")
    record = ModelFolder("model").read().record
    for text, name in (("user_id\nu1\n", "A"), ("u1\n", "A"), ("user_id\nu1\nu1\nu1\n", "B")):
        said = told(capfd, 0, text, f"--request_id={name}")
        assert "request A was carried out before; nothing to do" in said
    assert "was another request's" in told(capfd, 2, "user_id\nu2\n", "--request_id=A")
    assert "was another request's" in told(capfd, 2, "user_id\nu1\nu2\n", "--request_id=A")
    assert "request_id" in told(capfd, 2, '{"request_id": "C", "user_id": "u2"}\n',
                                "--request_id=B")  # fmt: skip
    pair = f"user_id,item_id\nu1,{small_items('u1')[0]}\n"
    assert "is forgotten already; nothing to do" in told(capfd, 0, pair, "--request_id=D")
    assert ModelFolder("model").read().record == record
    said = told(capfd, 0, "user_id\nu1\nu2\n", "--request_id=E")  # one anew, one already forgotten
    assert "is carried out, the 2." in said
    assert "10 training rows of 12 rows" in said
    entries = ModelFolder("model").read().record["requests"]
    assert [entry["request_id"] for entry in entries] == ["A", "E"]


def small_items(user: str) -> list[str]:
    return [item for one, item, *_ in small_interactions() if one == user]


# What CSV, JSON, shells, spreadsheets and terminals take for something else. A tab or a line end
# ends a cell of the data, so that no id has one.
ODD = [
    "a,b", 'q"q', '"', "'", "a;b", "u 1", " lead", "trail ", "=1+1", "-1", "NA", "null", "{x}",
    "\u2028", "\x1b[2J", "\u202e", "\\n", "$(id)", "../x", "x:token", "#", "[PAD]", "a|b", "٣",
]  # fmt: skip


@pytest.fixture(scope="module")
def odd_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of users and items with odd ids, made once; tests change into its folder."""
    folder = tmp_path_factory.mktemp("odd")
    names = {f"u{place}": name for place, name in enumerate(ODD)}
    items = {f"i{place}": name for place, name in enumerate(ODD)}
    rows = [
        [names.get(user, user), items.get(item, item), rating, time]
        for user, item, rating, time in small_interactions()
    ]
    write_table(folder / "data/small/small.inter", INTER, rows)
    films = [[items[f"i{place}"], f"Film {place}"] for place in range(20)]
    write_table(folder / "data/small/small.item", "item_id:token movie_title:token_seq", films)
    settings = {**SETTINGS, "user_fields": [], "epochs": 1, "eval_step": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        given = {"data_path": str(folder / "data"), **settings}
        run_recbole_e2urec("LLMRec", "small", config_dict=given)
        export(ExportOptions("model"), "LLMRec", RunSettings())
    return folder / "model"


def test_odd_ids_are_asked_for_answered_and_forgotten_as_they_are(
    odd_model: Path, tmp_path: Path, capfd
):
    os.symlink(odd_model, "model")
    known = opened().dataset.ids
    assert set(known.users) == set(ODD)
    Path("users.txt").write_text("\n".join(ODD) + "\n", encoding="utf-8", newline="\n")
    argv = ["recommend", "--checkpoint=model", "--users_file=users.txt", "--output=json"]
    assert cli.main([*argv, "--topk=3"]) == 0
    lines = capfd.readouterr().out.split("\n")[:-1]
    assert all(line.isprintable() for line in lines)
    found = [json.loads(line) for line in lines]
    assert [one["user"] for one in found] == ODD
    assert {item["item"] for one in found for item in one["items"]} <= set(known.items)
    for place, written in enumerate((as_csv, as_json)):
        asked = ODD[12 * place : 12 * place + 11]
        assert "11 users" in dry(capfd, written(asked))
    user = '"' + ODD[1].replace('"', '\\"') + '"'
    argv = [*FORGET, f"--forget_where=user_id == {user}", "--dry_run=True"]
    assert cli.main(argv) == 0
    assert "of 1 user" in capfd.readouterr().out


def as_csv(names: list[str]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([["user_id"], *([name] for name in names)])
    return file.getvalue()


def as_json(names: list[str]) -> str:
    return "".join(json.dumps({"user_id": name}) + "\n" for name in names)


def dry(capfd: pytest.CaptureFixture[str], text: str) -> str:
    name = "odd.jsonl" if text.startswith("{") else "odd.csv"
    Path(name).write_text(text, encoding="utf-8", newline="\n")
    capfd.readouterr()
    assert cli.main([*FORGET, f"--request={name}", "--dry_run=True"]) == 0, capfd.readouterr().err
    return capfd.readouterr().out


class Backwards(real_datetime):
    """A clock that is an hour earlier each time it is asked."""

    hours = 0

    @classmethod
    def now(cls, tz: Any = None) -> "Backwards":
        cls.hours += 1
        return cls.fromtimestamp(1_600_000_000 - 3600 * cls.hours, tz)


@pytest.mark.thorough
@pytest.mark.usefixtures("in_use")
def test_a_clock_that_jumps_back_changes_no_order_and_no_duration(capfd, monkeypatch):
    state = [1_600_000_000.0]

    def earlier() -> float:
        state[0] -= 3600
        return state[0]

    monkeypatch.setattr(forget, "datetime", Backwards)
    monkeypatch.setattr(time, "time", earlier)
    for user in USERS:
        assert "is carried out" in told(capfd, 0, f"user_id\n{user}\n")
    entries = ModelFolder("model").read().record["requests"]
    dates = [entry["date"] for entry in entries]
    assert dates == sorted(dates, reverse=True)  # what the clock said; the list has the order
    assert all(entry["seconds"] > 0 for entry in entries)
    assert [entry["training_rows"] for entry in entries] == [10, 10, 10]
    assert ModelFolder("model").read().name == "000007"  # two for each request
    assert len(opened().gone) == 3


@pytest.mark.usefixtures("in_use")
def test_files_from_the_future_are_taken_for_what_they_hold(capfd):
    """A killed request goes on by what its stages are, whatever the times of their files."""
    Path("r.csv").write_text("user_id\nu1\n")
    with pytest.MonkeyPatch.context() as patch:

        def full(*given: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr(ModelFolder, "write", full)
        assert cli.main([*FORGET, "--request=r.csv"]) == 130
    stages = [path for path in Path("model/work").rglob("*") if path.is_file()]
    assert any(path.name == "stage.json" for path in stages)
    for path in [*stages, *Path("model").rglob("*.json")]:
        os.utime(path, (4e9, 4e9))
    with pytest.MonkeyPatch.context() as patch:

        def no_training(*given: Any, **more: Any) -> None:
            raise AssertionError("the finished stage is trained again")

        patch.setattr(Stage, "finish", no_training)
        assert "is carried out, the 1." in told(capfd, 0, "user_id\nu1\n")
