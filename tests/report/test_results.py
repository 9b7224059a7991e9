import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from recbole_e2urec.errors import InputError
from recbole_e2urec.report.results import load_rows, save_rows

PATH = Path("saved/results.jsonl")


def row(**more: Any) -> dict[str, Any]:
    return {"model": "E2URec", "dataset": "small", "seed": 1, "stage": "a", "request": "r", **more}


def test_rows_are_json_lines_and_a_row_of_the_same_key_is_replaced() -> None:
    save_rows(PATH, [row(auc=0.5), row(seed=2)])
    save_rows(PATH, [row(auc=0.75), row(request="other")])
    lines = [json.loads(line) for line in PATH.read_text(encoding="utf-8").splitlines()]
    assert lines == [row(seed=2), row(auc=0.75), row(request="other")]
    assert load_rows(PATH) == lines


def test_a_classic_model_of_other_settings_replaces_nothing() -> None:
    classic = {"model": "DeepFM", "dataset": "small", "seed": 1, "settings": {"epochs": 1}}
    other = {**classic, "settings": {"epochs": 2}}
    save_rows(PATH, [classic])
    save_rows(PATH, [other])
    save_rows(PATH, [{**classic, "test": {"auc": 0.5}}])
    assert load_rows(PATH) == [other, {**classic, "test": {"auc": 0.5}}]


def test_an_absent_file_has_no_rows() -> None:
    assert load_rows(PATH) == []


def test_a_line_that_is_no_row_is_named_and_the_file_stays() -> None:
    save_rows(PATH, [row()])
    PATH.write_text(PATH.read_text() + '{"model": \n')
    before = PATH.read_text()
    with pytest.raises(InputError, match=r"results\.jsonl, line 2: no JSON"):
        save_rows(PATH, [row(seed=2)])
    assert PATH.read_text() == before


def test_a_number_that_json_lacks_is_refused_and_the_file_stays() -> None:
    save_rows(PATH, [row()])
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_rows(PATH, [row(seed=2, auc=float("nan"))])
    assert load_rows(PATH) == [row()]


def write_some(path: Path, seed: int) -> None:
    for stage in range(20):
        save_rows(path, [row(seed=seed, stage=str(stage))])


@pytest.mark.thorough
def test_runs_that_end_at_the_same_time_keep_all_rows() -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_some, args=(PATH.absolute(), n)) for n in (1, 2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert len(load_rows(PATH)) == 40
    assert not list(PATH.parent.glob("*.part"))


def test_a_result_can_be_read_by_whom_the_umask_admits(tmp_path):
    before = os.umask(0o027)
    try:
        save_rows(tmp_path / "results.jsonl", [{"model": "m"}])
    finally:
        os.umask(before)
    assert (tmp_path / "results.jsonl").stat().st_mode & 0o777 == 0o640


def test_a_row_that_is_replaced_is_the_newest_again(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    one, other = ({"model": name, "dataset": "d", "seed": 1, "stage": name} for name in "ab")
    save_rows(path, [one, other])
    save_rows(path, [one])
    assert [row["model"] for row in load_rows(path)] == ["b", "a"]
