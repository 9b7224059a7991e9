"""Several models and seeds: every row once, Original and Retrain once a seed; again for free."""

import json
import logging
import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from atomic_files import RUN
from command_line import as_arguments
from jobs import count, die, say

from recbole_e2urec import cli
from recbole_e2urec.config.config import RunSettings
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.comparison import (
    ONE_ROW,
    reference_job,
    run_comparison,
)
from recbole_e2urec.experiment.launch import NO_RESULT, ComparisonSpec, Latest, workers_of
from recbole_e2urec.experiment.recbole_models import ClassicForgetting
from recbole_e2urec.experiment.unlearning import Forgetting
from recbole_e2urec.quick_start import run_recbole_e2urec
from recbole_e2urec.report.results import load_rows
from recbole_e2urec.report.tables import NOISE

CHECKOUT = Path(__file__).parents[2]


def settings(data: Path, **more: Any) -> dict[str, Any]:
    return {
        "data_path": str(data),
        "epochs": 1,
        "model_list": ["LLMRec", "NegGrad", "SISA", "FM"],
        "seeds": [1, 2],
        "shards": 2,
        "show_progress": False,
        **more,
    }


def lines_of(shown: str) -> list[str]:
    """First word of each line below the header of a printed table."""
    lines = shown.splitlines()
    rule = next(number for number, line in enumerate(lines) if line.startswith("---"))
    return [line.split()[0] for line in lines[rule + 1 :] if line]


def compared(data: Path, **more: Any) -> list[dict[str, Any]]:
    return run_comparison("small", config_dict=settings(data, **more))["rows"]


def untimed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without what a clock, a memory gauge or another folder changes."""
    rows = json.loads(json.dumps(rows))
    for row in rows:
        row.pop("settings")
        for name in list(row["cost"]):
            if name.endswith("seconds") or name in ("relative_to_retrain", "peak_memory_mb"):
                del row["cost"][name]
    return rows


def test_a_comparison_has_a_row_for_every_model_and_seed(small_data: Path) -> None:
    rows = compared(small_data)
    models = ["Original", "Retrain", NOISE, "NegGrad", "SISA", "FM"]
    assert [(row["model"], row["seed"]) for row in rows] == [
        (model, seed) for model in models for seed in (1, 2)
    ]
    written = Path("saved/results.jsonl").read_text().splitlines()
    assert sorted(written) == sorted(map(json.dumps, rows))
    stages = [path.name.partition("-")[0] for path in (RUN / "stages").glob("*")]
    assert (stages.count("Original"), stages.count("Retrain"), stages.count("NegGrad")) == (2, 2, 2)


@pytest.mark.thorough
def test_an_interrupted_comparison_goes_on_and_given_again_trains_nothing(
    small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = compared(small_data, checkpoint_dir="whole")

    def unlearn(run: Any, config: Any) -> Any:
        if (config.model, config["seed"]) == ("SISA", 2):
            raise KeyboardInterrupt
        return make(run, config)

    make = Forgetting.unlearned_row
    with monkeypatch.context() as patch:
        patch.setattr(Forgetting, "unlearned_row", unlearn)
        with pytest.raises(KeyboardInterrupt):
            compared(small_data)
    written = Path("saved/results.jsonl").read_text().splitlines()
    assert 0 < len(written) < len(whole)
    assert untimed(compared(small_data)) == untimed(whole)
    made = {path: path.stat().st_mtime_ns for path in (RUN / "stages").glob("*/[!.]*")}
    checkpoints = sorted(RUN.glob("*.pth"))
    assert untimed(compared(small_data)) == untimed(whole)
    again = {path: path.stat().st_mtime_ns for path in (RUN / "stages").glob("*/[!.]*")}
    assert (made, checkpoints) == (again, sorted(RUN.glob("*.pth")))


@pytest.mark.slow
def test_several_processes_make_the_same_trials_and_rows(small_data: Path) -> None:
    more = {"tune": 2, "model_list": ["NegGrad", "FM"]}
    alone = compared(small_data, **more, checkpoint_dir="alone")
    given = settings(small_data, **more, nproc_rows=2, checkpoint_dir="shared")
    program = [sys.executable, str(CHECKOUT / "run_recbole_e2urec.py"), "--dataset=small"]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    subprocess.run([*program, *as_arguments(given)], env=environment, check=True)
    shared = load_rows(Path("shared/results.jsonl"))
    assert sorted(map(json.dumps, untimed(shared))) == sorted(map(json.dumps, untimed(alone)))
    assert all("tuning" in row for row in shared if row["model"] == "NegGrad")


@pytest.mark.parametrize("processes", [1, 2])
def test_jobs_of_a_process_share_what_the_last_of_them_made(processes: int) -> None:
    with workers_of(processes) as workers:
        counts = list(workers([count] * 5))
    assert min(counts) == 0
    assert max(counts) >= 2


def test_workers_that_begin_share_nothing_with_those_before() -> None:
    for _ in range(2):
        with workers_of(1) as workers:
            assert list(workers([count])) == [0]


def test_the_last_thing_is_let_go_before_another_one_is_made() -> None:
    latest = Latest()
    first = latest.get("first", set)
    assert latest.get("first", set) is first
    last = weakref.ref(first)
    del first
    assert latest.get("second", last) is None
    assert latest.get("first", set) == set()


@pytest.mark.parametrize(
    ("given", "threads", "more", "processes"),
    [
        ("auto", 2, {}, 2),
        ("auto", 1, {}, 1),
        ("auto", 2, {"backbone": "t5-base"}, 1),
        ("auto", 2, {"device": torch.device("cuda", 0)}, 1),
        (3, 1, {"backbone": "t5-base"}, 3),
        (None, 2, {}, 1),
    ],
)
def test_two_processes_make_rows_of_a_small_model_on_two_threads(
    given: Any, threads: int, more: dict[str, Any], processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    spec = ComparisonSpec.of([{} if given is None else {"nproc_rows": given}])
    config: Any = {"backbone": "tiny-t5", "device": torch.device("cpu"), **more}
    assert spec.workers(config) == processes


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["--model_list=NPO,FM"], "auto"),
        ([], "auto"),
        (["--model_list=NPO,FM", "--nproc_rows=1"], "1"),
        (["--model=NPO"], None),
    ],
)
def test_the_command_line_leaves_the_number_of_processes_to_the_machine(
    arguments: list[str], asked: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def run(**settings: Any) -> dict[str, Any]:
        given.update(settings)
        return NO_RESULT

    monkeypatch.setattr("recbole_e2urec.quick_start.run_recbole_e2urec", run)
    assert cli.main(arguments) == 0
    assert given["overrides"].get("nproc_rows") == asked


def test_a_comparison_says_once_what_the_data_hold(
    small_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        compared(small_data, model_list=["LLMRec", "FM"])
    (line,) = (message for message in caplog.messages if message.startswith("small: 288 rows"))
    assert line == "small: 288 rows of 24 users and 20 items; 12 to 12 rows a user, median 12"


def test_one_of_several_processes_says_what_the_data_hold() -> None:
    with workers_of(2) as workers:
        said = list(workers([say] * 6))
    lines = [line for _, lines in said for line in lines]
    assert lines == ["288 rows"]


def test_a_process_that_dies_is_told_in_one_line() -> None:
    with pytest.raises(InputError, match="nproc_rows: one of its 2 processes died"):  # noqa: SIM117
        with workers_of(2) as workers:
            list(workers([die]))


def test_another_request_in_the_same_process_is_another_run(small_data: Path) -> None:
    first = compared(small_data, model_list="LLMRec", seeds=1)
    other = compared(small_data, model_list="LLMRec", seeds=1, forget_ratio=0.5)
    assert first[0]["forget"]["rows"] < other[0]["forget"]["rows"]


@pytest.mark.thorough
def test_the_command_line_prints_a_line_a_model(
    small_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = settings(small_data, model_list="NPO,FM", seeds="3,4")
    assert cli.main(["--dataset=small", *as_arguments(given)]) == 0
    shown = capsys.readouterr().out
    assert "small, tiny-t5, 40 forget rows, seeds 3, 4" in shown
    assert lines_of(shown)[:5] == [
        "Original", "Retrain", "Retrain,", "NPO", "FM",
    ]  # fmt: skip
    assert "±" in shown


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"model_list": ["E2URec", "NegGard"]}, "unknown model 'NegGard'"),
        ({"model_list": "E2URec,"}, "model_list is empty"),
        ({"model_list": ["FM", "FM"]}, "named twice"),
        ({"seeds": "1,x"}, "seeds: 'x' does not do"),
        ({"seeds": [1, 1]}, "named twice"),
        ({"nproc_rows": 0}, "nproc_rows: 0 does not do"),
        ({"model_list": ["SISA"], "shards": 0}, "shards is 0"),
        ({"show_progress": "no"}, "show_progress: 'no' does not do; True or False is needed"),
    ],
)
def test_a_mistake_is_refused_before_anything_is_trained(
    small_data: Path, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        compared(small_data, **more)
    assert not list(Path("saved").rglob("*"))


def test_seeds_of_one_model_are_a_comparison_wherever_they_are_given(
    small_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = {**settings(small_data), "model_list": None}
    expected = [("FM", 1), ("FM", 2)]
    for model, more in (("FM", {}), (None, {"model": "FM"}), (None, {"model_list": ["FM"]})):
        rows = run_recbole_e2urec(model, "small", config_dict={**one, **more})["rows"]
        assert [(row["model"], row["seed"]) for row in rows] == expected
    Path("seeds.yaml").write_text("seeds: [1, 2]\n")
    plain = as_arguments({key: value for key, value in one.items() if key != "seeds"})
    for typed in ("--seeds=1,2", "--config_files=seeds.yaml"):
        assert cli.main(["--dataset=small", "--model=FM", *plain, typed]) == 0
        assert "rows, seeds 1, 2" in capsys.readouterr().out


def test_trials_of_one_model_are_made(small_data: Path) -> None:
    given = {**settings(small_data), "model_list": None, "seeds": None, "tune": 2}
    rows = run_recbole_e2urec("NegGrad", "small", config_dict=given)["rows"]
    assert [row["model"] for row in rows] == ["Original", "Retrain", "NegGrad"]
    assert len(rows[-1]["tuning"]["trials"]) == 2


def test_nothing_as_a_list_of_models_is_the_one_model(
    small_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = as_arguments({**settings(small_data), "model_list": None, "seeds": None})
    assert cli.main(["--dataset=small", "--model=FM", *given]) == 0
    assert "small, seed 2020" in capsys.readouterr().out


def test_what_a_method_refuses_is_known_before_training(
    small_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for named in ("--model_list=LLMRec,NegGrad,TokenReset", "--model=TokenReset"):
        plain = {**settings(small_data), "model_list": None, "seeds": None, "user_fields": []}
        typed = as_arguments({key: value for key, value in plain.items() if value is not None})
        assert cli.main(["--dataset=small", *typed, named]) == 2
        *log, line = capsys.readouterr().err.splitlines()
        assert not any("epoch" in entry for entry in log)
        assert "TokenReset: other prompts show every token of the request's" in line
        assert {path.suffix for path in Path("saved").rglob("*") if path.is_file()} <= {".log"}


@pytest.mark.parametrize("refusing", ["NegGrad", "FM"])
def test_a_model_that_refuses_late_leaves_the_others_their_rows(
    refusing: str,
    small_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(run: Any, config_or_way: Any) -> Any:
        raise InputError("no such day")

    unlearn = Forgetting.unlearned_row
    if refusing == "FM":
        monkeypatch.setattr(ClassicForgetting, "row", refuse)
    else:
        monkeypatch.setattr(
            Forgetting,
            "unlearned_row",
            lambda run, config: (refuse if config.model == refusing else unlearn)(run, config),
        )
    typed = as_arguments({**settings(small_data, model_list=f"{refusing},NPO"), "seeds": "1,2"})
    assert cli.main(["--dataset=small", *typed]) == 2
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    assert lines_of(shown.out)[:4] == [
        "Original", "Retrain", "Retrain,", "NPO",
    ]  # fmt: skip
    for seed in (1, 2):
        assert f"no row of {refusing}, seed {seed}: no such day" in shown.out
    assert refusing not in {row["model"] for row in load_rows(Path("saved/results.jsonl"))}


def test_a_disk_that_is_full_ends_the_comparison(
    small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(run: Any, config: Any) -> Any:
        raise InputError("cannot write") from OSError(28, "No space left on device")

    monkeypatch.setattr(Forgetting, "unlearned_row", fail)
    with pytest.raises(InputError, match="cannot write"):
        compared(small_data, model_list=["NPO"], seeds=[1])


def test_a_model_beside_a_list_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--model=FM", "--model_list=FM,BPR"]) == 2
    assert "give one of them" in capsys.readouterr().err


@pytest.mark.thorough
def test_a_second_pass_ranks_beside_the_labels_and_changes_nothing_else(
    small_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = {"model_list": ["LLMRec", "SISA", "SASRec"], "seeds": [1]}
    plain = compared(small_data, **models)
    ranked = compared(small_data, **models, ranking_pass="full")
    assert [row["model"] for row in ranked if "ndcg@10" in row.pop("ranking")] == [
        "Original", "Retrain", "SISA", "SASRec",
    ]  # fmt: skip
    plain[-1].pop("ranking")  # SASRec's own evaluation
    assert untimed(plain) == untimed(ranked)
    arguments = as_arguments(settings(small_data, **models, ranking_pass="full"))
    assert cli.main(["--dataset=small", *arguments]) == 0
    assert "ndcg@10" in capsys.readouterr().out


@pytest.mark.thorough
def test_another_seeds_retrain_shows_the_noise_unless_it_adapts_another_backbone(
    small_data: Path,
) -> None:
    models = {"model_list": ["LLMRec"], "seeds": [1, 2]}
    rows = compared(small_data, **models)
    retrains = {row["seed"]: row for row in rows if row["model"] == "Retrain"}
    noise = {row["seed"]: row for row in rows if row["model"] == NOISE}
    assert noise[1]["stage"] == retrains[2]["stage"]
    assert noise[1]["test"] == retrains[2]["test"]  # the same model, measured beside another
    assert noise[1]["to_retrain"]["jsd"] == pytest.approx(noise[2]["to_retrain"]["jsd"])
    assert noise[1]["to_retrain"]["jsd"] > 0
    adapters = compared(small_data, **models, tuning="lora")
    assert NOISE not in {row["model"] for row in adapters}


def test_references_trained_apart_give_the_same_rows(small_data: Path) -> None:
    whole = compared(small_data, model_list="NegGrad", seeds=1, checkpoint_dir="whole")
    apart = settings(small_data, model_list="NegGrad", seeds=1, checkpoint_dir="apart")
    for name in ("Original", "Retrain"):
        reference_job(RunSettings("small", (), {**apart, **ONE_ROW, "seed": 1}), name, Latest())
    trained = {path: path.stat().st_mtime_ns for path in Path("apart/stages").glob("*/[!.]*")}
    rows = run_comparison("small", config_dict=apart)["rows"]
    assert untimed(rows) == untimed(whole)
    assert (
        trained.items()
        <= {path: path.stat().st_mtime_ns for path in Path("apart/stages").glob("*/[!.]*")}.items()
    )
