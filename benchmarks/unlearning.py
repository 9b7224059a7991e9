"""How fast unlearning is, against a plain reading: ``python -m benchmarks.unlearning``.

Run it from a checkout with the package installed. Each measure prints what it found; the last line
is one JSON object with all of them. ``--only NAME`` runs one part, ``--size small`` is a quick look
whose numbers mean nothing, ``--threads N`` sets torch's threads for both sides. Times are compared
in turns in one process, as ratios: median (least to greatest).
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import asking, costs, preparing, steps
from benchmarks.racing import Ratio
from benchmarks.settings import FULL, SMALL, Size

PARTS: dict[str, Callable[[Path, Size], dict[str, Any]]] = {
    "step_time": steps.step_time,
    "memory": steps.memory,
    "prompts": preparing.prompts,
    "evaluation": asking.evaluation,
    "ranking": asking.ranking,
    "cost": costs.cost_to_retrain,
    "growth": costs.growth,
    "one_user": costs.one_user,
    "million_rows": preparing.million_rows,
}


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", choices=PARTS, action="append", help="one part; may be repeated")
    parser.add_argument("--size", choices=("full", "small"), default="full")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    found: dict[str, Any] = {"size": given.size, "threads": given.threads}
    for name in given.only or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            measured = PARTS[name](Path(folder), FULL if given.size == "full" else SMALL)
        for key, value in measured.items():
            print(f"{key}: {_shown(value)}", flush=True)
            found[key] = value.median if isinstance(value, Ratio) else value
            if isinstance(value, Ratio):
                found[f"{key}_spread"] = [value.low, value.high]
    print(json.dumps(found))


def _shown(value: Any) -> str:
    if isinstance(value, Ratio):
        return f"{value.median:.2f} ({value.low:.2f} to {value.high:.2f})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
