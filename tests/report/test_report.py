from typing import Any

import pytest

from recbole_e2urec.report.report import print_report, table
from recbole_e2urec.trainer.training_log import amortised

MEASURED: dict[str, Any] = {
    "model": "Original",
    "dataset": "small",
    "seed": 1,
    "test": {"auc": 0.75},
    "to_retrain": {"residual": 1.0, "jsd": 0.0123456},
    "mia_auc": None,
    "cost": {"seconds": 12.34, "trained_parameters": 1234567},
}


def lines(shown: str) -> dict[str, list[str]]:
    """Cells by the title of their line; titles and cells are parted by two spaces or more."""
    found = {}
    for line in shown.splitlines():
        title, *cells = [part for part in line.split("  ") if part.strip()] or [""]
        found[title.strip()] = [cell.strip() for cell in cells]
    return found


def test_a_number_has_the_decimals_of_its_measure_and_a_missing_one_is_a_dash() -> None:
    measures = (
        ("AUC", "test.auc", 4),
        ("JSD", "to_retrain.jsd", 5),
        ("MIA", "mia_auc", 4),
        ("ACC", "test.acc", 4),
        ("parameters", "cost.trained_parameters", 0),
    )
    shown = lines(table([MEASURED, {**MEASURED, "model": "Retrain"}], measures))
    assert shown["AUC"] == ["0.7500", "0.7500"]
    assert shown["JSD"] == ["0.01235", "0.01235"]
    assert shown["MIA"] == ["-", "-"]
    assert shown["ACC"] == ["-", "-"]
    assert shown["parameters"] == ["1,234,567", "1,234,567"]


def test_an_unlearning_report_says_how_to_read_it(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [MEASURED, {**MEASURED, "model": "E2URec"}]
    print_report({"rows": rows, "groups": {"forget": 3, "test": 2}, "results_file": "s/r.jsonl"})
    shown = capsys.readouterr().out
    assert "small, seed 1" in shown
    assert "3 forget rows, 2 test rows" in shown
    assert "residual: not shown; it needs a second Retrain: --model_list" in shown
    assert "results: s/r.jsonl" in shown
    assert "residual" not in lines(shown)


def test_what_was_trained_before_the_request_stands_apart(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cost = {"seconds": 10.0, "prior_seconds": 50.0, "amortised_seconds": amortised(10.0, 50.0)}
    rows = [MEASURED, {**MEASURED, "model": "CrossFit", "cost": cost}]
    print_report({"rows": rows, "groups": {}, "results_file": "r"})
    shown = lines(capsys.readouterr().out)
    assert shown["seconds before any request"] == ["-", "50.0"]
    spread = {count: shown[f"seconds a request, of {count}"][1] for count in (1, 10, 100)}
    assert spread == {1: "60.0", 10: "15.0", 100: "10.5"}  # 10 + 50 / count
    print_report({"rows": rows[:1], "groups": {}, "results_file": "r"})
    assert "before any request" not in capsys.readouterr().out


def test_ranked_items_have_lines_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{**MEASURED, "ranking": {"ndcg@10": 0.25}}]
    print_report({"rows": rows, "groups": {}, "results_file": "r"})
    assert lines(capsys.readouterr().out)["test ndcg@10"] == ["0.2500"]


def test_a_model_alone_shows_what_it_was_tested_by(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"model": "BPR", "dataset": "small", "seed": 1, "test": {"ndcg@10": 0.5}, "cost": {}}
    print_report({"rows": [row], "groups": {}, "results_file": "r"})
    shown = capsys.readouterr().out
    assert "ndcg@10" in shown
    assert "0.5000" in shown
    assert "residual" not in shown
