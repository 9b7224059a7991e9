"""The HTML page of results, as text and in a browser."""

import re
from pathlib import Path
from typing import Any

import pytest
from browser import needs_browser, shown

from recbole_e2urec.report import report
from recbole_e2urec.report.plots import figures, page
from recbole_e2urec.report.results import save_rows
from recbole_e2urec.report.tables import tables_of

TITLES = [
    "Usefulness against forgetting",
    "Cost",
    "Relearning",
    "Membership inference",
    "Losses of forgotten and of unseen rows",
]


def row(model: str, seed: int, auc: float) -> dict[str, Any]:
    return {
        "model": model,
        "dataset": "d",
        "seed": seed,
        "stage": f"{model}-{seed}",
        "request": f"Retrain-{seed}",
        "test": {"auc": 0.75},
        "forget": {"auc": auc, "rows": 7},
        "to_retrain": {"jsd": 0.01},
        "cost": {"seconds": 10.0},
        "intervals": {"forget_auc": [auc - 0.02, auc + 0.03], "test_auc": [0.74, 0.77]},
        "relearning": {"steps": [0, 5], "auc": [auc, auc + 0.01], "logloss": [0.6, 0.5]},
        "mia_roc": {"fpr": [0.01, 1.0], "tpr": [0.02, 1.0]},
        "loss_shares": {"edges": [0.0, 0.1], "forget": [0.7, 0.3], "control": [0.4, 0.6]},
    }


ROWS = [
    row("Original", 1, 0.8),
    row("Original", 2, 0.82),
    row("Retrain", 1, 0.7),
    row("Retrain", 2, 0.71),
    row("<b>New</b>", 1, 0.72),
]


def test_every_figure_shows_every_model_and_means_over_seeds() -> None:
    drawn = figures(ROWS)
    assert [figure.title for figure in drawn] == TITLES
    for figure in drawn[:1] + drawn[2:4]:
        assert {"Original", "Retrain", "<b>New</b>"} <= {line.name for line in figure.picture.data}
    tradeoff, _, relearning, *_ = drawn
    original = tradeoff.picture.data[0]
    assert original.x[0] == pytest.approx(0.81)
    assert original.error_x.array[0] == pytest.approx(0.03)
    assert relearning.picture.data[0].y == pytest.approx((0.81, 0.82))


def test_figures_without_data_are_left_out() -> None:
    bare = [
        {"model": "FM", "dataset": "d", "seed": 1, "test": {"auc": 0.7}, "cost": {"seconds": 3}}
    ]
    assert [figure.title for figure in figures(bare)] == ["Cost"]
    assert figures([{"model": "Pop", "dataset": "d", "seed": 1, "test": {"recall@10": 0.1}}]) == []


def test_the_page_holds_all_that_it_needs_and_escapes_names() -> None:
    groups, notes = [("one", ROWS), ("two", ROWS)], [["a note"], []]
    text = page(groups, [tables_of(ROWS)] * 2, notes, ["a <caution>", None])
    assert "<h2>one</h2>" in text
    assert "<h2>two</h2>" in text
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", text)
    assert len(text) < 8_000_000  # the plotting library is there once
    assert "&lt;b&gt;New&lt;/b&gt;" in text
    assert text.count("a note") == 1
    assert text.count("a &lt;caution&gt;") == 1


@pytest.mark.thorough
@needs_browser
def test_a_browser_draws_every_figure(tmp_path: Path) -> None:
    results, made = tmp_path / "results.jsonl", tmp_path / "page.html"
    save_rows(results, ROWS)
    assert report.main([str(results), "--format=html", f"--output={made}"]) == 0
    document = shown(made, tmp_path / "profile")
    assert document.count('class="plot-container') == len(TITLES)
    for name in ("forget AUC", "AUC on the other half", "loss of the true answer, nats"):
        assert f">{name}</text>" in document


@pytest.mark.thorough
@needs_browser
@pytest.mark.parametrize(("width", "is_cut"), [(1300, False), (500, True)])
def test_a_desktop_shows_whole_tables_and_a_phone_scrolls_them_alone(
    width: int, is_cut: bool, tmp_path: Path
) -> None:
    seeds = [
        {**row(f"a method, {number}", seed, 0.7), "mia_auc": 0.5}
        for number in range(3)
        for seed in (1, 2)
    ]
    for wide in seeds:
        wide["test"] = {"auc": 0.75, "logloss": 0.5}
        wide["forget"] = {"auc": 0.7 + wide["seed"] / 50, "logloss": 0.5, "rows": 7}
        wide["cost"] = {"seconds": 179.0, "relative_to_retrain": 0.2, "prior_seconds": 500.0}
    results, made = tmp_path / "results.jsonl", tmp_path / "page.html"
    save_rows(results, [*ROWS, *seeds])
    assert report.main([str(results), "--format=html", f"--output={made}"]) == 0
    script = (
        "<script>onload = () => { const cut = part => part.scrollWidth > part.clientWidth;"
        "document.title = `${[...document.querySelectorAll('.wide')].some(cut)} "
        "${cut(document.documentElement)}`; }</script>"
    )
    made.write_text(made.read_text(encoding="utf-8") + script, encoding="utf-8")
    document = shown(made, tmp_path / "profile", f"--window-size={width},900")
    assert f"<title>{str(is_cut).lower()} false</title>" in document
