"""The benchmarks run, on small data, and go on where they were."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]


def run(data: Path, script: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a benchmark on ``small`` in the current folder."""
    always = ["--dataset=small", f"--data_path={data}", "--epochs=1", "--joint_epochs=1"]
    return subprocess.run(
        [sys.executable, str(CHECKOUT / "benchmarks" / script), *always, *arguments],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_seeds_prints_a_line_a_seed_their_mean_and_the_floor(small_data: Path) -> None:
    done = run(small_data, "seeds.py", "--seeds", "1", "2")
    assert done.returncode == 0, done.stderr
    shown = done.stdout.splitlines()
    assert [line.split()[0] for line in shown[-4:]] == ["1", "2", "mean", "noise"]


def test_choose_strength_names_a_setting_of_its_grid(small_data: Path) -> None:
    grid = ["--seeds", "1", "--teacher_divergence", "0.1", "0.2", "--beta", "0.5"]
    done = run(small_data, "choose_strength.py", *grid)
    assert done.stdout.count("mean: closed") == 2, done.stderr
    assert "chosen: " in done.stdout


def test_margin_is_the_nearest_limit_in_standard_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(CHECKOUT / "benchmarks"))
    from choose_strength import Trial, margin, summary_of

    setting = summary_of([Trial(0.6, 0.7, 0.004), Trial(0.8, 0.5, 0.006)])
    assert setting.mean == pytest.approx((0.7, 0.6, 0.005))
    assert setting.error == pytest.approx((0.1, 0.1, 0.001))  # sd over the root of 2
    assert margin(setting) == pytest.approx(2.0)  # closed: 0.2; 5.5 above, residual 4, lost 5
    crossed = summary_of([Trial(1.3, 0.7, 0.004), Trial(1.5, 0.7, 0.004)])
    assert margin(crossed) == pytest.approx(-1.5)
    assert margin(summary_of([Trial(0.7, 0.9, 0.009)])) == pytest.approx(0.1)  # no error is known


@pytest.mark.parametrize("script", ["seeds.py", "choose_strength.py"])
def test_bad_input_is_one_line(script: str) -> None:
    done = subprocess.run(
        [sys.executable, str(CHECKOUT / "benchmarks" / script), "--dataset=ml-10m0"],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "unknown dataset" in done.stderr
    assert "Traceback" not in done.stderr
