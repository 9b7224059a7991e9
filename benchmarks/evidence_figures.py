"""Figures of the evidence, from kept answers: distances to own and to other seeds' Retrains.

Single rows are also compared with the mean of P(yes) over the other seeds' Retrains, own seed left
out, see :mod:`recbole_e2urec.evaluator.over_seeds`. AUC and loss are compared with the mean of
theirs: the mean of models is better than each of them.
"""

from itertools import permutations
from typing import Any

import numpy as np
import torch

from benchmarks.evidence_cells import Cell
from benchmarks.evidence_rows import ORIGINAL, RETRAIN
from benchmarks.evidence_store import Values
from recbole_e2urec.evaluator.divergence import jensen_shannon, residual
from recbole_e2urec.evaluator.over_seeds import left_out
from recbole_e2urec.matching import share_closed
from recbole_e2urec.tables import value_of
from recbole_e2urec.trainer.cost import amortised

OTHER = "Retrain, another seed"  # each Retrain as if it were an unlearned model of another seed
SURE = 1e-12  # no answer is surer than this: its logarithm must be a number


def distances(ours: Values, original: Values, reference: Values) -> dict[str, float | None]:
    """Residual and JSD of the answers yes and no; ``reference`` is a Retrain or a mean of some.

    The residual is that of docs/measures.md, with the reference in Retrain's place.
    """
    share = residual(*map(torch.from_numpy, (ours, original, reference)))
    two = [np.clip(one, SURE, 1 - SURE) for one in (ours, reference)]
    logs = [torch.from_numpy(np.log(np.stack([one, 1 - one], axis=1))) for one in two]
    jsd = float(jensen_shannon(*logs).mean())
    return {"residual": None if np.isnan(share) else share, "jsd": jsd}


def figures(cell: Cell) -> list[dict[str, Any]]:
    """A line a row and seed, with ``model`` and ``seed``, to be averaged by tables.

    ``_mean`` marks what is compared with the other seeds' Retrains.
    """
    lines = [
        {"model": name, "seed": seed, **measure(cell, name, seed)}
        for name, rows in cell.rows.items()
        for seed in rows
    ]
    seeds = list(cell.rows[RETRAIN])
    noise = [
        {"model": OTHER, "seed": seed, **_own(cell, seed, RETRAIN, other)}
        for seed, other in permutations(seeds, 2)
    ]
    place = 1 + max(number for number, line in enumerate(lines) if line["model"] == RETRAIN)
    return [*lines[:place], *noise, *lines[place:]]


def measure(cell: Cell, name: str, seed: int) -> dict[str, Any]:
    """All figures of a row under a seed."""
    return {**_usefulness(cell, name, seed), **_forgetting(cell, name, seed)}


def _own(cell: Cell, seed: int, name: str, other: int) -> dict[str, Any]:
    """What the row of a name and seed closes and leaves, against this seed's Retrain."""
    row = cell.rows[name][other]
    compared = (row, *(cell.rows[one][seed] for one in (ORIGINAL, RETRAIN)))
    shares = {
        f"closed_{metric}": share_closed(*(one["forget"][metric] for one in compared))
        for metric in ("auc", "logloss")
    }
    said = (cell.said[name][other], *(cell.said[one][seed] for one in (ORIGINAL, RETRAIN)))
    return {
        "forget_auc": row["forget"]["auc"],
        "forget_logloss": row["forget"]["logloss"],
        **shares,
        **distances(*(one.forget for one in said)),
    }


def _forgetting(cell: Cell, name: str, seed: int) -> dict[str, Any]:
    """The same, and against the other seeds' Retrains."""
    found = _own(cell, seed, name, seed)
    retrains = cell.rows[RETRAIN]
    if len(retrains) < 2:
        return found
    others = [row for one, row in retrains.items() if one != seed]
    ours, original = cell.rows[name][seed], cell.rows[ORIGINAL][seed]
    for metric in ("auc", "logloss"):
        known = [row["forget"][metric] for row in others]
        mean = None if None in known else float(np.mean(known))
        shares = (ours["forget"][metric], original["forget"][metric], mean)
        found[f"closed_{metric}_mean"] = share_closed(*shares)
    reference = left_out({one: said.forget for one, said in cell.said[RETRAIN].items()})[seed]
    said, first = (cell.said[one][seed].forget for one in (name, ORIGINAL))
    far = distances(said, first, reference)
    return {**found, **{f"{key}_mean": value for key, value in far.items()}}


def _usefulness(cell: Cell, name: str, seed: int) -> dict[str, Any]:
    """Usefulness, attack and cost; costs are shares of the own Retrain's seconds."""
    row, original, retrain = (cell.rows[one][seed] for one in (name, ORIGINAL, RETRAIN))
    seconds, prior = row["cost"]["seconds"], row["cost"].get("prior_seconds", 0.0)
    whole = retrain["cost"]["seconds"]
    spread = amortised(seconds / whole, prior / whole)
    parts = ("test", "heldout_other_users", "heldout_forget_users")
    aucs = {f"{part}_auc": value_of(row, f"{part}.auc") for part in parts}
    return {
        **aucs,
        "lost": original["test"]["auc"] - row["test"]["auc"],
        "test_logloss": row["test"]["logloss"],
        "mia": row["mia_auc"],
        "seconds": seconds,
        "share": seconds / whole,
        "prior": prior / whole,
        **{f"of_{count}": value for count, value in spread.items()},
    }
