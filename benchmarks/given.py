"""What benchmarks of whole runs share: their settings, and small data for a quick look."""

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.settings import SYNTHETIC, synthetic
from recbole_e2urec.cli import Arguments, parse
from recbole_e2urec.config.config import Config
from recbole_e2urec.config.yaml import read_switch
from recbole_e2urec.errors import InputError
from recbole_e2urec.utils import recbole_compat

SWITCH: dict[str, Any] = {"nargs": "?", "const": True, "default": False}  # for read_switch
QUICK_ROWS = 1200
QUICK = {"epochs": 1, "joint_epochs": 1, "augmented_epochs": 1, "control_users": 0}


def arguments_of(
    parser: argparse.ArgumentParser, mark: str
) -> tuple[argparse.Namespace, Arguments]:
    """Read a benchmark's own arguments; all others are settings of a run.

    Raises:
        InputError: the file to write has no lines of the mark; refused before hours of training.
    """
    parser.add_argument("--small", help="a quick look without meaning", **SWITCH)
    parser.add_argument(
        "--write", type=Path, help="put the tables into this markdown file, between its marks"
    )
    own, rest = parser.parse_known_args()
    own.small = read_switch(own.small, "small")
    if own.write is not None:
        filled(own.write, mark, "")
    return own, parse(rest)


def filled(path: Path, mark: str, text: str) -> str:
    """The file with the text between its lines ``<!-- mark -->`` and ``<!-- /mark -->``.

    Raises:
        InputError: it has none.
    """
    start, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    whole = path.read_text(encoding="utf-8") if path.is_file() else ""
    before, first, rest = whole.partition(start)
    _, last, after = rest.partition(end)
    if not (first and last):
        raise InputError(f"--write: {path} has no lines {start} and {end}; add them")
    return f"{before}{first}\n\n{text}\n\n{last}{after}"


@contextmanager
def common_settings(own: argparse.Namespace, arguments: Arguments) -> Iterator[Mapping[str, Any]]:
    """Settings that all runs have in common; for a quick look on data made up in a folder."""
    recbole_compat.apply()
    given: dict[str, Any] = {"show_progress": False, **arguments.settings}
    if not own.small:
        yield given
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = synthetic(folder, QUICK_ROWS)
        saved = {"data_path": str(folder), "checkpoint_dir": str(folder / "saved"), **SYNTHETIC}
        yield {"dataset": dataset, **saved, **QUICK, **given}


def config_of(given: Mapping[str, Any], arguments: Arguments, **more: Any) -> Config:
    """The settings of a run of E2URec, or of what ``--model`` names."""
    settings = {**given, **more}
    dataset = settings.pop("dataset", arguments.dataset)
    return Config(arguments.model or "E2URec", dataset, arguments.config_files, {}, settings)
