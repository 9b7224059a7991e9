"""The benchmark of requests in a row: what it draws, asks and shows."""

import json
import os
import runpy
import shutil
import sys
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from command_line import write
from in_use import QUICK, forget_users, opened

from recbole_e2urec.deployment.forget import QueueOptions, forget
from recbole_e2urec.deployment.model_folder import ModelFolder
from recbole_e2urec.errors import InputError

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(CHECKOUT))


def test_requests_are_of_four_kinds_and_each_names_new_users(in_use: Path) -> None:
    from benchmarks.queueing import draw_requests

    run = opened()
    requests, again, other = (draw_requests(run, 10, 2, seed) for seed in (1, 1, 2))
    kinds = [request.kind for request in requests]
    assert kinds[0] == "deletion"
    assert [kinds.count(kind) for kind in ("deletion", "correction", "again", "overlap")] == [
        5, 2, 2, 1
    ]  # fmt: skip
    named = np.concatenate([request.users for request in requests])
    assert len(set(named.tolist())) == len(named)
    assert np.isin(named, run.dataset.rows.user[run.live]).all()
    texts = [request.text for request in requests]
    assert [request.text for request in again] == texts
    assert [request.text for request in other] != texts
    for place, request in enumerate(requests):
        assert 1 <= len(request.users) <= 2 or request.kind == "again"
        assert (request.text in texts[:place]) == (request.kind == "again")
    heads = {request.text.split()[0] for request in requests if request.command == "correct"}
    assert heads == {"user_id,item_id,new_rating", "user_id,item_id,new_user_id"}
    with pytest.raises(InputError, match="of 24 users; ask for less"):
        draw_requests(run, 40, 10, 1)


def test_requests_that_are_lost_or_done_twice_are_found(in_use: Path) -> None:
    from benchmarks.queueing import check_alike

    shutil.copytree("model", "killed")
    folders = ModelFolder("model"), ModelFolder("killed")
    for folder in folders:
        forget(
            QueueOptions(str(folder.path), write(Path("r.csv"), "user_id\nu1\n")), "NegGrad", QUICK
        )
    assert check_alike(*folders, 1, {1}) == {"requests": 1, "trainings": 0, "verified": 1}
    forget_users("u2", model="NegGrad")
    for count in (1, 2):
        with pytest.raises(RuntimeError, match=rf"differ from the others: \[2, 1\] of {count}"):
            check_alike(*folders, count, ())


def test_the_cost_of_a_request_has_its_share_of_all_trainings() -> None:
    from benchmarks.queueing import spread_of

    def row(total: float, training: float | None) -> dict[str, object]:
        return {
            "model": "M", "kind": "deletion", "seconds": {"total": total},
            "training_seconds": training,
        }  # fmt: skip

    requests = [row(10.0, None), *[row(2.0, None)] * 9, row(102.0, 100.0), row(62.0, 60.0)]
    lines = [line.split("|")[2:-1] for line in spread_of(requests).splitlines()[2:]]
    # a training takes 80 s: 10 / 80; 28 / 10 / 80; 192 / 12 = 16, of it 160 / 12
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["1", "10.0", "0", "0.0", "0.125"],
        ["10", "2.8", "0", "0.0", "0.035"],
        ["12", "16.0", "2", "13.3", "0.200"],
    ]


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


@pytest.mark.thorough
def test_the_small_benchmark_survives_kills_and_goes_on(capsys, monkeypatch) -> None:
    given = ["--size=small", "--folder=out", "--kills=4", "--methods", "E2URec"]
    monkeypatch.setattr(sys, "argv", ["queueing", *given])
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT), prepend=os.pathsep)
    runpy.run_module("benchmarks.queueing", run_name="__main__")
    shown = capsys.readouterr().out
    folder = Path("out/8-requests-1-default-2e-06")
    lines = (folder / "measured.jsonl").read_text().splitlines()
    rows = {row["key"]: row for row in map(json.loads, lines)}
    own = [rows[f"E2URec {number}"] for number in range(1, 9)]
    trainings = [row["trained_anew"] for row in own].count(True)
    assert trainings >= 1
    assert [row["seconds"].get("in_place") is None for row in own] == [
        row["kind"] == "again" for row in own
    ]
    assert rows["Original 1"]["drift"] == 0 < rows["Retrain, next seed 8"]["drift"]
    killed = rows["E2URec, 4 killed"]
    assert 1 <= sum(killed["killed"].values()) <= 4
    verified = killed["check"].pop("verified")
    assert 1 <= verified <= 5
    assert killed["check"] == {"requests": 7, "trainings": trainings}
    ElementTree.parse(folder / "queue.svg")
    assert "| E2URec" in shown
    runpy.run_module("benchmarks.queueing", run_name="__main__")
    assert (folder / "measured.jsonl").read_text().splitlines() == lines
