"""The jobs of a comparison, each done by one process: a row of the table, or a method's trials."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from recbole_e2urec import compat, writer
from recbole_e2urec.classic import ClassicForgetting
from recbole_e2urec.config import Config
from recbole_e2urec.data.forget import WORDING, Asked
from recbole_e2urec.evaluator.measure import group_sizes
from recbole_e2urec.experiment import opened
from recbole_e2urec.forgetting import Forgetting
from recbole_e2urec.grid import ONE_ROW
from recbole_e2urec.keys import name_of
from recbole_e2urec.results import RESULTS, completed, load_rows, save_measured, save_rows
from recbole_e2urec.tables import NOISE
from recbole_e2urec.trainer.curves import own_wandb_run
from recbole_e2urec.tuning import Development, Trial, choose

Run = TypeVar("Run", Forgetting, Development)
RECOMMENDER = "LLMRec"  # in a comparison: Original, and Retrain beside it


@dataclass(frozen=True)
class Given:
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


def run_job(job: Job, given: Given) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Make the rows of one job, and write them down."""
    compat.apply()
    config = given.config(RECOMMENDER if job.model == NOISE else job.model, job.seed)
    with own_wandb_run(config):
        return _made(job, given, config)


def _made(job: Job, given: Given, config: Config) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """See :func:`run_job`."""
    path = Path(config["checkpoint_dir"]) / RESULTS
    if not config.is_language_model:
        return [writer.from_writer(lambda: _classic_row(path, config))], {}
    run = _forgetting(config)
    if job.model == RECOMMENDER:
        rows = [run.measured("Original", run.original), run.measured("Retrain", run.retrain)]
    elif job.model == NOISE:
        row = run.noise_row(given.others[job.seed])
        rows = [] if row is None else [row]
    else:
        rows = [{**run.unlearned_row(config), **_told(given.trials.get(job.model))}]
    rows = completed(rows, config)
    save_measured(path, rows, run.said)
    return rows, group_sizes(run.groups)


def develop_job(job: Job, given: Given) -> None:
    """Train what all trials share, or find it trained."""
    compat.apply()
    _development(given.config(job.model, job.seed))


def tune_job(job: Job, given: Given, settings: Sequence[Mapping[str, float]]) -> list[Trial]:
    """Try settings of one method on the development request."""
    compat.apply()
    config = given.config(job.model, job.seed)
    development = _development(config)
    return [development.trial(config, values) for values in settings]


def _classic_row(path: Path, config: Config) -> dict[str, Any]:
    """The row of a classic model, from the results or made now, all in one process."""
    classic = ClassicForgetting(config, opened(config))
    row = _finished(path, config, classic.asked)
    if row is None:
        (row,) = completed([classic.row(config.way)], config)
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


def _finished(path: Path, config: Config, asked: Asked) -> dict[str, Any] | None:
    """The row of the same classic model, request, settings and versions, if it is there."""
    name = name_of(config.model, config.way)
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
