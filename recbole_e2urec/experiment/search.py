"""``recbole-e2urec hyper``: RecBole's HyperTuning on our models, without ray.

You can pass ``objective_function`` to ``recbole.trainer.HyperTuning``. Importing this module makes
HyperTuning work with current versions of hyperopt. Settings are scored as in :mod:`tuning`.
"""

import contextlib
import io
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import partial
from importlib.util import find_spec
from math import inf
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import yaml
from recbole.trainer.hyper_tuning import HyperTuning, exhaustive_search

from recbole_e2urec.config.config import Config, RunSettings
from recbole_e2urec.config.keys import LORA, with_forget_method
from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.errors import Diverged, InputError
from recbole_e2urec.experiment.tuning import Objective, Space, Trial, best_of, whole
from recbole_e2urec.methods import METHODS, method_of
from recbole_e2urec.report.tables import TextTable
from recbole_e2urec.utils import recbole_compat
from recbole_e2urec.utils.io import write_json, write_text

recbole_compat.apply()
Result = dict[str, Any]
# RecBole's limits: trials, and trials without improvement after which a search ends.
EVALS, PATIENCE = 100, 10


def objective_function(
    config_dict: Mapping[str, Any] | None = None, config_file_list: Sequence[str] | None = None
) -> Result:
    """Run a trial for HyperTuning.

    Args:
        config_dict: the settings of the trial.
        config_file_list: HyperTuning's ``fixed_config_file_list``. The two name the model and the
            data set.

    Returns:
        ``model``, ``best_valid_score``, ``valid_score_bigger`` and ``best_valid_result``; and
        ``test_result``, which is empty.
    """
    objective = Objective(None, RunSettings(config_files=tuple(config_file_list or ())))
    trial = objective({name: whole(value) for name, value in (config_dict or {}).items()})
    return _for_recbole(trial)


def _for_recbole(trial: Trial) -> Result:
    return {
        "model": trial.model,
        "best_valid_score": trial.score,
        "valid_score_bigger": trial.bigger,
        "best_valid_result": trial.valid,
        "test_result": {},
    }


class SearchLog:
    """The log of a search, saved after every trial.

    Attributes:
        record: the content of the file.
        best: the best trial; None if none has finished.
    """

    def __init__(self, objective: Objective, config: Config, algo: str, file: Path) -> None:
        self._objective, self._file = objective, file
        method = config.model in METHODS
        self.record: Result = {
            "model": with_forget_method(str(config.model), config.forget_method),
            "dataset": str(config["dataset"]),
            "algo": algo,
            "seed": config["seed"],
            "criterion": "distance to Retrain" if method else str(config["valid_metric"]).lower(),
            "trials": [],
            "best": None,
        }
        self.best: Trial | None = None

    def __call__(self, settings: Mapping[str, Any], files: Any = None) -> Result:
        """Run and log a trial. One that diverges gets the worst score, and the search continues."""
        started = time.perf_counter()
        settings = {name: whole(value) for name, value in settings.items()}
        outcome: Result
        try:
            trial = self._objective(settings)
            outcome = {"score": trial.score, "valid": trial.valid}
        except Diverged as error:
            config = self._objective.config(settings)
            tried = {name: config[name] for name in settings}
            trial, outcome = Trial(str(config.model), tried, inf, {}), {"failed": str(error)}
        seconds = time.perf_counter() - started
        self.record["trials"].append({"settings": trial.settings, **outcome, "seconds": seconds})
        if "score" in outcome and trial is best_of([self.best or trial, trial]):
            self.best, self.record["best"] = trial, self.record["trials"][-1]
        write_json(self._file, self.record)
        return _for_recbole(trial)


def described(search: Result) -> str:
    """Format a search for the terminal: every trial, with the best one marked."""
    lines = []
    for trial in search["trials"]:
        settings = ", ".join(f"{name}={value}" for name, value in trial["settings"].items())
        score = f"{trial['score']:.4f}" if "score" in trial else trial["failed"]
        # The residual is not shown, because it means little without its floor.
        valid = trial.get("valid", {}).items()
        measures = ", ".join(f"{key} {value:.4f}" for key, value in valid if key != "residual")
        mark = "best" if trial["settings"] == search["best"]["settings"] else ""
        lines.append([mark, settings, score, measures, f"{trial['seconds']:.1f}"])
    header = ["", "settings", search["criterion"], "on validation", "seconds"]
    return (
        f"{search['model']} on {search['dataset']}, {search['algo']}, seed {search['seed']}\n\n"
        f"{TextTable(header, lines).render()}\n\n"
        f"trials: {search['file']}\nto use the best: --config_files={search['best_file']}"
    )


@option_class()
class SearchOptions:
    """How settings are searched."""

    params_file: str = option(
        "What is searched: lines such as 'learning_rate choice [0.01,0.005]'."
    )
    algo: Literal["exhaustive", "random", "bayes"] = option(
        "The whole grid (exhaustive), draws (random), or draws that learn from what was tried "
        "(bayes).",
        default="exhaustive",
    )
    max_evals: int | None = option("Most trials; ~ = 100, or the whole grid.", ge=1, default=None)
    early_stop: int | None = option(
        "Trials without a better one that end it; ~ = 10, for a grid never.", ge=1, default=None
    )
    output_file: str | None = option(
        "Where every trial goes; ~ = hyper.json in checkpoint_dir.", default=None
    )


def search(options: SearchOptions, model: str | None, run_settings: RunSettings) -> Result:
    """Search settings, and save every trial.

    Args:
        options: what to search, and how.
        model: name of the model; None: the one that the settings name.
        run_settings: the settings that all trials have in common.

    Returns:
        The content of the file: ``model``, ``dataset``, ``algo``, ``seed``, ``criterion``,
        ``trials`` and ``best``, which is one of the trials. A trial has ``settings``, ``seconds``,
        and either ``score`` and ``valid`` or the reason why it ``failed``. The file names ``file``
        and ``best_file`` are added.

    Raises:
        InputError: bad input, hyperopt is missing, or no trial finished.
    """
    if find_spec("hyperopt") is None:
        raise InputError("hyper needs the package hyperopt; pip install hyperopt")
    space, objective = Space.read(Path(options.params_file)), Objective(model, run_settings)
    config = objective.config({})
    _check(space, objective, config, options)
    recbole_compat.start_log(config)
    file = Path(options.output_file or Path(config["checkpoint_dir"]) / "hyper.json")
    log = SearchLog(objective, config, options.algo, file)
    tuning = _tuning(log, space, options)
    with _quiet(int(config["seed"])):
        tuning.run()
    if log.best is None:
        reasons = "; ".join(dict.fromkeys(trial["failed"] for trial in log.record["trials"]))
        raise InputError(f"hyper: no trial came to an end: {reasons}")
    best_file = file.with_name(f"{file.stem}-best.yaml")
    write_text(best_file, yaml.safe_dump(log.best.settings, allow_unicode=True))
    return {**log.record, "file": str(file), "best_file": str(best_file)}


def _check(space: Space, objective: Objective, config: Config, options: SearchOptions) -> None:
    """Refuse what a trial would refuse before anything is trained.

    Raises:
        InputError: the message names the key.
    """
    if config.forget_method:
        raise InputError(
            f"hyper: search {config.model} itself; {config.forget_method} takes its settings"
        )
    if options.algo == "exhaustive" and space.ranges:
        raise InputError(
            f"hyper: {space.ranges[0]} is a range; a grid needs choices, or take --algo=random"
        )
    fixed = sorted({*(objective.run_settings.overrides or {})}.intersection(space.parts))
    if fixed:
        raise InputError(f"{fixed[0]} is both set and searched; drop one of them")
    if config.model in METHODS:
        _check_method(space, config)
    for settings in space.samples():
        sample = objective.config(settings)
        if sample.model in METHODS:
            method_of(sample)


def _check_method(space: Space, config: Config) -> None:
    """Refuse keys that would also change Original, with which a method is compared."""
    options = [field.name for field in fields(METHODS[str(config.model)].options_class)]
    options += LORA if config["tuning"] == "full" else ()
    for name in space.parts:
        if name not in options:
            raise InputError(
                f"hyper: {name} decides Original as well, which {config.model} is compared with; "
                f"search it by --model=LLMRec. Options of the method: {', '.join(options)}"
            )


def _tuning(log: SearchLog, space: Space, options: SearchOptions) -> HyperTuning:
    """Create RecBole's search. A grid is searched completely, however often a point repeats."""
    grid = options.algo == "exhaustive"
    size = int(space.size or 1)
    most = min(options.max_evals or size, size) if grid else options.max_evals or EVALS
    tuning = HyperTuning(
        log,
        params_dict=space.for_recbole(),
        algo=options.algo,
        max_evals=most,
        early_stop=options.early_stop or (most if grid else PATIENCE),
    )
    tuning.max_evals = most
    if grid:
        tuning.algo = partial(exhaustive_search, nbMaxSucessiveFailures=1000 * size)
    return tuning


@contextlib.contextmanager
def _quiet(seed: int) -> Iterator[None]:
    """Seed hyperopt, and silence it and HyperTuning, because the trials' file has it all."""
    log = logging.getLogger("hyperopt")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    environment = patch.dict(os.environ, HYPEROPT_FMIN_SEED=str(seed))
    try:
        with environment, contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        log.setLevel(level)
