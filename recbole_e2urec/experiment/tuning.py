"""Search spaces, trials and the objective of every search for settings.

``--tune`` and ``recbole-e2urec hyper`` use the same :class:`Objective`. It scores a recommender by
its ``valid_metric`` on validation rows, and an unlearning method by its distance to Retrain on a
development request. No test row is used.
"""

import csv
import io
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from math import exp, isfinite, prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from recbole.utils import init_seed

from recbole_e2urec.config.config import Config, RunSettings
from recbole_e2urec.config.yaml import parse_value
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.data.loaders import make_loaders
from recbole_e2urec.data.request.selection import ForgetOptions, read_request
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.launch import Latest
from recbole_e2urec.experiment.run import Experiment, parts_of
from recbole_e2urec.experiment.unlearning import Forgetting
from recbole_e2urec.methods import METHODS
from recbole_e2urec.trainer.recbole_trainer import fit_classic
from recbole_e2urec.trainer.training_log import own_wandb_run
from recbole_e2urec.utils.io import read_lines, write_text

FOLDER = "development"  # inside the run's folder
COLUMNS = {"user": ["user"], "item": ["item"], "interaction": ["user", "item"]}  # by forget_by
AFFORDABLE = 0.01  # the loss of validation AUC that is acceptable
# How many numbers follow each type; loguniform takes logarithms of its bounds, as RecBole does.
_BOUNDS = {"uniform": 2, "loguniform": 2, "quniform": 3}
_FORM = (
    "name choice [a,b], name uniform low,high, name loguniform low,high or name quniform low,high,q"
)


class Development:
    """A run on the development request, with its Original and Retrain.

    Args:
        config: settings of the reported run, with its request.
    """

    def __init__(self, config: Config) -> None:
        init_seed(config["seed"], config["reproducibility"])
        dataset = load_dataset(config)
        self.folder = config.run_folder / FOLDER
        self.request = self.folder / "request.csv"
        self.by, lines = development_request(config, dataset)
        text = io.StringIO()
        header = [f"{name}_id" for name in COLUMNS[self.by]]
        csv.writer(text, lineterminator="\n").writerows([header, *lines])
        write_text(self.request, text.getvalue())
        self.run = Forgetting(self._for_development(config), dataset, held_out="valid")
        self.run.train()
        self.original = self.run.measured("Original", self.run.original)
        self.retrain = self.run.measured("Retrain", self.run.retrain)

    def measures(self, config: Config) -> dict[str, float]:
        """Unlearn the development request with these settings, and compare with Retrain.

        Returns:
            gap: forget AUC minus Retrain's.
            left: size of the gap as a share of Original's gap: 0 = like Retrain, 1 = like Original.
            lost: Original's validation AUC minus this model's.
            residual: 0 = like Retrain, 1 = like Original.
        """
        row = self.run.unlearned_row(self._for_development(config))
        gap, whole = (
            model["forget"]["auc"] - self.retrain["forget"]["auc"] for model in (row, self.original)
        )
        residual = row["to_retrain"]["residual"]
        return {
            "gap": gap,
            "left": abs(gap / whole) if whole else 1.0,
            "lost": self.original["test"]["auc"] - row["test"]["auc"],  # on validation rows
            "residual": 1.0 if residual is None else residual,
        }

    def _for_development(self, config: Config) -> Config:
        """Return the settings with this request, this folder, and nothing that is not needed."""
        settings = {
            "forget_file": str(self.request),
            "forget_where": None,
            "request_id": None,
            "forget_by": self.by,
            "checkpoint_dir": str(self.folder),
            "ranking_pass": None,  # the objective does not use it
            "relearn_epochs": 0,
            "log_wandb": False,  # names of losses do not tell trials apart
        }
        return config.with_settings(settings)


def development_request(config: Config, dataset: Any) -> tuple[str, list[tuple[str, ...]]]:
    """Draw a request as large as the reported one from the training rows that it does not name.

    It names at most half of the users, items or pairs that the reported request leaves.

    Returns:
        ``forget_by`` and the lines of a forget file: users, items, or user-item pairs, as in the
        reported request.
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


@dataclass(frozen=True)
class Space:
    """A search space.

    Attributes:
        parts: type and values of each key. The values are the choices, or the numbers of a range.
    """

    parts: Mapping[str, tuple[str, list[Any]]]

    @classmethod
    def read(cls, path: Path) -> "Space":
        """Read a params file, whose lines have the form ``name type values``.

        Examples are ``learning_rate loguniform -7,-4``, ``train_batch_size choice [64,128]``,
        ``beta uniform 0.2,0.8`` and ``joint_epochs quniform 1,4,1``.

        Raises:
            InputError: the file cannot be read, or a line has another form.
        """
        parts: dict[str, tuple[str, list[Any]]] = {}
        for number, line in enumerate(read_lines(path), start=1):
            words = line.split(None, 2)
            if not words or words[0].startswith("#"):
                continue
            name, kind, text = [*words, "", ""][:3]
            if name in parts:
                raise InputError(f"{path}, line {number}: {name} is there twice")
            values = parse_value(text) if kind == "choice" else _numbers(text, kind)
            if not isinstance(values, list) or not values:
                raise InputError(f"{path}, line {number}: {line.strip()!r} is none of {_FORM}")
            parts[name] = kind, values
        if not parts:
            raise InputError(f"{path} names nothing to search; a line is {_FORM}")
        return cls(dict(sorted(parts.items(), key=lambda part: part[1][0] != "choice")))

    @classmethod
    def of_method(cls, method: str, fixed: Collection[str]) -> "Space":
        """Return a method's space, log-uniform in every key, without the keys in ``fixed``."""
        bounds = METHODS[method].searched(fixed).items()
        return cls({key: ("loguniform", [np.log(end) for end in ends]) for key, ends in bounds})

    @property
    def ranges(self) -> list[str]:
        """Keys with a range, which have infinitely many values."""
        return [name for name, (kind, _) in self.parts.items() if kind != "choice"]

    @property
    def size(self) -> int | None:
        """The number of different settings; None if it is infinite."""
        return None if self.ranges else prod(len(values) for _, values in self.parts.values())

    def samples(self) -> list[dict[str, Any]]:
        """Return settings with each choice and bound once, one key at a time, to be validated."""
        samples: list[dict[str, Any]] = []
        for name, (kind, values) in self.parts.items():
            ends = values if kind == "choice" else values[:2]
            samples += [{name: whole(exp(end) if kind == "loguniform" else end)} for end in ends]
        return samples

    def for_recbole(self) -> dict[str, dict[str, list[Any]]]:
        """Return the argument ``params_dict`` of RecBole's HyperTuning, with lists as text."""
        params: dict[str, dict[str, list[Any]]] = {}
        for name, (kind, values) in self.parts.items():
            params.setdefault(kind, {})[name] = [
                json.dumps(value) if isinstance(value, list | dict) else value for value in values
            ]
        return params


def whole(value: Any) -> Any:
    """Convert a whole number to int, which sizes and counts must be; keep any other value."""
    value = value.item() if hasattr(value, "item") else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _numbers(text: str, kind: str) -> list[float] | None:
    """Parse comma-separated numbers; None unless they are a valid range of this kind."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        return None
    if len(numbers) != _BOUNDS.get(kind) or not all(map(isfinite, numbers)):
        return None
    low, high, *step = numbers
    return numbers if low < high and all(size > 0 for size in step) else None


def settings_to_try(method: str, fixed: Collection[str], count: int) -> list[dict[str, float]]:
    """Return settings of a method: its defaults, then draws from its space, to three digits.

    Args:
        method: name of the method.
        fixed: keys that the user set; they are not searched.
        count: number of settings, 1 or more. A method without a space has its defaults only.
    """
    space = Space.of_method(method, fixed).parts.items()
    generator = np.random.default_rng([count, *method.encode()])
    draws = [
        {
            key: float(np.format_float_scientific(np.exp(generator.uniform(low, high)), 2))
            for key, (_, (low, high)) in space
        }
        for _ in range(count - 1)
    ]
    return [{}, *draws] if space else [{}]


class Trial(NamedTuple):
    """Settings, and their result on validation rows.

    Attributes:
        model: name of the model.
        settings: the settings that were searched.
        score: the value to minimise or maximise.
        valid: the measures behind the score.
        bigger: whether a greater score is better.
    """

    model: str
    settings: dict[str, Any]
    score: float
    valid: dict[str, float]
    bigger: bool = False


def best_of(trials: Sequence[Trial]) -> Trial:
    """Return the best trial, the first of them if several are equally good."""
    return min(trials, key=lambda trial: -trial.score if trial.bigger else trial.score)


class Objective:
    """Trains a model with some settings, and scores it on validation rows.

    Args:
        model: name of the model; None: the one that the settings name.
        run_settings: the settings that all trials have in common.
        latest: keeps the development request that the trials share.
    """

    def __init__(
        self, model: str | None, run_settings: RunSettings, latest: Latest | None = None
    ) -> None:
        self.model, self.run_settings, self._latest = model, run_settings, latest or Latest()

    def config(self, settings: Mapping[str, Any]) -> Config:
        """Return the full settings of a trial; text is read as on the command line."""
        return self.run_settings.overridden(settings).config(self.model)

    def __call__(self, settings: Mapping[str, Any]) -> Trial:
        """Run a trial.

        Raises:
            Diverged: training diverged.
            InputError: the metric has no value on these validation rows.
        """
        config = self.config(settings)
        init_seed(config["seed"], config["reproducibility"])
        about = str(config.model), {name: config[name] for name in settings}
        if config.model in METHODS:
            measures = self.development(config).measures(config)
            return Trial(*about, distance_to_retrain(measures), measures)
        metric, valid = str(config["valid_metric"]).lower(), _validated(config)
        if metric not in valid:
            raise InputError(f"{metric} has no value on validation: they need rows of both labels")
        return Trial(*about, valid[metric], valid, bool(config["valid_metric_bigger"]))

    def development(self, config: Config) -> Development:
        """Return the development request; recreated if more than a method's options changed."""
        options = {
            field.name for method in METHODS.values() for field in fields(method.options_class)
        }
        shared = sorted(config.final_config_dict.items(), key=lambda item: item[0])
        key = repr([item for item in shared if item[0] not in {*options, "model"}])
        return self._latest.get((Development, key), lambda: Development(config))


def distance_to_retrain(measures: Mapping[str, float]) -> float:
    """Return the objective of a method: below 1 if its loss of AUC is affordable, else above 1.

    A method is near Retrain if its gap in forget AUC is small and it answers single rows as Retrain
    does. So the objective grows with the sum of ``left`` and ``residual``. Settings that lose more
    than 0.01 of validation AUC are ranked by that loss alone.
    """
    if measures["lost"] > AFFORDABLE:
        return 1 + measures["lost"]
    distance = measures["left"] + measures["residual"]
    return distance / (1 + distance)


def _validated(config: Config) -> dict[str, float]:
    """Train a recommender, and return the validation metrics of its best epoch."""
    with own_wandb_run(config):
        dataset = load_dataset(config)
        if config.is_language_model:
            rows, _ = Experiment(config, dataset).recommend(tested=False)
            return dict(rows[0]["valid"])
        splits = parts_of(config, dataset).splits
        loaders = make_loaders(config, dataset, splits)._replace(test=None)
        results = fit_classic(config, loaders).results
        Path(results["checkpoint"]).unlink(missing_ok=True)  # RecBole's file; nothing reads it
        return dict(results["valid"])
