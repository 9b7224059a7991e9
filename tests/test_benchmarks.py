"""The benchmarks run, on small data, and go on where they were."""

import re
import runpy
import sys
from collections.abc import Callable
from math import isnan
from pathlib import Path

import pandas as pd
import pytest

from recbole_e2urec.errors import InputError

CHECKOUT = Path(__file__).parents[1]
Run = Callable[..., str]


@pytest.fixture(autouse=True)
def _benchmarks_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(CHECKOUT))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a benchmark on the data that it makes itself; gives what it prints."""

    def module(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, "--small", *arguments])
        runpy.run_module(f"benchmarks.{name}", run_name="__main__")
        return capsys.readouterr().out

    return module


def test_bad_input_is_one_line(small: Run) -> None:
    with pytest.raises(SystemExit, match=r"^error: --rows: Nothing is not there; choose from E2"):
        small("regimes", "--rows", "Nothing")


CANDIDATES = """TaskVector:
  model: TaskVector
TaskVector, twice:
  model: TaskVector
  strength: 2.0
"""
QUICK = ("--seeds", "1", "2", "--control_users=0.2", "--candidates=candidates.yaml")


def test_regimes_prints_a_table_for_each_and_goes_on_where_it_was(
    small: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import regime_report

    Path("candidates.yaml").write_text(CANDIDATES, encoding="utf-8")
    Path("r.md").write_text("<!-- regimes -->\n<!-- /regimes -->\n", encoding="utf-8")
    options = (*QUICK, "--requests", "20%", "--checkpoint_dir=kept", "--only", "a", "--seeds", "1")
    with pytest.raises(SystemExit, match="no rows under 3 seeds in kept"):
        small("regimes", *options, "--three_sample")
    options = (*options, "2", "3")
    shown = small("regimes", *options, "--write=r.md")
    assert "**(a) ml-100k, the paper's prompt; 20% of the users**" in shown
    lines = [line for line in shown.splitlines() if line.startswith("| TaskVector")]
    assert len(lines) == 2
    assert len(lines[0].split("|")) == 2 + len(regime_report.HEAD)
    assert "20% of the users" in Path("r.md").read_text(encoding="utf-8")
    measured = Path("kept/regimes.jsonl").read_text(encoding="utf-8")
    assert len(measured.splitlines()) == 3 * 4  # seeds, Original and Retrain too
    again = small("regimes", *options)
    assert "seed 1, TaskVector: forget AUC" not in again  # nothing was missing
    assert again.splitlines()[-1] == shown.splitlines()[-1]
    small("regimes", *options, "--report", "--data=data.csv")
    data = pd.read_csv("data.csv").pivot_table("closed_auc", "row", ["regime", "forgets"])
    assert data["a", "20%"][["Original", "Retrain"]].tolist() == pytest.approx([0, 1])
    assert len(data) == 4
    paid = small("regimes", *options, "--report", "--who_pays").splitlines()
    assert [line.count("|") for line in paid[-6:]] == [13] * 6  # head, rule and four models
    assert set(paid[-4].replace(" ", "").split("|")) == {"", "Original", "0.0000"}

    monkeypatch.setattr(regime_report, "DRAWS", 5)
    tested = small("regimes", *options, "--three_sample")
    words = [
        re.findall(r"^\| (\S.*?) +\|.* (\w+, p \S.*?) +\|$", text, re.MULTILINE)
        for text in (shown, tested)
    ]
    assert [name for name, _ in words[0]] == [
        "Original",
        "Retrain",
        "TaskVector",
        "TaskVector, twice",
    ]
    assert words[0] == words[1]
    assert tested.count("| (a), 20% | ") == 3  # lines of known truth


CLASSIC = """TaskVector:
  model: TaskVector
  requests: [heavy]
DeepFM:
  model: DeepFM
  regimes: [a]
DeepFM-Retrain:
  model: DeepFM-Retrain
  regimes: [a]
"""


@pytest.mark.thorough
def test_regimes_measures_other_requests_and_classic_models_in_two_processes(small: Run) -> None:
    Path("candidates.yaml").write_text(CLASSIC, encoding="utf-8")
    options = (*QUICK, "--checkpoint_dir=kept", "--only", "a", "--requests", "heavy", "items")
    shown = small("regimes", *options, "--processes=2")
    first, second = shown.split("**(a)")[1:]
    assert first.splitlines()[0].endswith("; the most active 1% of the users**")
    assert second.splitlines()[0].endswith("; 5% of the items**")
    models = ["Original", "Retrain", "TaskVector", "DeepFM", "DeepFM-Retrain"]
    for table, names in ((first, models), (second, [*models[:2], *models[3:]])):
        lines = [line.split() for line in table.splitlines() if line.startswith("| ")][1:]
        assert [(words[1], words[3]) for words in lines] == [(name, "2") for name in names]
        closed = {words[1]: words[7] for words in lines}
        assert closed["DeepFM"] in ("0.00", "-")  # beside its own Retrain
        assert closed["DeepFM-Retrain"] in ("1.00", "-")
    named = Path("kept/heavy-synthetic1200-60.csv").read_text(encoding="utf-8").splitlines()
    assert len(named) == 2
    assert "a, heavy, seed 2" not in small("regimes", *options)  # nothing was missing


def test_the_estimate_counts_trainings_and_other_rows() -> None:
    from benchmarks.regimes import _seconds

    missing = {"20%": ["Original", "Retrain", "NPO"], "5%": ["Original", "Retrain", "SISA"]}
    # Original once, two Retrains and 1.3 trainings of SISA at 220 s; 30 s for each of four rows
    assert _seconds("a", missing) == pytest.approx(4.3 * 220 + 4 * 30)


@pytest.mark.parametrize("name", ["0%", "100%", "many", "-5%"])
def test_regimes_refuses_a_request_that_it_does_not_know(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import regimes

    monkeypatch.setattr(sys, "argv", ["regimes", f"--requests={name}"])
    with pytest.raises(SystemExit):
        regimes.main()
    assert f"'{name}' is no share of the users such as 5%" in capsys.readouterr().err


@pytest.mark.thorough
def test_measures_are_judged_by_models_whose_past_is_known(small: Run) -> None:
    shown = small("measures", "--seeds", "1", "2", "--short=1", "--control_users=0.2")
    assert "6 models that saw the rows, as many that did not" in shown
    lines = [line.split("|") for line in shown.splitlines() if line.startswith("| ")]
    assert len(lines) == 1 + 9  # head and measures
    for _, _, *told, verdict, _ in lines[1:]:
        assert all(0 <= float(auc) <= 1 for auc in told)
        assert (verdict.strip() == "fails") == (min(map(float, told)) < 0.8)


@pytest.mark.thorough
def test_regimes_chooses_on_other_users_and_validation_rows(small: Run) -> None:
    Path("candidates.yaml").write_text(CANDIDATES, encoding="utf-8")
    requests = ("--requests", "40%", "20%")
    shown = small(
        "regimes", *QUICK, *requests, "--checkpoint_dir=kept", "--only", "a", "--development"
    )
    (best,) = [line for line in shown.splitlines() if "**TaskVector" in line]
    assert best.startswith("| TaskVector")
    assert all(f"; {size}% of the users**" in shown for size in (20, 40))
    named = Path("kept").glob("development-*.csv")
    assert all(path.read_text(encoding="utf-8").startswith("user_id\n") for path in named)


def test_the_best_candidate_has_the_least_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.regime_report import Figures, badness

    perfect = Figures(0.7, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.1, 0.0, 0.0)
    assert badness(perfect) == 0
    half = perfect._replace(closed_auc=0.5, closed_logloss=1.25, stay_lost=0.002, residual=0.3)
    assert badness(half) == pytest.approx(0.5 + 0.25 + 0.2 + 0.3)
    assert badness(perfect._replace(stay_lost=-0.1)) == 0  # users who stay gain: no merit


def test_the_share_closed_is_of_the_way_to_retrain() -> None:
    from benchmarks.regime_report import share_closed

    assert share_closed(0.7, 0.8, 0.6) == pytest.approx(0.5)
    assert isnan(share_closed(0.7, 0.8, 0.8))
    assert isnan(share_closed(None, 0.8, 0.6))


def test_regimes_says_where_ml_1m_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import regimes

    monkeypatch.setattr(sys, "argv", ["regimes", "--ml_1m=nowhere"])
    with pytest.raises(InputError, match="--ml_1m: no folder ml-1m in nowhere; make it as docs"):
        regimes.main()


def test_foretelling_has_a_line_for_each_number_of_control_users(small: Run) -> None:
    shown = small(
        "foretelling", "--seeds", "1", "--requests", "20%", "--only", "a", "--control_users=0.2"
    )
    lines = [line for line in shown.splitlines() if line.startswith("| a")]
    assert [line.split("|")[3].split()[0] for line in lines] == ["all", "10", "5", "none"]


@pytest.mark.thorough
def test_profiling_shows_where_both_kinds_of_steps_spend_their_time(small: Run) -> None:
    Path("p.md").write_text("<!-- profiling -->\n<!-- /profiling -->\n", encoding="utf-8")
    shown = small("profiling", "--write=p.md")
    assert shown.strip() in Path("p.md").read_text(encoding="utf-8")
    assert shown.index("all weights") < shown.index("a LoRA adapter")
    assert shown.count("aten::mm") == 2


@pytest.mark.thorough
def test_attacks_are_tried_on_every_model(small: Run) -> None:
    Path("a.md").write_text("<!-- attacks -->\n<!-- /attacks -->\n", encoding="utf-8")
    shown = small("attacks", "--seeds", "1", "2", "--control_users=0.2", "--write=a.md")
    lines = [line for line in shown.splitlines() if line.startswith("| ")]
    names = [line.split("|")[1].strip() for line in lines[1:]]
    wanted = ["Original", "Retrain", "Retrain, other seed", "E2URec", "NegatedE2URec"]
    assert sorted(names) == sorted(wanted)
    assert shown.splitlines()[-1] in Path("a.md").read_text(encoding="utf-8")


@pytest.mark.thorough
def test_latency_has_a_line_for_each_method(
    in_use: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--checkpoint=model", "--requests=2", "--commands=1", "--methods", "NegGrad"]
    monkeypatch.setattr(sys, "argv", ["latency", *given])
    before = (in_use / "current.json").read_bytes()
    runpy.run_module("benchmarks.latency", run_name="__main__")
    line = capsys.readouterr().out.splitlines()[-1]
    seconds = [float(cell) for cell in line.split("|")[2:6]]
    assert line.startswith("| NegGrad")
    assert 0 < seconds[2] <= seconds[3] < seconds[0] < seconds[1]  # Python is warm, a command not
    assert (in_use / "current.json").read_bytes() == before


@pytest.mark.parametrize(("dtype", "number"), [("float32", 4), ("bfloat16", 2)])
def test_the_model_of_memory_predicts_what_autograd_keeps(dtype: str, number: int) -> None:
    import torch

    from benchmarks.common import SMALL, random_backbone, untrained
    from benchmarks.scaling import LLAMA_2_7B, Llama, step_bytes

    backbone = random_backbone(Path(), "llama", SMALL, 2000)
    model = untrained(
        Path(), SMALL, backbone=backbone, backbone_dtype=dtype, prompt="plain", tuning="lora",
        lora_r=1, lora_dropout=0.0,
    ).model  # fmt: skip
    own = {weight.data_ptr() for weight in model.language_model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.full((8, 128), 7)
    with (
        model.bank.training(model.adapter),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        loss = model.language_model(ids, torch.ones_like(ids)).mean()
    found = sum(size for place, size in kept.items() if place not in own)
    shape = Llama(SMALL.layers, SMALL.width, 4 * SMALL.width, 2000)
    backward = 3 * number * shape.inner * ids.numel()
    predicted = step_bytes(shape, ids.numel(), number, dropout=False) - backward
    assert found == pytest.approx(predicted, rel=0.1)
    assert loss.requires_grad
    assert LLAMA_2_7B.weights == 6_738_415_616


@pytest.mark.slow
def test_ten_million_rows_take_at_most_four_gigabytes(tmp_path: Path) -> None:
    from benchmarks.scaling import shard_cost

    small, large = (shard_cost(tmp_path, count, 60_400) for count in (1_000_000, 10_000_000))
    assert max(large.prepare_mb, large.run_mb) < 4_000
    assert large.prepare_seconds < 12 * small.prepare_seconds
