"""The evidence: its formulas, its requests, and its report from rows that are there."""

import json
import math
import runpy
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from recbole_e2urec.data.loading import load_dataset
from recbole_e2urec.errors import InputError
from recbole_e2urec.evaluator.bootstrap import UserBootstrap
from recbole_e2urec.experiment import parts_of, request_of

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(CHECKOUT))


def test_residual_and_jsd_take_any_reference() -> None:
    from benchmarks.evidence_figures import distances

    ours, original, mean = np.array([0.5, 0.7]), np.array([0.8, 0.9]), np.array([0.4, 0.6])
    found = distances(ours, original, mean)
    assert found["residual"] == pytest.approx(0.1 / 0.35)

    def jsd(p: float, q: float) -> float:
        m, both = (p + q) / 2, 0.0
        for one in (p, q):
            both += one * math.log(one / m) + (1 - one) * math.log((1 - one) / (1 - m))
        return both / 2

    assert found["jsd"] == pytest.approx((jsd(0.5, 0.4) + jsd(0.7, 0.6)) / 2)
    assert distances(ours, mean, mean)["residual"] is None
    assert math.isfinite(distances(np.array([0.0]), original[:1], np.array([1.0]))["jsd"] or 0)


def row_of(auc: float, **more: Any) -> dict[str, Any]:
    """A row of results as far as the evidence reads it."""
    half = {"auc": 0.75, "logloss": 0.6}
    return {
        "forget": {"auc": auc, "logloss": 1 - auc}, "test": half, "heldout_other_users": half,
        "heldout_forget_users": half, "mia_auc": 0.5, "cost": {"seconds": 10.0}, "users": 2,
        "to_retrain": {"residual": 0.5}, "decided_by": "same", **more,
    }  # fmt: skip


def made_up(folder: Path) -> Any:
    """A store with two seeds of one request: E2URec by alpha 2, rehearsed, and CrossFit."""
    from benchmarks.evidence_rows import ORIGINAL, PAPER, REHEARSED, RETRAIN
    from benchmarks.evidence_store import Labelled, Place, Said, Store

    store = Store(folder)
    user, label = np.array([1, 1, 2, 2]), np.array([1, 0, 1, 0], dtype=np.float32)
    store.ask("t5", 0.05, Labelled(user, label, user, label))
    rows = {
        ORIGINAL: (0.8, 0.9, {}),
        RETRAIN: (0.6, 0.5, {}),
        PAPER: (0.78, 0.85, {"cost": {"seconds": 5.0}}),
        REHEARSED: (0.62, 0.54, {"cost": {"seconds": 2.0, "prior_seconds": 30.0}}),
    }
    for seed in (3001, 3002):
        more = 0.02 * (seed - 3001)
        for name, (auc, yes, other) in rows.items():
            said = np.array([yes, yes - 0.2, yes - 0.1, yes - 0.3]) + more
            auc_here = auc + more if name == RETRAIN else auc
            store.add(Place("t5", 0.05, seed, name), row_of(auc_here, **other), Said(said, said))
    place = Place("t5", 0.05, 3001, "CrossFit")
    store.add(place, {"decided_by": "same", "refused": "it diverged"})
    return store


def summaries_of(store: Any, seeds: Sequence[int] = (3001, 3002, 3003)) -> Any:
    """What is shown of the made-up rows."""
    from benchmarks.evidence_cells import cells_of
    from benchmarks.evidence_summary import summary_of

    cells = cells_of(store, ["t5", "llama"], [0.05], seeds, None)
    return [summary_of(cell, 20) for cell in cells]


def test_figures_of_a_row_against_its_own_and_the_other_seeds_retrain(tmp_path: Path) -> None:
    from benchmarks.evidence_cells import cells_of
    from benchmarks.evidence_figures import OTHER, figures
    from benchmarks.evidence_rows import REHEARSED

    (cell,) = cells_of(made_up(tmp_path), ["t5"], [0.05, 0.2], [3001, 3002, 3003], None)
    lines = {(line["model"], line["seed"]): line for line in figures(cell)}
    assert [name for name, seed in lines if seed == 3001][:3] == ["Original", "Retrain", OTHER]
    found = lines[REHEARSED, 3001]
    assert found["closed_auc"] == pytest.approx(0.18 / 0.2)
    assert found["closed_auc_mean"] == pytest.approx(0.18 / 0.18)  # the other Retrain has .62
    assert found["residual"] == pytest.approx(0.04 / 0.4)
    assert found["residual_mean"] == pytest.approx(0.02 / 0.38)
    costs = [found[key] for key in ("share", "prior", "of_1", "of_10", "of_100")]
    assert costs == pytest.approx([0.2, 3.0, 3.2, 0.5, 0.23])
    assert lines["Retrain", 3001]["residual"] == 0
    assert lines["Retrain", 3001]["residual_mean"] == pytest.approx(0.02 / 0.38)
    assert lines[OTHER, 3001]["residual"] == pytest.approx(0.02 / 0.4)
    assert lines[OTHER, 3001]["closed_auc"] == pytest.approx(0.9)


def test_aims_are_met_within_their_limits_and_else_missed_by_the_rest(tmp_path: Path) -> None:
    from benchmarks.evidence_rows import PAPER, REHEARSED
    from benchmarks.evidence_verdict import Standing, aims, better, between, standings

    assert between(0.6, 0.75, 1.1).missed_by == pytest.approx(0.15)
    assert between(1.3, 0.75, 1.1).missed_by == pytest.approx(0.2)
    assert between(1.05, 0.75, 1.1).missed_by == 0
    assert between(None, 0, 1).missed_by is None
    found = aims(Standing(1.12, 0.7, 0.1, 1.2, 1.3, -0.1, 0.06))
    missed = [aim.missed_by for aim in found.values()]
    assert missed == pytest.approx([0.02, 0.05, 0, 0.1, 0, 0.01])

    stands = standings(one.lines for one in summaries_of(made_up(tmp_path)))
    assert list(stands) == [PAPER, REHEARSED]
    # another seed's Retrain closes .2 / .2 less a tenth, and .2 / .18
    assert stands[PAPER].over == pytest.approx((0.1 + 0.02 / 0.18) / 2)
    assert stands[PAPER].share == 0.5
    wins = better(stands)
    assert wins["closed"].better
    assert wins["cost / Retrain's"] == (0.5, 0.2, True)
    assert wins["test AUC lost"].better is False  # both lost nothing


def test_users_drawn_anew_keep_their_rows_together() -> None:
    user, value = np.array([1, 1, 1, 2]), np.array([1.0, 1.0, 1.0, 5.0])
    found = UserBootstrap(user, value > 2, 0, 200).mean(value)
    assert set(found.tolist()) == {1.0, 2.0, 5.0}  # twice the first, both, twice the second


def test_intervals_are_of_means_over_seeds(tmp_path: Path) -> None:
    from benchmarks.evidence_cells import cells_of
    from benchmarks.evidence_intervals import intervals_of
    from benchmarks.evidence_rows import ORIGINAL, REHEARSED

    (cell,) = cells_of(made_up(tmp_path), ["t5"], [0.05], [3001, 3002], None)
    found = intervals_of(cell, 50)
    assert ORIGINAL not in found
    assert found[REHEARSED].residual == pytest.approx([0.1 * 0.5 + 0.05 / 0.4 * 0.4] * 2, abs=0.06)
    assert found[REHEARSED].lost == [0, 0]


def test_a_report_shows_what_is_there_and_says_what_is_not(tmp_path: Path) -> None:
    from benchmarks.evidence_plots import plots
    from benchmarks.evidence_tables import document, missing

    store = made_up(tmp_path)
    found = summaries_of(store)
    pictures = plots(found)
    assert list(pictures) == ["closed", "residual", "cost"]
    for picture in pictures.values():
        ElementTree.fromstring(picture)
    text = document(found, {"closed": "e-closed.svg"})
    assert "![closed](e-closed.svg)" in text
    assert "### ml-100k, tiny-t5, 5% (2 users)" in text
    assert "| Retrain, another seed " in text
    own = Namespace(setups=["t5"], seeds=[3001, 3003], sizes=[0.05], only=["CrossFit"])
    assert missing(found, store, own) == (
        "Missing: t5, seed 3001, 5% (CrossFit), t5, seed 3003, 5% (all): it diverged / not yet."
    )
    own.sizes, own.seeds = [0.05, 0.2], [3001, 3007, 3008]
    assert missing(found, store, own) == (
        "Missing: t5, seed 3001, 5% (CrossFit), t5, seeds 3007, 3008 (all), "
        "t5, seed 3001, 20% (all): it diverged / not yet."
    )
    own.seeds = [3007, 3008]
    assert missing(found, store, own) == "Missing: t5, all seeds and sizes (all): not yet."
    own.only, own.seeds, own.sizes = ["E2URec, alpha 2"], [3001], [0.05]
    assert missing(found, store, own) == ""
    assert document([], {}) == "Nothing is measured yet."


def digests(**other: str) -> dict[tuple[str, str], str]:
    """Of the made-up rows, as if today's settings were theirs but for some."""
    from benchmarks.evidence_rows import ROWS

    return {("t5", name): "same" for name in ROWS} | {("t5", k): v for k, v in other.items()}


def test_kept_figures_show_what_the_measured_rows_do(tmp_path: Path) -> None:
    from benchmarks.evidence_summary import joined, read, write
    from benchmarks.evidence_tables import document

    found, file = summaries_of(made_up(tmp_path)), tmp_path / "r.jsonl"
    assert read(file, digests()) == []
    write(file, found)
    kept = read(file, digests())
    assert document(joined([], kept), {}) == document(found, {})
    assert document(joined(found, kept), {}) == document(found, {})
    assert len(file.read_text().splitlines()) == 5


def test_kept_figures_of_more_seeds_stay_and_those_of_other_settings_go(tmp_path: Path) -> None:
    from benchmarks.evidence_rows import PAPER, REHEARSED
    from benchmarks.evidence_store import Place, Said
    from benchmarks.evidence_summary import joined, read, write

    store, file = made_up(tmp_path), tmp_path / "r.jsonl"
    write(file, summaries_of(store))
    said = Said(np.array([0.5, 0.6, 0.4, 0.7]), np.array([0.5, 0.6, 0.4, 0.7]))
    store.add(Place("t5", 0.05, 3001, "CrossFit"), row_of(0.7), said)
    (one,) = joined(summaries_of(store, [3001]), read(file, digests()))
    assert {name: len(row.seeds) for name, row in one.rows.items()} == {
        "Original": 2, "Retrain": 2, "Retrain, another seed": 2, PAPER: 2, REHEARSED: 2,
        "CrossFit": 1,
    }  # fmt: skip
    (old,) = read(file, digests(**{PAPER: "other"}))
    assert PAPER not in old.rows
    assert read(file, digests(Original="other")) == []


def test_kept_figures_of_another_model_are_no_row_of_the_same_table(tmp_path: Path) -> None:
    from benchmarks.evidence_summary import joined, read, write

    found, file = summaries_of(made_up(tmp_path)), tmp_path / "r.jsonl"
    write(file, found)
    file.write_text(file.read_text().replace('"forget_auc": 0.8,', '"forget_auc": 0.81,', 1))
    with pytest.raises(
        InputError, match=r"Original of ml-100k, tiny-t5, 5% \(2 users\), seed 3001"
    ):
        joined(found, read(file, digests()))


def test_tables_are_written_between_marks_alone(tmp_path: Path) -> None:
    from benchmarks.given import filled

    page = tmp_path / "page.md"
    page.write_text("a\n<!-- evidence -->\nold\n<!-- /evidence -->\nz\n")
    told = filled(page, "evidence", "new")
    assert told == "a\n<!-- evidence -->\n\nnew\n\n<!-- /evidence -->\nz\n"
    page.write_text("a\n")
    with pytest.raises(InputError, match="add them"):
        filled(page, "evidence", "new")


def test_requests_are_fresh_and_nobody_of_them_is_rehearsed(small_config: Any) -> None:
    from benchmarks.evidence_rows import SIZES, fresh_requests
    from recbole_e2urec.tuning import development_request

    config = small_config("E2URec", control_users=0, forget_ratio=0.1)
    dataset = load_dataset(config)
    parts = parts_of(config, dataset)
    user = dataset.rows.user
    found, again = (fresh_requests(config, dataset, parts, sizes) for sizes in (SIZES, [0.2]))
    used = set(user[request_of(config, dataset, parts).split.forget].tolist())
    used |= {dataset.ids.users[token] for (token,) in development_request(config, dataset)[1]}
    for size, asked in found.fresh.items():
        users = set(user[asked.split.forget].tolist())
        assert len(users) == max(1, round(size * 24))
        assert not users & used
        assert not np.isin(user[found.away.split.retain], [*users]).any()
        assert np.array_equal(asked.rows, again.fresh[size].rows)
    assert np.array_equal(found.away.rows, again.away.rows)
    by_item = small_config("E2URec", control_users=0, forget_by="item")
    with pytest.raises(InputError, match="name users, not items"):
        fresh_requests(by_item, dataset, parts, SIZES)


@pytest.mark.slow
def test_the_small_evidence_measures_every_row_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.evidence_rows import ROWS

    page = Path("page.md")
    page.write_text("<!-- evidence -->\n<!-- /evidence -->\n")
    given = ["--small", "--checkpoint_dir=out", "--setups", "t5", "--seeds", "1", "2", "--sizes"]
    given += ["0.05", "0.2", "--trials=1", "--resamples=20", "--rehearsed=0.2", "--write=page.md"]

    def run(*more: str) -> str:
        monkeypatch.setattr(sys, "argv", ["evidence", *given, *more])
        runpy.run_module("benchmarks.evidence", run_name="__main__")
        return capsys.readouterr().out

    assert run().count("forget AUC, residual") >= 28  # 7 rows, 2 sizes, 2 seeds; 2 may be refused
    lines = Path("out/evidence/rows.jsonl").read_text().splitlines()
    rows = {(row["seed"], row["size"], row["row"]): row for row in map(json.loads, lines)}
    assert len(rows) == len(lines) == len(ROWS) * 2 * 2
    stages = {rows[1, size, "Original"]["stage"] for size in (0.05, 0.2)}
    assert len(stages) == 1
    assert rows[1, 0.05, "Retrain"]["stage"] != rows[1, 0.2, "Retrain"]["stage"]
    asked = {rows[seed, 0.2, "Original"]["request_digest"] for seed in (1, 2)}
    assert len(asked) == 1
    text = page.read_text()
    assert "![closed](page-closed.svg)" in text
    for name in ("closed", "residual", "cost"):
        ElementTree.parse(f"page-{name}.svg")
    again = run("--report")
    assert "forget AUC, residual" not in again
    assert page.read_text() == text
    assert Path("out/evidence/rows.jsonl").read_text().splitlines() == lines
    Path("out/evidence/rows.jsonl").write_text("\n".join(lines[:-1]) + "\n")  # as if killed
    assert run().count(", TokenReset: ") == 1
