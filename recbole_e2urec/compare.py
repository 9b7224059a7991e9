"""Several models and seeds on one split, a row each; Original and Retrain once a seed.

Rows are made one after the other, or in ``nproc_rows`` processes. Killed, the same command goes on:
finished stages are reused, and so is the row of a classic model with the same settings.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from recbole.utils import init_logger, init_seed
from tqdm import tqdm

from recbole_e2urec import compat
from recbole_e2urec.classic import ClassicForgetting
from recbole_e2urec.config import Config
from recbole_e2urec.data.loading import load_dataset
from recbole_e2urec.evaluator.measure import group_sizes
from recbole_e2urec.forgetting import Forgetting
from recbole_e2urec.grid import ONE_ROW, Grid
from recbole_e2urec.keys import name_of
from recbole_e2urec.methods import METHODS, method_of
from recbole_e2urec.quick_start import RESULTS, completed
from recbole_e2urec.results import load_rows, save_rows
from recbole_e2urec.tuning import Development, Trial, choose, settings_to_try
from recbole_e2urec.workers import workers_of
from recbole_e2urec.yamlfiles import read_yaml

RECOMMENDER = "LLMRec"  # in a comparison: Original, and Retrain beside it


@dataclass(frozen=True)
class Given:
    """What a comparison was given, but its models and seeds; arguments as of ``quick_start``."""

    dataset: str | None = None
    config_files: tuple[str, ...] = ()
    config_dict: Mapping[str, Any] | None = None
    overrides: Mapping[str, Any] | None = None
    trials: Mapping[str, list[Trial]] = field(default_factory=dict)  # by method; what --tune tried

    def config(self, model: str, seed: int | None) -> Config:
        """Settings of one row; None: the seed that the settings say."""
        given = {**(self.overrides or {}), **ONE_ROW}
        if seed is not None:
            given["seed"] = seed
        if model in self.trials:
            given.update(choose(self.trials[model]).settings)
        return Config(model, self.dataset, self.config_files, self.config_dict, given)


class Job(NamedTuple):
    """One row; the model ``LLMRec`` stands for Original and Retrain."""

    model: str
    seed: int | None


def run_comparison(
    dataset: str | None = None,
    config_file_list: Sequence[str] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run every model of ``model_list`` under every seed of ``seeds``.

    Arguments are as in :func:`run_recbole_e2urec`.

    Returns:
        ``rows``, those of Original, Retrain and every model by seed, which also went to
        ``results.jsonl``; ``groups``, the number of rows measured; and ``results_file``.

    Raises:
        InputError: bad input; one line that says what, where, and what would do.
    """
    compat.apply()
    layers = [*map(_read, config_file_list or ()), config_dict or {}, overrides or {}]
    grid = Grid.of(layers)
    given = Given(dataset, tuple(config_file_list or ()), config_dict, overrides)
    results = _results_file(grid, given)
    _runs.clear()  # of another comparison in this process
    methods = [model for model in grid.models if model in METHODS or model == RECOMMENDER]
    if grid.tries > 0:
        fixed = {key for layer in layers for key in layer}
        given = replace(given, trials=_tuned(given, methods, grid.seeds[0], fixed, grid.tries))
    bases = [Job(RECOMMENDER, seed) for seed in grid.seeds] if methods else []
    others = [
        Job(model, seed) for seed in grid.seeds for model in grid.models if model != RECOMMENDER
    ]
    rows: list[dict[str, Any]] = []
    groups: dict[str, int] = {}
    bar = tqdm(total=len(bases + others), desc="rows", disable=not grid.show, leave=False)
    with workers_of(grid.processes) as workers, bar:
        for jobs in (bases, others):
            for made, sizes in workers.map(_run, jobs, [given] * len(jobs)):
                rows += made
                groups = groups or sizes
                bar.update()
    _runs.clear()
    return {"rows": _ordered(rows, grid.models), "groups": groups, "results_file": str(results)}


def _results_file(grid: Grid, given: Given) -> Path:
    """Refuse bad settings of every model before anything is trained; gives the results' file."""
    for model in grid.models:
        config = given.config(model, grid.seeds[0])
        config.ranked()
        if model in METHODS:
            method_of(config)
    return Path(config["checkpoint_dir"]) / RESULTS


def _tuned(
    given: Given, methods: Sequence[str], seed: int | None, fixed: set[str], tries: int
) -> dict[str, list[Trial]]:
    """Try settings of every method on the development request, under the first seed."""
    development: Development | None = None
    found: dict[str, list[Trial]] = {}
    for method in methods:
        settings = settings_to_try(method, fixed, tries) if method in METHODS else [{}]
        if len(settings) > 1:
            config = given.config(method, seed)
            development = development or Development(config)
            found[method] = [development.trial(config, values) for values in settings]
    return found


def _run(job: Job, given: Given) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Make the rows of one job, and write them down."""
    compat.apply()
    config = given.config(job.model, job.seed)
    path = Path(config["checkpoint_dir"]) / RESULTS
    if not config.is_language_model:
        row = _finished(path, config)
        if row is None:
            made = ClassicForgetting(config, _dataset(config)).row(config.way)
            (row,) = completed([made], config)
            save_rows(path, [row])
        return [row], {}
    run = _forgetting(config)
    if job.model == RECOMMENDER:
        rows = [run.measured("Original", run.original), run.measured("Retrain", run.retrain)]
    else:
        rows = [{**run.unlearned_row(config), **_told(given.trials.get(job.model))}]
    rows = completed(rows, config)
    save_rows(path, rows)
    return rows, group_sizes(run.groups)


def _told(trials: list[Trial] | None) -> dict[str, Any]:
    """What the results say about tuning."""
    if trials is None:
        return {}
    shown = [trial._asdict() for trial in trials]
    return {"tuning": {"chosen": choose(trials).settings, "trials": shown}}


_runs: dict[int, Forgetting] = {}  # of this process by seed, the last one only


def _forgetting(config: Config) -> Forgetting:
    """The run that all methods of a seed share in this process, Original in its backbone."""
    seed = int(config["seed"])
    if seed not in _runs:
        _runs.clear()
        run = Forgetting(config, _dataset(config))
        run.train()
        _runs[seed] = run
    return _runs[seed]


def _dataset(config: Config) -> Any:
    init_seed(config["seed"], config["reproducibility"])
    init_logger(config)
    return load_dataset(config)


def _finished(path: Path, config: Config) -> dict[str, Any] | None:
    """The row of the same classic model, settings and versions, if it is there."""
    name = name_of(config.model, config.way)
    (wanted,) = completed([{"model": name, "settings": config.settings()}], config)
    wanted = json.loads(json.dumps(wanted))
    for row in load_rows(path):
        if all(row.get(name) == value for name, value in wanted.items()):
            return row
    return None


def _ordered(rows: list[dict[str, Any]], models: Sequence[str]) -> list[dict[str, Any]]:
    """Original and Retrain first, then the models as they were listed; seeds in their order."""
    order = {name: place for place, name in enumerate(["Original", "Retrain", *models])}
    return sorted(rows, key=lambda row: order.get(row["model"], len(order)))


def _read(file: str) -> dict[str, Any]:
    return read_yaml(Path(file))
