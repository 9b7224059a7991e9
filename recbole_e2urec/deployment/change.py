"""What a request changes for a model in use, and the rows on which that is measured."""

from typing import Any, NamedTuple

import numpy as np

from recbole_e2urec.deployment.remains import drawn, gone_users
from recbole_e2urec.experiment import Experiment, Rows
from recbole_e2urec.preview import touched

TESTED = 2000  # test rows, at most, that are asked about; of forgotten ones all are
MOST = 500  # held-out and control users' rows, the same


class Change(NamedTuple):
    """A request on a model in use.

    Attributes:
        earlier: rows that were forgotten before it.
        forgotten: those that are afterwards, with ``earlier``.
        forget: training rows that it takes away.
        retain: training rows that are left.
        before, after: histories that prompts show, [n, k].
    """

    earlier: Rows
    forgotten: Rows
    forget: Rows
    retain: Rows
    before: Rows
    after: Rows


def change_of(run: Experiment, earlier: Rows, forgotten: Rows) -> Change:
    """The request after which these rows are forgotten, of which the earlier ones were already."""
    live = np.setdiff1d(run.parts.splits.train, earlier)
    forget, retain = np.intersect1d(live, forgotten), np.setdiff1d(live, forgotten)
    shown = run.history(earlier), run.history(forgotten)
    return Change(earlier, forgotten, forget, retain, *shown)


class Watched(NamedTuple):
    """Rows that are asked about before and after a request.

    Attributes:
        forget: its training rows.
        heldout: test rows of the same users, which nobody was trained on.
        control: rows of users that no model was trained on and no request touched.
        test: test rows of users who stay.
    """

    forget: Rows
    heldout: Rows
    control: Rows
    test: Rows


def watched_of(run: Experiment, change: Change) -> Watched:
    """The rows to ask about: the same whenever this is asked, and of both models."""
    user, test, seed = run.dataset.rows.user, run.parts.splits.test, run.config["seed"]
    control, users = run.parts.control, np.unique(user[change.forget])
    own = np.setdiff1d(test[np.isin(user[test], users)], change.earlier)
    gone = gone_users(run, change.forgotten)
    stay = np.setdiff1d(test[~np.isin(user[test], gone)], change.forgotten)
    untouched = control[~np.isin(user[control], user[change.forgotten])]
    heldout, control = (drawn(rows, seed, MOST) for rows in (own, untouched))
    return Watched(change.forget, heldout, control, drawn(stay, seed, TESTED))


def counts_of(run: Experiment, change: Change) -> dict[str, Any]:
    """What was asked for, and found, in numbers."""
    columns = {"users": run.dataset.rows.user, "items": run.dataset.rows.item}
    parts = {
        name: touched(of, change.forget, change.retain)._asdict() for name, of in columns.items()
    }
    train = len(change.forget) + len(change.retain)
    return {
        "rows": len(change.forgotten) - len(change.earlier),
        "training_rows": len(change.forget),
        "training_rows_before": train,
        "share_of_training": len(change.forget) / max(1, train),
        **parts,
    }
