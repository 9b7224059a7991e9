"""What training on few rows learns: ``python -m benchmarks.few_rows``.

Data are some users of MovieLens-100k, of a data set that ``--data_path`` and ``--dataset`` name,
users with planted taste, whose answers depend on the user, on a word of the title, and on both,
and planted items, whose number in the title decides alone.
The last tenth of each user's rows is left out, so that nothing is chosen on test rows of the data
set. LLMRec runs with the sizes of the yaml files and with those that follow from the rows, DeepFM
with its own. A line has the AUC and the LogLoss on the last tenth of what is left, and the LogLoss
of the best constant answer.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import recbole
from tabulate import tabulate

from recbole_e2urec.config.config import Config
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.experiment.run import SIZES, constant_logloss, parts_of
from recbole_e2urec.quick_start import run_recbole_e2urec

USER, ITEM, RATING, TIME = "user_id:token", "item_id:token", "rating:float", "timestamp:float"
TITLE = "title:token_seq"
KINDS = ("war", "love", "space", "horror", "comedy", "western")
ITEMS = 150
HEAD = ("data", "seed", "training rows", "model", "AUC", "LogLoss", "of a constant", "steps")
RUNS = {"LLMRec, sizes of the yaml": 1, "LLMRec, sizes by rows": 0, "DeepFM": 0}


def main() -> None:
    """Measure, and print a line for each data set, seed and model."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--users", type=int, nargs="*", default=[10, 30, 100])
    parser.add_argument("--planted", type=int, nargs="*", default=[40, 100])
    parser.add_argument("--planted_items", type=int, nargs="*", default=[100])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--data_path", type=Path, default=None)
    parser.add_argument("--dataset", default="ml-100k")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        lines = [
            line
            for seed in options.seeds
            for name in written(options, seed, Path(folder))
            for line in measured(name, seed, Path(folder))
        ]
    print(tabulate(lines, HEAD, tablefmt="pipe", floatfmt=".3f"))


def written(options: argparse.Namespace, seed: int, folder: Path) -> Iterator[str]:
    """Write the data sets of a seed, and give their names."""
    generator = np.random.default_rng(seed)
    own = Path(recbole.__file__).parent / "dataset_example"
    source = (options.data_path or own) / options.dataset / options.dataset
    rows = pd.read_csv(f"{source}.inter", sep="\t", dtype={USER: str, ITEM: str})
    films = pd.read_csv(f"{source}.item", sep="\t", dtype=str, quoting=3)
    films = films.rename(columns={"movie_title:token_seq": TITLE})[[ITEM, TITLE]]
    for count in options.users:
        some = generator.choice(rows[USER].unique(), count, replace=False)
        yield _write(folder, f"{options.dataset}-{count}", rows[rows[USER].isin(some)], films)
    for count in options.planted:
        yield _write(folder, f"planted-{count}", *planted(count, generator))
    for count in options.planted_items:
        yield _write(folder, f"items-{count}", *planted_items(count, generator))


def planted(users: int, generator: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of users who like some kinds of items, and some of whom like more than others."""
    kind, good = generator.integers(0, len(KINDS), ITEMS), generator.normal(size=len(KINDS))
    rows = []
    for user in range(users):
        taste = generator.normal() + good + generator.normal(size=len(KINDS))
        for time, item in enumerate(generator.permutation(ITEMS)[:20]):
            likes = generator.random() < 1 / (1 + np.exp(-1.25 * taste[kind[item]]))
            rows.append((f"u{user}", f"i{item}", 5.0 if likes else 2.0, float(time)))
    return _tables(rows, [f"The {KINDS[kind[item]]} of {item}" for item in range(ITEMS)])


def planted_items(users: int, generator: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of users who like the same items, nine times of ten."""
    good = generator.random(ITEMS) < 0.5
    rows = [
        (f"u{user}", f"i{item}", 5.0 if good[item] ^ (generator.random() < 0.1) else 2.0, float(t))
        for user in range(users)
        for t, item in enumerate(generator.permutation(ITEMS)[:20])
    ]
    return _tables(rows, [f"The tale of {item}" for item in range(ITEMS)])


def _tables(rows: list[Any], titles: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    items = [(f"i{item}", title) for item, title in enumerate(titles)]
    return pd.DataFrame(rows, columns=[USER, ITEM, RATING, TIME]), pd.DataFrame(
        items, columns=[ITEM, TITLE]
    )


def _write(folder: Path, name: str, rows: pd.DataFrame, items: pd.DataFrame) -> str:
    rows = rows[[USER, ITEM, RATING, TIME]].sort_values([USER, TIME], kind="stable")
    of_user = rows.groupby(USER)[RATING]
    rows = rows[of_user.cumcount() < np.floor(0.9 * of_user.transform("size"))]
    (folder / name).mkdir(exist_ok=True)
    rows.to_csv(folder / name / f"{name}.inter", sep="\t", index=False)
    items.to_csv(folder / name / f"{name}.item", sep="\t", index=False, quoting=3, escapechar=" ")
    return name


def measured(name: str, seed: int, folder: Path) -> Iterator[list[Any]]:
    """Run each model on a data set."""
    given: dict[str, Any] = {"data_path": str(folder), "seed": seed, "show_progress": False}
    config = Config("LLMRec", name, config_dict=given)
    sizes = {key: config[key] for key in SIZES}
    dataset = load_dataset(config)
    train, _, test = parts_of(config, dataset).splits
    label: Any = dataset.rows.label
    constant = constant_logloss(label[train], label[test])
    for number, (model, fixed) in enumerate(RUNS.items()):
        stages = folder / f"saved-{name}-{seed}-{number}"
        settings = {**given, "checkpoint_dir": str(stages), **(sizes if fixed else {})}
        (row,) = run_recbole_e2urec(model.partition(",")[0], name, config_dict=settings)["rows"]
        reached = row["test"]["auc"], row["test"]["logloss"]
        yield [name, seed, len(train), model, *reached, constant, row["cost"]["steps"]]


if __name__ == "__main__":
    main()
