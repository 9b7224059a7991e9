"""Means, deviations, gaps and their marks, in every format."""

import html
import json
from pathlib import Path
from typing import Any

import pytest

from recbole_e2urec.report import report
from recbole_e2urec.report.results import save_rows
from recbole_e2urec.report.tables import (
    NOISE,
    TextTable,
    caution_of,
    comparison,
    floor_of,
    row_by_row,
    tables_of,
    tuning,
    within_noise,
)


def row(model: str, seed: int, auc: float) -> dict[str, Any]:
    forget = {"auc": auc + 0.1, "rows": 9}
    measured = {"test": {"auc": auc}, "forget": forget, "to_retrain": {}}
    return {"model": model, "dataset": "d", "seed": seed, **measured}


TWO_SEEDS = [
    row("Retrain", 1, 0.5),
    row("Retrain", 2, 0.7),
    row("NPO", 1, 0.8),
    row("NPO", 2, 1.2),
]


def test_cells_are_means_with_deviations_and_gaps_to_the_same_seeds_retrain() -> None:
    header, lines = comparison(TWO_SEEDS)
    assert header == ["", "test AUC", "forget AUC", "its gap"]
    # Deviations of (.5, .7): .1414, of (.8, 1.2): .2828; NPO's gaps are .3 and .5.
    retrain = ["0.6000 ± 0.1414", "0.7000 ± 0.1414", "0.0000 ± 0.0000"]
    npo = ["1.0000 ± 0.2828", "1.1000 ± 0.2828", "0.4000 ± 0.1414"]
    assert lines == [["Retrain", *retrain], ["NPO", *npo]]


def test_one_seed_has_no_deviation_and_a_missing_value_is_a_dash() -> None:
    classic = {"model": "FM", "dataset": "d", "seed": 1, "test": {"auc": 0.25}}
    _, lines = comparison([row("Retrain", 1, 0.5), classic])
    assert lines == [["Retrain", "0.5000", "0.6000", "0.0000"], ["FM", "0.2500", "-", "-"]]


def test_a_classic_model_is_measured_against_its_own_retrain() -> None:
    def classic(model: str, auc: float) -> dict[str, Any]:
        return {"model": model, "seed": 1, "test": {"auc": 0.5}, "forget": {"auc": auc}}

    models = {"FM": 0.9, "FM-Retrain": 0.7, "FM-SISA": 0.6, "BPR": 0.8}
    _, lines = comparison([row("Retrain", 1, 0.5), *(classic(*pair) for pair in models.items())])
    assert [line[-1] for line in lines[1:]] == ["0.2000", "0.0000", "-0.1000", "-"]


def test_the_floor_is_the_distance_between_retrains() -> None:
    assert floor_of(TWO_SEEDS) == pytest.approx({"gap": 0.2})
    assert floor_of(TWO_SEEDS[:1]) == {}


def test_the_floor_of_other_distances_is_what_another_seeds_retrain_has() -> None:
    other = {**row(NOISE, 1, 0.55), "to_retrain": {"jsd": 0.01, "residual": 0.6}}
    near = {**row("NPO", 1, 0.5), "to_retrain": {"jsd": 0.01, "residual": 0.7}}
    assert floor_of([{**other, "gap": -0.05}])["to_retrain.jsd"] == 0.01
    _, lines = comparison([row("Retrain", 1, 0.5), other, near])
    assert lines[1][1:] == ["0.5500", "0.6500", "0.0500", "0.0100"]
    assert lines[2][3:] == ["0.0000 ~", "0.0100 ~"]


def with_floor(floor: float | None, *seeds: int) -> list[dict[str, Any]]:
    """Rows of a comparison whose second Retrain has this residual; None: there is none."""
    far = {"Retrain": 0.0, "NPO": 0.9, **({} if floor is None else {NOISE: floor})}
    return [
        {**row(model, seed, 0.5), "to_retrain": {"jsd": 0.01, "residual": residual}}
        for seed in seeds
        for model, residual in far.items()
    ]


def test_a_residual_stands_beside_its_floor() -> None:
    rows = with_floor(0.35, 1)
    (cells,) = tables_of(rows)
    assert cells.header[-2:] == ["residual", "its floor"]
    assert [line[-2:] for line in cells.lines] == [
        ["0.000", "0.350"], ["0.900", "0.350"], ["0.350", "0.350"]
    ]  # fmt: skip
    assert row_by_row(rows)[1].notes[0].startswith("residual: 0 = Retrain")


@pytest.mark.parametrize(
    ("floor", "seeds", "why"),
    [
        (0.71, [1], "two Retrains of different seeds are 0.71 apart on this request"),
        (None, [1], "it needs a second Retrain: --model_list=E2URec --seeds=1,2"),
        (None, [1, 2], "no second Retrain was measured on the same rows"),
    ],
)
def test_a_residual_without_a_small_floor_is_not_shown(
    floor: float | None, seeds: list[int], why: str
) -> None:
    rows = with_floor(floor, *seeds)
    assert "residual" not in tables_of(rows)[0].header
    assert row_by_row(rows)[1].notes == [f"residual: not shown; {why}"]


def test_the_bias_over_seeds_takes_the_residuals_place() -> None:
    for floor, notes in ((0.35, 1), (0.71, 2)):
        rows = with_floor(floor, 1, 2)
        rows[1]["bias"] = 1.5
        (cells,) = tables_of(rows)
        assert cells.header[-1] == "bias, floors"
        assert [line[-1] for line in cells.lines] == ["-", "1.50", "-"]
        assert len(row_by_row(rows)[1].notes) == notes


@pytest.mark.parametrize(
    ("gaps", "bounds", "floor", "expected"),
    [
        ([0.1, 0.2], None, 0.16, True),
        ([0.1, 0.2], None, 0.14, False),
        ([0.1], [-0.1, 0.3], None, True),
        ([0.1], [0.05, 0.3], None, False),
        ([], None, 1.0, False),
    ],
)
def test_a_gap_is_within_noise_by_floor_or_interval(
    gaps: list[float], bounds: list[float] | None, floor: float | None, expected: bool
) -> None:
    rows = [{"gap": gap, "intervals": {"gap": bounds}} for gap in gaps]
    assert within_noise(rows, "gap", {} if floor is None else {"gap": floor}) is expected


def test_a_gap_within_noise_is_marked_but_not_retrains_own() -> None:
    close = [*TWO_SEEDS[:2], row("NPO", 1, 0.6), row("NPO", 2, 0.8)]
    assert [line[-1][-1] for line in comparison(close).lines] == ["0", "~"]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("text", "---  -----\nNPO   0.5_"),
        ("markdown", "| NPO |  0.5_ |"),
        ("csv", ",AUC\nNPO,0.5_"),
        ("latex", r" NPO &  0.5\_ \\"),
    ],
)
def test_formats(kind: str, expected: str) -> None:
    assert expected in TextTable(["", "AUC"], [["NPO", "0.5_"]]).render(kind)


def test_the_module_prints_each_comparison_of_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = [{**one, "dataset": "e"} for one in TWO_SEEDS]
    classic = {"model": "FM", "dataset": "d", "seed": 1, "test": {"auc": 0.25}}
    file = tmp_path / "results.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in [*TWO_SEEDS, *other, classic]))
    for kind in set(report.FORMATS) - {"html"}:
        assert report.main([str(file), f"--format={kind}"]) == 0
        shown = capsys.readouterr().out
        assert shown.count("Retrain") == 2
        assert shown.count("FM") == 1


def test_a_file_without_results_is_one_line_and_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.main([str(tmp_path / "none.jsonl")]) == 2
    assert "no results" in capsys.readouterr().err


def test_what_was_tuned_is_a_table_of_its_own() -> None:
    trials = [
        {"settings": {}, "gap": 0.05, "lost": 0.001, "residual": 0.9},
        {"settings": {"alpha": 3.5, "beta": 0.25}, "gap": -0.01, "lost": 0.004, "residual": 0.8},
    ]
    chosen = {
        "E2URec": {"chosen": trials[1]["settings"], "trials": trials},
        "BadT": {"chosen": {}, "trials": trials[:1]},
    }
    cells = tuning(chosen)
    assert cells.lines == [
        ["E2URec", "2", "-0.0100", "0.0040", "alpha=3.5, beta=0.25"],
        ["BadT", "1", "0.0500", "0.0010", "defaults"],
    ]


def unlearning_rows(
    seeds: int, test: tuple[float, float], gap: tuple[float, float]
) -> list[dict[str, Any]]:
    """Rows of Original, Retrain and a method, of which Original has these intervals."""
    rows = []
    for seed in range(seeds):
        for model, auc in (("Original", 0.7), ("Retrain", 0.6), ("New", 0.65)):
            rows.append(
                {
                    "model": model,
                    "dataset": "d",
                    "seed": seed,
                    "test": {"auc": 0.6},
                    "forget": {"auc": auc + seed / 100, "rows": 7},
                    "to_retrain": {"jsd": 0.01, "residual": 0.7},
                    "intervals": {"test_auc": list(test), "gap": list(gap)},
                    "found": {"strength": 8.0, "rows_not_reached": 2},
                    "cost": {"seconds": 1.0},
                }
            )
    return rows


LEARNED, GAP = (0.55, 0.65), (0.05, 0.15)


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize(
    ("test", "gap", "said"),
    [
        ((0.43, 0.52), GAP, "Nothing was learned: the 95 % interval of Original's test AUC, 0.430"),
        ((0.35, 0.45), GAP, "Nothing was learned"),  # worse than a guess is no better
        ((0.5, 0.6), GAP, "Nothing was learned"),
        ((0.43, 0.52), (-0.1, 0.1), "Nothing was learned"),
        (LEARNED, (-0.01, 0.2), "No gap to close: Original's forget AUC minus Retrain's, 0.1000"),
    ],
)
def test_shares_that_mean_nothing_are_dashes_after_a_caution(
    seeds: int,
    test: tuple[float, float],
    gap: tuple[float, float],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = unlearning_rows(seeds, test, gap)
    assert str(caution_of(rows)).startswith(said)
    report.print_report({"rows": rows[:3], "groups": {}, "results_file": "r"})
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0].startswith(said)
    assert next(line for line in lines if line.startswith("strength")).split()[-3:] == ["-"] * 3
    assert next(line for line in lines if line.startswith("rows_not")).split()[-1] == "2.00"
    file = tmp_path / "results.jsonl"
    save_rows(file, rows)
    for kind in report.FORMATS:
        assert report.main([str(file), f"--format={kind}"]) == 0
        shown = html.unescape(capsys.readouterr().out)
        assert said in shown
        assert shown.count(said) == 1
        assert shown.index(said) < shown.index("New")
        assert "0.700" not in shown.partition("<figure>")[0].replace("0.7000", "")


@pytest.mark.parametrize("seeds", [1, 3])
def test_shares_of_a_gap_stay(seeds: int) -> None:
    rows = unlearning_rows(seeds, LEARNED, GAP)
    assert caution_of(rows) is None
    for row in rows:
        row.pop("intervals")  # as of classic models and of older versions
    assert caution_of(rows) is None


def test_a_gap_as_wide_as_between_two_retrains_is_noise() -> None:
    rows = unlearning_rows(2, LEARNED, GAP)
    rows[4]["forget"]["auc"] = 0.8  # Retrain of the second seed
    assert str(caution_of(rows)).startswith("No gap to close")
