"""Model folders under random damage: a model that answers or one clear line, never anything else.

E2UREC_FUZZ sets how much is tried, see fuzzing.py.
"""

import hashlib
import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
from fuzzing import budget, one_line
from hypothesis import given
from hypothesis import strategies as st

from recbole_e2urec.deployment.model_folder import ModelFolder
from recbole_e2urec.deployment.recommend import load_recommender
from recbole_e2urec.errors import InputError

FILES = ["model.json", "weights.safetensors", "forgotten.safetensors", "sample.safetensors"]
GENERATION = Path("model/generations/000001")
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.sampled_from([0, -1, 2**31, 2**63, 10**30, 1e308, 0.5]),
        st.sampled_from(
            ["", "..", "/", "../../x", "u3", "\0", "\n", "E2URec", "DeepFM", "ml-100k"]
        ),
        st.text(max_size=5),
    ),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=3,
)


def fresh(made_model: Path) -> None:
    """The model as it was made."""
    shutil.rmtree("model", ignore_errors=True)
    shutil.copytree(made_model, "model")


def sealed() -> None:
    """Write all hashes anew, so that the files are read."""
    path = GENERATION / "model.json"
    try:
        record = json.loads(path.read_bytes())
        for name in FILES[1:]:
            digest = hashlib.sha256((GENERATION / name).read_bytes()).hexdigest()
            record["files"][name] = digest
        path.write_text(json.dumps(record))
    except (ValueError, TypeError, KeyError):
        pass  # it is not what it was; its hash is mended all the same
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    Path("model/current.json").write_text(json.dumps({"generation": "000001", "sha256": digest}))


def answers_or_refuses() -> None:
    try:
        found = load_recommender("model").recommend("u3", 3)
    except InputError as error:
        one_line(error)
    else:
        assert len(found) == 3
        assert all(0 <= one.score <= 1 for one in found)
    assert sorted(path.name for path in Path().iterdir()) == ["model"]  # nothing else was written


@budget(20)
@given(st.sampled_from(FILES), st.integers(0, 2**40), st.integers(1, 255), st.booleans())
def test_a_changed_byte_is_refused_or_harmless(
    made_model: Path, name: str, place: int, change: int, seal: bool
) -> None:
    fresh(made_model)
    data = bytearray((GENERATION / name).read_bytes())
    data[place % min(len(data), 4096)] ^= change  # headers and records are at the beginning
    (GENERATION / name).write_bytes(data)
    if seal:
        sealed()
        return answers_or_refuses()
    with pytest.raises(InputError, match="it is not what was written"):
        ModelFolder("model").read()
    return None


@budget(20)
@given(st.data())
def test_another_value_in_the_record_is_refused_or_harmless(made_model: Path, data: Any) -> None:
    fresh(made_model)
    path = GENERATION / "model.json"
    record = json.loads(path.read_text())
    place = record
    if data.draw(st.booleans()):
        place = record[data.draw(st.sampled_from(["settings", "fingerprint", "files"]))]
    key = data.draw(st.sampled_from(sorted(place)))
    place[key] = data.draw(VALUES)
    path.write_text(json.dumps(record))
    sealed()
    answers_or_refuses()


@budget(20)
@given(st.sampled_from(FILES[1:]), st.data())
def test_any_header_of_tensors_is_refused_or_harmless(
    made_model: Path, name: str, data: Any
) -> None:
    fresh(made_model)
    path = GENERATION / name
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    tensor = data.draw(st.sampled_from(sorted(key for key in header if key != "__metadata__")))
    part = data.draw(st.sampled_from(["dtype", "shape", "data_offsets", "", "more"]))
    numbers = st.lists(st.sampled_from([0, 1, 2, 4, 2**40, 2**63, -1]), max_size=3)
    if part == "dtype":
        header[tensor][part] = data.draw(st.sampled_from(["F64", "F16", "I32", "BOOL", "evil"]))
    elif part == "more":
        header[data.draw(st.text(max_size=3))] = header[tensor]  # two tensors in one place
    elif part:
        header[tensor][part] = data.draw(st.one_of(numbers, VALUES))
    else:
        header[tensor] = data.draw(VALUES)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])
    sealed()
    answers_or_refuses()


@budget(40)
@given(st.one_of(st.binary(max_size=80), VALUES.map(lambda one: json.dumps(one).encode())))
def test_any_pointer_is_refused(made_model: Path, content: bytes) -> None:
    if not Path("model").exists():
        fresh(made_model)
    Path("model/current.json").write_bytes(content)
    with pytest.raises(InputError, match=r"current\.json"):
        ModelFolder("model").read()
