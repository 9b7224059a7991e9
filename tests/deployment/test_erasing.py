"""Forgotten rows leave the data files: whole or not at all, and nothing else changes."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from in_use import CANARY, NAMES, QUICK, WITH_CONTROL, forget_users, make_model, opened

from recbole_e2urec import cli
from recbole_e2urec.deployment.forget import QueueOptions, forget
from recbole_e2urec.deployment.model_folder import ModelFolder

DATA = Path("data/small")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a run and a model folder, whose prompts name users."""
    folder = tmp_path_factory.mktemp("erasing")
    make_model(folder, names=NAMES, **WITH_CONTROL)
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path) -> Path:
    """A copy of it in the test's folder, where model.json says that it always was."""
    for name in ("data", "model", "saved"):
        shutil.copytree(made / name, tmp_path / name)
    move("model", str(made), str(tmp_path))
    (DATA / ".e2urec-folders").write_text(f"{tmp_path / 'model'}\n")
    return tmp_path


def move(model: str, old: str, new: str) -> None:
    """Replace a path in the record of a model folder."""
    pointer = json.loads(Path(model, "current.json").read_text())
    record = Path(model, "generations", pointer["generation"], "model.json")
    record.write_text(record.read_text().replace(old, new))
    pointer["sha256"] = hashlib.sha256(record.read_bytes()).hexdigest()
    Path(model, "current.json").write_text(json.dumps(pointer))


def erased(*more: str) -> int:
    return cli.main(["erase", "--checkpoint=model", "--shared_data", *more])


def test_first(here: Path, capsys) -> None:
    forget_users(CANARY, "u2", model="NegGrad")
    shutil.copytree("model", "other")
    shutil.copytree("data", "other_data")
    move("other", str(here / "data"), str(here / "other_data"))
    before = opened()
    assert erased() == 0
    print(capsys.readouterr().out)
    after = opened()
    print(after.record["requests"][0]["erased"])
    assert after.record["fingerprint"] != before.record["fingerprint"]
    kept = np.setdiff1d(np.arange(len(before.dataset.rows)), before.forgotten)
    left, right = (
        run.yes(rows, run.history(run.forgotten))
        for run, rows in ((before, kept), (after, np.arange(len(kept))))
    )
    assert torch.equal(left, right)
    for number, model in enumerate(("model", "other")):
        Path("third.csv").write_text("user_id\nu5\nu7\n")
        forget(QueueOptions(model, "third.csv"), "NegatedE2URec", {**QUICK})
    a, b = (ModelFolder(name).read() for name in ("model", "other"))
    assert a.record["files"]["weights.safetensors"] == b.record["files"]["weights.safetensors"]
    for path in sorted(Path("model/certificates").glob("*.json")):
        code = cli.main(["verify", str(path)])
        print(capsys.readouterr().out)
        assert code == 0

    def strip(m):
        return {k: m[k] for k in ("before", "after")}

    ea, eb = a.record["requests"][1], b.record["requests"][1]
    assert ea["evidence"]["measures"] == eb["evidence"]["measures"]
    assert ea["evidence"]["asked"] == eb["evidence"]["asked"]
    assert ea["drift"] == eb["drift"]
