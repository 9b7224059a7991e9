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
    assert "chosen: " in done.stdout or done.stderr.startswith("every setting costs too much")


def test_the_half_must_be_closed_less_one_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(CHECKOUT / "benchmarks"))
    from choose_strength import Trial, choose, mean_of

    mean = mean_of([Trial(0.4, 0.8, 0.004), Trial(0.6, 0.6, 0.008)])
    assert mean == pytest.approx((0.5, 0.7, 0.006, 0.1))  # sd 0.1414, over the root of 2
    weak, strong = Trial(0.55, 0.7, 0.005, 0.1), Trial(0.65, 0.8, 0.009, 0.1)
    dear, crossed = Trial(0.8, 0.6, 0.011, 0.1), Trial(1.3, 0.5, 0.009, 0.1)
    assert choose([weak, strong, dear, crossed]) == 1
    assert choose([weak, dear, crossed]) == 0
    assert choose([dear, crossed]) is None


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
