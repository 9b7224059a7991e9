"""Hyper-parameters of a method, chosen on a development request.

The request names as many users, items or pairs as the reported one, none of which is in it, and has
an Original and a Retrain of its own. Usefulness is read on validation rows. Neither the reported
request nor a test row plays a part.
"""

import csv
import io
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from recbole.utils import init_seed

from recbole_e2urec.config.config import Config
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.data.request.selection import ForgetOptions, read_request
from recbole_e2urec.experiment.base import parts_of
from recbole_e2urec.experiment.unlearning import Forgetting
from recbole_e2urec.methods import METHODS
from recbole_e2urec.utils.io import write_text

FOLDER = "development"  # inside checkpoint_dir
AFFORDABLE = 0.01  # of validation AUC
COLUMNS = {"user": ["user"], "item": ["item"], "interaction": ["user", "item"]}  # by forget_by


class Trial(NamedTuple):
    """One setting and what came of it on the development request."""

    settings: dict[str, float]
    gap: float  # forget AUC minus Retrain's
    left: float  # the gap in size, as a share of Original's: 0 = Retrain, 1 = did nothing
    lost: float  # Original's validation AUC minus this one
    residual: float  # 0 = Retrain, 1 = did nothing


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

    def row(self, config: Config, settings: Mapping[str, float]) -> dict[str, Any]:
        """Unlearn the request by the method of these settings, some of them replaced.

        What the row calls ``test`` is the part held out, here validation.
        """
        return self.run.unlearned_row(self._moved(config).with_settings(settings))

    def trial(self, config: Config, settings: Mapping[str, float]) -> Trial:
        """The same as a trial."""
        row = self.row(config, settings)
        gap, whole = (
            one["forget"]["auc"] - self.retrain["forget"]["auc"] for one in (row, self.original)
        )
        residual = row["to_retrain"]["residual"]
        return Trial(
            dict(settings),
            gap,
            abs(gap / whole) if whole else 1.0,
            self.original["test"]["auc"] - row["test"]["auc"],
            1.0 if residual is None else residual,
        )

    def _moved(self, config: Config) -> Config:
        """The settings with this request and this folder, for what is trained here."""
        own = {
            "forget_file": str(self.request),
            "forget_where": None,
            "request_id": None,
            "forget_by": self.by,
            "checkpoint_dir": str(self.folder),
            "ranking_pass": None,  # nothing is chosen by it
            "relearn_epochs": 0,
            "log_wandb": False,  # names of losses say nothing of trials
        }
        return config.with_settings(own)


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
        found = ([tokens[at] for at in column[part].tolist()] for column, tokens in columns)
        return set(zip(*found, strict=True))

    forgotten = named(reported.forget)
    others = sorted(named(train) - forgotten)
    drawn = np.random.default_rng(config["forget_seed"] + 1).permutation(len(others))
    count = min(len(forgotten), max(1, len(others) // 2))
    return kind, [others[place] for place in drawn[:count]]


def settings_to_try(method: str, fixed: Collection[str], count: int) -> list[dict[str, float]]:
    """Settings of a method: its defaults, then draws from its space, each range in logarithms.

    Args:
        method: its name.
        fixed: keys that the user set; they are not searched.
        count: number of settings, 1 or more; methods without a space have one.
    """
    space = METHODS[method].searched(fixed)
    if not space:
        return [{}]
    generator = np.random.default_rng([count, *method.encode()])
    drawn = [
        {
            key: float(np.format_float_scientific(value, 2))
            for key, (low, high) in space.items()
            for value in [np.exp(generator.uniform(np.log(low), np.log(high)))]
        }
        for _ in range(count - 1)
    ]
    return [{}, *drawn]


def choose(trials: list[Trial]) -> Trial:
    """The trial nearest to Retrain among those that cost at most 0.01 of AUC.

    Near is what has a small gap in forget AUC and answers single rows as Retrain does: the least
    sum of ``left`` and ``residual``. Where each costs more, the one that costs least.
    """
    return min(trials, key=objective)


def objective(trial: Trial) -> float:
    """What :func:`choose` makes least: below 1 for what is affordable, above 1 for the rest."""
    if trial.lost > AFFORDABLE:
        return 1 + trial.lost
    distance = trial.left + trial.residual
    return distance / (1 + distance)
