"""``check``: what a run would read, how long it would take, and sizes that fit few rows."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from atomic_files import write_table

from recbole_e2urec import cli
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.experiment import preview, run
from recbole_e2urec.experiment.launch import ComparisonSpec
from recbole_e2urec.experiment.run import (
    Experiment,
    constant_logloss,
    fit_to_rows,
    has_broken_down,
)


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["check", "--seconds=0.1", *arguments]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    return shown.out


def test_it_says_what_a_run_would_read_on_one_screen(
    small_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = told(capsys, "--dataset=small", f"--data_path={small_data}")
    assert "small: 288 rows of 24 users and 20 items; 12 to 12 rows a user, median 12" in text
    assert "times: 2020-09-13 to 2020-09-13" in text
    assert "100% of the items have a title (movie_title)" in text
    assert "100% of the users have a line (age, gender)" in text
    assert "parts: 220 training rows" in text
    assert "220 training rows are too few to learn from" in text
    assert "sizes for 220 training rows: train_batch_size 8" in text
    assert "\na prompt:\n" in text
    assert "estimate for E2URec, NegatedE2URec: " in text
    assert len(text.splitlines()) < 40
    assert not Path("saved").exists()


def test_other_models_and_no_estimate(small_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ("--dataset=small", f"--data_path={small_data}")
    assert "estimate for LLMRec: " in told(capsys, "--model=LLMRec", *data)
    assert "estimate for SISA: " in told(capsys, "--model_list=SISA,DeepFM", *data)
    classic = told(capsys, "--model=DeepFM", *data)
    assert "parts: " in classic
    assert "prompt" not in classic
    assert cli.main(["check", "--seconds=0", *data]) == 0
    assert "estimate" not in capsys.readouterr().out


def test_models_and_seeds_come_from_every_layer(
    small_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ("--dataset=small", f"--data_path={small_data}")
    Path("my.yaml").write_text("model_list: [LLMRec, SISA]\nseeds: [1, 2]\n")
    assert "estimate for LLMRec, SISA: " in told(capsys, "--config_files=my.yaml", *data)
    assert cli.main(["check", "--model_list=E2URec,", *data]) == 2
    assert "model_list is empty, or a part of it is" in capsys.readouterr().err
    assert cli.main(["check", "--seeds=1-3", *data]) == 2
    assert "seeds: '1-3' does not do" in capsys.readouterr().err


def test_seeds_trials_and_processes_change_the_estimate(
    small_data: Path, small_config: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preview, "measured_speed", lambda run, seconds: preview.Speed(60.0, 0.0))
    config = small_config("E2URec", epochs=1, forget_ratio=0.5)
    run_ = Experiment(config, load_dataset(config))

    def minutes(**settings: Any) -> float:
        spec = ComparisonSpec.of([{"model_list": "E2URec", **settings}])
        text = preview.estimate(run_, spec, 1.0)
        return float(text.split(": ")[1].split(" minutes")[0])

    steps = -(-len(run_.parts.splits.train) // config["train_batch_size"])
    assert minutes() == pytest.approx(steps * (1 + 0.5 * 1.2), abs=0.51)
    assert minutes(seeds="1,2") == pytest.approx(2 * steps * 1.6, abs=0.51)
    assert minutes(nproc_rows=2) == pytest.approx(steps * 1.6 / 2, abs=0.51)
    assert minutes(tune=3) == pytest.approx(steps * (2 * 1.5 + 4 * 0.5 * 0.2), abs=0.51)


def test_data_without_times_titles_and_users(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        [f"u{user}", f"i{item}", 1 + (user + item) % 5] for user in range(9) for item in range(9)
    ]
    write_table(tmp_path / "d" / "d.inter", "user_id:token item_id:token rating:float", rows)
    text = told(capsys, "--dataset=d", f"--data_path={tmp_path}")
    assert "times: none" in text
    assert "items are named by their ids" in text
    assert "warning: no times, so rows are split at random" in text


@pytest.mark.parametrize(
    ("rows", "size", "epochs", "patience"),
    [
        (100, 8, 231, 77),
        (500, 16, 94, 32),
        (2_047, 64, 94, 32),
        (2_048, 128, 188, 63),
        (10_000, 128, 38, 13),
    ],
)
def test_few_rows_get_small_batches_and_many_steps(
    rows: int, size: int, epochs: int, patience: int, small_config: Callable[..., Any]
) -> None:
    config = small_config("LLMRec")
    del config.external_config_dict["epochs"]
    fit_to_rows(config, rows)
    assert config["train_batch_size"] == size
    assert config["epochs"] == epochs  # 3,000 steps
    assert config["stopping_step"] == patience  # 1,000 steps
    assert config["learning_rate"] == 0.005
    assert config["valid_metric"] == "LogLoss"
    assert not config["valid_metric_bigger"]


@pytest.mark.parametrize(
    ("rows", "settings"),
    [
        (20_000, {}),
        (1_500, {"backbone": "t5-base"}),
        (1_500, {"train_batch_size": 128}),
        (1_500, {"learning_rate": 0.01}),
    ],
)
def test_other_sizes_stay_as_they_are(
    rows: int, settings: dict[str, Any], small_config: Callable[..., Any]
) -> None:
    config = small_config("LLMRec", **settings)
    del config.external_config_dict["epochs"]
    before = dict(config.final_config_dict)
    assert fit_to_rows(config, rows) == []
    assert config.final_config_dict == before


def test_ml_100k_and_ml_1m_keep_their_sizes() -> None:
    least = 57_000  # training rows of ml-100k without a fifth of the users
    assert least >= run.FEW_ROWS


def test_logloss_of_a_constant_is_that_of_the_share() -> None:
    train, valid = np.array([1, 1, 1, 0], np.float32), np.array([1, 1, 0], np.float32)
    assert constant_logloss(train, valid) == pytest.approx(-(2 * np.log(0.75) + np.log(0.25)) / 3)


def test_logloss_of_a_constant_is_at_most_that_of_one_half() -> None:
    train, valid = np.array([1, 1, 1, 0], np.float32), np.zeros(3, np.float32)
    assert constant_logloss(train, valid) == pytest.approx(np.log(2))


@pytest.mark.parametrize(
    ("losses", "broken"),
    [([1.282, 0.612, 0.657], True), ([1.35, 0.607, 0.59], False), ([0.7], False), ([], False)],
)
def test_a_training_that_ends_above_its_best_epoch_broke_down(
    losses: list[float], broken: bool
) -> None:
    assert has_broken_down(losses) == broken


def test_a_training_that_breaks_down_is_told(
    small_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from recbole_e2urec.quick_start import run_recbole_e2urec

    settings = {"data_path": str(small_data), "epochs": 3, "learning_rate": 3.0, "clip_norm": None}
    with caplog.at_level(logging.INFO):
        run_recbole_e2urec("LLMRec", "small", config_dict={**settings, "show_progress": False})
    assert any("so the training broke down; try a" in message for message in caplog.messages)


def test_a_model_that_has_learned_nothing_is_told(
    small_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from recbole_e2urec.quick_start import run_recbole_e2urec

    settings = {"data_path": str(small_data), "epochs": 1, "learning_rate": 1e-9}
    with caplog.at_level(logging.INFO):
        run_recbole_e2urec("LLMRec", "small", config_dict={**settings, "show_progress": False})
    assert any("LLMRec has learned nothing" in message for message in caplog.messages)
    assert any(message.startswith("small: 288 rows of 24 users") for message in caplog.messages)
