"""Tensors that are not what they say, links in the way of a writer, and readers beside writers."""

import json
import multiprocessing
import resource
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import write
from safetensors.torch import load_file, save_file
from test_folder import GENERATION, refused, resealed

from recbole_e2urec import cli
from recbole_e2urec.deployment.model_folder import ModelFolder

pytestmark = pytest.mark.usefixtures("short_relearning", "in_use")
FORK = multiprocessing.get_context("fork")
TWO = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def with_header(header: dict[str, Any], data: bytes = b"\0" * 16) -> None:
    text = json.dumps(header).encode()
    content = struct.pack("<Q", len(text)) + text + data
    (GENERATION / "weights.safetensors").write_bytes(content)
    resealed()


@pytest.mark.parametrize(
    "header",
    [
        {"a": TWO, "b": TWO},  # two tensors in one place
        {"a": TWO, "b": {**TWO, "data_offsets": [4, 12]}},
        {"a": {**TWO, "shape": [2**40], "data_offsets": [0, 2**42]}},
        {"a": {**TWO, "shape": [2**40]}},
        {"a": {**TWO, "shape": [2**32, 2**32]}},  # its size overflows to 0
        {"a": {**TWO, "shape": [-1]}},
        {"a": {**TWO, "data_offsets": [8, 0]}},
        {"a": {**TWO, "data_offsets": [8, 16]}},  # a hole before it
        {"a": {**TWO, "dtype": "object"}},
        {"a": {**TWO, "shape": [0, 2**60], "data_offsets": [0, 0]}},
        {"__metadata__": {"a": 1}},
    ],
)
def test_a_header_that_lies_about_tensors_is_refused(header, capsys):
    with_header(header)
    assert "model is damaged: " in refused(capsys)


def test_a_huge_header_is_refused_without_room_for_it(capsys):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path = GENERATION / "weights.safetensors"
    for size in (2**34, 2**40, 2**62, 2**63, 2**64 - 1):
        path.write_bytes(struct.pack("<Q", size) + b"{" * 100)
        resealed()
        assert "model is damaged: weights.safetensors" in refused(capsys)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**17  # 128 MiB in KiB


def changed(name: str, key: str, value: Any) -> None:
    path = GENERATION / f"{name}.safetensors"
    tensors = load_file(path)
    key = key or next(iter(tensors))
    value = torch.full_like(tensors[key], value) if isinstance(value, float) else value
    save_file({**tensors, key: value}, path)
    resealed()


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("weights", "", float("nan")),
        ("weights", "", float("inf")),
        ("weights", "", torch.zeros(3)),
        ("sample", "yes", float("nan")),
        ("sample", "yes", 1.5),
        ("sample", "yes", -0.5),
        ("forgotten", "rows", torch.tensor([2, 1])),
        ("forgotten", "rows", torch.tensor([1, 1])),
        ("forgotten", "rows", torch.tensor([[1]])),
        ("forgotten", "rows", torch.tensor([1], dtype=torch.int32)),
    ],
)
def test_numbers_that_cannot_be_are_refused(name, key, value, capsys):
    changed(name, key, value)
    assert "model is damaged: its tensors do not fit" in refused(capsys)


@pytest.mark.parametrize("name", ["generations/000002", "generations/000002/model.json"])
def test_no_generation_is_written_through_a_link(name, capsys):
    Path("elsewhere").mkdir()
    Path("elsewhere/kept").write_text("kept")
    path = Path("model") / name
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(Path("elsewhere").absolute())
    write(Path("r.csv"), "user_id\nu1\n")
    argv = ["forget", "--checkpoint=model", "--request=r.csv", "--model=NegGrad",
            "--joint_epochs=1", "--show_progress=False"]  # fmt: skip
    code = cli.main(argv)
    assert code == (2 if name.endswith("2") else 0)  # a link inside goes with its folder
    assert [one.name for one in Path("elsewhere").iterdir()] == ["kept"]
    if code:
        assert "000002: it is a link" in capsys.readouterr().err
    assert ModelFolder("model").read().name == ("000001" if code else "000003")


def test_whoever_reads_beside_a_writer_has_one_state_or_another():
    folder = ModelFolder("model")
    found = folder.read()

    def write_many() -> None:
        for number in range(60):
            tensors = {**found.tensors, "forgotten": {"rows": torch.tensor([number])}}
            with folder.locked():
                folder.write({**found.record, "seed": number}, tensors)

    writer = FORK.Process(target=write_many)
    writer.start()
    seen = set()
    while writer.is_alive():
        one = folder.read()
        if one.name != found.name:
            assert one.tensors["forgotten"]["rows"].tolist() == [one.record["seed"]]
        seen.add(one.name)
    assert writer.exitcode == 0
    assert len(seen) > 3
