"""A dry run says what would be forgotten; and a request that runs again finds what it did."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from atomic_files import RUN, small_interactions
from command_line import as_arguments, write

from recbole_e2urec import cli
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.experiment.comparison import run_comparison
from recbole_e2urec.experiment.run import parts_of
from recbole_e2urec.experiment.unlearning import Forgetting
from recbole_e2urec.quick_start import run_recbole_e2urec

ALWAYS = {"dataset": "small", "title_field": "movie_title", "epochs": 1, "show_progress": False}


def tree(folder: Path) -> dict[str, int]:
    """Every file and folder below, with its time of change."""
    return {str(path): os.stat(path).st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture
def dry(small_data: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """Run the command line dry; gives what it prints. Nothing may be written."""

    def run(code: int = 0, **settings: Any) -> str:
        before = tree(tmp_path)
        given = {"data_path": small_data, **ALWAYS, "control_users": 0, **settings}
        assert cli.main([*as_arguments(given), "--dry_run"]) == code
        assert tree(tmp_path) == before
        shown = capfd.readouterr()
        return shown.err if code else shown.out

    return run


def test_a_dry_run_counts_rows_users_and_items(dry: Callable[..., str], tmp_path: Path) -> None:
    lines = ['{"user_id": "u1"}', '{"user_id": "u2"}', '{"user_id": "u1"}', '{"user_id": "eve"}']
    file = write(tmp_path / "r.jsonl", "\n".join(lines))
    told = dry(forget_file=file).splitlines()
    assert told[0].startswith("request ")
    assert told[0].endswith(" on small")
    items = len({item for user, item, *_ in small_interactions() if user in ("u1", "u2")})
    assert told[1] == "would forget 20 of 240 training rows (8.33%)"  # ten of twelve train
    assert told[2] == "  of 2 users, 2 of them wholly"
    assert int(told[3].split()[1]) <= items
    assert "asked for as well, but not trained on: 2 validation rows" in told
    assert "asked for as well, but not trained on: 2 test rows" in told
    assert "warning: line 4: names a user that the data does not have" in told
    assert "warning: lines 1 and 3: the same is asked for more than once" in told
    assert told[-1] == "dry run: nothing was trained, nothing was written"
    assert "eve" not in "\n".join(told)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a run refuses this: forget file r.csv names nobody"),
        ("user_id\neve\n", "a run refuses this: forget file r.csv: nothing that it names"),
        (
            "user_id\n" + "".join(f"u{user}\n" for user in range(24)),
            "a run refuses this: the request names all 240",
        ),
        (
            "user_id\n" + "".join(f"u{user}\n" for user in range(7)),
            "29% of the training rows is more than retrain_share (25%): Retrain is exact",
        ),
    ],
)
def test_a_dry_run_warns(dry: Callable[..., str], text: str, message: str) -> None:
    write(Path("r.csv"), text)
    assert f"warning: {message}" in dry(forget_file="r.csv")


def test_a_dry_run_of_a_filter_a_share_a_comparison_and_a_classic_model(
    dry: Callable[..., str],
) -> None:
    assert "would forget" in dry(forget_where="genre == 'g1' and rating < 3")
    assert "(20" in dry(forget_ratio=0.2, forget_by="interaction")
    assert "would forget" in dry(model_list="LLMRec,DeepFM", forget_where="rating == 1")
    assert "would forget" in dry(model="DeepFM-Retrain", forget_where="rating == 1")
    assert "no field 'gener'" in dry(2, forget_where="gener == 'g1'")
    assert "retrain_share is 0" in dry(2, retrain_share=0)
    assert "'refuse' or 'skip' is needed" in dry(2, forget_unknown="ask")


def test_a_filter_names_control_users_and_a_run_names_its_request(dry: Callable[..., str]) -> None:
    told = dry(control_users=0.5, forget_where="rating > 1", request_id="GDPR-7")
    assert told.startswith("request GDPR-7 (content ")
    assert "control users' rows" in told


def test_the_same_request_in_other_words_finds_every_stage(
    small_data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given = {"data_path": small_data, **ALWAYS, "model": "NegGrad", "joint_epochs": 1}
    first = write(Path("a.csv"), "user_id\nu1\nu2\n")
    again = write(Path("b.jsonl"), '{"user_id": "u2"}\n{"user_id": "u1"}\n{"user_id": "u2"}\n')
    assert cli.main(as_arguments({**given, "forget_file": first})) == 0
    before = tree(RUN / "stages")
    rows = Path("saved/results.jsonl").read_text().splitlines()
    row = json.loads(rows[0])
    assert row["request_id"] == row["request_digest"]
    assert f"request {row['request_id']}" in capfd.readouterr().out
    assert cli.main(as_arguments({**given, "forget_file": again})) == 0
    assert len(Path("saved/results.jsonl").read_text().splitlines()) == len(rows)
    locks = {name for name in before if name.endswith(".lock")}
    after = tree(RUN / "stages")
    assert set(after) == set(before)
    assert {name for name in before if after[name] != before[name]} <= locks


def test_a_file_with_other_content_is_another_request_of_a_classic_model(small_data: Path) -> None:
    given = {"data_path": str(small_data), "epochs": 1, "show_progress": False}

    def compared(file: str) -> dict[str, Any]:
        settings = {**given, "model_list": ["BPR"], "forget_file": file}
        (row,) = run_comparison("small", config_dict=settings)["rows"]
        return row

    first = compared(write(Path("r.csv"), "user_id\nu1\n"))
    again = compared(write(Path("other.csv"), "u1\nu1\n"))
    assert again == first  # found, down to its seconds
    other = compared(write(Path("r.csv"), "user_id\nu1\nu2\n"))
    assert other["request_digest"] != first["request_digest"]
    assert other["forget"]["rows"] == 2 * first["forget"]["rows"]
    assert len(Path("saved/results.jsonl").read_text().splitlines()) == 2


def test_results_keep_no_value_of_a_filter(small_data: Path) -> None:
    given = {"data_path": str(small_data), **ALWAYS, "forget_where": "user_id == 'u1'"}
    del given["dataset"]
    run_recbole_e2urec("DeepFM-Retrain", "small", config_dict=given)
    text = Path("saved/results.jsonl").read_text()
    assert "user_id == ?" in text
    assert "u1" not in text


def test_forgotten_rows_of_no_part_leave_the_histories_too(small_config: Any) -> None:
    config = small_config(
        "E2URec", forget_where="item_id == 'i3'", min_history=5, control_users=0,
        title_field="movie_title",
    )  # fmt: skip
    data = load_dataset(config)
    run = Forgetting(config, data)
    asked = data.rows.item == data.ids.items["i3"]
    trained = parts_of(config, data).splits
    held_out = [*trained.valid, *trained.test]
    asked[held_out] = False
    assert asked.sum() > len(run.split.forget)  # some are in no part
    shown = run.after[run.after >= 0]
    assert not asked[shown].any()
    assert asked[run.before[run.before >= 0]].any()
