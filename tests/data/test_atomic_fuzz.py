"""Atomic files of any content: rows as published or one clear line, never anything else.

E2UREC_FUZZ sets how much is tried, see fuzzing.py.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzzing import budget, one_line
from hypothesis import given
from hypothesis import strategies as st

from recbole_e2urec.config.config import Config
from recbole_e2urec.config.yaml import parse_value, read_yaml
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.errors import InputError

HEADS = {
    "inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float",
    "item": "item_id:token\tmovie_title:token_seq",
    "user": "user_id:token\tage:float",
}
# What spreadsheets, pandas, CSV readers and shells take for something else.
ODD = [
    'q"q', '"', "'", "a,b", "a;b", "=1+1", "-1", "0x1", "1e5", "007", "1.0", "NA", "nan", "None",
    "null", "ü ñ", "\u2028", "\x1b[2J", "{x}", "[PAD]", "#", "\\", "\\n", "u 1", "$(id)", "\u202e",
]  # fmt: skip
CELLS = st.one_of(
    st.sampled_from(["u1", "u2", "i1", "i2", "3", "5", "4.5", "880000000", "", *ODD]),
    st.text(max_size=6),
)
LINES = st.lists(CELLS, max_size=5).map("\t".join)
HEADERS = st.one_of(
    st.sampled_from([*HEADS.values(), "", "user_id", "user_id:token\titem_id:token", "a:b\tc:d"]),
    st.lists(
        st.sampled_from(["user_id:token", "item_id:token", "rating:float", "rating:token", ":",
                         "timestamp:float", "age:float", "user_id:float", "x:token_seq"]),
        max_size=4,
    ).map("\t".join),
)  # fmt: skip
TABLES = st.tuples(HEADERS, st.lists(LINES, max_size=6)).map(lambda t: "\n".join([t[0], *t[1]]))
CONTENTS = st.one_of(
    st.binary(max_size=120), TABLES.map(lambda text: text.encode("utf-8", "replace"))
)


def written(suffix: str, content: bytes) -> None:
    """A data set of six rows, one of whose files is another."""
    folder = Path("data/odd")
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f"u{n % 3}\ti{n % 2}\t{1 + n % 5}\t{n}" for n in range(6)]
    tables = {
        "inter": [HEADS["inter"], *rows],
        "item": [HEADS["item"], "i0\tHeat", "i1\tAlien"],
        "user": [HEADS["user"], "u0\t20", "u1\t30", "u2\t40"],
    }
    for name, lines in tables.items():
        (folder / f"odd.{name}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / f"odd.{suffix}").write_bytes(content)


def loaded() -> Any:
    given = {"data_path": "data", "title_field": "movie_title", "show_progress": False}
    dataset = load_dataset(Config("LLMRec", "odd", config_dict=given))
    dataset.split_rows()
    return dataset


def loads_or_refuses() -> Any:
    try:
        dataset = loaded()
    except InputError as error:
        one_line(error)
        return None
    rows = dataset.rows
    assert len(rows) > 0
    assert np.isfinite(rows.time).all()
    assert set(rows.user.tolist()) <= set(dataset.ids.users.values())
    assert set(rows.item.tolist()) <= set(dataset.ids.items.values())
    return dataset


@budget(25)
@given(st.sampled_from(sorted(HEADS)), CONTENTS)
def test_any_file_is_loaded_or_refused_in_one_line(suffix: str, content: bytes) -> None:
    written(suffix, content)
    loads_or_refuses()


@budget(20)
@given(st.lists(st.tuples(st.sampled_from(ODD), st.sampled_from(ODD)), min_size=10, max_size=40))
def test_odd_ids_are_those_of_the_file_or_refused(pairs: list[tuple[str, str]]) -> None:
    lines = [f"{user}\t{item}\t{1 + n % 5}\t{n}" for n, (user, item) in enumerate(pairs)]
    written("inter", "\n".join([HEADS["inter"], *lines]).encode())
    dataset = loads_or_refuses()
    if dataset is not None:
        known = dataset.ids
        assert [known.users[user] for user, _ in pairs] == dataset.rows.user.tolist()
        assert [known.items[item] for _, item in pairs] == dataset.rows.item.tolist()


@pytest.mark.thorough
@budget(50)
@given(st.one_of(st.text(max_size=40), st.sampled_from(["!!int x", "!!timestamp a", "[" * 3000])))
def test_any_yaml_is_read_or_refused_in_one_line(text: str) -> None:
    parse_value(text) if "\n" not in text else None
    Path("any.yaml").write_text(text, encoding="utf-8", errors="replace")
    try:
        read_yaml(Path("any.yaml"))
    except InputError as error:
        one_line(error)


@pytest.mark.parametrize("name", ODD)
def test_each_odd_id_is_kept(name: str) -> None:
    rows = [f"{user}\ti{n % 2}\t{1 + n % 5}\t{n}" for n, user in enumerate([name, "u1"] * 6)]
    written("inter", "\n".join([HEADS["inter"], *rows]).encode())
    assert list(loads_or_refuses().ids.users) == [name, "u1"]
