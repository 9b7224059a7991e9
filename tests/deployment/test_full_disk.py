"""A disk that is full at any step: one line, the old model answers, and with room it goes on."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from full_disk import room_for
from in_use import SETTINGS, opened, write_data

from recbole_e2urec import cli
from recbole_e2urec.deployment.model_folder import ModelFolder
from recbole_e2urec.deployment.recommend import load_recommender
from recbole_e2urec.errors import InputError
from recbole_e2urec.quick_start import run_recbole_e2urec

CANARY = "u1"
FORGET = ["forget", "--checkpoint=model", "--request=r.csv", "--show_progress=False"]
METHODS = {
    "NegGrad": ["--model=NegGrad", "--joint_epochs=1"],
    "E2URec": ["--joint_epochs=1", "--warmup_epochs=1", "--augmented_epochs=2"],
}


def refused(command: list[str], steps: int, capfd: pytest.CaptureFixture[str]) -> bool:
    """Run with room for so many steps; says whether there was too little, in one line."""
    capfd.readouterr()
    with room_for(steps) as tried:
        code = cli.main(command)
    told = capfd.readouterr()
    assert not re.search(rf"\b{CANARY}\b", told.out + told.err)
    if len(tried) <= steps:
        assert code == 0
        return False
    assert code == 2
    (line,) = [line for line in told.err.splitlines() if "error" in line]
    assert "No space left on device" in line
    return True


def check_whole(before: dict[str, Any]) -> bool:
    """The old model or the new one answers; says whether it is the new one."""
    record = ModelFolder("model").read().record
    if record["requests"] == []:
        assert record["files"] == before["files"]
        load_recommender("model").recommend(CANARY)
        return False
    with pytest.raises(InputError, match="nothing is known"):
        load_recommender("model").recommend(CANARY)
    return True


def check_goes_on(command: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(command) == 0
    assert cli.main(command) == 0
    assert "was carried out before; nothing to do" in capfd.readouterr().out
    assert len(opened().record["requests"]) == 1
    files = [path for path in Path("model").rglob("*") if path.is_file()]
    certificates = [path for path in files if path.parent.name == "certificates"]
    assert sorted(path.suffix for path in certificates) == [".html", ".json"]
    names = sorted(path.name for path in set(files) - set(certificates))
    kept = {"answers.safetensors"} & {*opened().record["files"]}
    assert names == [".lock", *kept, "current.json", "forgotten.safetensors", "model.json",
                     "sample.safetensors", "weights.safetensors"]  # fmt: skip


def full_at(steps: int, method: str, made: Path, capfd: pytest.CaptureFixture[str]) -> bool | None:
    """Say whether the new model was in place when the room ended; None: the room sufficed."""
    shutil.rmtree("model", ignore_errors=True)
    shutil.copytree(made, "model")
    Path("r.csv").write_text(f"user_id\n{CANARY}\n")
    before, command = ModelFolder("model").read().record, [*FORGET, *METHODS[method]]
    if not refused(command, steps, capfd):
        return None
    new = check_whole(before)
    check_goes_on(command, capfd)
    return new


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(8, id="work", marks=pytest.mark.thorough),
        pytest.param(18, id="the new generation", marks=pytest.mark.thorough),
        pytest.param(43, id="current.json"),
    ],
)
def test_a_request_on_a_full_disk(
    steps: int, made_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert full_at(steps, "NegGrad", made_model, capfd) is not None


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_request_on_a_disk_that_is_full_at_any_step(
    method: str, made_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    states: list[bool] = []
    while (state := full_at(len(states), method, made_model, capfd)) is not None:
        states.append(state)
    assert len(states) > 30
    assert states == sorted(states)  # the old one up to a step, the new one from there on
    assert True in states


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained recommender."""
    folder = tmp_path_factory.mktemp("trained")
    data = write_data(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        given = {"data_path": str(data), **SETTINGS, "epochs": 1, "eval_step": 1}
        run_recbole_e2urec("LLMRec", "small", config_dict=given)
    return folder


@pytest.mark.thorough
def test_an_export_on_a_disk_that_is_full_at_any_step(
    trained: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained / "saved", "saved")
    command, steps = ["export", "--model=LLMRec", "--output=model"], 0
    while refused(command, steps, capfd):
        if ModelFolder("model").has_model:  # the pointer was in place, and flushed too late
            shutil.rmtree("model")
        steps += 3 if steps < 21 else 1  # of the last ones, which place the model, none is left out
    assert steps > 20
    assert opened().record["model"] == "LLMRec"
    left = [path for path in Path("model").rglob("*") if path.name.endswith(".part")]
    assert left == []
