"""``recbole-e2urec export``: a finished run's model as a folder to answer with and to forget in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from recbole.utils import init_seed
from torch import Tensor

from recbole_e2urec import compat
from recbole_e2urec.data.loading import load_dataset
from recbole_e2urec.deployment.folder import ModelFolder
from recbole_e2urec.deployment.merged import CHECKED, merge
from recbole_e2urec.deployment.record import first_record
from recbole_e2urec.deployment.remains import sample_of, with_gone
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment import Experiment, Rows
from recbole_e2urec.jobs import Given
from recbole_e2urec.kept import Kept, KeptStage, comparison_of, rows_of, settings_of
from recbole_e2urec.methods import METHODS, method_of

RECOMMENDER, ORIGINAL, RETRAIN = "LLMRec", "Original", "Retrain"


@dataclass(frozen=True)
class ExportOptions:
    """Where the model goes.

    Attributes:
        output: a new or empty folder.
    """

    output: str = field(default="", metadata={"text": True})

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        if not self.output:
            raise InputError("export: where to? write --output=DIR")


class _Made(NamedTuple):
    """A model of a finished run."""

    run: Experiment
    row: Mapping[str, Any]
    forgotten: Rows
    sample: tuple[Rows, Tensor]  # rows of nobody who was forgotten, and what Original answered
    weights: Mapping[str, Tensor]


def export(options: ExportOptions, model: str | None, given: Given) -> str:
    """Write the model folder; nothing is trained.

    Args:
        options: where to.
        model: a method, ``Original`` or ``Retrain`` of the newest comparison that agrees with the
            settings, or ``LLMRec`` for a recommender trained alone (else Original); None: the
            method of the comparison.
        given: settings.

    Returns:
        What was written, for a person.

    Raises:
        InputError: there is no such run, a model of it is not kept or is no single model, or the
            folder has something in it.
    """
    compat.apply()
    folder = ModelFolder(options.output)
    refuse_used(folder, "output")
    return _written(folder, _made(model, given), "output")


def export_row(folder: ModelFolder, row: Mapping[str, Any], source: Path, given: Given) -> str:
    """The same for the model of a row of results.

    Args:
        folder: where to.
        row: of a comparison.
        source: its checkpoint_dir.
        given: as the comparison was given it.

    Raises:
        InputError: as :func:`export`, or the merged model answers otherwise than the student did.
    """
    compat.apply()
    refuse_used(folder, "finalize")
    return _written(folder, _compared(row, source, given), "finalize")


def _written(folder: ModelFolder, made: _Made, key: str) -> str:
    with folder.alone():
        refuse_used(folder, key)
        rows, yes = made.sample
        tensors = {
            "weights": made.weights,
            "forgotten": {
                "rows": torch.from_numpy(made.forgotten),
                "request": torch.zeros(len(made.forgotten), dtype=torch.int64),
            },
            "sample": {"rows": torch.from_numpy(rows), "yes": yes},
        }
        folder.write(first_record(made.row, made.run), tensors)
    return (
        f"{made.row['model']} of {made.row['dataset']} is in {folder.path}; "
        f"{len(made.forgotten):,} rows of the data are forgotten in it"
    )


def refuse_used(folder: ModelFolder, key: str) -> None:
    """Refuse a folder with something in it; ``key`` named it."""
    if not folder.is_free:
        raise InputError(f"{key}: {folder.path} is there and not empty; name a new folder")


def _made(model: str | None, given: Given) -> _Made:
    if model == RECOMMENDER:
        rows, folder = rows_of(given)
        alone = [row for row in rows if row["model"] == RECOMMENDER and "request" not in row]
        if alone:
            return _recommender(alone[-1], folder, given)
        model = ORIGINAL
    every, folder = comparison_of(model, given)
    named = {row["model"]: row for row in every}
    methods = [name for name in named if name in METHODS and name != RETRAIN]
    if model is None and len(methods) != 1:
        raise InputError(f"export: which model? write --model=NAME; there are {', '.join(named)}")
    return _compared(named[model or methods[0]], folder, given)


def _recommender(row: Mapping[str, Any], folder: Path, given: Given) -> _Made:
    """A recommender that was trained alone."""
    config = settings_of(row, folder, given)
    init_seed(config["seed"], config["reproducibility"])
    run = Experiment(config, load_dataset(config))
    nothing = np.empty(0, np.int64)
    with run.model.shown(run.history(nothing)):
        wanted = run.trainer(RECOMMENDER, run.parts.splits.train, run.parts.splits.valid).stage
    stage = KeptStage(run.stages, RECOMMENDER, wanted.inputs)
    with stage.open():
        weights = stage.weights()
    run.model.bank.load(run.model.adapter, weights)
    return _Made(run, row, nothing, _sample(run, nothing), weights)


def _compared(row: Mapping[str, Any], folder: Path, given: Given) -> _Made:
    """A model of a comparison: Original before the request, or one after it."""
    config = settings_of(row, folder, given)
    init_seed(config["seed"], config["reproducibility"])
    run = Kept(config, load_dataset(config))
    run.train()
    if row["model"] == ORIGINAL:
        nothing = np.empty(0, np.int64)
        weights = run.model.bank.state(run.model.adapter)
        return _Made(run, row, nothing, _sample(run, nothing), weights)
    forgotten = with_gone(run, run.asked.rows)
    sample = _sample(run, forgotten)
    if row["model"] == RETRAIN:
        weights = KeptStage.of(run.stages, RETRAIN, run.retrain.stage).weights()
    else:
        made = run.unlearn(method_of(config))
        asked = np.concatenate([run.split.forget[:CHECKED], sample[0][:CHECKED]])
        with run.model.shown(run.after):
            weights = merge(run.model, run.scorers[made.stage], asked)
    return _Made(run, row, forgotten, sample, weights)


def _sample(run: Experiment, forgotten: Rows) -> tuple[Rows, Tensor]:
    rows = sample_of(run, forgotten)
    with run.model.shown(run.history(forgotten)):
        return rows, run.model.answer(rows, None).cpu()
