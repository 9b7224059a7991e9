"""Killed in any stage, the same command ends with the numbers of an uninterrupted run."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

STAGES = ("Retrain", "Original", "augmented", "E2URec")
CHECKOUT = Path(__file__).parents[1]
# Runs the command line, and dies by SIGKILL right after the first epoch of a stage is written.
DRIVER = """
import os, signal, sys
from recbole_e2urec.cli import main
from recbole_e2urec.trainer.stage import Stage
victim, write = sys.argv[1], Stage.save_progress
def write_and_die(stage, *args):
    write(stage, *args)
    if stage.name == victim:
        os.kill(os.getpid(), signal.SIGKILL)
Stage.save_progress = write_and_die
sys.exit(main(sys.argv[2:]))
"""


def run(folder: Path, data: Path, victim: str = "nobody") -> int:
    settings = {
        "data_path": data,
        "dataset": "small",
        "epochs": 2,
        "augmented_epochs": 2,
        "train_batch_size": 16,
        "unlearn_batch_size": 16,
        "title_field": "movie_title",
        "show_progress": False,
    }
    folder.mkdir(exist_ok=True)
    arguments = [f"--{key}={value}" for key, value in settings.items()]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, victim, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, -signal.SIGKILL):
        pytest.fail(done.stderr)
    return done.returncode


def results(folder: Path) -> list[dict[str, Any]]:
    """Rows without what a clock or a memory gauge says."""
    rows = [json.loads(line) for line in (folder / "saved/results.jsonl").read_text().splitlines()]
    for row in rows:
        for name in ("seconds", "relative_to_retrain", "peak_memory_mb"):
            row["cost"].pop(name)
    return rows


def test_a_run_killed_in_each_stage_ends_like_an_uninterrupted_one(
    tmp_path: Path, small_data: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run(whole, small_data) == 0
    for victim in STAGES:
        assert run(killed, small_data, victim) == -signal.SIGKILL
        assert not (killed / "saved/results.jsonl").exists()
    assert run(killed, small_data) == 0
    assert [row["model"] for row in results(killed)] == ["Original", "Retrain", "E2URec"]
    assert results(killed) == results(whole)
    assert not list(killed.rglob("*.part")) + list(killed.rglob("progress.safetensors"))

    made = sorted(path.stat().st_mtime_ns for path in killed.rglob("weights.safetensors"))
    assert run(killed, small_data) == 0
    assert results(killed) == results(whole)
    assert sorted(path.stat().st_mtime_ns for path in killed.rglob("weights.safetensors")) == made
