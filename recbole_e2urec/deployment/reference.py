"""A Retrain beside a request on a model in use: as dear as the training was, for measures alone.

It is never put into the folder. What is trained is kept in ``work`` until the request is carried
out, so that a killed request goes on.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recbole_e2urec.config import Config
from recbole_e2urec.deployment.change import Change, Watched
from recbole_e2urec.deployment.deployed import Deployed
from recbole_e2urec.deployment.evidence import Evidence, measured
from recbole_e2urec.errors import InputError
from recbole_e2urec.evaluator.measure import Answers, distance_to
from recbole_e2urec.experiment import Experiment
from recbole_e2urec.tables import NOISE
from recbole_e2urec.trainer.stage import Stage

RETRAIN = "Retrain"


class Reference(Experiment):
    """A model trained on what a request leaves, with the settings of the one in use.

    Args:
        run: the model in use, which is not touched: this one has a backbone of its own.
        folder: where the training is kept.
        seed: of the weights and of the order of the data; the split is that of the model in use.
    """

    def __init__(self, run: Deployed, folder: Path, seed: int) -> None:
        given = {**run.config.external_config_dict, "seed": seed}
        super().__init__(Config("LLMRec", run.config.dataset, None, given), run.dataset)
        self.parts = run.parts
        self._folder = folder

    def train(self, change: Change) -> dict[str, Any]:
        """Train on what is left, and give what that cost; users who stay validate it."""
        splits = self.parts.splits  # whose order decides that of the training
        train = splits.train[np.isin(splits.train, change.retain)]
        valid = splits.valid[~np.isin(splits.valid, change.forgotten)]
        self.parts = self.parts._replace(splits=splits._replace(valid=valid))
        return self._trained(RETRAIN, train, train, change.after)[0]

    def stage(self, name: str, inputs: Mapping[str, Any]) -> Stage:
        """The stage of this name and these inputs, in the folder; no logger is told of it."""
        return Stage(self._folder, name, inputs)


def check_reference(run: Deployed, noise_floor: bool) -> None:
    """Refuse a noise floor that would measure more than noise.

    Raises:
        InputError: an adapter was tuned: the backbone under it may be drawn from the seed.
    """
    if noise_floor and run.model.adapter is not None:
        raise InputError(
            "noise_floor: with tuning: lora another seed may give another backbone; drop it"
        )


def referred(
    run: Deployed,
    change: Change,
    watched: Watched,
    answers: Mapping[str, Answers],
    work: Path,
    noise_floor: bool,
) -> dict[str, Any]:
    """Train a Retrain for the request, and measure how far models are from it.

    Args:
        run: the model in use.
        change: the request; some training rows are forgotten by it.
        watched: the rows to ask about.
        answers: of the model ``before`` and ``after`` the request.
        work: where the training is kept.
        noise_floor: train another one under the next seed as well, and measure it alike.

    Returns:
        ``measures`` of Retrain, ``distances`` to it by model, the ``seconds`` of its training;
        the other seed's Retrain is called as in a comparison.
    """
    seed = run.config["seed"]
    retrain, cost = _made(run, change, watched, work, seed)
    asked, seconds = dict(answers), cost["seconds"]
    if noise_floor:
        other, cost = _made(run, change, watched, work, seed + 1)
        asked[NOISE] = other.answers
        seconds += cost["seconds"]
    return referred_to(retrain, asked, watched, seconds)


def referred_to(
    retrain: Evidence, answers: Mapping[str, Answers], watched: Watched, seconds: float
) -> dict[str, Any]:
    """How far models are from a Retrain that is there; returns what :func:`referred` does.

    Args:
        retrain: what it answered, and its measures.
        answers: of the model ``before`` the request, and of any others.
        watched: the rows that were asked about.
        seconds: of the training.
    """
    distances = {
        name: distance_to(one, answers["before"], retrain.answers, watched.forget)
        for name, one in answers.items()
    }
    return {"measures": retrain.measures, "distances": distances, "seconds": seconds}


def _made(
    run: Deployed, change: Change, watched: Watched, work: Path, seed: int
) -> tuple[Evidence, dict[str, Any]]:
    reference = Reference(run, work, seed)
    cost = reference.train(change)
    return measured(reference, change, watched, change.after), cost
