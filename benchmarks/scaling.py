"""How cost grows: ``python -m benchmarks.scaling``.

Every part changes one size, keeps the others and prints what it took, with the slope of the line
through the logarithms: 0 where the cost does not depend on the size, 1 where it grows in
proportion. The last line is one JSON object. ``--only NAME`` runs one part, ``--size small`` is a
quick look whose numbers mean nothing.
"""

from collections.abc import Sequence
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from benchmarks.costs import unlearned, with_others
from benchmarks.parts import Part, run_parts
from benchmarks.preparing import prepare_synthetic
from benchmarks.racing import seconds
from benchmarks.settings import Size, forgetting, shaped, synthetic
from benchmarks.steps import Ours


class Growth(NamedTuple):
    """What was found at each size."""

    of: str  # what grows
    sizes: list[float]
    found: list[float]
    unit: str = "s"

    @property
    def slope(self) -> float:
        """Of the line through the logarithms."""
        return float(np.polyfit(np.log(self.sizes), np.log(self.found), 1)[0])


def interactions(folder: Path, size: Size) -> list[Growth]:
    """Dataset, split, histories and prompts: time, and memory above the imports'."""
    counts = [size.interactions // part for part in (16, 8, 4, 2)]
    return _preparing("interactions", counts, [(count, None) for count in counts], folder)


def users(folder: Path, size: Size) -> list[Growth]:
    """The same for more users, each with fewer rows."""
    rows = size.interactions // 8
    counts = [rows // per_user for per_user in (200, 50, 20)]
    return _preparing("users", counts, [(rows, count) for count in counts], folder)


def _preparing(
    of: str, sizes: Sequence[float], data: Sequence[tuple[int, int | None]], folder: Path
) -> list[Growth]:
    taken, held = [], []
    for count, many in data:
        name = synthetic(folder, count, many)
        with get_context("spawn").Pool(1) as pool:
            prepared = pool.apply(prepare_synthetic, (str(folder), name))
        taken.append(prepared.seconds)
        held.append(prepared.peak_mb - prepared.imports_mb)
    whole = [float(size) for size in sizes]
    return [Growth(of, whole, taken), Growth(of, whole, held, "MB")]


def training_rows(folder: Path, size: Size) -> list[Growth]:
    """One request where there are more users who stay."""
    times = (1, 2, 4)
    taken = [with_others(folder / str(turn), size, times) for turn in range(size.rounds)]
    return [Growth("training rows", [*map(float, times)], _medians(taken))]


def forget_rows(folder: Path, size: Size) -> list[Growth]:
    """A request of more users."""
    rows, taken = [], []
    for share in (0.05, 0.1, 0.2, 0.4):
        run = forgetting(folder / str(share), size, forget_ratio=share)
        rows.append(float(len(run.split.forget)))
        taken.append(unlearned(run))
    return [Growth("forget rows", rows, taken)]


def history(folder: Path, size: Size) -> list[Growth]:
    """A step with longer histories, by tokens a prompt."""
    backbone = str(shaped(folder, "t5", size))
    tokens, taken = [], []
    for length in (2, 5, 10, 20):
        ours = Ours(folder / str(length), backbone, size, history_length=length)
        tokens.append(float(ours.student.pairing.forget_table.lengths(ours.forget).mean()))
        taken.append(_step(ours, size))
    return [Growth("tokens a prompt", tokens, taken)]


def vocabulary(folder: Path, size: Size) -> list[Growth]:
    """A step with a larger vocabulary."""
    counts = (8_000, 32_000, 128_000)
    backbones = [shaped(folder, "t5", size, words) for words in counts]
    return [Growth("vocabulary", [*map(float, counts)], _steps(folder, backbones, size))]


def width(folder: Path, size: Size) -> list[Growth]:
    """A step with a wider model."""
    widths = [size.width // part for part in (4, 2, 1)]
    backbones = [shaped(folder, "t5", replace(size, width=width)) for width in widths]
    return [Growth("width", [*map(float, widths)], _steps(folder, backbones, size))]


def _steps(folder: Path, backbones: Sequence[Path], size: Size) -> list[float]:
    return [_step(Ours(folder / f"{path.name}-run", str(path), size), size) for path in backbones]


def _step(ours: Ours, size: Size) -> float:
    ours.epoch()  # warms up
    taken = [seconds(ours.epoch) for _ in range(size.rounds)]
    return median(taken) / ours.steps


def _medians(rounds: Sequence[Sequence[float]]) -> list[float]:
    return [median(column) for column in zip(*rounds, strict=True)]


PARTS: dict[str, Part] = {
    "interactions": interactions,
    "users": users,
    "training_rows": training_rows,
    "forget_rows": forget_rows,
    "history": history,
    "vocabulary": vocabulary,
    "width": width,
}


def told(growths: list[Growth]) -> dict[str, Any]:
    """Print what a part found."""
    for growth in growths:
        pairs = zip(growth.sizes, growth.found, strict=True)
        listed = ", ".join(f"{size:,.0f}: {found:.3g} {growth.unit}" for size, found in pairs)
        print(f"{growth.of}: slope {growth.slope:.2f} ({listed})", flush=True)
    return {f"{growth.of} ({growth.unit})": round(growth.slope, 3) for growth in growths}


if __name__ == "__main__":
    run_parts(__doc__, PARTS, told)
