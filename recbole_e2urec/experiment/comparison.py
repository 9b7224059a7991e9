"""Several models and seeds on one split, a row each; Original and Retrain once a seed.

Rows are made one after the other, or in ``nproc_rows`` processes. Killed, the same command goes on:
finished stages are reused, and so is the row of a classic model with the same settings.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tqdm import tqdm

from recbole_e2urec.config.config import Config
from recbole_e2urec.config.keys import with_forget_method
from recbole_e2urec.config.yaml import parse_value, read_switch
from recbole_e2urec.data.request.selection import WORDING, ForgetRequest
from recbole_e2urec.errors import InputError
from recbole_e2urec.evaluator.measure import group_sizes
from recbole_e2urec.experiment.base import opened, refuse_afterwards
from recbole_e2urec.experiment.inspect_prompts import shown_prompts
from recbole_e2urec.experiment.launch import Launch, layers_of, workers_of
from recbole_e2urec.experiment.preview import run_preview
from recbole_e2urec.experiment.recbole_models import ClassicForgetting
from recbole_e2urec.experiment.tuning import Development, Trial, choose, settings_to_try
from recbole_e2urec.experiment.unlearning import Forgetting
from recbole_e2urec.methods import METHODS, method_of
from recbole_e2urec.report.results import RESULTS, completed, load_rows, save_measured, save_rows
from recbole_e2urec.report.tables import NOISE
from recbole_e2urec.trainer.training_log import own_wandb_run
from recbole_e2urec.utils import distributed, recbole_compat

# What a single row is told instead; the comparison itself shows how far it is.
ONE_ROW = {"model_list": None, "seeds": None, "nproc_rows": 1, "tune": 0, "show_progress": False}


@dataclass(frozen=True)
class ComparisonSpec:
    """The rows of a comparison.

    Attributes:
        models: names, in the order of the table.
        seeds: each of them is run with every model; None = the seed that the settings say.
        processes: how many rows are made at the same time.
        tries: settings of every method that are tried before; 0 = its defaults are taken.
        show: whether progress is shown.
        prompts: how many prompts are shown instead of all that.
    """

    models: list[str]
    seeds: list[int | None]
    processes: int
    tries: int
    show: bool
    prompts: int = 0

    @classmethod
    def of(cls, layers: Sequence[Mapping[str, Any]]) -> "ComparisonSpec":
        """Read the settings; later layers win.

        Raises:
            InputError: a value that does not do; names its key.
        """
        models = _listed(layers, "model_list", [])
        if not models:
            raise InputError("no models to compare; write --model_list=E2URec,NegGrad")
        return cls(
            [str(model) for model in models],
            [_whole("seeds", seed, 0) for seed in _listed(layers, "seeds", [])] or [None],
            _whole("nproc_rows", _last(layers, "nproc_rows", 1), 1),
            _whole("tune", _last(layers, "tune", 0), 0),
            read_switch(_last(layers, "show_progress", True), "show_progress"),
            _whole("show_prompts", _last(layers, "show_prompts", 0), 0),
        )


def _listed(layers: Sequence[Mapping[str, Any]], key: str, default: list[Any]) -> list[Any]:
    """The values of a key that holds several; text is taken apart at its commas."""
    value = _last(layers, key, None)
    if value is None:
        return default
    if isinstance(value, str):
        value = [parse_value(part.strip(), key) for part in value.strip("[]").split(",")]
    found = value if isinstance(value, list) else [value]
    if not found or any(one in ("", None) for one in found):
        raise InputError(f"{key} is empty, or a part of it is; write --{key}=A,B")
    if len({str(one) for one in found}) < len(found):
        raise InputError(f"{key}: something is named twice in {found}")
    return found


def _last(layers: Sequence[Mapping[str, Any]], key: str, default: Any) -> Any:
    """The value in the last layer that has the key; text is read as on the command line."""
    for layer in reversed(layers):
        if key in layer:
            value = layer[key]
            return parse_value(value, key) if isinstance(value, str) else value
    return default


def _whole(key: str, value: Any, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{key}: {value!r} does not do; whole numbers from {least} on do")
    return value


Run = TypeVar("Run", Forgetting, Development)
RECOMMENDER = "LLMRec"  # in a comparison: Original, and Retrain beside it


@dataclass(frozen=True)
class RunSettings:
    """What a comparison was given, but its models and seeds; arguments as of ``quick_start``."""

    dataset: str | None = None
    config_files: tuple[str, ...] = ()
    config_dict: Mapping[str, Any] | None = None
    overrides: Mapping[str, Any] | None = None
    trials: Mapping[str, list[Trial]] = field(default_factory=dict)  # by method; what --tune tried
    others: Mapping[int | None, str] = field(default_factory=dict)  # by seed: another's Retrain

    def config(self, model: str | None, seed: int | None) -> Config:
        """Settings of one row; None: the seed that the settings say."""
        given = {**(self.overrides or {}), **ONE_ROW}
        if seed is not None:
            given["seed"] = seed
        if model is not None and model in self.trials:
            given.update(choose(self.trials[model]).settings)
        return Config(model, self.dataset, self.config_files, self.config_dict, given)


class Job(NamedTuple):
    """One row; ``LLMRec`` stands for Original and Retrain, ``NOISE`` for another seed's Retrain."""

    model: str
    seed: int | None


def run_job(job: Job, given: RunSettings) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Make the rows of one job, and write them down."""
    recbole_compat.apply()
    config = given.config(RECOMMENDER if job.model == NOISE else job.model, job.seed)
    with own_wandb_run(config):
        return _made(job, given, config)


def _made(
    job: Job, given: RunSettings, config: Config
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """See :func:`run_job`."""
    path = Path(config["checkpoint_dir"]) / RESULTS
    if not config.is_language_model:
        return [distributed.on_main_process(lambda: _classic_row(path, config))], {}
    run = _forgetting(config)
    if job.model == RECOMMENDER:
        rows = [run.measured("Original", run.original), run.measured("Retrain", run.retrain)]
    elif job.model == NOISE:
        row = run.noise_row(given.others[job.seed])
        rows = [] if row is None else [row]
    else:
        rows = [{**run.unlearned_row(config), **_told(given.trials.get(job.model))}]
    rows = completed(rows, config)
    save_measured(path, rows, run.forget_answers)
    return rows, group_sizes(run.groups)


def develop_job(job: Job, given: RunSettings) -> None:
    """Train what all trials share, or find it trained."""
    recbole_compat.apply()
    _development(given.config(job.model, job.seed))


def tune_job(job: Job, given: RunSettings, settings: Sequence[Mapping[str, float]]) -> list[Trial]:
    """Try settings of one method on the development request."""
    recbole_compat.apply()
    config = given.config(job.model, job.seed)
    development = _development(config)
    return [development.trial(config, values) for values in settings]


def _classic_row(path: Path, config: Config) -> dict[str, Any]:
    """The row of a classic model, from the results or made now, all in one process."""
    classic = ClassicForgetting(config, opened(config))
    row = _finished(path, config, classic.asked)
    if row is None:
        (row,) = completed([classic.row(config.forget_method)], config)
        save_rows(path, [row])
    return row


def _told(trials: list[Trial] | None) -> dict[str, Any]:
    """What the results say about tuning."""
    if trials is None:
        return {}
    shown = [trial._asdict() for trial in trials]
    return {"tuning": {"chosen": choose(trials).settings, "trials": shown}}


_runs: dict[tuple[type, int], Any] = {}  # of this process by kind and seed, the last one only


def _forgetting(config: Config) -> Forgetting:
    """The run that all methods of a seed share in this process, Original in its backbone."""

    def trained() -> Forgetting:
        run = Forgetting(config, opened(config))
        run.train()
        return run

    return _shared(Forgetting, config, trained)


def _development(config: Config) -> Development:
    """The development request that all trials share in this process."""
    return _shared(Development, config, lambda: Development(config))


def _shared(kind: type[Run], config: Config, make: Callable[[], Run]) -> Run:
    key = kind, int(config["seed"])
    if key not in _runs:
        _runs.clear()
        _runs[key] = make()
    run: Run = _runs[key]
    return run


def _finished(path: Path, config: Config, asked: ForgetRequest) -> dict[str, Any] | None:
    """The row of the same classic model, request, settings and versions, if it is there."""
    name = with_forget_method(config.model, config.forget_method)
    row = {"model": name, "request_digest": asked.digest, "settings": config.settings()}
    (wanted,) = completed([row], config)
    wanted = json.loads(json.dumps(wanted))
    for row in load_rows(path):
        if all(_asking_aside(row.get(name)) == _asking_aside(wanted[name]) for name in wanted):
            return row
    return None


def _asking_aside(value: Any) -> Any:
    """Settings without those that only say in which words a request was made."""
    if not isinstance(value, dict):
        return value
    return {key: one for key, one in value.items() if key not in WORDING}


def forget_runs() -> None:
    """Let go of what this process keeps between rows."""
    _runs.clear()


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
    grid, launch = ComparisonSpec.of(layers), Launch.of(layers)
    if grid.processes > 1 and max(launch.total, distributed.count()) > 1:
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
    recbole_compat.apply()
    if grid.prompts:  # which are the same for all language models
        model = next((one for one in grid.models if one in METHODS), grid.models[0])
        config = Config(model, dataset, config_file_list, config_dict, overrides)
        refuse_afterwards(config)
        return shown_prompts(config)
    given = RunSettings(dataset, tuple(config_file_list or ()), config_dict, overrides)
    results = _results_file(grid, given)
    first = given.config(grid.models[0], grid.seeds[0])
    refuse_afterwards(first)
    if first["dry_run"]:
        return distributed.on_main_process(lambda: run_preview(first))
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
        total=total,
        desc="jobs",
        disable=not (grid.show and distributed.is_main_process()),
        leave=False,
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


def _results_file(grid: ComparisonSpec, given: RunSettings) -> Path:
    """Refuse bad settings of every model before anything is trained; gives the results' file."""
    for model in grid.models:
        config = given.config(model, grid.seeds[0])
        config.ranked()
        if model in METHODS:
            method_of(config)
    return Path(config["checkpoint_dir"]) / RESULTS


def _tries(
    grid: ComparisonSpec, methods: Sequence[str], fixed: set[str]
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
    workers: Any, bar: Any, given: RunSettings, tries: Mapping[Job, list[dict[str, float]]]
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
