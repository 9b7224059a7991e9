"""The command line of a benchmark that has parts."""

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.settings import FULL, SMALL, Size

Part = Callable[[Path, Size], Any]


def run_parts(about: str, parts: Mapping[str, Part], tell: Callable[[Any], dict[str, Any]]) -> None:
    """Run the parts that the command line names, or all; the last line is one JSON object.

    Args:
        about: the help text.
        parts: what each measures, in a folder of its own.
        tell: prints what a part found, and gives it as JSON values.
    """
    parser = argparse.ArgumentParser(
        description=about, allow_abbrev=False, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", choices=parts, action="append", help="one part; may be repeated")
    parser.add_argument("--size", choices=("full", "small"), default="full")
    parser.add_argument("--rounds", type=int, help="how often each time is taken")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    size = FULL if given.size == "full" else SMALL
    size = replace(size, rounds=given.rounds or size.rounds)
    found: dict[str, Any] = {"size": given.size, "threads": given.threads}
    for name in given.only or parts:
        with tempfile.TemporaryDirectory() as folder:
            found |= tell(parts[name](Path(folder), size))
    print(json.dumps(found))
