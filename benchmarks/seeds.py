"""The main job under several seeds, and the noise floor: ``python benchmarks/seeds.py``.

It needs the package installed. ``--seeds 1 2 3`` sets the seeds; any ``--key=value`` is common to
all. The noise floor is the distance between two Retrains that differ in seed only: what is nearer
to Retrain than that cannot be told from it. Killed, the same command goes on.
"""

import argparse
import sys
from itertools import permutations
from typing import Any

import numpy as np
from recbole.utils import init_seed

from recbole_e2urec.cli import Arguments, parse
from recbole_e2urec.config.config import Config
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.errors import InputError
from recbole_e2urec.evaluator.measure import distance_to
from recbole_e2urec.experiment.unlearning import Forgetting
from recbole_e2urec.utils import recbole_compat

SEEDS = (2020, 2021, 2022)
HEAD = (
    "seed | test AUC: Original, Retrain, E2URec, lost | forget AUC: Original, Retrain, E2URec, "
    "closed | residual | JSD: Original, E2URec | seconds"
)


def measured(arguments: Arguments, seed: int) -> tuple[Forgetting, list[float]]:
    """Run the main job under one seed, and give the numbers of its line."""
    overrides = {**arguments.settings, "seed": str(seed)}
    fixed = {"show_progress": False}
    config = Config("E2URec", arguments.dataset, arguments.config_files, fixed, overrides)
    init_seed(config["seed"], config["reproducibility"])
    run = Forgetting(config, load_dataset(config))
    rows: list[dict[str, Any]] = run.run()[0]
    test, forget = ([row[part]["auc"] for row in rows] for part in ("test", "forget"))
    jsd = [row["to_retrain"]["jsd"] for row in rows]
    closed = (forget[0] - forget[2]) / (forget[0] - forget[1])
    seconds = sum(row["cost"]["seconds"] for row in rows)
    lost, left = test[0] - test[2], rows[2]["to_retrain"]["residual"]
    return run, [*test, lost, *forget, closed, left, jsd[0], jsd[2], seconds]


def line(name: object, numbers: list[float]) -> str:
    """One line of the table."""
    shown = [f"{number:.4f}" for number in numbers[:-1]]
    parts = [shown[:4], shown[4:8], shown[8:9], shown[9:], [f"{numbers[-1]:.0f}"]]
    return " | ".join([str(name), *(" ".join(part) for part in parts)])


def floor(first: Forgetting, second: Forgetting) -> list[float]:
    """Show the second Retrain as if it were an unlearned model, measured against the first."""
    original, retrain, other = (
        made.answers for made in (first.original, first.retrain, second.retrain)
    )
    distance = distance_to(other, original, retrain, first.groups.forget)
    return [float(distance[name] or 0.0) for name in ("residual", "jsd")]


def main() -> None:
    """Run every seed, then compare their Retrains."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    given, rest = parser.parse_known_args()
    arguments = parse(rest)
    recbole_compat.apply()
    print(HEAD)
    runs, table = [], []
    for seed in given.seeds:
        run, numbers = measured(arguments, seed)
        print(line(seed, numbers), flush=True)
        runs.append(run)
        table.append(numbers)
    print(line("mean", np.mean(table, axis=0).tolist()))
    floors = [floor(*pair) for pair in permutations(runs, 2)]
    if floors:
        left, jsd = np.mean(floors, axis=0)
        print(f"noise floor, mean of {len(floors)} pairs: residual {left:.4f}, JSD {jsd:.4f}")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
