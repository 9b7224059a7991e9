"""ACC, which RecBole lacks: the share of rows whose answer is right at a threshold of 0.5."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from recbole.evaluator import register
from recbole.evaluator.base_metric import LossMetric

THRESHOLD = 0.5


def accuracy(scores: NDArray[Any], labels: NDArray[Any]) -> float:  # [n], [n] -> share of rows
    """Give the share of rows where ``score > 0.5`` says what the label says; NaN for no rows."""
    if len(labels) == 0:
        return float("nan")
    return float(np.mean((scores > THRESHOLD) == (labels > THRESHOLD)))


class ACC(LossMetric):
    """Accuracy of probabilities on labelled rows, as a metric of RecBole.

    A score of exactly 0.5 counts as a No. A model whose scores are no probabilities (BPR, SASRec)
    gets a number without meaning, as it does for LogLoss.
    """

    def calculate_metric(self, dataobject: Any) -> dict[str, float]:
        """Compute ``acc`` from what RecBole collected."""
        return self.output_metric("acc", dataobject)

    def metric_info(self, preds: NDArray[Any], trues: NDArray[Any]) -> float:
        """Give the accuracy of ``preds`` [n] on ``trues`` [n]."""
        return accuracy(preds, trues)


def register_accuracy() -> None:
    """Make ``ACC`` a metric like any other of RecBole's; later calls change nothing."""
    register.metrics_dict["acc"] = ACC
    register.metric_types["acc"] = ACC.metric_type
    register.metric_information["acc"] = ACC.metric_need
