"""The main job from end to end: what a run returns, what it writes, and how it refuses."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from atomic_files import RUN
from command_line import as_arguments

from recbole_e2urec import cli
from recbole_e2urec.quick_start import run_recbole_e2urec
from recbole_e2urec.report.report import print_report

UTILITY = ("test", "forget", "retain", "heldout_forget_users", "heldout_other_users")


def settings(data: Path) -> dict[str, Any]:
    return {
        "data_path": str(data),
        "epochs": 2,
        "learning_rate": 0.01,
        "train_batch_size": 32,
        "title_field": "movie_title",
        "show_progress": False,
        "user_fields": [],
    }


@pytest.fixture
def results(small_data: Path) -> dict[str, Any]:
    return run_recbole_e2urec(dataset="small", config_dict=settings(small_data))


def numbers(value: Any) -> Iterator[float]:
    """All numbers in a tree of dicts and lists."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for entry in value:
            yield from numbers(entry)
    elif isinstance(value, int | float):
        yield value


def test_a_run_measures_original_retrain_and_the_unlearned_model(
    results: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = results["rows"]
    assert [row["model"] for row in rows] == ["Original", "Retrain", "NegatedE2URec"]
    for row in rows:
        for group in UTILITY:
            assert {"auc", "acc", "logloss", "rows"} == set(row[group])
            assert row[group]["rows"] == results["groups"][group]
        assert set(row["to_retrain"]) == {"jsd", "jeffreys_half", "l2", "residual"}
        assert 0 <= row["mia_auc"] <= 1
        assert {"seconds", "relative_to_retrain", "trained_parameters", "steps"} <= set(row["cost"])
        assert all(math.isfinite(number) for number in numbers(row))
        assert {"model", "dataset", "backbone", "seed", "stage", "settings"} <= set(row)
    original, retrain, unlearned = (row["to_retrain"] for row in rows)
    assert original["residual"] == 1.0
    assert retrain == {"jsd": 0.0, "jeffreys_half": 0.0, "l2": 0.0, "residual": 0.0}
    assert unlearned["jsd"] > 0
    assert unlearned["jsd"] != original["jsd"]
    assert rows[1]["cost"]["relative_to_retrain"] == 1.0
    costs = [row["cost"] for row in rows]
    adapter = costs[2]["adapter_parameters"]
    assert costs[2]["trained_parameters"] == 2 * adapter  # the direction, and the student
    assert "adapter_parameters" not in costs[0]

    lines = Path(results["results_file"]).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == json.loads(json.dumps(rows))
    print_report(results)
    shown = capsys.readouterr().out
    assert all(
        name in shown for name in ("Original", "Retrain", "NegatedE2URec", "MIA AUC", "residual")
    )


def test_another_request_adds_rows_though_original_is_the_same(small_data: Path) -> None:
    for ratio in (0.2, 0.4):
        more = {"forget_by": "interaction", "forget_ratio": ratio}
        made = run_recbole_e2urec(dataset="small", config_dict={**settings(small_data), **more})
    rows = [json.loads(line) for line in Path(made["results_file"]).read_text().splitlines()]
    originals = [row for row in rows if row["model"] == "Original"]
    assert len(rows) == 6
    assert len({row["stage"] for row in originals}) == 1
    assert len({row["forget"]["rows"] for row in originals}) == 2


def test_another_seed_adds_rows_and_a_rerun_trains_nothing(small_data: Path) -> None:
    def models(**more: Any) -> list[str]:
        given = {**settings(small_data), "epochs": 1, **more}
        path = run_recbole_e2urec(dataset="small", config_dict=given)["results_file"]
        return [json.loads(line)["model"] for line in Path(path).read_text().splitlines()]

    def stages() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (RUN / "stages").glob("*/[!.]*")}

    three = ["Original", "Retrain", "NegatedE2URec"]
    assert models(seed=1) == three
    assert models(seed=2) == three * 2
    made = stages()
    assert len(made) == 2 * 4 * 2  # seeds, stages, files
    assert models(seed=1) == three * 2
    assert stages() == made


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model=E2URek"], "unknown model 'E2URek'; did you mean 'E2URec'?"),
        (["--backbone=tiny-t6"], "'tiny-t6' cannot be loaded; did you mean 'tiny-t5'?"),
        (["--forget_ratio=1.5"], "forget_ratio is 1.5; give a share between 0 and 1"),
        (["--forget_file=no.csv"], "cannot read no.csv"),
        (["--forget_by=users"], "did you mean 'user'"),
        (["--beta=2"], "beta is 2.0; it must be in [0, 1]"),
        (["--tuning=loraa"], "'full' or 'lora' is needed"),
        (["--prompt=plane"], "did you mean 'plain'"),
        (["--history_length=-1"], "history_length is -1; give 0 or more"),
        (["--title_field=title"], "no column 'title'; did you mean 'movie_title'?"),
        (["--config_files=bad.yaml"], "bad.yaml, line 2: not valid yaml"),
        (["--learning_rate=1e9"], "the loss became NaN; try a smaller learning rate"),
    ],
)
def test_a_mistake_in_the_request_is_one_line_and_code_2(
    arguments: list[str], message: str, small_data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("bad.yaml").write_text("metrics: [AUC\nseed: 1\n", encoding="utf-8")
    given = {**settings(small_data), "dataset": "small"}
    typed = [argument.split("=")[0].removeprefix("--") for argument in arguments]
    rest = as_arguments({key: value for key, value in given.items() if key not in typed})
    assert cli.main([*arguments, *rest]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("recbole-e2urec: error: ")
    assert message in lines[0]
    assert not Path("saved/results.jsonl").exists()
