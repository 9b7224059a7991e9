"""Classic models forget too: retrained, or in shards of which a request touches some."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recbole_e2urec import cli
from recbole_e2urec.config.keys import split_forget_method, with_forget_method
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.comparison import run_comparison
from recbole_e2urec.experiment.recbole_models import ClassicForgetting
from recbole_e2urec.quick_start import run_recbole_e2urec

FAST = {"epochs": 2, "show_progress": False, "train_batch_size": 64, "MAX_ITEM_LIST_LENGTH": 5}


def run_of(config: Any) -> ClassicForgetting:
    return ClassicForgetting(config, load_dataset(config))


@pytest.mark.parametrize(
    ("name", "parts"),
    [("FM", ("FM", None)), ("FM-SISA", ("FM", "SISA")), ("S3Rec-x", ("S3Rec-x", None))],
)
def test_way_of_takes_a_name_apart(name: str, parts: tuple[str, str | None]) -> None:
    assert split_forget_method(name) == parts
    assert with_forget_method(*parts) == name


@pytest.mark.parametrize("model", ["FM", "BPR", "SASRec", "Pop"])
@pytest.mark.parametrize("way", ["Retrain", "SISA"])
def test_any_model_forgets(small_config: Any, model: str, way: str) -> None:
    row = run_of(small_config(f"{model}-{way}", shards=2, **FAST)).row(way)
    assert row["model"] == f"{model}-{way}"
    assert all(np.isfinite(value) for value in row["test"].values())
    assert 0 <= row["forget"]["auc"] <= 1
    assert ("logloss" in row["forget"]) is (model == "FM")


@pytest.mark.parametrize("part", ["train", "valid"])
def test_retrain_depends_on_no_row_of_a_forgotten_user(small_config: Any, part: str) -> None:
    run = run_of(small_config("FM-Retrain", **{**FAST, "epochs": 4, "stopping_step": 0}))
    before = run.row("Retrain")
    run.dataset.prepare()
    user, rows = run.dataset.rows.user, getattr(run.splits, part)
    forgotten = rows[np.isin(user[rows], user[run.split.forget])]
    labels = run.dataset._all_rows["label"]
    labels[forgotten] = 1 - labels[forgotten]
    after = run.row("Retrain")
    assert (after["test"], after["valid"]) == (before["test"], before["valid"])


def test_sisa_trains_touched_shards_again(small_config: Any) -> None:
    run = run_of(small_config("FM-SISA", shards=3, **FAST))
    user = run.dataset.rows.user
    one = np.unique(user[run.splits.train])[0]
    rows = run.splits.train[user[run.splits.train] == one]
    run.split = run.split._replace(forget=rows, retain=np.setdiff1d(run.splits.train, rows))
    fitted: list[int] = []
    fit = run._fit
    run._fit = lambda rows: fitted.append(len(rows)) or fit(rows)  # type: ignore[method-assign]
    row = run.row("SISA")
    assert len(fitted) == 4  # three shards, and one of them again
    assert sum(fitted[:3]) > len(run.splits.train) - 1
    assert row["cost"]["prior_seconds"] > row["cost"]["seconds"]


def test_a_run_shows_the_model_before_and_retrained(
    small_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"data_path": str(small_data), "shards": 2, **FAST}
    rows = run_recbole_e2urec("FM-SISA", "small", config_dict=given)["rows"]
    assert [row["model"] for row in rows] == ["FM", "FM-Retrain", "FM-SISA"]
    rows = run_recbole_e2urec("FM-Retrain", "small", config_dict=given)["rows"]
    assert [row["model"] for row in rows] == ["FM", "FM-Retrain"]
    arguments = [f"--{key}={value}" for key, value in given.items()]
    assert cli.main(["--model=FM-Retrain", "--dataset=small", *arguments]) == 0
    assert "forget AUC" in capsys.readouterr().out


def test_a_comparison_has_classic_models_that_forget(small_data: Path) -> None:
    given = {"data_path": str(small_data), "model_list": "FM,FM-Retrain", **FAST}
    rows = run_comparison("small", config_dict=given)["rows"]
    again = run_comparison("small", config_dict=given)["rows"]
    assert [row["model"] for row in rows] == ["FM", "FM-Retrain"]
    assert again == rows  # the clock as well: nothing was trained


@pytest.mark.parametrize("model", ["SASRec", "BPR"])
def test_models_that_rank_have_an_auc_beside_their_ranking(small_data: Path, model: str) -> None:
    given = {"data_path": str(small_data), "model_list": model, **FAST}
    (row,) = run_comparison("small", config_dict=given)["rows"]
    assert 0 < row["test"]["auc"] < 1
    assert "ndcg@10" in row["ranking"]


def test_a_second_pass_ranks_with_models_that_learn_from_labels(small_data: Path) -> None:
    given = {"data_path": str(small_data), "model_list": "FM,FM-SISA", "shards": 2, **FAST}
    rows = run_comparison("small", config_dict={**given, "ranking_pass": "full"})["rows"]
    assert all("auc" in row["test"] and "ndcg@10" in row["ranking"] for row in rows)
    with pytest.raises(InputError, match="ranking_pass"):
        run_comparison("small", config_dict={**given, "ranking_pass": "labeled"})


def test_a_language_model_is_told_the_methods_own_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--model=LLMRec-SISA"]) == 2
    assert "write --model=SISA" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["DeepFM", "LLMRec", "BPR", "FM-Retrain", "NegGrad"])
def test_a_run_has_its_results_under_the_names_of_recbole(model: str, small_data: Path) -> None:
    given = {"data_path": str(small_data), "epochs": 1, "show_progress": False}
    results = run_recbole_e2urec(model, "small", config_dict=given)
    row = results["rows"][-1]
    assert row["model"] == model
    assert results["test_result"] == row["test"]
    assert results["best_valid_result"] == row.get("valid")
    assert results["valid_score_bigger"] is True
    if model == "NegGrad":  # validates nothing
        assert results["best_valid_score"] is None
    else:
        metric = "ndcg@10" if model == "BPR" else "auc"
        assert results["best_valid_score"] == row["valid"][metric]
