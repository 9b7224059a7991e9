"""What a search for hyper-parameters asks: how good is a model under some settings?

``objective_function`` is what ``recbole.trainer.HyperTuning`` calls; importing this module makes
HyperTuning work with today's hyperopt. A recommender is judged by its ``valid_metric`` on
validation rows, an unlearning method as ``--tune`` does it, on the development request of other
users. No test row is looked at.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from recbole.utils import init_seed

from recbole_e2urec import compat
from recbole_e2urec.config import Config
from recbole_e2urec.data.loaders import make_loaders
from recbole_e2urec.data.loading import load_dataset
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment import Experiment, parts_of
from recbole_e2urec.jobs import Given
from recbole_e2urec.methods import METHODS
from recbole_e2urec.space import whole
from recbole_e2urec.trainer.classic import fit_classic
from recbole_e2urec.trainer.curves import own_wandb_run
from recbole_e2urec.tuning import Development, badness

compat.apply()
Result = dict[str, Any]


class Objective:
    """Trains a model under some settings, and says how good it is on validation rows.

    Args:
        model: its name; None = what the settings say.
        given: everything else that the runs have in common.
    """

    def __init__(self, model: str | None, given: Given) -> None:
        self.model, self.given = model, given
        self._development: tuple[str, Development] | None = None

    def config(self, settings: Mapping[str, Any]) -> Config:
        """Settings of a trial; text is read as on the command line."""
        given, own = self.given, {name: whole(value) for name, value in settings.items()}
        overrides = {**(given.overrides or {}), **own}
        return Config(self.model, given.dataset, given.config_files, given.config_dict, overrides)

    def __call__(self, settings: Mapping[str, Any], files: Sequence[str] | None = None) -> Result:
        """RecBole's result of a trial; it has no ``test_result``, as no test row is looked at."""
        config = self.config(settings)
        init_seed(config["seed"], config["reproducibility"])
        if config.model in METHODS:
            trial = self._developed(config).trial(config, {})
            found = {name: value for name, value in trial._asdict().items() if name != "settings"}
            return result_of(config, badness(trial), found)
        with own_wandb_run(config):
            found = self._validated(config)
        metric = str(config["valid_metric"]).lower()
        if metric not in found:
            raise InputError(f"{metric} has no value on validation: they need rows of both labels")
        return result_of(config, found[metric], found)

    def _validated(self, config: Config) -> dict[str, float]:
        """Validation metrics of a recommender's best epoch."""
        dataset = load_dataset(config)
        if config.is_language_model:
            rows, _ = Experiment(config, dataset).recommend(tested=False)
            return dict(rows[0]["valid"])
        splits = parts_of(config, dataset).splits
        loaders = make_loaders(config, dataset, splits)._replace(test=None)
        results = fit_classic(config, loaders).results
        Path(results["checkpoint"]).unlink(missing_ok=True)  # RecBole's, never read again
        return dict(results["valid"])

    def _developed(self, config: Config) -> Development:
        """The development request; made anew where more than the method's options changed."""
        own = {field.name for field in fields(METHODS[config.model].options_class)}
        shared = {key: value for key, value in config.final_config_dict.items() if key not in own}
        key = repr(sorted(shared.items(), key=lambda item: item[0]))
        if self._development is None or self._development[0] != key:
            self._development = None  # before another backbone is made
            self._development = key, Development(config)
        return self._development[1]


def result_of(config: Config, score: float, valid: Mapping[str, float]) -> Result:
    """RecBole's result of a trial, with a score of these validation measures."""
    return {
        "model": str(config.model),
        "best_valid_score": score,
        "valid_score_bigger": is_bigger_better(config),
        "best_valid_result": dict(valid),
        "test_result": {},
    }


def is_bigger_better(config: Config) -> bool:
    """Whether scores are to grow: by the metric; those of methods are distances."""
    return config.model not in METHODS and bool(config["valid_metric_bigger"])


def objective_function(
    config_dict: Mapping[str, Any] | None = None, config_file_list: Sequence[str] | None = None
) -> Result:
    """What HyperTuning calls with the settings of a trial and its ``fixed_config_file_list``.

    Model and data set are what these name. It says ``best_valid_score``, ``valid_score_bigger`` and
    ``best_valid_result``; ``test_result`` is empty.
    """
    return Objective(None, Given(config_files=tuple(config_file_list or ())))(config_dict or {})
