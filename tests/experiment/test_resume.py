"""Killed at any write of any stage, the same command ends with an uninterrupted run's numbers."""

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from atomic_files import RUN
from command_line import as_arguments

CHECKOUT = Path(__file__).parents[2]
PROGRAM = str(CHECKOUT / "run_recbole_e2urec.py")
# Runs the command line until it ends well, each time in a process of its own that dies by SIGKILL
# in the place of the first write into saved/ at which none died before: a new file and one that is
# replaced are two places. Imports are paid once, before the forks.
DRIVER = """
import os, signal, sys
from pathlib import Path
from recbole_e2urec import cli, quick_start, report
replace, deaths = os.replace, Path("deaths")
deaths.touch()
def replace_or_die(part, path):
    place = f"{path} {'again' if os.path.exists(path) else 'new'}"
    if "saved" in Path(path).parts and place not in deaths.read_text().splitlines():
        with deaths.open("a") as file:
            print(place, file=file)
        os.kill(os.getpid(), signal.SIGKILL)
    replace(part, path)
os.replace, status = replace_or_die, -signal.SIGKILL
while status == -signal.SIGKILL:
    if os.fork() == 0:
        os._exit(cli.main(sys.argv[1:]))
    status = os.waitstatus_to_exitcode(os.wait()[1])
sys.exit(status)
"""
SETTINGS = {
    "dataset": "small",
    "epochs": 2,
    "learning_rate": 0.01,
    "augmented_epochs": 3,  # one more than is written down: the last epoch writes its outcome
    "warmup_epochs": 1,
    "joint_epochs": 2,
    "train_batch_size": 16,
    "unlearn_batch_size": 16,
    "title_field": "movie_title",
    "show_progress": False,
}


def run(folder: Path, data: Path, *program: str) -> None:
    """Run the command in the folder until it ends well."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, *program, *as_arguments({"data_path": data, **SETTINGS})],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def results(folder: Path) -> list[dict[str, Any]]:
    """Rows without what a clock or a memory gauge says."""
    rows = [json.loads(line) for line in (folder / "saved/results.jsonl").read_text().splitlines()]
    for row in rows:
        for name in ("seconds", "relative_to_retrain", "peak_memory_mb"):
            assert row["cost"].pop(name) > 0
    return rows


def deaths(folder: Path) -> set[str]:
    """Stage, file and state of the file at each death, as in ``Retrain/stage.json new``."""
    lines = (folder / "deaths").read_text().splitlines()
    return {re.sub(r"^.*/(\w+)-\w+/", r"\1/", line) for line in lines}


@pytest.fixture
def uninterrupted(tmp_path: Path, small_data: Path) -> list[dict[str, Any]]:
    run(tmp_path / "whole", small_data, PROGRAM)
    return results(tmp_path / "whole")


@pytest.mark.slow
def test_two_runs_at_once_end_like_one(
    tmp_path: Path, small_data: Path, uninterrupted: list[dict[str, Any]]
) -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda _: run(tmp_path / "both", small_data, PROGRAM), range(2)))
    assert results(tmp_path / "both") == uninterrupted


@pytest.mark.slow
def test_a_run_killed_at_every_write_ends_like_an_uninterrupted_one(
    tmp_path: Path, small_data: Path, uninterrupted: list[dict[str, Any]]
) -> None:
    killed = tmp_path / "killed"
    run(killed, small_data, "-c", DRIVER)
    for stage in ("Retrain", "Original", "augmented", "E2URec"):
        times = {f"{stage}/progress.safetensors {state}" for state in ("new", "again")}
        ends = {f"{stage}/weights.safetensors new", f"{stage}/stage.json new"}
        assert times | ends <= deaths(killed)
    bests = {f"{stage}/best.safetensors new" for stage in ("Retrain", "Original")}
    assert bests | {"saved/results.jsonl new"} <= deaths(killed)

    models = ["Original", "Retrain", "E2URec", "NegatedE2URec"]
    assert [row["model"] for row in results(killed)] == models
    assert results(killed) == uninterrupted
    kept = {path.name for path in (killed / RUN / "stages").rglob("*") if path.is_file()}
    # Some versions of filelock leave their file, and none may remove what another run waits for.
    assert kept - {".lock"} == {"weights.safetensors", "stage.json"}
    assert not list((killed / "saved").rglob("*.part"))
