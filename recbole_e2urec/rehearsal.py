"""A rehearsal: forget users who stay, and find the settings that come nearest to their Retrain.

Once per trained model. Original is the model of the run that the settings describe, and its request
is left alone. No test row is asked about; usefulness is read on validation rows of users outside of
the rehearsed request.
"""

from collections.abc import Mapping
from dataclasses import replace
from logging import getLogger
from pathlib import Path
from typing import Any

import torch
from recbole.utils import init_seed

from recbole_e2urec.calibration import Calibration
from recbole_e2urec.config import Config
from recbole_e2urec.data.forget import Asked
from recbole_e2urec.data.rehearsed import RehearseOptions, rehearsed_request
from recbole_e2urec.errors import Diverged, InputError
from recbole_e2urec.evaluator.divergence import residual
from recbole_e2urec.evaluator.labelled import labelled_metrics
from recbole_e2urec.evaluator.measure import Answers, ask
from recbole_e2urec.experiment import parts_of, request_of
from recbole_e2urec.forgetting import Forgetting
from recbole_e2urec.matching import Point, Search, Settings
from recbole_e2urec.methods import METHODS, method_of

FILE = "calibration.json"  # in checkpoint_dir
MARKS = (0.4, 0.55, 0.7, 0.85)  # stopping steps besides the last one, unless one is set


class Rehearsal:
    """A request of users who stay, with its Retrain, and the run's Original.

    Args:
        config: of the run, with the method that is to be set.
        dataset: its rows.
        options: what is rehearsed.
        real: the request that is left alone; None: the one that the settings name.

    Attributes:
        run: of the rehearsed request.
        gaps: Retrain's forget loss above Original's, and its forget AUC below.
    """

    def __init__(
        self, config: Config, dataset: Any, options: RehearseOptions, real: Asked | None = None
    ) -> None:
        self.config, self.options = config, options
        self.strength, self.power, self.space = _searched(config)
        parts = parts_of(config, dataset)
        real = real or request_of(config, dataset, parts)
        asked = rehearsed_request(options, dataset, parts.splits.train, real)
        quiet = {"ranking_pass": None, "relearn_epochs": 0, "log_wandb": False}
        self.run = Forgetting(config.moved(quiet), dataset, "valid", asked, real.split.retain)
        nobody = self.run.split.forget[:0]
        self.run.groups = self.run.groups._replace(retain=nobody, control=nobody)
        self.run.train()
        self._original = self._measures(self.run.original.answers)
        self._retrain = self._measures(self.run.retrain.answers)
        self.gaps = tuple(
            sign * (self._retrain[name] - self._original[name])
            for name, sign in (("logloss", 1), ("auc", -1))
        )
        self.seconds = float(self.run.retrain.cost["seconds"])

    def points(self, settings: Settings) -> list[Point]:
        """Unlearn under some settings, the others as in the run.

        Returns:
            A point a stopping step, the whole training last; none where it diverged.
        """
        run, model, stop = self.run, self.run.model, float(self.config["unlearn_stop"])
        marks = MARKS if stop == 1 else ()
        method, request = method_of(self.config.moved(settings)), replace(run.request, marks=marks)
        try:
            with model.shown(run.after):
                unlearned = method.unlearn(model, request)
        except Diverged as error:
            getLogger().warning("rehearse: %s", error)
            return []
        self.seconds += float(unlearned.cost["seconds"])
        return [
            self._point(settings, stop, scorer, unlearned.found)
            for stop, scorer in (*unlearned.earlier.items(), (stop, unlearned.scorer))
        ]

    def search(self) -> Calibration:
        """Find the settings that match best.

        Raises:
            InputError: Original remembers nothing of the request, or every trial diverged.
        """
        if min(self.gaps) <= 0:
            raise InputError(
                "rehearse: Retrain's forget loss and AUC are no worse than Original's, so there is "
                "nothing to match; draw more users by --share"
            )
        start = {key: float(self.config[key]) for key in self.space}
        search = Search(self.points, self.strength, self.space, start, self.options.trials)
        curve = search.run()
        if not curve:
            raise InputError("rehearse: no trial came to an end; set a smaller learning rate")
        best = search.best
        stopping = {"unlearn_stop": best.stop} if best.stop < 1 else {}
        split = self.run.split
        return Calibration(
            method=str(self.config.model),
            settings={**best.settings, **stopping},
            strength=self.strength,
            power=self.power,
            remembered=self.run.remembered()._asdict(),
            fingerprint=self.run.fingerprint,
            matched=_shown(best),
            curve=[_shown(point) for point in curve],
            request={
                "kind": self.options.kind,
                "rows": len(split.forget),
                "of_training": len(split.forget) / (len(split.forget) + len(split.retain)),
                "draw_seed": self.options.draw_seed,
                "gap_loss": self.gaps[0],
                "gap_auc": self.gaps[1],
            },
            cost={"seconds": self.seconds, "trials": self.options.trials},
        )

    def _point(self, settings: Settings, stop: float, scorer: Any, found: Settings) -> Point:
        run = self.run
        answers = ask(run.model, scorer, run.groups, run.before, run.after)
        measures = self._measures(answers)
        forget = run.split.forget
        three = (
            torch.from_numpy(one.yes[forget])
            for one in (answers, run.original.answers, run.retrain.answers)
        )
        return Point(
            dict(settings), stop,
            (measures["logloss"] - self._original["logloss"]) / self.gaps[0],
            (self._original["auc"] - measures["auc"]) / self.gaps[1],
            self._original["valid"] - measures["valid"],
            residual(*three), dict(found),
        )  # fmt: skip

    def _measures(self, answers: Answers) -> dict[str, float]:
        """Loss and AUC of forget rows, and AUC of validation rows of users who stay."""
        label, groups = self.run.dataset.rows.label, self.run.groups
        forget, valid = (
            labelled_metrics(self.run.config, answers.yes[rows], label[rows])
            for rows in (groups.forget, groups.heldout_other_users)
        )
        found = {"logloss": forget["logloss"], "auc": forget["auc"], "valid": valid["auc"]}
        missing = [name for name, value in found.items() if value is None]
        if missing:
            raise InputError(
                f"rehearse: {missing[0]} has no value: rows of both labels are needed; draw more "
                "users by --share"
            )
        return {name: float(value) for name, value in found.items() if value is not None}


def rehearse(options: RehearseOptions, config: Config, dataset: Any) -> tuple[Calibration, Path]:
    """Rehearse, and keep what was found; gives it and its file.

    Raises:
        InputError: bad input, or a request of which nothing is remembered.
    """
    init_seed(config["seed"], config["reproducibility"])
    found = Rehearsal(config, dataset, options).search()
    path = Path(options.output_file or Path(config["checkpoint_dir"]) / FILE)
    found.write(path)
    return found, path


def _searched(config: Config) -> tuple[str, float, Mapping[str, tuple[float, float]]]:
    """The strength of the run's method, its power, and the bounds of all that is searched.

    Raises:
        InputError: it has no strength, or that is set.
    """
    kind = METHODS.get(str(config.model))
    values = config.final_config_dict
    strength, power = kind.strength_in(values) if kind is not None else (None, 0.0)
    if kind is None or strength is None:
        able = ", ".join(name for name, one in METHODS.items() if one.strength)
        raise InputError(f"rehearse: {config.model} has no strength to find; these have: {able}")
    method_of(config)  # refuses bad settings before anything is trained
    space = kind.searched(set(config.external_config_dict), values)
    if strength not in space:
        raise InputError(f"rehearse: it finds {strength}, which is set; leave that out")
    return strength, power, space


def _shown(point: Point) -> dict[str, Any]:
    return {**point._asdict(), "badness": point.badness}
