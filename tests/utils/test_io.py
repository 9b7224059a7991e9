"""Whatever foreign bytes make a library raise, who reads tensors is told in one way."""

import json
from pathlib import Path

import pytest

from recbole_e2urec.utils.io import read_tensors


def tensors(header: object, data: bytes = b"\0" * 8) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def one(shape: list[object], kind: str = "F32", end: int = 8) -> dict[str, object]:
    return {"a": {"dtype": kind, "shape": shape, "data_offsets": [0, end]}}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        b"\x80\x04K\x01.",  # a pickle
        tensors([]),
        tensors({"a": 1}),
        tensors(one([2**63, 0], end=0), b""),  # fits no number of 64 bits
        tensors(one([2**62, 4, 0], end=0), b""),
        tensors(one([-1])),
        tensors(one(["2"])),
        tensors(one([2], "F99")),
        tensors(one([3])),
        tensors(one([2], end=80)),
    ],
)
def test_bytes_that_are_no_tensors_are_a_value_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"\S"):
        read_tensors(path)


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="weights"):
        read_tensors(tmp_path / "weights.safetensors")
