"""A development request: settings of a method are chosen on it, and not on the reported one.

It names as many users, items or pairs as the reported request, none of which is in it, and has an
Original and a Retrain of its own. Usefulness is read on validation rows. No test row plays a part.
"""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from recbole.utils import init_seed

from recbole_e2urec.config.config import Config
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.data.request.selection import ForgetOptions, read_request
from recbole_e2urec.experiment.base import parts_of
from recbole_e2urec.experiment.unlearning import Forgetting
from recbole_e2urec.utils.io import write_text

FOLDER = "development"  # inside checkpoint_dir
COLUMNS = {"user": ["user"], "item": ["item"], "interaction": ["user", "item"]}  # by forget_by


class Development:
    """The development request of a run's settings, with its Original and Retrain.

    Args:
        config: of the run, with the reported request.
    """

    def __init__(self, config: Config) -> None:
        init_seed(config["seed"], config["reproducibility"])
        dataset = load_dataset(config)
        self.folder = Path(config["checkpoint_dir"]) / FOLDER
        self.request = self.folder / "request.csv"
        self.by, lines = development_request(config, dataset)
        text = io.StringIO()
        header = [f"{name}_id" for name in COLUMNS[self.by]]
        csv.writer(text, lineterminator="\n").writerows([header, *lines])
        write_text(self.request, text.getvalue())
        self.run = Forgetting(self._moved(config), dataset, held_out="valid")
        self.run.train()
        self.original = self.run.measured("Original", self.run.original)
        self.retrain = self.run.measured("Retrain", self.run.retrain)

    def measures(self, config: Config) -> dict[str, float]:
        """Unlearn the request by the method of these settings, and compare it with Retrain.

        Returns:
            gap: forget AUC minus Retrain's.
            left: the gap in size, as a share of Original's: 0 = Retrain, 1 = did nothing.
            lost: Original's validation AUC minus this one.
            residual: 0 = Retrain, 1 = did nothing.
        """
        row = self.run.unlearned_row(self._moved(config))
        gap, whole = (
            model["forget"]["auc"] - self.retrain["forget"]["auc"] for model in (row, self.original)
        )
        residual = row["to_retrain"]["residual"]
        return {
            "gap": gap,
            "left": abs(gap / whole) if whole else 1.0,
            "lost": self.original["test"]["auc"] - row["test"]["auc"],  # of the part held out
            "residual": 1.0 if residual is None else residual,
        }

    def _moved(self, config: Config) -> Config:
        """The settings with this request and this folder, for what is trained here."""
        moved = {
            "forget_file": str(self.request),
            "forget_where": None,
            "request_id": None,
            "forget_by": self.by,
            "checkpoint_dir": str(self.folder),
            "ranking_pass": None,  # nothing is chosen by it
            "relearn_epochs": 0,
            "log_wandb": False,  # names of losses say nothing of trials
        }
        return config.with_settings(moved)


def development_request(config: Config, dataset: Any) -> tuple[str, list[tuple[str, ...]]]:
    """As much as the reported request names, drawn from the training rows that it leaves alone.

    Returns:
        ``forget_by`` and the lines of a forget file: users, items, or user-item pairs, as the
        reported request names them.
    """
    rows, train = dataset.rows, parts_of(config, dataset).splits.train
    options = config.options(ForgetOptions)
    reported = read_request(options, train, dataset).split
    kind = options.by
    if kind == "user" and np.isin(rows.user[reported.forget], rows.user[reported.retain]).any():
        kind = "interaction"  # the file names pairs
    inner = {"user": (rows.user, dataset.ids.users), "item": (rows.item, dataset.ids.items)}
    columns = [
        (column, {at: token for token, at in ids.items()})
        for column, ids in (inner[name] for name in COLUMNS[kind])
    ]

    def named(part: NDArray[np.int64]) -> set[tuple[str, ...]]:
        names = ([tokens[at] for at in column[part].tolist()] for column, tokens in columns)
        return set(zip(*names, strict=True))

    forgotten = named(reported.forget)
    others = sorted(named(train) - forgotten)
    drawn = np.random.default_rng(config["forget_seed"] + 1).permutation(len(others))
    count = min(len(forgotten), max(1, len(others) // 2))
    return kind, [others[place] for place in drawn[:count]]
