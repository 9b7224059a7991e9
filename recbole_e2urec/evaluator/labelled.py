"""AUC, ACC and LogLoss of some rows, by RecBole's own metrics, unrounded."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from recbole.evaluator.metrics import AUC, LogLoss

from recbole_e2urec.evaluator.accuracy import accuracy


def labelled_metrics(
    config: Any, yes: NDArray[np.float64], labels: NDArray[np.float32]
) -> dict[str, float | None]:  # [n], [n] -> metrics
    """Give ``auc``, ``acc``, ``logloss`` and the number of ``rows``.

    A metric without meaning is None: all of them for no rows, AUC for labels of one class.
    """
    if len(labels) == 0:
        return {"auc": None, "acc": None, "logloss": None, "rows": 0}
    two_classes = 0 < labels.mean() < 1
    return {
        "auc": float(AUC(config).metric_info(yes, labels)) if two_classes else None,
        "acc": accuracy(yes, labels),
        "logloss": float(LogLoss(config).metric_info(yes, labels)),
        "rows": len(labels),
    }
