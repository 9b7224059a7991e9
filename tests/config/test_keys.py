import importlib
from pathlib import Path

import pytest

from recbole_e2urec.config import keys
from recbole_e2urec.errors import InputError


def test_every_listed_model_of_recbole_is_a_class_of_recbole() -> None:
    from recbole.utils import get_model

    missing = []
    for name in sorted(keys.recbole_models()):
        try:
            get_model(name)
        except ImportError:
            continue  # an optional package, such as lightgbm
        except ValueError:
            missing.append(name)
    assert missing == []


def test_known_keys_hold_recboles_and_ours() -> None:
    assert {"learning_rate", "MAX_ITEM_LIST_LENGTH", "forget_ratio", "alpha"} <= keys.known_keys()


def test_known_keys_leave_addresses_and_prompts_out() -> None:
    assert not {"ml-1m", "question"} & keys.known_keys()


def test_find_model_gives_recboles_class() -> None:
    assert keys.find_model("SASRec").__name__ == "SASRec"


def test_find_model_names_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(name: str) -> None:
        raise ModuleNotFoundError("No module named 'dgl'", name="dgl")

    monkeypatch.setattr(importlib.import_module("recbole.utils"), "get_model", lacking)
    with pytest.raises(InputError, match="model KGAT needs the package dgl; install it"):
        keys.find_model("KGAT")


def test_check_dataset_lets_recbole_fetch_only_when_asked(tmp_path: Path) -> None:
    keys.check_dataset("ml-1m", tmp_path, download=True)
    with pytest.raises(InputError, match="fetch it by --download=True"):
        keys.check_dataset("ml-1m", tmp_path)


def test_check_dataset_hints_at_a_folder_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "my-shop").mkdir()
    with pytest.raises(InputError, match=r"'my_shop': there is no .*; did you mean 'my-shop'"):
        keys.check_dataset("my_shop", tmp_path)


def test_check_keys_says_where_a_key_was_given() -> None:
    with pytest.raises(InputError, match=r"unknown key 'epoch' in run\.yaml; did you mean"):
        keys.check_keys({"epoch": 1}, "run.yaml")
