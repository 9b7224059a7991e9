"""The page on architecture: its files exist, and its walks are as short as it says."""

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
PAGE = (CHECKOUT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
PACKAGE = CHECKOUT / "recbole_e2urec"
ROOMS = [path for path in PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").is_file()]


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([\w/]+\.py)`", PAGE))))
def test_a_file_that_the_page_names_is_there(name: str) -> None:
    assert (PACKAGE / name).is_file()


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_every_room_is_told(room: Path) -> None:
    assert f"\n{room.name}/ " in PAGE


def test_walks_are_as_long_as_they_say() -> None:
    walks = PAGE.split("<!-- walk: ")[1:]
    assert len(walks) == 2
    for walk, most in zip(walks, (18, 15), strict=True):
        files = re.findall(r"^\d+\. `([\w/]+\.py)`", walk.split("\n## ")[0], re.MULTILINE)
        assert len(set(files)) == len(files) == int(walk.split(" ")[0]) <= most


@pytest.mark.parametrize(
    ("function", "name"), re.findall(r"Start at `([\w.]+)` in `([\w/]+\.py)`", PAGE)
)
def test_a_walk_starts_at_a_function_that_is_there(function: str, name: str) -> None:
    text = (PACKAGE / name).read_text(encoding="utf-8")
    for part in function.split("."):
        assert re.search(rf"^ *(class|def) {part}\b", text, re.MULTILINE)


def test_no_module_name_is_there_twice() -> None:
    names = [path.name for path in PACKAGE.rglob("*.py") if not path.name.startswith("__")]
    assert len(names) == len(set(names))
