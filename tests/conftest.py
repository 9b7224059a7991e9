"""Shared by all tests: one thread, no network, a folder of its own, and small data sets."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from atomic_files import TITLES, small_interactions, write_table
from hypothesis import settings
from stand_ins import Recorder

from recbole_e2urec.utils.distributed import collect_rarely

settings.register_profile("fixed", derandomize=True, database=None)
settings.register_profile("random", print_blob=True)


def pytest_configure(config: pytest.Config) -> None:
    """Property tests try the same cases every time, and in the thorough run others each time."""
    collect_rarely()
    settings.load_profile("random" if "thorough" in _selected(config) else "fixed")


def _selected(config: pytest.Config) -> str:
    return config.option.markexpr.replace("not thorough", "")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Give each test its folder and an empty command line; take the network away."""

    def no_network(*args: Any, **options: Any) -> None:
        raise OSError("the tests use no network")

    monkeypatch.setattr(sys, "argv", ["tests"])
    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "create_connection", no_network)
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Put a module that records what is logged in the place of wandb."""
    module = Recorder()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


@pytest.fixture
def small_data(tmp_path: Path) -> Path:
    """Write the data set ``small``: 24 users of 12 rows, with titles and ages; gives data_path."""
    folder = tmp_path / "data" / "small"
    write_table(
        folder / "small.inter",
        "user_id:token item_id:token rating:float timestamp:float",
        small_interactions(),
    )
    titles = [*TITLES, *(f"Film {item}" for item in range(len(TITLES), 20))]
    write_table(
        folder / "small.item",
        "item_id:token movie_title:token_seq genre:token",
        [[f"i{item}", title, f"g{item % 3}"] for item, title in enumerate(titles)],
    )
    ages = [[f"u{user}", 20 + user, "FM"[user % 2]] for user in range(24)]
    write_table(folder / "small.user", "user_id:token age:float gender:token", ages)
    return folder.parent


@pytest.fixture
def small_config(small_data: Path) -> Callable[..., Any]:
    """Make the Config of a model on ``small``; keyword arguments are settings.

    Prompts say nothing about users: among so few, an age names one.
    """
    from recbole_e2urec.config.config import Config

    def make(model: str, **settings: Any) -> Any:
        always = {"data_path": str(small_data), "epochs": 1, "user_fields": []}
        always |= {"show_progress": False}
        return Config(model, "small", config_dict={**always, **settings})

    return make


@pytest.fixture
def toy_data(tmp_path: Path) -> Path:
    """Write the data set ``toy``: 40 users, 60 items, 1500 rows, most times shared; as small_data.

    Times are whole numbers below 12, so that float32 holds them, and each user has ties.
    """
    folder = tmp_path / "data" / "toy"
    generator = np.random.default_rng(11)
    pairs = generator.permutation(40 * 60)[:1500]
    rows = [
        [f"u{pair // 60}", f"i{pair % 60}", 1 + (pair // 60 + pair % 60) % 5, int(time)]
        for pair, time in zip(pairs, generator.integers(0, 12, len(pairs)), strict=True)
    ]
    write_table(
        folder / "toy.inter", "user_id:token item_id:token rating:float timestamp:float", rows
    )
    films = [[f"i{item}", f"Film {item}"] for item in range(60)]
    write_table(folder / "toy.item", "item_id:token movie_title:token_seq", films)
    people = [[f"u{user}", 20 + user, "FM"[user % 2]] for user in range(40)]
    write_table(folder / "toy.user", "user_id:token age:float gender:token", people)
    return folder.parent


@pytest.fixture
def toy_config(toy_data: Path) -> Callable[..., Any]:
    """Make the Config of a model on ``toy``; keyword arguments are settings."""
    from recbole_e2urec.config.config import Config

    def make(model: str, **settings: Any) -> Any:
        always = {"data_path": str(toy_data), "epochs": 1, "show_progress": False}
        return Config(model, "toy", config_dict={**always, **settings})

    return make


@pytest.fixture(scope="session")
def made_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder beside its data, made once."""
    from in_use import make_model

    return make_model(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="session")
def made_certified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with a request that was carried out, made once."""
    from in_use import make_certified

    return make_certified(tmp_path_factory.mktemp("certified"))


@pytest.fixture
def certified(made_certified: Path, tmp_path: Path) -> Path:
    """A copy of it: ``model`` in the test's folder."""
    return Path(shutil.copytree(made_certified, tmp_path / "model"))


@pytest.fixture
def in_use(made_model: Path, tmp_path: Path) -> Path:
    """A copy of it: ``model`` in the test's folder."""
    return Path(shutil.copytree(made_model, tmp_path / "model"))
