"""What models after requests in a row are measured against: Original, Retrains on what is left."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.utils import init_seed
from torch import Tensor

from recbole_e2urec.config.config import RunSettings
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.data.loaders import evaluation_loader, make_loaders
from recbole_e2urec.deployment.served_model import drift_between
from recbole_e2urec.errors import InputError
from recbole_e2urec.evaluator.metrics import labelled_metrics, residual
from recbole_e2urec.experiment.base import Experiment
from recbole_e2urec.experiment.finished import settings_of

Rows = NDArray[np.int64]
Said = NDArray[np.float64]  # P(yes) by row id; NaN where nothing was asked
NOTHING: Rows = np.empty(0, np.int64)


class Draw(NamedTuple):
    """Requests in a row, and the rows that measure them; all the same for every model.

    Attributes:
        users: inner ids of each request's users; nobody is in two requests.
        forget: training rows of each request.
        valid, test: rows of users whom no request names.
    """

    users: list[Rows]
    forget: list[Rows]
    valid: Rows
    test: Rows

    def so_far(self, count: int) -> Rows:
        """Training rows of the first requests, sorted."""
        return np.sort(np.concatenate([NOTHING, *self.forget[:count]]))


def drawn(run: Experiment, count: int, most: int, seed: int) -> Draw:
    """Draw requests of 1 to ``most`` users with training rows.

    Raises:
        InputError: there are not so many users.
    """
    user, splits = run.dataset.rows.user, run.parts.splits
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, most + 1, count)
    trained = np.unique(user[splits.train])
    if sizes.sum() >= len(trained):
        raise InputError(f"requests: they name {sizes.sum()} of {len(trained)} users; ask for less")
    named = generator.permutation(trained)[: sizes.sum()]
    users = np.split(named, np.cumsum(sizes)[:-1])
    forget = [splits.train[np.isin(user[splits.train], some)] for some in users]
    valid, test = (part[~np.isin(user[part], named)] for part in (splits.valid, splits.test))
    return Draw(users, forget, valid, test)


@dataclass
class Yardstick:
    """The recommender of a results row, and what it would be without some of its rows.

    Attributes:
        row: of the results; it says the settings.
        saved: folder of the results, and of the stages of all that is trained.
        of: what is forgotten, one request after the other.
    """

    row: Mapping[str, Any]
    saved: Path
    of: Draw
    _said: dict[tuple[int, int | None], Said] = field(default_factory=dict)

    @property
    def original(self) -> Said:
        """What the model said before any request."""
        return self.trained(0)

    def trained(self, requests: int, seed: int | None = None) -> Said:
        """Train without the rows of the first requests, and ask; None: under the model's seed."""
        if (requests, seed) not in self._said:
            self._said[requests, seed] = self._trained(requests, seed)
        return self._said[requests, seed]

    def _trained(self, requests: int, seed: int | None) -> Said:
        run = experiment(self.row, self.saved, seed)
        forget, user, splits = self.of.so_far(requests), run.dataset.rows.user, run.parts.splits
        train = np.setdiff1d(splits.train, forget) if requests else splits.train
        valid = splits.valid[np.isin(user[splits.valid], user[train])]
        loaders = make_loaders(run.config, run.dataset, splits, train)
        own = evaluation_loader(run.config, run.dataset, splits, "valid", valid)
        with run.model.using_history(
            run.history(NOTHING)
        ):  # whole users leave: no other's history changes
            run.trainer("Retrain" if requests else "LLMRec", train, valid).run(loaders.train, own)
            return self.asked(run, lambda rows: run.model.answer(rows, None).cpu())

    def asked(self, run: Experiment, answer: Callable[[Rows], Tensor]) -> Said:
        """Ask about all rows that are measured."""
        rows = np.unique(np.concatenate([self.of.valid, self.of.test, *self.of.forget]))
        said = np.full(len(run.dataset.rows), np.nan)
        said[rows] = answer(rows).double().numpy()
        return said

    def measured(
        self, run: Experiment, said: Said, requests: int, retrain: Said | None = None
    ) -> dict[str, Any]:
        """Measures of a model after so many requests; ``residual`` where there is a Retrain.

        ``drift`` is from Original, on all validation rows of those who stay; ``bias`` is mean
        P(yes) minus the share of yes, on their test rows.
        """
        label, forget = run.dataset.rows.label, self.of.so_far(requests)
        groups = {"test": self.of.test, "valid": self.of.valid, "forgotten": forget}
        groups["first"] = self.of.forget[0]
        found = {
            name: labelled_metrics(run.config, said[rows], label[rows])
            for name, rows in groups.items()
        }
        stay = (torch.from_numpy(one[self.of.valid]) for one in (self.original, said))
        distances = {"drift": drift_between(*stay)}
        test = self.of.test
        distances["bias"] = float(said[test].mean() - label[test].mean())
        if retrain is not None:
            three = (torch.from_numpy(one[forget]) for one in (said, self.original, retrain))
            distances["residual"] = residual(*three)
        return {"requests": requests, **found, **distances}


def experiment(row: Mapping[str, Any], saved: Path, seed: int | None = None) -> Experiment:
    """The run of a results row anew; nothing is trained yet."""
    again = row if seed is None else {**row, "seed": seed}
    config = settings_of(again, saved, RunSettings())
    init_seed(config["seed"], config["reproducibility"])
    return Experiment(config, load_dataset(config))
