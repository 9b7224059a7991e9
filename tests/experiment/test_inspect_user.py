"""``recbole-e2urec case``: one user under all models of a finished comparison."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from atomic_files import RUN, small_interactions, write_table
from command_line import as_arguments

from recbole_e2urec import cli
from recbole_e2urec.cli import COMMANDS
from recbole_e2urec.config.config import RunSettings
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.comparison import run_comparison
from recbole_e2urec.experiment.finished import settings_of
from recbole_e2urec.experiment.inspect_user import Case, CaseOptions, inspect_user
from recbole_e2urec.experiment.unlearning import Forgetting
from recbole_e2urec.methods import method_of
from recbole_e2urec.report.results import load_rows
from recbole_e2urec.trainer import adapter, llmrec_trainer

MODELS = ["E2URec", "NPO", "RecEraser"]
SETTINGS = {
    "epochs": 1,
    "learning_rate": 0.01,
    "augmented_epochs": 1,
    "joint_epochs": 1,
    "shards": 2,
    "title_field": "movie_title",
    "prompt": "numbered",
    "user_fields": ["age"],
    "train_batch_size": 32,
    "show_progress": False,
}
TITLES = [f"Film <{item}> & co" for item in range(20)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with data and a finished comparison, tuned in part; made once."""
    folder = tmp_path_factory.mktemp("finished")
    data = folder / "data" / "small"
    header = "user_id:token item_id:token rating:float timestamp:float"
    write_table(data / "small.inter", header, small_interactions())
    films = [[f"i{item}", title] for item, title in enumerate(TITLES)]
    write_table(data / "small.item", "item_id:token movie_title:token_seq", films)
    people = [[f"u{user}", 20 + user] for user in range(24)]
    write_table(data / "small.user", "user_id:token age:float", people)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        given = {"data_path": str(folder / "data"), "model_list": MODELS, "tune": 2, **SETTINGS}
        run_comparison("small", config_dict=given)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def here(finished: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A copy of it, in which no training may happen."""
    shutil.copytree(finished / "saved", tmp_path / "saved")

    def train(*given: Any, **more: Any) -> Any:
        raise AssertionError("something is being trained")

    for module in (llmrec_trainer, adapter):
        monkeypatch.setattr(module, "train_epoch", train)
    return tmp_path


def looked_at(user: str, model: str | None = None, topk: int = 10, **overrides: Any) -> Case:
    return inspect_user(CaseOptions(user, topk, rows=3), model, RunSettings(overrides=overrides))


@pytest.fixture(scope="module")
def users(finished: Path) -> dict[str, str]:
    """A forgotten user, one who stays, and a control user."""
    row = load_rows(finished / "saved" / "results.jsonl")[0]
    config = settings_of(row, finished / "saved", RunSettings())
    run = Forgetting(config, load_dataset(config))
    user = run.dataset.rows.user
    tokens = {inner: token for token, inner in run.dataset.ids.users.items()}
    groups = {"forgotten": run.split.forget, "stays": run.split.retain, "kept": run.parts.control}
    return {name: tokens[int(user[rows[0]])] for name, rows in groups.items()}


def test_a_forgotten_user_is_answered_by_all_models_that_are_kept(
    here: Path, users: dict[str, str]
) -> None:
    user = users["forgotten"]
    case = looked_at(user)
    assert (case.standing, case.dataset, case.user) == ("forgotten", "small", user)
    assert [asked.prompt.part for asked in case.rows] == ["forget"] * 3 + ["valid"] + ["test"]
    for asked in case.rows:
        assert list(asked.yes) == ["Original", "E2URec", "NPO", "Retrain"]
        assert all(0 < yes < 1 for yes in asked.yes.values())
        assert len(set(asked.yes.values())) == 4
        assert asked.prompt.text.startswith(f"user{user} ")
        assert asked.prompt.title in TITLES
        assert asked.label in ("0", "1")
    assert len(case.notes) == 1
    assert case.notes[0].startswith("RecEraser is left out: ")


def test_its_answers_are_those_that_were_measured(
    here: Path, users: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What measures are made of, asked by the run itself, which finds its stages finished."""
    monkeypatch.undo()
    monkeypatch.chdir(here)
    user = users["forgotten"]
    case = looked_at(user)
    rows = {row["model"]: row for row in load_rows(here / "saved" / "results.jsonl")}
    config = settings_of(rows["E2URec"], here / "saved", RunSettings())
    run = Forgetting(config, load_dataset(config))
    run.train()
    answers = {
        "Original": run.original.answers.yes,
        "Retrain": run.retrain.answers.yes,
        "E2URec": run.unlearn(method_of(config)).answers.yes,
    }
    items, inner = run.dataset.ids.items, run.dataset.ids.users[user]
    for asked in case.rows:
        if asked.prompt.part == "valid":
            continue  # no measure looks there
        item = items[asked.prompt.fields["item_id"]]
        own = (run.dataset.rows.user == inner) & (run.dataset.rows.item == item)
        for name, yes in answers.items():
            assert asked.yes[name] == pytest.approx(yes[own].item(), abs=1e-6)


def test_recommended_are_the_best_unseen_items_of_each_model(
    here: Path, finished: Path, users: dict[str, str]
) -> None:
    user = users["stays"]
    case = looked_at(user, "E2URec", topk=99)
    assert case.standing == "stays"
    assert list(case.top) == ["Original", "E2URec", "Retrain"]
    rows = [
        line.split("\t") for line in (finished / "data/small/small.inter").read_text().split("\n")
    ]
    own = {row[1]: row for row in rows[1:] if row[0] == user}
    newest = sorted(own.values(), key=lambda row: float(row[3]))
    test = newest[-1]
    unseen = {f"i{item}" for item in range(20)} - {row[1] for row in newest[:-1]}
    for items in case.top.values():
        assert {item.item for item in items} <= unseen
        assert test[1] in {item.item for item in items}
        scores = [item.yes for item in items]
        assert scores == sorted(scores, reverse=True)
        for item in items:
            assert item.title == TITLES[int(item.item[1:])]
            assert item.hit == (item.item == test[1] and int(test[2]) >= 4)
    asked = next(asked for asked in case.rows if asked.prompt.part == "test")
    (again,) = [item for item in case.top["E2URec"] if item.item == test[1]]
    assert again.yes == pytest.approx(asked.yes["E2URec"], abs=1e-6)
    assert len(looked_at(user, "E2URec", topk=2).top["Retrain"]) == 2


def test_a_control_user_is_said_to_be_one(here: Path, users: dict[str, str]) -> None:
    case = looked_at(users["kept"], "NPO")
    assert case.standing == "kept out of all training (control user)"
    assert [asked.prompt.part for asked in case.rows] == ["control"] * 3 + ["valid", "test"]


def test_the_command_prints_the_case_and_writes_a_page(
    here: Path, users: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    user = users["forgotten"]
    before = {path for path in here.rglob("*") if path.is_file()}
    command = ["case", "--user", user, "--topk", "4", "--model=E2URec"]
    assert cli.main([*command, *as_arguments({"checkpoint_dir": here / "saved"})]) == 0
    shown = capsys.readouterr().out
    assert f"user {user} of small: forgotten" in shown
    assert "Film <" in shown
    assert shown.endswith(f"page: {here / RUN / 'case.html'}\n")
    after = {path for path in here.rglob("*") if path.is_file()}
    assert after - before == {here / RUN / "case.html"}
    page = (here / RUN / "case.html").read_text(encoding="utf-8")
    assert "Film <" not in page
    assert "Film &lt;" in page
    assert page.count("<pre>") == 5
    assert cli.main([*command, "--output_file=mine.html"]) == 0
    assert Path("mine.html").is_file()


def test_the_newest_comparison_that_agrees_is_taken(here: Path, users: dict[str, str]) -> None:
    rows = load_rows(here / "saved" / "results.jsonl")
    later = [{**row, "seed": 77, "request": "other"} for row in rows]
    lines = [json.dumps(row) + "\n" for row in [*rows, *later]]
    (here / "saved" / "results.jsonl").write_text("".join(lines))
    user = users["stays"]
    assert looked_at(user, "NPO", seed="2020").standing == "stays"
    with pytest.raises(InputError, match="under these settings and versions; run the comparison"):
        looked_at(user, "NPO")


def test_parts_of_a_setting_agree_with_the_whole(here: Path, users: dict[str, str]) -> None:
    (args,) = {str(row["settings"]["eval_args"]) for row in load_rows(here / "saved/results.jsonl")}
    assert "'mode'" in args
    user, part = users["stays"], "{'order': 'TO', 'split': {'RS': [0.8, 0.1, 0.1]}}"
    assert looked_at(user, "NPO", eval_args=part).standing == "stays"
    with pytest.raises(InputError, match="has no comparison with NPO"):
        looked_at(user, "NPO", eval_args="{'order': 'RO'}")


def test_data_that_changed_is_refused(here: Path, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "data", tmp_path / "other")
    path = tmp_path / "other/small/small.inter"
    path.write_text(path.read_text().rsplit("\n", 2)[0] + "\n")
    with pytest.raises(
        InputError, match=r"Retrain is not in saved/small.e2urec-run/stages under these settings"
    ):
        looked_at("u1", "E2URec", data_path=str(tmp_path / "other"))
    assert not (RUN / "case.html").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "which user? write --user=TOKEN"),
        (["--user=nobody"], "user 'nobody' is no user of small"),
        (["--user=u1", "--topk=0"], "topk is 0"),
        (["--user=u1", "--rows=x"], "rows: 'x' does not do"),
        (["--user=u1", "--model=BadT"], "has no comparison with BadT"),
        (["--user=u1", "--forget_ratio=0.7"], "under these settings; run one"),
        (["--user=u1", "--checkpoint_dir=elsewhere"], "has no comparison with Original"),
    ],
)
def test_what_cannot_be_looked_at_is_one_line(
    argv: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["case", *argv]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_users_named_by_numbers_stay_text(here: Path) -> None:
    own = cli.parse(["case", "--user=007"]).command_arguments
    with pytest.raises(InputError, match="user '007' is no user of small"):
        COMMANDS["case"].run(None, RunSettings(), own)


def test_probabilities_are_numbers_of_this_user_alone(here: Path, users: dict[str, str]) -> None:
    cases = [looked_at(users[name], "NPO") for name in ("forgotten", "stays")]
    for case in cases:
        assert {asked.prompt.fields["user_id"] for asked in case.rows} == {case.user}
        assert np.isfinite([yes for asked in case.rows for yes in asked.yes.values()]).all()


@pytest.mark.thorough
def test_a_comparison_of_a_filter_needs_the_filter_again(finished: Path) -> None:
    data, wanted = finished / "data", "age < 23"
    given = {"data_path": str(data), "model_list": ["NPO"], "forget_where": wanted, **SETTINGS}
    run_comparison("small", config_dict=given)
    assert looked_at("u1", data_path=str(data), forget_where=wanted).standing == "forgotten"
    assert looked_at("u9", data_path=str(data), forget_where=wanted).standing != "forgotten"
    with pytest.raises(InputError, match="forget_where: results keep the comparison's filter"):
        looked_at("u1", data_path=str(data))
