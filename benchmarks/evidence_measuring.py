"""Measuring the evidence: a data set and backbone under one seed, request by request."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from recbole.utils import init_seed

from benchmarks.evidence_cells import is_there
from benchmarks.evidence_rows import (
    ORIGINAL,
    REHEARSED_SEED,
    WAYS,
    Task,
    Way,
    fresh_requests,
    wanted_rows,
)
from benchmarks.evidence_store import Labelled, Place, Said, Store
from recbole_e2urec.config import Config
from recbole_e2urec.data.loading import load_dataset
from recbole_e2urec.data.rehearsed import RehearseOptions
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment import parts_of
from recbole_e2urec.forgetting import Forgetting
from recbole_e2urec.measuring import Answered
from recbole_e2urec.rehearsal import Rehearsal


class Kept(Forgetting):
    """A run that remembers what it measured last."""

    last: Answered

    def measured(self, name: str, made: Answered) -> dict[str, Any]:
        """See :meth:`Measuring.measured`."""
        self.last = made
        return super().measured(name, made)


class Column:
    """All rows of a setup under one seed; what is measured already is left alone.

    Args:
        task: what is asked for.
        store: where rows are kept.
        setup: by its short name.
        seed: of the models.
    """

    def __init__(self, task: Task, store: Store, setup: str, seed: int) -> None:
        self.task, self.store, self.setup, self.seed = task, store, setup, seed

    def measure(self) -> None:
        """Measure what is missing, and say each row."""
        sizes = {size: self.missing(size) for size in self.task.own.sizes}
        if not any(sizes.values()):
            return
        self.config = self.task.config(self.setup, self.seed, Way("E2URec"))
        init_seed(self.config["seed"], self.config["reproducibility"])
        self.dataset = load_dataset(self.config)
        parts = parts_of(self.config, self.dataset)
        self.requests = fresh_requests(self.config, self.dataset, parts, sizes)
        for size, names in sizes.items():
            if names:
                self._measure(size, names)

    def missing(self, size: float) -> list[str]:
        """Names of the rows that are wanted, and not there under these settings.

        A row that could not be made is tried again.
        """
        rows = self.store.rows().items()
        known = {place: row for place, row in rows if is_there(row)}
        found = {
            name: known.get(Place(self.setup, size, self.seed, name), {}).get("decided_by")
            for name in wanted_rows(self.task.own.only)
        }
        return [name for name, by in found.items() if by != self._digest(name)]

    def _digest(self, name: str) -> str:
        return self.task.digests[self.setup, name]

    def _measure(self, size: float, names: Sequence[str]) -> None:
        asked, away = self.requests.fresh[size], self.requests.away
        run = Kept(self.config, self.dataset, "test", asked, away.split.retain)
        run.groups = run.groups._replace(retain=run.split.forget[:0])  # no figure is of these
        run.train()
        rows, groups = self.dataset.rows, run.groups
        assert rows.label is not None  # Original was trained on them
        self.store.ask(
            self.setup,
            size,
            Labelled(
                rows.user[groups.forget], rows.label[groups.forget],
                rows.user[groups.test], rows.label[groups.test],
            ),
        )  # fmt: skip
        for name in names:
            self._add(run, Place(self.setup, size, self.seed, name))

    def _add(self, run: Kept, place: Place) -> None:
        told: dict[str, Any] = {"decided_by": self._digest(place.row)}
        print(f"{place.setup}, seed {place.seed}, {place.size:.0%}, {place.row}: ", end="")
        try:
            row = self._row(run, place)
        except InputError as error:  # nothing to rehearse, or a training that came to nothing
            self.store.add(place, {**told, "refused": str(error)})
            print(error, flush=True)
            return
        yes, groups = run.last.answers.yes, run.groups
        said = Said(yes[groups.forget], yes[groups.test])
        users = len(np.unique(self.dataset.rows.user[groups.forget]))
        self.store.add(place, {**row, **told, "users": users}, said)
        shown = (row["forget"]["auc"], row["to_retrain"]["residual"], row["test"]["auc"])
        numbers = " ".join("-" if one is None else f"{one:.4f}" for one in shown)
        print(
            f"forget AUC, residual, test AUC {numbers}; {row['cost']['seconds']:.0f} s", flush=True
        )

    def _row(self, run: Kept, place: Place) -> dict[str, Any]:
        if place.row not in WAYS:
            made = run.original if place.row == ORIGINAL else run.retrain
            return run.measured(place.row, made)
        way = WAYS[place.row]
        config = self.task.config(self.setup, self.seed, way)
        if way.rehearsed:
            config = config.moved({"calibration": self._calibration(config, place)})
        return run.unlearned_row(config)

    def _calibration(self, config: Config, place: Place) -> str:
        """The file of a rehearsal of users whom no fresh request names; it serves every size."""
        own, method = self.task.own, str(config.model)
        path = self.store.calibration(place, method, self._digest(place.row))
        if not path.is_file():
            options = RehearseOptions(
                share=own.rehearsed, draw_seed=REHEARSED_SEED, trials=own.trials
            )
            init_seed(config["seed"], config["reproducibility"])
            Rehearsal(config, self.dataset, options, self.requests.away).search().write(path)
        return str(path)
