"""What RecBole's evaluation loaders ask a sampler: used items, and the candidates of a row."""

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec.data.candidates import draw_candidates
from recbole_e2urec.data.rows import Splits


class RowSampler:
    """Stands where RecBole's sampler does in evaluation; the same for every model of a run.

    Args:
        config: the run's settings.
        dataset: the whole dataset.
        splits: of all rows that any compared model may learn from or is tested on.
        phase: ``valid`` or ``test``.
        rows: row ids to be evaluated.

    Attributes:
        phase: as given.
        rows: ascending, [n].
        candidates: inner item ids for each row, [n, count]; no columns when nothing is sampled.
    """

    def __init__(
        self, config: Any, dataset: Any, splits: Splits, phase: str, rows: NDArray[np.int64]
    ) -> None:
        self.phase = phase
        self.rows = np.sort(rows)
        self._users = dataset.user_num
        seen = np.concatenate(splits[:2] if phase == "valid" else splits)
        self._seen = dataset.rows.user[seen], dataset.rows.item[seen]
        args = config[f"{phase}_neg_sample_args"]
        self.candidates = draw_candidates(
            self.rows,
            dataset.rows.user[self.rows],
            self._seen[0] * dataset.item_num + self._seen[1],
            _weights(args["distribution"], dataset, splits),
            0 if args["sample_num"] == "none" else int(args["sample_num"]),
            config["seed"],
        )

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Candidates of some of the rows, in the order given, [len(rows), count]."""
        return self.candidates[np.searchsorted(self.rows, rows)]

    @cached_property
    def used_ids(self) -> NDArray[Any]:
        """For each inner user id the set of items seen up to this phase, [users]."""
        user, item = self._seen
        order = np.argsort(user, kind="stable")
        bounds = np.searchsorted(user[order], np.arange(self._users + 1))
        sets = np.empty(self._users, dtype=object)
        for inner in range(self._users):
            sets[inner] = set(item[order[bounds[inner] : bounds[inner + 1]]].tolist())
        return sets


def _weights(distribution: str, dataset: Any, splits: Splits) -> NDArray[np.float64]:
    """Weight of each inner item id; by popularity it is the count over all parts, as in RecBole."""
    weights = np.ones(dataset.item_num)
    if distribution == "popularity":
        items = dataset.rows.item[np.concatenate(splits)]
        weights = np.bincount(items, minlength=dataset.item_num).astype(np.float64)
    weights[0] = 0  # padding
    return weights
