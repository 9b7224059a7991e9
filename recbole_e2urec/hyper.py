"""RecBole's search for hyper-parameters on our models: grid, random and Bayesian, without ray.

What is made least or greatest, and on which rows, is told in :mod:`recbole_e2urec.objective`.
"""

import contextlib
import io
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import yaml
from recbole.trainer.hyper_tuning import HyperTuning, exhaustive_search
from recbole.utils import init_logger

from recbole_e2urec.config import Config
from recbole_e2urec.errors import InputError
from recbole_e2urec.jobs import Given
from recbole_e2urec.keys import LORA
from recbole_e2urec.methods import METHODS, method_of
from recbole_e2urec.objective import Objective, Result
from recbole_e2urec.space import Space
from recbole_e2urec.storage import write_text
from recbole_e2urec.trials import SearchLog

# RecBole's: most trials, and those without a better one after which a search ends.
EVALS, PATIENCE = 100, 10


@dataclass(frozen=True)
class SearchOptions:
    """How settings are searched.

    Attributes:
        params_file: what is searched, in RecBole's form (see :class:`Space`).
        algo: the whole grid, draws, or draws that learn from what was tried (TPE).
        max_evals: most trials; None = 100, or the whole grid.
        early_stop: trials without a better one after which the search ends; None = 10, and never
            for the grid.
        output_file: where the trials go; None = ``hyper.json`` in ``checkpoint_dir``.
    """

    params_file: str
    algo: Literal["exhaustive", "random", "bayes"] = "exhaustive"
    max_evals: int | None = None
    early_stop: int | None = None
    output_file: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        for name in ("max_evals", "early_stop"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; give 1 or more")


def search(options: SearchOptions, model: str | None, given: Given) -> Result:
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
    if config.way:
        raise InputError(f"hyper: search {config.model} itself; {config.way} takes its settings")
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
