"""The main job on every shape of data, backbone, tuning, request and evaluation."""

import math
from pathlib import Path
from typing import Any

import pytest
from atomic_files import small_interactions, write_table
from command_line import as_arguments

from recbole_e2urec import cli
from recbole_e2urec.quick_start import run_recbole_e2urec
from recbole_e2urec.report.report import print_report

ALWAYS = {"epochs": 1, "joint_epochs": 1, "train_batch_size": 32, "show_progress": False}


def job(data: Path, model: str = "E2URec", **settings: Any) -> list[dict[str, Any]]:
    """Run a job on ``small``; gives its rows."""
    given = {"data_path": str(data), "title_field": "movie_title", **ALWAYS, **settings}
    return run_recbole_e2urec(model, "small", config_dict=given)["rows"]


@pytest.mark.parametrize(
    "settings",
    [
        {"backbone": "tiny-llama"},
        {"tuning": "lora"},
        {"backbone": "tiny-llama", "tuning": "lora"},
        {"history_length": 0},
        {"max_prompt_tokens": 24},
        {"prompt": "plain", "user_fields": ["age", "gender"]},
        {"control_users": 0},
        {"forget_by": "interaction"},
        {"forget_by": "item"},
        {"eval_args": {"order": "RO"}},
        {"eval_args": {"group_by": "none"}},
        {"eval_args": {"split": {"RS": [0.8, 0, 0.2]}}},
        {"eval_args": {"split": {"LS": "valid_and_test"}}},
    ],
)
def test_a_run_measures_three_models(settings: dict[str, Any], small_data: Path) -> None:
    rows = job(small_data, **settings)
    assert [row["model"] for row in rows] == ["Original", "Retrain", "E2URec"]
    for row in rows:
        assert 0 <= row["test"]["auc"] <= 1
        assert row["forget"]["rows"] > 0
        assert math.isfinite(row["to_retrain"]["residual"])
    assert (rows[0]["mia_auc"] is None) == (settings.get("control_users") == 0)


@pytest.mark.parametrize("mode", ["uni5", "pop5", "full"])
def test_ranking_measures_three_models_as_well(
    mode: str, small_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = job(small_data, eval_mode=mode, topk=[5])
    for row in rows:
        assert {"recall@5", "ndcg@5", "mrr@5", "hit@5"} <= set(row["ranking"])
        assert all(0 <= value <= 1 for value in row["ranking"].values())
    print_report({"rows": rows, "groups": {}, "results_file": "x"})
    assert "ndcg@5" in capsys.readouterr().out


@pytest.mark.parametrize("mode", ["uni5", "full"])
def test_the_recommender_alone_ranks(mode: str, small_data: Path) -> None:
    (row,) = job(small_data, "LLMRec", eval_mode=mode, topk=[5])
    assert 0 <= row["test"]["ndcg@5"] <= 1
    assert 0 <= row["valid"]["ndcg@5"] <= 1


def test_data_without_titles_users_or_ratings(tmp_path: Path) -> None:
    folder = tmp_path / "bare" / "small"
    table = [[user, item, rating % 2, time] for user, item, rating, time in small_interactions()]
    write_table(
        folder / "small.inter", "user_id:token item_id:token label:float timestamp:float", table
    )
    rows = job(folder.parent, title_field=None, threshold=None)
    assert [row["model"] for row in rows] == ["Original", "Retrain", "E2URec"]


def test_a_request_from_a_file_of_pairs(small_data: Path) -> None:
    pairs = [f"{user},{item}" for user, item, *_ in small_interactions() if user in ("u1", "u2")]
    Path("pairs.csv").write_text("\n".join(["user_id,item_id", *pairs]), encoding="utf-8")
    rows = job(small_data, forget_file="pairs.csv", control_users=0)
    assert rows[0]["forget"]["rows"] == 2 * 10  # 80 % of twelve rows, rounded up, are training rows


def test_the_command_line_prints_the_table_of_the_results(
    small_data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given = {"data_path": small_data, "dataset": "small", "title_field": "movie_title", **ALWAYS}
    assert cli.main(as_arguments(given)) == 0
    (row, *_) = job(small_data)
    assert "NegatedE2URec" in Path("saved/results.jsonl").read_text(encoding="utf-8")
    shown = capfd.readouterr().out
    (line,) = [line for line in shown.splitlines() if line.startswith("test AUC")]
    assert float(line.split()[2]) == pytest.approx(row["test"]["auc"], abs=5e-5)
