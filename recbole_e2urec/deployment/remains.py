"""What is left of the data after requests on a model in use."""

import numpy as np

from recbole_e2urec.experiment import Experiment, Rows

SAMPLE = 2000  # validation rows, at most, on which drift is measured


def gone_users(run: Experiment, forgotten: Rows) -> Rows:
    """Inner ids of users of whom nothing is left: no training row, if there was one, or no row."""
    user, train = run.dataset.rows.user, run.parts.splits.train
    touched = np.unique(user[forgotten])
    trained = np.isin(touched, user[train])
    kept = np.where(
        trained,
        np.isin(touched, user[np.setdiff1d(train, forgotten)]),
        np.isin(touched, user[np.setdiff1d(np.arange(len(user)), forgotten)]),
    )
    gone: Rows = touched[~kept]
    return gone


def with_gone(run: Experiment, forgotten: Rows) -> Rows:
    """Forgotten rows, and all rows of users of whom nothing is left."""
    rows = np.flatnonzero(np.isin(run.dataset.rows.user, gone_users(run, forgotten)))
    every: Rows = np.union1d(forgotten, rows).astype(np.int64)
    return every


def sample_of(run: Experiment, forgotten: Rows) -> Rows:
    """Validation rows of users whom no request touched, a fixed draw of at most SAMPLE."""
    valid, user = run.parts.splits.valid, run.dataset.rows.user
    valid = valid[~np.isin(user[valid], user[forgotten])]
    return drawn(valid, run.config["seed"], SAMPLE)


def drawn(rows: Rows, seed: int, most: int) -> Rows:
    """A fixed draw of at most so many rows, sorted."""
    found: Rows = np.sort(np.random.default_rng(seed).permutation(rows)[:most])
    return found
