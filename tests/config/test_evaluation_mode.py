from typing import Any

import pytest

from recbole_e2urec.config.evaluation_mode import merge_load_col, plan_evaluation
from recbole_e2urec.errors import InputError

DEFAULTS = {
    "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "group_by": "user", "order": "TO"},
    "metrics": ["Recall", "NDCG"],
    "topk": [5, 10],
    "valid_metric": "NDCG@10",
    "rank_positives": "label",
}


@pytest.mark.parametrize(
    ("given", "mode"),
    [
        ({"eval_mode": "full", "eval_args": {"mode": "uni50"}, "metrics": ["AUC"]}, "full"),
        ({"eval_args": {"mode": "uni50"}, "metrics": ["AUC"]}, "uni50"),
        ({"metrics": ["AUC"]}, "labeled"),
        ({"metrics": ["NDCG"]}, "uni100"),
        ({"metrics": ["GAUC"]}, "uni100"),
        ({}, "pop100"),
    ],
)
def test_plan_asks_mode_then_arguments_then_metrics_then_default(
    given: dict[str, Any], mode: str
) -> None:
    assert plan_evaluation(given, "pop100", True).mode == {"valid": mode, "test": mode}


@pytest.mark.parametrize(("learns_labels", "mode"), [(True, "labeled"), (False, "uni100")])
def test_plan_follows_the_model_when_nothing_is_said(learns_labels: bool, mode: str) -> None:
    assert plan_evaluation({}, None, learns_labels).mode["test"] == mode


def test_plan_lets_valid_and_test_rank_differently() -> None:
    plan = plan_evaluation({"eval_mode": {"valid": "uni50", "test": "full"}}, None, False)
    assert plan.mode == {"valid": "uni50", "test": "full"}


def test_plan_takes_the_mode_of_one_phase_for_the_other() -> None:
    plan = plan_evaluation({"eval_mode": {"test": "full"}}, None, False)
    assert plan.mode == {"valid": "full", "test": "full"}


def test_settle_replaces_a_default_validation_metric_that_is_not_computed() -> None:
    settled = plan_evaluation({}, "full", False).resolve(DEFAULTS, {"topk": [20]})
    assert settled["valid_metric"] == "Recall@20"


def test_settle_refuses_a_given_validation_metric_that_is_not_computed() -> None:
    with pytest.raises(InputError, match="valid_metric: MRR@10 is not among Recall@5, Recall@10"):
        plan_evaluation({}, "full", False).resolve(DEFAULTS, {"valid_metric": "MRR@10"})


def test_settle_leaves_its_arguments_alone() -> None:
    given = {"eval_args": {"order": "RO"}}
    plan_evaluation({}, "full", False).resolve(DEFAULTS, given)
    assert given == {"eval_args": {"order": "RO"}}
    assert "mode" not in DEFAULTS["eval_args"]


def test_merge_unites_the_columns_of_a_file() -> None:
    merged = merge_load_col({"inter": ["a", "b"]}, {"inter": ["b", "c"], "item": ["d"]})
    assert merged == {"inter": ["a", "b", "c"], "item": ["d"]}


@pytest.mark.parametrize(("below", "above"), [("*", ["a"]), (["a"], "*")])
def test_merge_with_all_columns_is_all(below: Any, above: Any) -> None:
    assert merge_load_col({"inter": below}, {"inter": above}) == {"inter": "*"}


def test_merge_with_nothing_is_the_other() -> None:
    assert merge_load_col(None, {"inter": ["a"]}) == {"inter": ["a"]}
    assert merge_load_col({"inter": ["a"]}, None) == {"inter": ["a"]}
