"""Stages: finished or not, never half; and what is left when a write fails."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from time import sleep
from typing import Any

import pytest
import torch

from recbole_e2urec.errors import InputError
from recbole_e2urec.trainer.checkpoint import Stage

WEIGHTS = {"w": torch.tensor([1.0, -2.5]), "b": torch.tensor(3)}


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path / "stages", "Original", {"seed": 1, "rows": "ab"})


def names(stage: Stage) -> set[str]:
    return {path.name for path in stage.folder.iterdir()}


def same(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, call: str, code: int) -> Iterator[None]:
    def fail(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        yield


def test_a_stage_is_finished_by_its_last_file_alone(stage: Stage) -> None:
    assert not stage.finished
    stage.save_progress(WEIGHTS, {"epoch": 1})
    stage.save_best(WEIGHTS)
    stage.finish(WEIGHTS, {"seconds": 0.5})
    assert stage.finished
    (stage.folder / "stage.json").unlink()
    assert not stage.finished


def test_finish_keeps_the_outcome_alone(stage: Stage) -> None:
    stage.save_progress(WEIGHTS, {"epoch": 1})
    stage.save_best(WEIGHTS)
    stage.finish(WEIGHTS, {"seconds": 0.1 + 0.2})
    assert names(stage) == {"weights.safetensors", "stage.json"}
    assert same(stage.weights(), WEIGHTS)
    assert stage.summary() == {"seconds": 0.1 + 0.2}


def test_progress_comes_back_as_it_was(stage: Stage) -> None:
    assert stage.progress() is None
    state = {"epoch": 2, "best": float("-inf"), "loss": {"0": 0.1 + 0.2}}
    stage.save_progress(WEIGHTS, state)
    tensors, found = stage.progress() or ({}, {})
    assert same(tensors, WEIGHTS)
    assert found == state


def test_tidy_removes_parts_and_keeps_what_an_unfinished_stage_needs(stage: Stage) -> None:
    stage.save_progress(WEIGHTS, {"epoch": 1})
    stage.save_best(WEIGHTS)
    (stage.folder / ".progress.safetensors.x1.part").write_bytes(b"torn")
    stage.tidy()
    assert names(stage) == {"progress.safetensors", "best.safetensors"}


def test_tidy_drops_progress_that_a_kill_left_in_a_finished_stage(stage: Stage) -> None:
    stage.finish(WEIGHTS, {})
    stage.save_progress(WEIGHTS, {"epoch": 1})
    stage.save_best(WEIGHTS)
    stage.tidy()
    assert names(stage) == {"weights.safetensors", "stage.json"}


def test_tidy_of_a_stage_that_has_not_begun_makes_nothing(stage: Stage) -> None:
    stage.tidy()
    assert not stage.folder.exists()


def test_whoever_waits_for_a_stage_finds_it_finished(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    other = Stage(stage.folder.parent, stage.name, stage.inputs)
    found: list[bool] = []

    def wait() -> None:
        with other.open():
            found.append(other.finished)

    waiter = Thread(target=wait)
    with caplog.at_level("INFO"), stage.open():
        waiter.start()
        while not caplog.messages:
            sleep(0.01)
        assert "another run is at work" in caplog.messages[0]
        stage.finish(WEIGHTS, {})
    waiter.join()
    assert found == [True]


def test_a_stage_is_free_again_after_an_error(stage: Stage) -> None:
    with pytest.raises(ZeroDivisionError), stage.open():
        raise ZeroDivisionError
    with stage.open():
        assert not stage.finished


@pytest.mark.parametrize("inputs", [{"seed": 2, "rows": "ab"}, {"seed": 1}, {"seed": "1"}])
def test_another_input_is_another_folder(stage: Stage, inputs: dict[str, Any]) -> None:
    stage.finish(WEIGHTS, {})
    other = Stage(stage.folder.parent, "Original", inputs)
    assert other.folder != stage.folder
    assert not other.finished


def test_the_order_of_inputs_does_not_matter(stage: Stage) -> None:
    again = Stage(stage.folder.parent, "Original", {"rows": "ab", "seed": 1})
    assert again.folder == stage.folder


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_earlier_file_whole(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    stage.save_progress(WEIGHTS, {"epoch": 1})
    with (
        failing(monkeypatch, call, errno.ENOSPC),
        pytest.raises(InputError, match=r"cannot write .*progress.*No space.*checkpoint_dir") as it,
    ):
        stage.save_progress({"w": torch.zeros(2)}, {"epoch": 2})
    assert len(str(it.value).splitlines()) == 1
    assert names(stage) == {"progress.safetensors"}
    tensors, state = stage.progress() or ({}, {})
    assert same(tensors, WEIGHTS)
    assert state == {"epoch": 1}


def test_a_full_disk_at_the_last_write_leaves_the_stage_unfinished(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.save_progress(WEIGHTS, {"epoch": 1})
    with failing(monkeypatch, "fsync", errno.ENOSPC), pytest.raises(InputError):
        stage.finish(WEIGHTS, {})
    assert not stage.finished
    assert stage.progress() is not None


def test_another_failure_is_no_users_mistake(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    with failing(monkeypatch, "replace", errno.EIO), pytest.raises(OSError, match="error"):
        stage.save_progress(WEIGHTS, {})
    assert names(stage) == set()
