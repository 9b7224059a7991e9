"""Folders of a run, ``checkpoint_dir``, in which somebody put something else."""

import os
import pickle
import shutil
from pathlib import Path

import pytest
from atomic_files import RUN
from command_line import as_arguments, write
from full_disk import room_for

from recbole_e2urec import cli


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("loaded",))


@pytest.fixture
def command(small_data: Path) -> list[str]:
    given = {"data_path": small_data, "dataset": "small", "title_field": "movie_title",
             "epochs": 1, "joint_epochs": 1, "augmented_epochs": 1}  # fmt: skip
    return as_arguments({**given, "show_progress": False})


def refused(command: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    capfd.readouterr()
    assert cli.main(command) == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "error" in line]
    assert not Path("loaded").exists()
    return line


def test_a_pickle_is_never_loaded(command: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    bomb = pickle.dumps(Evil())
    Path("saved").mkdir()
    for name in ("small-LLMRecDataset.pth", "small-Dataset.pth", "small-for-E2URec-dataloader.pth",
                 "E2URec.pth", "small-RowDataset.pth"):  # fmt: skip
        (Path("saved") / name).write_bytes(bomb)
    assert cli.main(command) == 0
    assert not Path("loaded").exists()
    (weights,) = (RUN / "stages").glob("Original-*/weights.safetensors")
    whole = weights.read_bytes()
    for content in (bomb, b"", whole[:100], whole[:-1]):
        weights.write_bytes(content)
        line = refused(command, capfd)
        assert f"{weights} is damaged" in line
        assert f"remove {weights.parent}, and the same command makes it anew" in line
    weights.write_bytes(whole)
    stage = weights.with_name("stage.json")
    said = stage.read_text()
    for text in ("", "{", "[]", "{}", '{"summary": 1, "inputs": {}}', "[" * 100_000):
        stage.write_text(text)
        assert "stage.json is damaged" in refused(command, capfd)
    stage.write_text(said)
    assert cli.main(command) == 0


def test_progress_that_is_none_is_refused(
    command: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(command) == 0
    (stage,) = (RUN / "stages").glob("Retrain-*")
    (stage / "stage.json").unlink()
    (stage / "weights.safetensors").rename(stage / "progress.safetensors")
    assert "progress.safetensors is damaged" in refused(command, capfd)  # it has no state
    (stage / "progress.safetensors").write_bytes(pickle.dumps(Evil()))
    assert "progress.safetensors is damaged" in refused(command, capfd)


TAGS = [
    "!!python/object/apply:os.mkdir ['loaded']",
    "!!python/object/new:os.mkdir ['loaded']",
    "!!python/name:os.system",
    "!!python/module:os",
    "!!timestamp never",
    "!!int one",
    "[" * 1_100,
]


@pytest.mark.parametrize("tag", TAGS)
def test_a_python_tag_is_no_code(
    tag: str, command: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    for name, text in (("evil.yaml", f"epochs: {tag}\n"), ("evil.yaml", f"? {tag}\n: 1\n")):
        write(Path(name), text)
        line = refused([*command, "--config_files", name], capfd)
        assert "evil.yaml" in line
        assert "not valid yaml" in line
    write(Path("prompt.yaml"), f"entry: {tag}\nquestion: '{{{{ title }}}}'\n")
    assert "prompt.yaml" in refused([*command, "--prompt=prompt.yaml"], capfd)
    typed = [one for one in command if not one.startswith("--epochs")]
    refused([*typed, f"--epochs={tag}"], capfd)
    refused([*typed, f"--epochs=[{tag}]"], capfd)


@pytest.mark.slow
def test_a_disk_that_is_full_at_any_step_of_a_run(
    command: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    steps, code = 0, 2
    while code == 2:
        shutil.rmtree("saved", ignore_errors=True)
        with room_for(steps) as tried:
            code = cli.main(command)
        errors = [line for line in capfd.readouterr().err.splitlines() if "error" in line]
        assert (code == 2) == (len(tried) > steps)
        if code == 2:
            assert len(errors) == 1
            assert "No space left on device" in errors[0]
            assert not list(Path("saved").rglob("*.part"))
            if steps % 10 == 0:
                assert cli.main(command) == 0  # it goes on
        steps += 1
    assert steps > 60
    assert code == 0
