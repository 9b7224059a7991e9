"""The evaluation of a run, by labels or by ranking, and the metrics that fit.

RecBole crashes or gives wrong results if mode, metrics and validation metric do not fit each other.
Here a single key, ``eval_mode``, decides. Settings of the user are kept.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from recbole.evaluator import metric_types, register
from recbole.evaluator.base_metric import LossMetric
from recbole.utils import EvaluatorType

from recbole_e2urec.errors import InputError

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


_MODE = re.compile(r"^(labeled|full|(uni|pop)[1-9][0-9]*)$")


class EvalPlan(NamedTuple):
    """The chosen evaluation; ``kind`` names the yaml file of ``properties/evaluation`` to use.

    Attributes:
        kind: ``labeled`` or ``ranking``.
        mode: RecBole's mode of each phase: ``labeled``, ``full``, ``uniN`` or ``popN``.
    """

    kind: str
    mode: dict[str, str]

    def resolve(self, defaults: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``eval_args``, where the user's win over the defaults, and the metrics.

        Raises:
            InputError: metrics do not fit the mode, or the validation metric is not among them.
        """
        chosen = {**defaults, **settings}
        if not isinstance(chosen["eval_args"], Mapping):
            raise InputError(f"eval_args: {chosen['eval_args']!r} does not do; see overall.yaml")
        args = {**defaults["eval_args"], **chosen["eval_args"], "mode": dict(self.mode)}
        _check_args(args)
        if chosen["rank_positives"] not in ("label", "all"):
            raise InputError(
                f"rank_positives: {chosen['rank_positives']!r}; label or all is needed"
            )
        metrics = _listed(chosen["metrics"])
        if len({_type_of(metric) for metric in metrics}) > 1:
            raise InputError(f"metrics: {', '.join(metrics)} mix labels and ranking; use one kind")
        if self.kind == "labeled" and _type_of(metrics[0]) == EvaluatorType.RANKING:
            raise InputError(f"metrics: {metrics[0]} ranks items; set eval_mode to uni100 or full")
        names = _metric_names(metrics, chosen["topk"])
        valid = str(chosen["valid_metric"])
        if valid.lower() not in [name.lower() for name in names]:
            if "valid_metric" in settings:
                raise InputError(f"valid_metric: {valid} is not among {', '.join(names)}")
            valid = names[0]
        return {"eval_args": args, "metrics": metrics, "valid_metric": valid}


def plan_evaluation(
    settings: Mapping[str, Any], default_mode: str | None, learns_labels: bool
) -> EvalPlan:
    """Decide the evaluation from ``eval_mode``, ``eval_args`` or ``metrics``, in this order.

    Args:
        settings: what the user set.
        default_mode: the mode when the user set none of these; None chooses by the model.
        learns_labels: whether the model learns from likes and dislikes.

    Raises:
        InputError: an unknown mode, or labels in one phase and ranking in the other.
    """
    args = settings.get("eval_args")
    mode = settings.get("eval_mode") or (args.get("mode") if isinstance(args, Mapping) else None)
    if mode is None and settings.get("metrics"):
        kind = _type_of(_listed(settings["metrics"])[0])
        mode = "uni100" if kind == EvaluatorType.RANKING else "labeled"
    mode = mode or default_mode or ("labeled" if learns_labels else "uni100")
    phases = _by_phase(mode)
    labeled = {phase: name == "labeled" for phase, name in phases.items()}
    if labeled["valid"] != labeled["test"]:
        raise InputError(f"eval_args: mode {mode} mixes labels and ranking; use one for both")
    return EvalPlan("labeled" if labeled["test"] else "ranking", phases)


def merge_load_col(below: Any, above: Any) -> Any:
    """Unite two layers of ``load_col``: columns per file suffix; ``'*'`` loads all of a file.

    A column that a file does not have is passed over by RecBole.
    """
    if not isinstance(below, Mapping) or not isinstance(above, Mapping):
        return above or below
    merged = dict(below)
    for suffix, columns in above.items():
        first = merged.get(suffix, [])
        both_listed = isinstance(first, list) and isinstance(columns, list)
        merged[suffix] = list(dict.fromkeys(first + columns)) if both_listed else "*"
    return merged


def _by_phase(mode: Any) -> dict[str, str]:
    phases = mode if isinstance(mode, Mapping) else {"valid": mode, "test": mode}
    other = next(iter(phases.values()), None)
    phases = {phase: phases.get(phase, other) for phase in ("valid", "test")}
    for name in phases.values():
        if not isinstance(name, str) or not _MODE.match(name):
            raise InputError(f"eval_mode: {name!r} is not one of labeled, full, uni100, pop100")
    return phases


def _check_args(args: Mapping[str, Any]) -> None:
    for key in args:
        if key not in ("split", "group_by", "order", "mode"):
            raise InputError(
                f"eval_args: unknown part {key!r}; known: split, group_by, order, mode"
            )
    if not isinstance(args["split"], Mapping) or len(args["split"]) != 1:
        raise InputError(f"eval_args: split {args['split']!r}; write {{'RS': [0.8, 0.1, 0.1]}}")
    ((kind, parts),) = args["split"].items()
    if (kind in ("RS", "TS") and not _are_shares(parts)) or (kind == "TS" and len(parts) != 3):
        raise InputError(f"eval_args: split {kind} {parts!r}; write shares such as [0.8, 0.1, 0.1]")


def _are_shares(parts: Any) -> bool:
    if not isinstance(parts, list) or not all(isinstance(part, int | float) for part in parts):
        return False
    return all(part >= 0 for part in parts) and sum(parts) > 0


def _listed(value: Any) -> list[str]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not values:
        raise InputError(f"metrics: {value!r} does not do; a list such as [AUC] is needed")
    return [str(name) for name in values]


def _type_of(metric: str) -> Any:
    if metric.lower() not in metric_types:
        raise InputError(f"unknown metric {metric!r}; known: {', '.join(sorted(metric_types))}")
    return metric_types[metric.lower()]


def _metric_names(metrics: list[str], topk: Any) -> list[str]:
    lengths = topk if isinstance(topk, list) else [topk]
    if not lengths or not all(isinstance(k, int) and k > 0 for k in lengths):
        raise InputError(f"topk: {topk!r} does not do; a list such as [5, 10] is needed")
    names = []
    for metric in metrics:
        if _type_of(metric) == EvaluatorType.VALUE or metric.lower() == "gauc":
            names.append(metric)
        else:
            names += [f"{metric}@{k}" for k in lengths]
    return names
