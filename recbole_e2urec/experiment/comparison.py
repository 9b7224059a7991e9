"""Comparisons: one row of results for each model and seed, all on the same split.

Original and Retrain are trained once for each seed. Rows are computed one after the other, or in
``nproc_rows`` processes, which also train Original and Retrain at the same time. If a comparison is
killed, the same command continues it: finished stages are reused, and so is the row of a classic
model with the same settings.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from recbole_e2urec.config.config import Config, RunSettings
from recbole_e2urec.config.keys import with_forget_method
from recbole_e2urec.data.request.selection import WORDING, ForgetRequest
from recbole_e2urec.errors import InputError
from recbole_e2urec.evaluator.measure import group_sizes
from recbole_e2urec.experiment.inspect_prompts import shown_prompts
from recbole_e2urec.experiment.launch import (
    ONE_RUN,
    ComparisonSpec,
    Job,
    Latest,
    Launch,
    layers_of,
    workers_of,
)
from recbole_e2urec.experiment.preview import run_preview
from recbole_e2urec.experiment.recbole_models import ClassicForgetting
from recbole_e2urec.experiment.run import opened, refuse_afterwards
from recbole_e2urec.experiment.tuning import Objective, Trial, best_of, settings_to_try
from recbole_e2urec.experiment.unlearning import Forgetting
from recbole_e2urec.methods import METHODS, method_of
from recbole_e2urec.methods.unlearner import Unlearner
from recbole_e2urec.registry import LANGUAGE_MODEL
from recbole_e2urec.report.results import RESULTS, completed, load_results, save_measured, save_rows
from recbole_e2urec.report.tables import NOISE
from recbole_e2urec.trainer.training_log import own_wandb_run
from recbole_e2urec.utils import distributed, recbole_compat

# Settings that every single row gets instead; the comparison itself shows the progress.
ONE_ROW = {**ONE_RUN, "nproc_rows": 1, "show_progress": False}

Row = dict[str, Any]
Made = tuple[list[Row], dict[str, int]]  # rows, and the number of measured rows by group
Measure = Callable[[Forgetting, Config], list[Row]]


def language_model_job(
    run_settings: RunSettings, model: str, measure: Measure, latest: Latest
) -> Made:
    """Measure and save rows of one seed's run, which the jobs of a process share."""
    config = run_settings.config(model)
    with own_wandb_run(config):
        run = _run_of(config, latest)
        run.train()
        rows = completed(measure(run, config), config)
        save_measured(_results_file(config), rows, run.forget_answers)
        return rows, group_sizes(run.groups)


def reference_job(run_settings: RunSettings, name: str, latest: Latest) -> None:
    """Train Original or Retrain of one seed, which :func:`language_model_job` then finds."""
    config = run_settings.config(LANGUAGE_MODEL)
    with own_wandb_run(config):
        _run_of(config, latest).train_reference(name)


def refusal_job(run_settings: RunSettings, models: Sequence[str], latest: Latest) -> None:
    """Let each method that refuses some requests do so, which takes the data but no training."""
    choosy = [name for name in models if name in METHODS and _is_choosy(METHODS[name])]
    methods = [run_settings.config(name) for name in choosy]

    def asked(config: Config, dataset: Any) -> Forgetting:
        run = Forgetting(config, dataset)
        for method in methods:
            run.refuse(method)
        return run

    if choosy:
        _run_of(run_settings.config(LANGUAGE_MODEL), latest, asked)


def _is_choosy(method: type[Unlearner]) -> bool:
    return method.refuse is not Unlearner.refuse


def _run_of(
    config: Config, latest: Latest, kind: Callable[[Config, Any], Forgetting] = Forgetting
) -> Forgetting:
    """Return the run of a seed, which the jobs of a process share; ``kind`` makes it."""
    return latest.get((Forgetting, config["seed"]), lambda: opened(config, kind))


def references(run: Forgetting, config: Config) -> list[Row]:
    """Return the rows of Original and Retrain."""
    return [run.measured("Original", run.original), run.measured("Retrain", run.retrain)]


def noise(run: Forgetting, config: Config, stage: str) -> list[Row]:
    """Return the row of another seed's Retrain, whose stage is given; empty if not comparable."""
    row = run.noise_row(stage)
    return [] if row is None else [row]


def unlearned(run: Forgetting, config: Config, trials: Sequence[Trial]) -> list[Row]:
    """Return the row of a method, with the trials that chose its settings."""
    row = run.unlearned_row(config)
    if trials:
        tried = [{"settings": trial.settings, **trial.valid} for trial in trials]
        row["tuning"] = {"chosen": best_of(trials).settings, "trials": tried}
    return [row]


def classic_job(run_settings: RunSettings, model: str, latest: Latest) -> Made:
    """Return the row of a classic model, saved or computed now, in the main process alone."""
    config = run_settings.config(model)
    with own_wandb_run(config):
        return [distributed.on_main_process(lambda: _classic_row(config))], {}


def _classic_row(config: Config) -> Row:
    path, classic = _results_file(config), opened(config, ClassicForgetting)
    row = _finished(path, config, classic.forget_request)
    if row is None:
        (row,) = completed([classic.row(config.forget_method)], config)
        save_rows(path, [row])
    return row


def _finished(path: Path, config: Config, forget_request: ForgetRequest) -> Row | None:
    """Find the saved row of the same classic model, request, settings and versions."""
    name = with_forget_method(config.model, config.forget_method)
    row = {"model": name, "request_digest": forget_request.digest, "settings": config.settings()}
    (wanted,) = completed([row], config)
    wanted = json.loads(json.dumps(wanted))
    for row in load_results(path):
        if all(_asking_aside(row.get(name)) == _asking_aside(wanted[name]) for name in wanted):
            return row
    return None


def _asking_aside(value: Any) -> Any:
    """Return settings without the keys that only say how a request was worded."""
    if not isinstance(value, dict):
        return value
    return {key: setting for key, setting in value.items() if key not in WORDING}


def _results_file(config: Config) -> Path:
    return Path(config["checkpoint_dir"]) / RESULTS


@dataclass(frozen=True)
class TuningJob:
    """A job that tries settings of a method on the development request."""

    run_settings: RunSettings
    method: str
    settings: Sequence[Mapping[str, float]]

    def __call__(self, latest: Latest) -> list[Trial]:
        """Run the trials."""
        objective = Objective(self.method, self.run_settings, latest)
        return [objective(settings) for settings in self.settings]

    def prepare(self, latest: Latest) -> None:
        """Train what all trials share, unless it is already trained."""
        objective = Objective(self.method, self.run_settings, latest)
        objective.development(objective.config({}))


def run_comparison(
    dataset: str | None = None,
    config_file_list: Sequence[str] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    model: str | None = None,
) -> dict[str, Any]:
    """Run every model of ``model_list``, or the one model, with every seed of ``seeds``.

    Args:
        dataset: as for :func:`run_recbole_e2urec`, and so are the next three arguments.
        config_file_list: yaml files.
        config_dict: settings from Python.
        overrides: settings as text.
        model: the one model, if there is no ``model_list``.

    Returns:
        ``rows``: one for Original, Retrain and every model by seed, also saved in
        ``results.jsonl``; ``groups``: the number of measured rows by group; ``results_file``; and
        ``refused``: model, seed and reason of each row that could not be made. With
        ``show_prompts``, the same as :func:`run_recbole_e2urec`. A dry run returns ``preview`` and
        ``lines`` instead.

    Raises:
        InputError: bad input; one line says what is wrong, where, and what is accepted.
    """
    layers = layers_of(config_file_list, config_dict, overrides)
    spec, launch = ComparisonSpec.of(layers, model), Launch.of(layers)
    if (spec.processes or 1) > 1 and max(launch.total, distributed.count()) > 1:
        raise InputError(
            "nproc_rows and nproc: several rows at once, or several processes a row; keep one"
        )
    if launch.is_needed:
        arguments = {
            "dataset": dataset,
            "config_file_list": config_file_list,
            "config_dict": config_dict,
            "overrides": overrides,
            "model": model,
        }
        result: dict[str, Any] = launch.run(run_comparison, arguments)
        return result
    recbole_compat.apply()
    run_settings = RunSettings(dataset, tuple(config_file_list or ()), config_dict, overrides)
    if spec.prompts:  # which are the same for all language models
        shown = next((name for name in spec.models if name in METHODS), spec.models[0])
        config = run_settings.config(shown)
        refuse_afterwards(config)
        return shown_prompts(config)
    run_settings = run_settings.overridden(ONE_ROW)
    seeds = [run_settings.overridden({} if seed is None else {"seed": seed}) for seed in spec.seeds]
    results = _checked(spec, seeds[0])
    first = seeds[0].config(spec.models[0])
    refuse_afterwards(first)
    if first["dry_run"]:
        return distributed.on_main_process(lambda: run_preview(first))
    tunings = _tunings(spec, seeds[0], {key for layer in layers for key in layer})
    rows, groups = _made(spec, seeds, tunings, spec.workers(first))
    refused = [row for row in rows if "refused" in row]
    return {
        "rows": _ordered([row for row in rows if "refused" not in row], spec.models),
        "groups": groups,
        "results_file": str(results),
        "refused": refused,
    }


def _checked(spec: ComparisonSpec, run_settings: RunSettings) -> Path:
    """Refuse bad settings of any model before training starts; return the results file."""
    for model in spec.models:
        config = run_settings.config(model)
        config.ranked()
        if model in METHODS:
            method_of(config)
    return _results_file(config)


def _tunings(spec: ComparisonSpec, run_settings: RunSettings, fixed: set[str]) -> list[TuningJob]:
    """Return the tuning job of every method that has settings to try."""
    methods = [model for model in spec.models if model in METHODS and spec.tries]
    jobs = [
        TuningJob(run_settings, name, settings_to_try(name, fixed, spec.tries)) for name in methods
    ]
    jobs = [job for job in jobs if len(job.settings) > 1]
    if spec.tries > 1 and not jobs:
        raise InputError(f"tune: there is nothing to try for {', '.join(spec.models)}; drop it")
    return jobs


def _made(
    spec: ComparisonSpec, seeds: Sequence[RunSettings], tunings: list[TuningJob], processes: int
) -> Made:
    """Try settings with the first seed, train Original and Retrain, then compute all rows."""
    others = [model for model in spec.models if model != LANGUAGE_MODEL]
    bases = [partial(language_model_job, seed, LANGUAGE_MODEL, references) for seed in seeds]
    if not any(model in METHODS or model == LANGUAGE_MODEL for model in spec.models):
        bases = []
    noisy = len(bases) > 1
    apart: list[Job] = [
        partial(reference_job, run_settings, name)
        for run_settings in seeds
        for name in ("Original", "Retrain")
        if bases and processes > 1
    ]
    bar = tqdm(
        total=len(tunings) + len(apart) + len(bases) + len(seeds) * (noisy + len(others)),
        desc="jobs",
        disable=not (spec.show and distributed.is_main_process()),
        leave=False,
        delay=1,  # so that a refusal has its line to itself
    )
    with workers_of(processes) as workers, bar:

        def run(jobs: Sequence[Job]) -> Iterator[Any]:
            for result in workers(jobs):
                bar.update()
                yield result

        list(workers([partial(refusal_job, seeds[0], spec.models)]))  # before anything is trained
        list(workers([job.prepare for job in tunings[:1]]))  # once, before all processes need it
        list(run(apart))
        trials = {job.method: tried for job, tried in zip(tunings, run(tunings), strict=True)}
        jobs: list[Job] = []
        for place, run_settings in enumerate(seeds):
            jobs += bases[place : place + 1]
            jobs += [_row_job(run_settings, model, trials.get(model, [])) for model in others]
        made = list(run(jobs))
        if noisy:
            rows_of_bases = [rows for rows, _ in made[:: 1 + len(others)]]
            made += run(_noise_jobs(seeds, rows_of_bases))
    groups: dict[str, int] = next((sizes for _, sizes in made if sizes), {})
    return [row for rows, _ in made for row in rows], groups


def _noise_jobs(seeds: Sequence[RunSettings], references: Sequence[list[Row]]) -> list[Job]:
    """Return the jobs that measure the next seed's Retrain beside each seed's own."""
    stages = [row["stage"] for rows in references for row in rows if row["model"] == "Retrain"]
    measures = [partial(noise, stage=stage) for stage in (*stages[1:], stages[0])]
    return [
        partial(language_model_job, run_settings, LANGUAGE_MODEL, measure)
        for run_settings, measure in zip(seeds, measures, strict=True)
    ]


def _row_job(run_settings: RunSettings, model: str, trials: list[Trial]) -> Job:
    """Return the job of a classic model, or of a method with the best settings of its trials."""
    if model not in METHODS:
        job: Job = partial(classic_job, run_settings, model)
    else:
        run_settings = run_settings.overridden(best_of(trials).settings if trials else {})
        measure = partial(unlearned, trials=trials)
        job = partial(language_model_job, run_settings, model, measure)
    return partial(_row_or_reason, job, run_settings, model)


def _row_or_reason(job: Job, run_settings: RunSettings, model: str, latest: Latest) -> Made:
    """Return what a job made; if the model refuses, a row that says why, so that others are made.

    Several processes of one row end together instead, because a refusal may be one process's own.
    """
    try:
        made: Made = job(latest)
    except InputError as error:
        if distributed.count() > 1 or isinstance(error.__cause__, OSError):
            raise
        latest.get(None, lambda: None)  # a run that broke off is not used again
        seed = run_settings.config(model)["seed"]
        return [{"model": model, "seed": seed, "refused": str(error)}], {}
    return made


def _ordered(rows: list[Row], models: Sequence[str]) -> list[Row]:
    """Sort rows: Original and Retrain, then the models as listed; seeds keep their order."""
    order = {name: place for place, name in enumerate(["Original", "Retrain", NOISE, *models])}
    return sorted(rows, key=lambda row: order.get(row["model"], len(order)))
