from pathlib import Path
from typing import Any

import pytest
from command_line import write

from recbole_e2urec.config.config import Config
from recbole_e2urec.config.yaml import (
    parse_value,
    properties,
    properties_folder,
    read_switch,
    read_yaml,
)
from recbole_e2urec.errors import InputError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-0.5", -0.5),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("True", True),
        ("false", False),
        ("~", None),
        ("None", None),
        ("[1, 2]", [1, 2]),
        ("['AUC','LogLoss']", ["AUC", "LogLoss"]),
        ("{'rating':4}", {"rating": 4}),
        ("{rating: 4}", {"rating": 4}),
        ("'12'", "12"),
    ],
)
def test_typed_reads_yaml(text: str, value: Any) -> None:
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        *("a=b", "2014-2018", "1,2", "re.csv", "os.txt", "Yes", "No", "on", "007", "12:30"),
        *("0x1F", "1_000", "2020-01-01", "google/flan-t5-base", "Will they like it: yes?", ""),
        *("[5,inf)", "(0,1]", "# no comment", "- item", "nan", "__import__('os').getcwd()"),
    ],
)
def test_typed_keeps_other_text_as_typed(text: str) -> None:
    assert parse_value(text) == text


def test_typed_refuses_a_mapping_without_its_space() -> None:
    with pytest.raises(InputError, match=r"--threshold=.*write a space after each colon"):
        parse_value("{rating:4}", "threshold")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((one, True) for one in ("True", "true", "TRUE", True)),
        *((one, False) for one in ("False", "false", "FALSE", False)),
    ],
)
def test_a_switch_has_each_spelling_of_yaml(value: Any, expected: bool) -> None:
    assert read_switch(value, "dry_run") is expected


@pytest.mark.parametrize("value", ["maybe", "yes", "1", 1, "", None, "[True]"])
def test_what_is_no_boolean_is_no_switch(value: Any) -> None:
    with pytest.raises(InputError, match=r"dry_run: .* does not do; True or False is needed"):
        read_switch(value, "dry_run")


def test_read_yaml_names_file_and_line_of_a_mistake(tmp_path: Path) -> None:
    file = write(tmp_path / "bad.yaml", "epochs: 3\nmetrics: [AUC\nseed: 1\n")
    with pytest.raises(InputError, match=r"bad\.yaml, line 3: not valid yaml"):
        Config("FM", "ml-100k", [file])


def test_read_yaml_refuses_what_is_no_mapping(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lines such as 'epochs: 10'"):
        read_yaml(Path(write(tmp_path / "list.yaml", "- 1\n")))


def test_read_yaml_of_an_empty_file_is_empty(tmp_path: Path) -> None:
    assert read_yaml(Path(write(tmp_path / "empty.yaml", "# nothing\n"))) == {}


def test_config_names_a_missing_file() -> None:
    with pytest.raises(InputError, match=r"cannot read the config file nowhere\.yaml"):
        Config("FM", "ml-100k", ["nowhere.yaml"])


def test_properties_of_a_hub_id_look_for_a_file_with_dashes() -> None:
    assert properties("backbone", "nobody/nothing") == {}


def test_every_yaml_of_ours_parses() -> None:
    for path in properties_folder().rglob("*.yaml"):
        assert read_yaml(path), path
