"""The models of a finished comparison, loaded from their stages; nothing is trained."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from recbole_e2urec.config.config import Config, RunSettings
from recbole_e2urec.config.expression import without_values
from recbole_e2urec.config.keys import REMOVED_KEYS
from recbole_e2urec.config.schema import AUTO
from recbole_e2urec.config.yaml import parse_value
from recbole_e2urec.errors import InputError
from recbole_e2urec.evaluator.measure import Answers
from recbole_e2urec.experiment.comparison import ONE_ROW
from recbole_e2urec.experiment.run import Rows
from recbole_e2urec.experiment.unlearning import Forgetting, MeasuredModel, RunServices
from recbole_e2urec.methods import METHODS
from recbole_e2urec.model.scorers import CachedAnswers, Scorer
from recbole_e2urec.report.results import RESULTS, load_results
from recbole_e2urec.trainer.adapter import TrainingServices
from recbole_e2urec.trainer.checkpoint import Stage

FILTER = "forget_where"  # results keep its fields but not its values
_NOTHING = Answers(np.empty(0), CachedAnswers([]))
# Settings that may differ from the run's: where files are, and what is logged.
_FREE = {
    "checkpoint_dir", "data_path", "download", "field_separator", "log_wandb", "use_gpu", "gpu_id",
    *ONE_ROW,
}  # fmt: skip


class NotFinished(InputError):
    """The error for a model that is not stored, so it would have to be trained."""


class FinishedStage(Stage):
    """A stage that is only read."""

    @contextmanager
    def open(self) -> Iterator[None]:
        """Refuse to train.

        Raises:
            NotFinished: the stage is not finished.
        """
        if not self.finished:
            raise NotFinished(
                f"{self.name} is not in {self.folder.parent} under these settings and versions; "
                "run the comparison again"
            )
        yield


class FinishedRun(Forgetting):
    """An unlearning run whose models are loaded instead of trained, and are not measured.

    Attributes:
        scorers: the scorer of each model, by the digest of its stage.
    """

    def __init__(self, config: Config, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.scorers: dict[str, Scorer] = {}

    def stage(self, name: str, inputs: Mapping[str, Any]) -> Stage:
        """Return a stage that must be finished."""
        return FinishedStage(self.stages, name, inputs)

    def answered(self, stage: str, scorer: Scorer, cost: Mapping[str, Any]) -> MeasuredModel:
        """Keep the scorer of a stage, and measure nothing."""
        self.scorers[stage] = scorer
        return MeasuredModel(stage, _NOTHING, cost, {}, None)

    @property
    def services(self) -> TrainingServices:
        """The services that the run offers to a method; they train nothing."""
        return _FinishedServices(self, lambda: self.original.stage)


class _FinishedServices(RunServices):
    def embed(self, rows: Rows) -> Any:
        """Refuse, because the model that groups users is not stored."""
        raise NotFinished("it groups users by a model that is not kept")


def rows_of(settings: RunSettings) -> tuple[list[dict[str, Any]], Path]:
    """Return the rows of results that agree with the settings, and their folder."""
    config = settings.config(None)
    folder = Path(config["checkpoint_dir"])
    wanted = {
        key: parse_value(value, key) if isinstance(value, str) else value
        for key, value in (settings.overrides or {}).items()
        if key not in _FREE and value != AUTO
    }
    if settings.dataset:
        wanted["dataset"] = settings.dataset
    if wanted.get(FILTER):
        wanted[FILTER] = without_values(str(wanted[FILTER]))
    rows = load_results(folder / RESULTS)
    agreeing = (
        all(_agree(_value(row, key), value) for key, value in wanted.items()) for row in rows
    )
    return [row for row, agrees in zip(rows, agreeing, strict=True) if agrees], folder


def comparison_of(model: str | None, settings: RunSettings) -> tuple[list[dict[str, Any]], Path]:
    """Return the rows of the newest comparison that agrees with the settings, and its folder."""
    every, folder = rows_of(settings)
    rows = [row for row in every if "request" in row]
    methods = [row for row in rows if model is None or row["model"] == model]
    if not methods:
        raise InputError(
            f"{folder / RESULTS} has no comparison with {model or 'Original and Retrain'} under "
            "these settings; run one, such as recbole-e2urec --model=E2URec"
        )
    last = methods[-1]
    alike = [row for row in methods if all(row[k] == last[k] for k in ("request", "seed"))]
    return alike, folder


def _value(row: Mapping[str, Any], key: str) -> Any:
    return row[key] if key in ("dataset", "seed") else row["settings"].get(key)


def _agree(used: Any, given: Any) -> bool:
    """Tell whether a setting was used as given; RecBole adds the rest of eval_args."""
    if isinstance(used, Mapping) and isinstance(given, Mapping):
        return all(_agree(used.get(key), value) for key, value in given.items())
    return bool(used == given)


def settings_of(row: Mapping[str, Any], folder: Path, run_settings: RunSettings) -> Config:
    """Return the settings of the run that produced a row."""
    # RecBole cannot read train_neg_sample_args as it writes them; language models have none.
    left_out = {
        *ONE_ROW,
        "model",
        "dataset",
        "show_prompts",
        "prompt_users",
        *REMOVED_KEYS,
        "processes",
        "train_neg_sample_args",
    }
    settings = {key: value for key, value in row["settings"].items() if key not in left_out}
    if settings.get(FILTER):
        settings[FILTER] = {
            **(run_settings.config_dict or {}),
            **(run_settings.overrides or {}),
        }.get(FILTER)
        if settings[FILTER] is None:
            raise InputError(
                f"{FILTER}: results keep the comparison's filter without its values; give it again"
            )
    data = Path(str(settings.get("data_path", "")))
    if data.name == row["dataset"]:  # RecBole appends the name to data_path
        settings["data_path"] = str(data.parent)
    here = {"checkpoint_dir": str(folder), "log_wandb": False, "show_progress": False}
    free = {key: value for key, value in (run_settings.overrides or {}).items() if key in _FREE}
    name = row["model"] if row["model"] in METHODS else "LLMRec"
    more = {**(run_settings.config_dict or {}), "seed": row["seed"]}
    return Config(
        name, row["dataset"], run_settings.config_files, {**settings, **more}, {**free, **here}
    )
