"""``recbole-e2urec export``: a finished run's model as a folder to answer with and to forget in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.utils import init_seed

from recbole_e2urec import compat
from recbole_e2urec.data.loading import load_dataset
from recbole_e2urec.deployment.certificate import certify
from recbole_e2urec.deployment.compared import ORIGINAL, Made, as_original, compared
from recbole_e2urec.deployment.folder import ModelFolder
from recbole_e2urec.deployment.forgotten import FIRST, KEPT, Numbered, tensors_of
from recbole_e2urec.deployment.record import first_record
from recbole_e2urec.deployment.reference import RETRAIN
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment import Experiment
from recbole_e2urec.jobs import Given
from recbole_e2urec.kept import KeptStage, comparison_of, rows_of, settings_of
from recbole_e2urec.methods import METHODS

RECOMMENDER = "LLMRec"


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
    return _written(folder, compared(row, source, given), "finalize")


def _written(folder: ModelFolder, made: Made, key: str) -> str:
    with folder.alone():
        refuse_used(folder, key)
        numbers = np.full(len(made.run.dataset.rows), KEPT)
        numbers[made.forgotten] = FIRST
        rows, yes = made.sample
        tensors = {
            "weights": made.weights,
            "forgotten": tensors_of(numbers),
            "sample": {"rows": torch.from_numpy(rows), "yes": yes},
        }
        record = first_record(made.row, made.run)
        told = [
            f"{made.row['model']} of {made.row['dataset']} is in {folder.path}; "
            f"{len(made.forgotten):,} rows of the data are forgotten in it"
        ]
        if made.entry is not None:
            record["requests"].append(made.entry)
        folder.write(record, tensors)
        if made.entry is not None:
            named = Numbered(made.run.dataset, numbers)
            told.append(f"certificate: {certify(named, folder, FIRST)}")
    return "\n".join(told)


def refuse_used(folder: ModelFolder, key: str) -> None:
    """Refuse a folder with something in it; ``key`` named it."""
    if not folder.is_free:
        raise InputError(f"{key}: {folder.path} is there and not empty; name a new folder")


def _made(model: str | None, given: Given) -> Made:
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
    return compared(named[model or methods[0]], folder, given)


def _recommender(row: Mapping[str, Any], folder: Path, given: Given) -> Made:
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
    return as_original(run, row)
