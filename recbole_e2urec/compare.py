"""Several models and seeds on one split, a row each; Original and Retrain once a seed.

Rows are made one after the other, or in ``nproc_rows`` processes. Killed, the same command goes on:
finished stages are reused, and so is the row of a classic model with the same settings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from recbole_e2urec import compat, processes, writer
from recbole_e2urec.config import Config
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment import refuse_afterwards
from recbole_e2urec.grid import Grid
from recbole_e2urec.jobs import (
    RECOMMENDER,
    Given,
    Job,
    develop_job,
    forget_runs,
    run_job,
    tune_job,
)
from recbole_e2urec.launch import Launch, layers_of
from recbole_e2urec.methods import METHODS, method_of
from recbole_e2urec.preview import previewed
from recbole_e2urec.results import RESULTS
from recbole_e2urec.showing import shown_prompts
from recbole_e2urec.tables import NOISE
from recbole_e2urec.tuning import Trial, settings_to_try
from recbole_e2urec.workers import workers_of


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
        ``results.jsonl``; ``groups``, the number of rows measured; and ``results_file``. With
        ``show_prompts`` as :func:`run_recbole_e2urec`; a dry run gives ``preview`` and ``lines``
        instead.

    Raises:
        InputError: bad input; one line that says what, where, and what would do.
    """
    layers = layers_of(config_file_list, config_dict, overrides)
    grid, launch = Grid.of(layers), Launch.of(layers)
    if grid.processes > 1 and max(launch.total, processes.count()) > 1:
        raise InputError(
            "nproc_rows and nproc: several rows at once, or several processes a row; keep one"
        )
    if launch.is_needed:
        result: dict[str, Any] = launch.run(
            run_comparison,
            {
                "dataset": dataset,
                "config_file_list": config_file_list,
                "config_dict": config_dict,
                "overrides": overrides,
            },
        )
        return result
    compat.apply()
    if grid.prompts:  # which are the same for all language models
        model = next((one for one in grid.models if one in METHODS), grid.models[0])
        config = Config(model, dataset, config_file_list, config_dict, overrides)
        refuse_afterwards(config)
        return shown_prompts(config)
    given = Given(dataset, tuple(config_file_list or ()), config_dict, overrides)
    results = _results_file(grid, given)
    first = given.config(grid.models[0], grid.seeds[0])
    refuse_afterwards(first)
    if first["dry_run"]:
        return writer.from_writer(lambda: previewed(first))
    forget_runs()  # of another comparison in this process
    methods = [model for model in grid.models if model in METHODS or model == RECOMMENDER]
    tries = _tries(grid, methods, {key for layer in layers for key in layer})
    bases = [Job(RECOMMENDER, seed) for seed in grid.seeds] if methods else []
    noise = [NOISE] if len(bases) > 1 else []
    models = [*noise, *(model for model in grid.models if model != RECOMMENDER)]
    others = [Job(model, seed) for seed in grid.seeds for model in models]
    rows: list[dict[str, Any]] = []
    groups: dict[str, int] = {}
    total = len(tries) + len(bases + others)
    bar = tqdm(
        total=total, desc="jobs", disable=not (grid.show and processes.is_writer()), leave=False
    )
    with workers_of(grid.processes) as workers, bar:
        given = replace(given, trials=_tuned(workers, bar, given, tries))
        for jobs in (bases, others):
            for made, sizes in workers.map(run_job, jobs, [given] * len(jobs)):
                rows += made
                groups = groups or sizes
                bar.update()
            if jobs is bases:
                given = replace(given, others=_others(rows))
    forget_runs()
    return {"rows": _ordered(rows, grid.models), "groups": groups, "results_file": str(results)}


def _results_file(grid: Grid, given: Given) -> Path:
    """Refuse bad settings of every model before anything is trained; gives the results' file."""
    for model in grid.models:
        config = given.config(model, grid.seeds[0])
        config.ranked()
        if model in METHODS:
            method_of(config)
    return Path(config["checkpoint_dir"]) / RESULTS


def _tries(
    grid: Grid, methods: Sequence[str], fixed: set[str]
) -> dict[Job, list[dict[str, float]]]:
    """Settings to try, of every method that has any, under the first seed."""
    if grid.tries == 0:
        return {}
    found = {
        Job(method, grid.seeds[0]): settings_to_try(method, fixed, grid.tries)
        for method in methods
        if method in METHODS
    }
    return {job: settings for job, settings in found.items() if len(settings) > 1}


def _tuned(
    workers: Any, bar: Any, given: Given, tries: Mapping[Job, list[dict[str, float]]]
) -> dict[str, list[Trial]]:
    """Try them, a method at a time in each process; gives the trials by method."""
    found: dict[str, list[Trial]] = {}
    jobs = list(tries)
    list(workers.map(develop_job, jobs[:1], [given]))  # once, before processes look for it
    for job, trials in zip(
        jobs, workers.map(tune_job, jobs, [given] * len(jobs), tries.values()), strict=True
    ):
        found[job.model] = trials
        bar.update()
    return found


def _others(rows: Sequence[Mapping[str, Any]]) -> dict[int | None, str]:
    """Stage of the next seed's Retrain, by seed; nothing for one seed."""
    stages = {row["seed"]: row["stage"] for row in rows if row["model"] == "Retrain"}
    following = [*list(stages)[1:], *list(stages)[:1]]
    return {seed: stages[other] for seed, other in zip(stages, following, strict=True)}


def _ordered(rows: list[dict[str, Any]], models: Sequence[str]) -> list[dict[str, Any]]:
    """Original and Retrain first, then the models as they were listed; seeds in their order."""
    order = {name: place for place, name in enumerate(["Original", "Retrain", NOISE, *models])}
    return sorted(rows, key=lambda row: order.get(row["model"], len(order)))
