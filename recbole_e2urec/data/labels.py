"""Whether a run needs labels, and whether the data has labels that do."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from recbole.utils import ModelType

from recbole_e2urec.errors import InputError


def needs_labels(config: Any) -> bool:
    """Whether the run reads labels: to evaluate, or to train without sampled negatives."""
    if "labeled" in config["eval_args"]["mode"].values():
        return True
    samples = config["train_neg_sample_args"]["distribution"] != "none"
    return config["MODEL_TYPE"] == ModelType.CONTEXT and not samples


def check_labels(label: NDArray[Any] | None, config: Any) -> None:
    """Refuse data from which nobody can learn or tell likes from dislikes.

    Args:
        label: of every row, or None when the data has none.
        config: the run's settings.

    Raises:
        InputError: no labels, values other than 0 and 1, or one class only.
    """
    if not needs_labels(config):
        return
    name, dataset = config["LABEL_FIELD"], config["dataset"]
    rule = ", ".join(f"{key} >= {value}" for key, value in (config["threshold"] or {}).items())
    if label is None:
        raise InputError(
            f"{dataset}: no labels: the .inter file has neither a column {name!r} nor that of "
            f"threshold ({rule or 'none set'}); set threshold, or eval_mode to uni100 or full"
        )
    values = np.unique(label)
    strange = values[~np.isin(values, (0, 1))]
    if len(strange):
        raise InputError(f"{dataset}: column {name!r} holds {strange[0]:g}; labels are 0 and 1")
    if len(values) < 2:
        raise InputError(
            f"{dataset}: every label is {values[0]:g} ({rule or f'column {name!r}'}); "
            "both classes are needed, so set another threshold"
        )
