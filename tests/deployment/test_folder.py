"""Model folders that were damaged or made to do harm: one line, nothing loaded, nothing lost."""

import hashlib
import json
import os
import pickle
import struct
from pathlib import Path

import pytest
import torch
from command_line import write
from in_use import opened
from safetensors.torch import save_file

from recbole_e2urec import cli
from recbole_e2urec.deployment.model_folder import ModelFolder
from recbole_e2urec.errors import InputError

pytestmark = pytest.mark.usefixtures("in_use")
GENERATION = Path("model/generations/000001")


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("loaded",))


def resealed():
    """Write all hashes anew, as an attacker would."""
    record = json.loads((GENERATION / "model.json").read_text())
    for name in record["files"]:
        record["files"][name] = hashlib.sha256((GENERATION / name).read_bytes()).hexdigest()
    reseal_record(record)


def reseal_record(record):
    text = json.dumps(record)
    (GENERATION / "model.json").write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    Path("model/current.json").write_text(json.dumps({"generation": "000001", "sha256": digest}))


def refused(capsys):
    assert cli.main(["recommend", "--checkpoint=model", "--user=u3"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert not Path("loaded").exists()
    return line


def test_a_pickle_is_never_loaded(capsys):
    for name in ("weights.pkl", "pytorch_model.bin", "weights.pt"):
        (GENERATION / name).write_bytes(pickle.dumps(Evil()))
    opened()
    assert not Path("loaded").exists()
    (GENERATION / "weights.safetensors").write_bytes(pickle.dumps(Evil()))
    assert "weights.safetensors: it is not what was written" in refused(capsys)
    resealed()
    assert "model is damaged: weights.safetensors" in refused(capsys)
    torch.save(Evil(), GENERATION / "weights.safetensors")
    resealed()
    assert "model is damaged: weights.safetensors" in refused(capsys)


@pytest.mark.parametrize(
    "name", ["../../elsewhere", "/tmp", "000001/../000001", "1", None, "000001\n"]
)
def test_a_path_that_climbs_out_is_refused(name, capsys):
    pointer = json.loads(Path("model/current.json").read_text())
    Path("model/current.json").write_text(json.dumps({**pointer, "generation": name}))
    assert "current.json: it names no generation" in refused(capsys)


@pytest.mark.parametrize(
    "name",
    ["current.json", "generations", "generations/000001", "generations/000001/model.json",
     "generations/000001/weights.safetensors", "generations/000001/forgotten.safetensors"],
)  # fmt: skip
def test_a_link_is_refused(name, capsys):
    path = Path("model") / name
    path.rename("elsewhere")
    path.symlink_to(Path("elsewhere").absolute())
    assert "it is a link, which could lead anywhere" in refused(capsys)


@pytest.mark.parametrize("name", [".lock", "work"])
def test_nothing_is_written_through_a_link(name, capsys):
    Path("elsewhere").mkdir() if name == "work" else Path("elsewhere").write_text("kept")
    path = Path("model") / name
    path.unlink(missing_ok=True)
    path.symlink_to(Path("elsewhere").absolute())
    write(Path("r.csv"), "user_id\nu1\n")
    assert cli.main(["forget", "--checkpoint=model", "--request=r.csv"]) == 2
    assert f"{name}: it is a link" in capsys.readouterr().err
    assert Path("elsewhere").is_dir() or Path("elsewhere").read_text() == "kept"


@pytest.mark.parametrize("size", [2**40, 2**63, 50])
def test_a_header_of_another_size_is_refused(size, capsys):
    path = GENERATION / "weights.safetensors"
    path.write_bytes(struct.pack("<Q", size) + path.read_bytes()[8:])
    resealed()
    assert "model is damaged: weights.safetensors" in refused(capsys)


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_a_truncated_file_is_refused(kept, capsys):
    path = GENERATION / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    resealed()
    assert "model is damaged: weights.safetensors" in refused(capsys)


def test_a_changed_byte_is_noticed_in_every_file(capsys):
    for name in ("forgotten.safetensors", "sample.safetensors", "weights.safetensors"):
        path = GENERATION / name
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]) if data else b"x")
        assert f"{name}: it is not what was written" in refused(capsys)
        path.write_bytes(data)
    record = GENERATION / "model.json"
    record.write_text(record.read_text().replace('"seed": 2020', '"seed": 2021'))
    assert "model.json: it is not what was written" in refused(capsys)
    record.unlink()
    assert "model is damaged: model.json" in refused(capsys)


@pytest.mark.parametrize(
    ("name", "tensors"),
    [
        ("weights", {"evil": torch.zeros(1)}),
        ("weights", {}),
        ("forgotten", {"rows": torch.tensor([10**6])}),
        ("forgotten", {"rows": torch.tensor([-1])}),
        ("forgotten", {"rows": torch.tensor([0.5])}),
        ("forgotten", {}),
        ("forgotten", {"rows": torch.tensor([1, 2])}),
        ("forgotten", {"rows": torch.tensor([1, 2]), "request": torch.tensor([0])}),
        ("forgotten", {"rows": torch.tensor([1, 2]), "request": torch.tensor([0, 1])}),
        ("forgotten", {"rows": torch.tensor([1, 2]), "request": torch.tensor([0, -1])}),
        ("forgotten", {"rows": torch.tensor([1, 2]), "request": torch.tensor([0.0, 0.0])}),
        ("sample", {"rows": torch.tensor([1, 2]), "yes": torch.tensor([0.5])}),
    ],
)
def test_tensors_that_do_not_fit_are_refused(name, tensors, capsys):
    save_file(tensors, GENERATION / f"{name}.safetensors")
    resealed()
    assert "model is damaged: its tensors do not fit" in refused(capsys)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": []}, "settings is missing or of another kind"),
        ({"requests": [{"digest": 1}]}, "a request in it has no id"),
        ({"format": 9}, "format 9 is not known"),
        ({"settings": {"no_such_key": 1}}, "unknown key 'no_such_key'"),
        ({"settings": {"model": "DeepFM", "history_length": -1}}, "history_length is -1"),
        ({"dataset": "../small"}, "dataset"),
        ({"fingerprint": {}}, "are not those that the model was made with"),
    ],
)
def test_a_record_that_says_something_else_is_refused(change, message, capsys):
    record = json.loads((GENERATION / "model.json").read_text())
    if "settings" in change and isinstance(change["settings"], dict):
        change = {"settings": {**record["settings"], **change["settings"]}}
    reseal_record({**record, **change})
    assert message in refused(capsys)


def test_a_record_of_an_older_version_is_read():
    record = json.loads((GENERATION / "model.json").read_text())
    older = {"calibration": "saved/calibration.json", "teacher_divergence": 0.24}
    reseal_record({**record, "settings": {**record["settings"], **older}, "trained_as": "ab"})
    assert opened().record["trained_as"] == "ab"


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "\x00", '{"generation": 1}'])
def test_a_pointer_that_is_none_is_refused(text, capsys):
    Path("model/current.json").write_text(text)
    assert "model is damaged: current.json" in refused(capsys)


def test_a_python_tag_in_a_yaml_file_is_no_code(capsys):
    write(Path("evil.yaml"), "gpu_id: !!python/object/apply:os.mkdir ['loaded']\n")
    argv = ["recommend", "--checkpoint=model", "--user=u3", "--config_files", "evil.yaml"]
    assert cli.main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "evil.yaml, line 1: not valid yaml" in line
    assert not Path("loaded").exists()


def test_what_a_killed_process_left_is_removed_and_does_not_count():
    left = Path("model/generations/000002")
    left.mkdir()
    (left / "weights.safetensors").write_bytes(b"half")
    Path("model/.current.json.abc.part").write_text("{")
    folder = ModelFolder("model")
    assert folder.read().name == "000001"
    folder.tidy()
    assert not left.exists()
    assert not Path("model/.current.json.abc.part").exists()
    assert folder.read().name == "000001"


def test_a_folder_with_something_in_it_is_not_written_to():
    from recbole_e2urec.config.config import RunSettings
    from recbole_e2urec.deployment.export import ExportOptions, export

    with pytest.raises(InputError, match="output: model is there and not empty"):
        export(ExportOptions("model"), None, RunSettings())
    with pytest.raises(InputError, match="write --output=DIR"):
        ExportOptions()
