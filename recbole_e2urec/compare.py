"""Several models and seeds on one split, a row each; Original and Retrain once a seed.

Rows are made one after the other, or in ``nproc_rows`` processes. Killed, the same command goes on:
finished stages are reused, and so is the row of a classic model with the same settings.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from recbole.utils import init_logger, init_seed
from tqdm import tqdm

from recbole_e2urec import compat
from recbole_e2urec.config import Config
from recbole_e2urec.data.loading import load_dataset
from recbole_e2urec.errors import InputError
from recbole_e2urec.evaluator.measure import group_sizes
from recbole_e2urec.forgetting import Forgetting, method_of
from recbole_e2urec.methods import METHODS
from recbole_e2urec.quick_start import RESULTS, completed, run_classic
from recbole_e2urec.results import load_rows, save_rows
from recbole_e2urec.yamlfiles import read_yaml, typed

# What a single row is told; the comparison shows how far it is.
ONE_ROW = {"model_list": None, "seeds": None, "nproc_rows": 1, "show_progress": False}
RECOMMENDER = "LLMRec"  # in a comparison: Original, and Retrain beside it


@dataclass(frozen=True)
class Given:
    """What a comparison was given, but its models and seeds; arguments as of ``quick_start``."""

    dataset: str | None = None
    config_files: tuple[str, ...] = ()
    config_dict: Mapping[str, Any] | None = None
    overrides: Mapping[str, Any] | None = None

    def config(self, model: str, seed: int | None) -> Config:
        """Settings of one row; None: the seed that the settings say."""
        given = {**(self.overrides or {}), **ONE_ROW}
        if seed is not None:
            given["seed"] = seed
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
    given = Given(dataset, tuple(config_file_list or ()), config_dict, overrides)
    models = _listed(layers, "model_list", [])
    seeds = [_seed(seed) for seed in _listed(layers, "seeds", [None])]
    (processes,) = _listed(layers, "nproc_rows", [1])
    if not isinstance(processes, int) or processes < 1:
        raise InputError(f"nproc_rows: {processes!r} does not do; a whole number from 1 is needed")
    first = given.config(models[0], seeds[0])
    for model in models:
        config = given.config(model, seeds[0])
        if model in METHODS:
            method_of(config)  # refuses bad settings before anything is trained
    methods = [model for model in models if model in METHODS or model == RECOMMENDER]
    bases = [Job(RECOMMENDER, seed) for seed in seeds] if methods else []
    others = [Job(model, seed) for seed in seeds for model in models if model != RECOMMENDER]
    rows: list[dict[str, Any]] = []
    groups: dict[str, int] = {}
    total = len(bases) + len(others)
    (show,) = _listed(layers, "show_progress", [True])
    bar = tqdm(total=total, desc="rows", disable=not show, leave=False)
    with _workers(processes) as workers, bar:
        for jobs in (bases, others):
            for made, sizes in workers.map(_run, jobs, [given] * len(jobs)):
                rows += made
                groups = groups or sizes
                bar.update()
    return {
        "rows": _ordered(rows, models),
        "groups": groups,
        "results_file": str(Path(first["checkpoint_dir"]) / RESULTS),
    }


def _run(job: Job, given: Given) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Make the rows of one job, and write them down."""
    compat.apply()
    config = given.config(job.model, job.seed)
    path = Path(config["checkpoint_dir"]) / RESULTS
    if not config.is_language_model:
        row = _finished(path, config)
        if row is None:
            (row,) = completed([run_classic(config, _dataset(config))], config)
            save_rows(path, [row])
        return [row], {}
    run = _forgetting(config)
    if job.model == RECOMMENDER:
        rows = [run.measured("Original", run.original), run.measured("Retrain", run.retrain)]
    else:
        rows = [run.unlearned_row(config)]
    rows = completed(rows, config)
    save_rows(path, rows)
    return rows, group_sizes(run.groups)


_runs: dict[tuple[int, str], Forgetting] = {}  # of this process, the last one only


def _forgetting(config: Config) -> Forgetting:
    """The run that all methods of a seed share in this process, Original in its backbone."""
    key = (int(config["seed"]), str(config["checkpoint_dir"]))
    if key not in _runs:
        _runs.clear()
        run = Forgetting(config, _dataset(config))
        run.train()
        _runs[key] = run
    return _runs[key]


def _dataset(config: Config) -> Any:
    init_seed(config["seed"], config["reproducibility"])
    init_logger(config)
    return load_dataset(config)


def _finished(path: Path, config: Config) -> dict[str, Any] | None:
    """The row of the same classic model, settings and versions, if it is there."""
    (wanted,) = completed([{"model": config.model, "settings": config.settings()}], config)
    wanted = json.loads(json.dumps(wanted))
    for row in load_rows(path):
        if all(row.get(name) == value for name, value in wanted.items()):
            return row
    return None


@contextmanager
def _workers(processes: int) -> Iterator[Any]:
    """Something with ``map``: this process, or several that start afresh."""
    if processes == 1:
        yield _Here()
        return
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = before or threads
    pool: Executor = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
    try:
        with pool:
            yield pool
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]


class _Here:
    map = staticmethod(map)


def _ordered(rows: list[dict[str, Any]], models: Sequence[str]) -> list[dict[str, Any]]:
    """Original and Retrain first, then the models as they were listed; seeds in their order."""
    order = {name: place for place, name in enumerate(["Original", "Retrain", *models])}
    return sorted(rows, key=lambda row: order.get(row["model"], len(order)))


def _read(file: str) -> dict[str, Any]:
    return read_yaml(Path(file))


def _listed(layers: Sequence[Mapping[str, Any]], key: str, default: list[Any]) -> list[Any]:
    """The value of a key that holds several, from the last layer that has it."""
    found: list[Any] = default
    for layer in layers:
        if key in layer:
            value = layer[key]
            if isinstance(value, str):
                value = [typed(part.strip(), key) for part in value.strip("[]").split(",")]
            found = value if isinstance(value, list) else [value]
    if not found or any(value in ("", None) for value in found if key != "seeds"):
        raise InputError(f"{key} is empty; write --{key}=A,B")
    if len({str(value) for value in found}) < len(found):
        raise InputError(f"{key}: something is named twice in {found}")
    return found


def _seed(value: Any) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise InputError(f"seeds: {value!r} does not do; whole numbers from 0 on are needed")
    return value
