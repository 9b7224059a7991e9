"""The benchmark of requests in a row: what it draws, asks and shows."""

import json
import runpy
import sys
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from recbole_e2urec.errors import InputError

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(CHECKOUT))


def test_requests_name_nobody_twice_and_measure_on_users_who_stay(small_config) -> None:
    from benchmarks.queueing import draw_requests
    from recbole_e2urec.data.dataset import load_dataset
    from recbole_e2urec.experiment.run import Experiment

    config = small_config("LLMRec", title_field="movie_title", control_users=0)
    run = Experiment(config, load_dataset(config))
    draw, again, other = (draw_requests(run, 5, 3, seed) for seed in (1, 1, 2))
    named = np.concatenate(draw.users)
    user, splits = run.dataset.rows.user, run.parts.splits
    assert len(set(named.tolist())) == len(named)
    assert all(1 <= len(users) <= 3 for users in draw.users)
    assert not np.isin(user[draw.test], named).any()
    assert not np.isin(user[draw.valid], named).any()
    assert len(draw.test) + np.isin(user[splits.test], named).sum() == len(splits.test)
    for users, rows in zip(draw.users, draw.forget, strict=True):
        assert sorted(rows) == sorted(splits.train[np.isin(user[splits.train], users)])
    assert draw.so_far(2).tolist() == sorted([*draw.forget[0], *draw.forget[1]])
    assert np.array_equal(named, np.concatenate(again.users))
    assert not np.array_equal(named, np.concatenate(other.users))
    with pytest.raises(InputError, match="of 24 users; ask for less"):
        draw_requests(run, 20, 10, 1)


def test_ticks_are_round_values_inside() -> None:
    from benchmarks.lineplots import ticks

    assert ticks(0, 20, 11) == pytest.approx([0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20])
    assert ticks(0.562, 0.594) == pytest.approx([0.57, 0.58, 0.59])
    assert ticks(-0.3, 0.3) == pytest.approx([-0.3, -0.2, -0.1, 0, 0.1, 0.2, 0.3])


def test_long_labels_are_fewer() -> None:
    from benchmarks.lineplots import Line, Panel, svg

    def across(low: float, high: float) -> list[tuple[float, str]]:
        text = svg([Panel("a", [Line("b", [(low, 1.0), (high, 2.0)], 0)])], "x")
        root = ElementTree.fromstring(text)
        shown = [one for one in root.iter() if one.get("y") == "236"]
        return [(float(one.get("x", "")), str(one.text)) for one in shown]

    assert len(across(0, 20)) == 11
    few = across(-0.00103, 0.00304)
    assert 3 <= len(few) < 9
    for (left, one), (right, other) in pairwise(few):
        assert right - left > 3.5 * (len(one) + len(other))


def test_a_plot_is_whole_xml_and_escapes_names() -> None:
    from benchmarks.lineplots import Line, Panel, svg

    panels = [
        Panel("a < b", [Line("<x>", [(0, 1.0), (1, 2.0)], 1), Line("dots", [(1, 1)], 0, True)])
    ]
    text = svg([*panels, Panel("flat", [Line("<x>", [(0, 0.0)], 1)]), Panel("none", [])], "n & m")
    root = ElementTree.fromstring(text)
    words = [one.text for one in root.iter() if one.tag.endswith("text")]
    assert words.count("<x>") == 1  # in the legend alone
    assert "a < b" in words
    assert "n & m" in words


@pytest.mark.slow
def test_the_small_benchmark_measures_every_request_and_goes_on(capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["queueing", "--size=small", "--folder=out"])
    runpy.run_module("benchmarks.queueing", run_name="__main__")
    shown = capsys.readouterr().out
    lines = Path("out/2-requests-1-numbered/measured.jsonl").read_text().splitlines()
    rows = {row["key"]: row for row in map(json.loads, lines)}
    name = "NegatedE2URec"
    assert list(rows) == ["Original 0", "Retrain 1", "Retrain 2", "Original 0 2021",
                          "Retrain 2 2021", "Original on 1", "Original on 2", f"{name} 1",
                          f"{name} 2", f"{name} at once"]  # fmt: skip
    assert rows["Original 0"]["drift"] == 0
    assert rows["Retrain 2"]["residual"] == 0
    assert rows["Original on 2"]["residual"] == 1
    last, at_once = rows[f"{name} 2"], rows[f"{name} at once"]
    assert last["drift"] == pytest.approx(last["told_drift"], abs=1e-6)
    assert at_once["rows"] == rows[f"{name} 1"]["rows"] + last["rows"]
    assert last["forgotten"]["rows"] == at_once["rows"]
    ElementTree.parse("out/2-requests-1-numbered/queue.svg")
    assert shown.count("| NegatedE2URec") == 3
    runpy.run_module("benchmarks.queueing", run_name="__main__")
    assert Path("out/2-requests-1-numbered/measured.jsonl").read_text().splitlines() == lines
