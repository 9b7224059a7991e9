"""RecBole's search for hyper-parameters on our models: grid, random and Bayesian, without ray.

:class:`Objective` says what is made least or greatest, and on which rows.

A line is ``name type values``::

    learning_rate loguniform -7,-4
    train_batch_size choice [64,128,256]
    beta uniform 0.2,0.8
    joint_epochs quniform 1,4,1

``objective_function`` is what ``recbole.trainer.HyperTuning`` calls; importing this module makes
HyperTuning work with today's hyperopt. A recommender is judged by its ``valid_metric`` on
validation rows, an unlearning method as ``--tune`` does it, on the development request of other
users. No test row is looked at.
"""

import contextlib
import io
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from importlib.util import find_spec
from math import exp, isfinite, prod
from pathlib import Path
from typing import Any, Literal

import yaml
from recbole.trainer.hyper_tuning import HyperTuning, exhaustive_search
from recbole.utils import init_logger, init_seed

from recbole_e2urec.config.config import Config
from recbole_e2urec.config.keys import LORA, with_forget_method
from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.config.yaml import parse_value
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.data.loaders import make_loaders
from recbole_e2urec.errors import Diverged, InputError
from recbole_e2urec.experiment.base import Experiment, parts_of
from recbole_e2urec.experiment.comparison import RunSettings
from recbole_e2urec.experiment.tuning import Development, objective
from recbole_e2urec.methods import METHODS, method_of
from recbole_e2urec.report.tables import TextTable
from recbole_e2urec.trainer.recbole_trainer import fit_classic
from recbole_e2urec.trainer.training_log import own_wandb_run
from recbole_e2urec.utils import recbole_compat
from recbole_e2urec.utils.io import read_lines, write_json, write_text

# Numbers that follow each kind; loguniform takes logarithms of its bounds, as RecBole does.
_BOUNDS = {"uniform": 2, "loguniform": 2, "quniform": 3}
_FORM = (
    "name choice [a,b], name uniform low,high, name loguniform low,high or name quniform low,high,q"
)


@dataclass(frozen=True)
class Space:
    """Settings to try.

    Attributes:
        choices: values by key.
        ranges: kind and its numbers by key.
    """

    choices: Mapping[str, list[Any]]
    ranges: Mapping[str, tuple[str, list[float]]]

    @classmethod
    def read(cls, path: Path) -> "Space":
        """Read a params file.

        Raises:
            InputError: it cannot be read, or a line is no such line.
        """
        choices: dict[str, list[Any]] = {}
        ranges: dict[str, tuple[str, list[float]]] = {}
        for number, line in enumerate(read_lines(path), start=1):
            parts = line.split(None, 2)
            if not parts or parts[0].startswith("#"):
                continue
            name, kind, text = [*parts, "", ""][:3]
            if name in choices or name in ranges:
                raise InputError(f"{path}, line {number}: {name} is there twice")
            values = parse_value(text) if kind == "choice" else _numbers(text, kind)
            if not isinstance(values, list) or not values:
                raise InputError(f"{path}, line {number}: {line.strip()!r} is none of {_FORM}")
            if kind == "choice":
                choices[name] = values
            else:
                ranges[name] = (kind, values)
        if not choices and not ranges:
            raise InputError(f"{path} names nothing to search; a line is {_FORM}")
        return cls(choices, ranges)

    @property
    def names(self) -> list[str]:
        """Keys that are searched."""
        return [*self.choices, *self.ranges]

    @property
    def size(self) -> int | None:
        """How many settings there are; None without end."""
        return None if self.ranges else prod(map(len, self.choices.values()))

    def samples(self) -> list[dict[str, Any]]:
        """Each choice and each bound once, a key at a time: what must not be refused."""
        found = [{name: value} for name, values in self.choices.items() for value in values]
        for name, (kind, numbers) in self.ranges.items():
            bounds = map(exp, numbers) if kind == "loguniform" else numbers[:2]
            found += [{name: whole(bound)} for bound in bounds]
        return found

    def for_recbole(self) -> dict[str, dict[str, list[Any]]]:
        """The argument ``params_dict`` of RecBole's HyperTuning; lists as text."""
        made: dict[str, dict[str, list[Any]]] = {}
        for name, values in self.choices.items():
            made.setdefault("choice", {})[name] = [
                json.dumps(value) if isinstance(value, list | dict) else value for value in values
            ]
        for name, (kind, numbers) in self.ranges.items():
            made.setdefault(kind, {})[name] = numbers
        return made


def whole(value: Any) -> Any:
    """A whole number as an int, as sizes and counts have to be; other values as they are."""
    value = value.item() if hasattr(value, "item") else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _numbers(text: str, kind: str) -> list[float] | None:
    """Numbers between commas, as many as the kind has, the second above the first."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        return None
    if len(numbers) != _BOUNDS.get(kind) or not all(map(isfinite, numbers)):
        return None
    low, high, *step = numbers
    return numbers if low < high and all(one > 0 for one in step) else None


recbole_compat.apply()
Result = dict[str, Any]


class Objective:
    """Trains a model under some settings, and says how good it is on validation rows.

    Args:
        model: its name; None = what the settings say.
        given: everything else that the runs have in common.
    """

    def __init__(self, model: str | None, given: RunSettings) -> None:
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
            return result_of(config, objective(trial), found)
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
    return Objective(None, RunSettings(config_files=tuple(config_file_list or ())))(
        config_dict or {}
    )


class SearchLog:
    """The trials of a search, written down after each of them."""

    def __init__(self, objective: Objective, config: Config, algo: str, file: Path) -> None:
        self._objective, self._file = objective, file
        method = config.model in METHODS
        self.told: Result = {
            "model": with_forget_method(str(config.model), config.forget_method),
            "dataset": str(config["dataset"]),
            "algo": algo,
            "seed": config["seed"],
            "criterion": "distance to Retrain" if method else str(config["valid_metric"]).lower(),
            "trials": [],
        }
        self.best: Result | None = None

    def __call__(self, settings: Mapping[str, Any], files: Any = None) -> Result:
        """Make a trial. One that diverges is the worst of all, and the search goes on."""
        started = time.perf_counter()
        config = self._objective.config(settings)
        trial: Result = {"settings": {name: config[name] for name in settings}}
        bigger = is_bigger_better(config)
        try:
            result = self._objective(settings)
            score = result["best_valid_score"]
            trial |= {"score": score, "valid": result["best_valid_result"]}
            better = self.best is None or (
                score > self.best["score"] if bigger else score < self.best["score"]
            )
            self.best = trial if better else self.best
        except Diverged as error:
            result = result_of(config, float("-inf" if bigger else "inf"), {})
            trial["failed"] = str(error)
        trial["seconds"] = time.perf_counter() - started
        self.told["trials"].append(trial)
        write_json(self._file, {**self.told, "best": self.best})
        return result


def told(found: Result) -> str:
    """A search for the terminal: every trial, and which is the best."""
    lines = []
    for trial in found["trials"]:
        settings = ", ".join(f"{name}={value}" for name, value in trial["settings"].items())
        score = f"{trial['score']:.4f}" if "score" in trial else trial["failed"]
        valid = trial.get("valid", {}).items()  # a residual has no floor here, and is not shown
        measures = ", ".join(f"{key} {value:.4f}" for key, value in valid if key != "residual")
        mark = "best" if trial["settings"] == found["best"]["settings"] else ""
        lines.append([mark, settings, score, measures, f"{trial['seconds']:.1f}"])
    header = ["", "settings", found["criterion"], "on validation", "seconds"]
    return (
        f"{found['model']} on {found['dataset']}, {found['algo']}, seed {found['seed']}\n\n"
        f"{TextTable(header, lines).drawn()}\n\n"
        f"trials: {found['file']}\nto use the best: --config_files={found['best_file']}"
    )


# RecBole's: most trials, and those without a better one after which a search ends.
EVALS, PATIENCE = 100, 10


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


def search(options: SearchOptions, model: str | None, given: RunSettings) -> Result:
    """Search, and write down every trial.

    Returns:
        What the file holds: ``model``, ``dataset``, ``algo``, ``seed``, ``criterion``, ``trials``,
        each with its ``settings``, ``score``, ``valid`` and ``seconds``, or why it ``failed``, and
        ``best``, one of them; and the names ``file`` and ``best_file``.

    Raises:
        InputError: bad input, hyperopt is missing, or no trial came to an end.
    """
    if find_spec("hyperopt") is None:
        raise InputError("hyper needs the package hyperopt; pip install hyperopt")
    space, objective = Space.read(Path(options.params_file)), Objective(model, given)
    config = objective.config({})
    _check(space, objective, config, options)
    init_logger(config)
    file = Path(options.output_file or Path(config["checkpoint_dir"]) / "hyper.json")
    log = SearchLog(objective, config, options.algo, file)
    tuning = _tuning(log, space, options)
    with _quiet(int(config["seed"])):
        tuning.run()
    if log.best is None:
        reasons = "; ".join(dict.fromkeys(trial["failed"] for trial in log.told["trials"]))
        raise InputError(f"hyper: no trial came to an end: {reasons}")
    best_file = file.with_name(f"{file.stem}-best.yaml")
    write_text(best_file, yaml.safe_dump(log.best["settings"], allow_unicode=True))
    return {**log.told, "best": log.best, "file": str(file), "best_file": str(best_file)}


def _check(space: Space, objective: Objective, config: Config, options: SearchOptions) -> None:
    """Refuse, before anything is trained, what a trial would refuse.

    Raises:
        InputError: names the key.
    """
    if config.forget_method:
        raise InputError(
            f"hyper: search {config.model} itself; {config.forget_method} takes its settings"
        )
    if options.algo == "exhaustive" and space.ranges:
        name = next(iter(space.ranges))
        raise InputError(f"hyper: {name} is a range; a grid needs choices, or take --algo=random")
    fixed = sorted({*(objective.given.overrides or {})}.intersection(space.names))
    if fixed:
        raise InputError(f"{fixed[0]} is both set and searched; drop one of them")
    if config.model in METHODS:
        _check_method(space, config)
    for settings in space.samples():
        tried = objective.config(settings)
        if tried.model in METHODS:
            method_of(tried)


def _check_method(space: Space, config: Config) -> None:
    """Refuse keys that change what a method is compared with."""
    own = [field.name for field in fields(METHODS[str(config.model)].options_class)]
    own += LORA if config["tuning"] == "full" else ()
    for name in space.names:
        if name not in own:
            raise InputError(
                f"hyper: {name} decides Original as well, which {config.model} is compared with; "
                f"search it by --model=LLMRec. Options of the method: {', '.join(own)}"
            )


def _tuning(log: SearchLog, space: Space, options: SearchOptions) -> HyperTuning:
    """RecBole's search; its grid is looked through whole, however often a point is drawn again."""
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
    """Seed hyperopt, and let neither it nor HyperTuning print what the trials' file says."""
    before, key = os.environ.get("HYPEROPT_FMIN_SEED"), "HYPEROPT_FMIN_SEED"
    log = logging.getLogger("hyperopt")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    os.environ[key] = str(seed)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        log.setLevel(level)
        if before is None:
            del os.environ[key]
        else:
            os.environ[key] = before
