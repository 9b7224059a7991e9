"""The benchmarks run, on small data, and go on where they were."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from recbole_e2urec.config import Config
from recbole_e2urec.errors import InputError
from recbole_e2urec.methods import method_of

CHECKOUT = Path(__file__).parents[1]
SMALL = ("--dataset=small", "--epochs=1", "--joint_epochs=1")
Run = Callable[..., str]


@pytest.fixture
def run(
    small_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Run a benchmark as a script in the current folder; gives what it prints."""
    monkeypatch.syspath_prepend(str(CHECKOUT))

    def script(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, f"--data_path={small_data}", *arguments])
        runpy.run_path(str(CHECKOUT / "benchmarks" / name), run_name="__main__")
        return capsys.readouterr().out

    return script


def test_seeds_prints_a_line_a_seed_their_mean_and_the_floor(run: Run) -> None:
    shown = run("seeds.py", *SMALL, "--seeds", "1", "2").splitlines()
    assert [line.split()[0] for line in shown[-4:]] == ["1", "2", "mean", "noise"]


def test_choose_strength_names_a_setting_of_its_grid(run: Run) -> None:
    grid = ["--seeds", "1", "--teacher_divergence", "0.1", "0.2", "--beta", "0.5"]
    shown = run("choose_strength.py", *SMALL, *grid)
    assert shown.count("mean: closed") == 2
    assert "chosen: " in shown


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a benchmark on the data that it makes itself; gives what it prints."""
    monkeypatch.syspath_prepend(str(CHECKOUT))

    def module(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, "--small", *arguments])
        runpy.run_module(f"benchmarks.{name}", run_name="__main__")
        return capsys.readouterr().out

    return module


@pytest.mark.slow
def test_ablations_prints_a_table_with_original_and_retrain(small: Run) -> None:
    Path("a.md").write_text("<!-- ablations -->\n<!-- /ablations -->\n")
    small("ablations", "--only", "rank", "--write=a.md")
    shown = Path("a.md").read_text()
    lines = [line.split("|")[1].strip() for line in shown.splitlines() if line.startswith("| ")]
    assert lines == ["", "Original", "Retrain", "E2URec, lora_r: 2", "E2URec, lora_r: 4"]


def test_every_ablation_is_a_run_that_the_settings_allow(
    monkeypatch: pytest.MonkeyPatch, small_config: Callable[..., Config]
) -> None:
    monkeypatch.syspath_prepend(str(CHECKOUT))
    from benchmarks.ablations import PARTS

    for settings in (one for part in PARTS.values() for one in part):
        method_of(small_config("E2URec", **settings))


@pytest.mark.slow
def test_transfer_prints_a_line_for_each_way_of_setting_the_method(small: Run) -> None:
    Path("t.md").write_text("<!-- transfer -->\n<!-- /transfer -->\n")
    shown = small("transfer", "--sizes", "0.2", "--requests=1", "--trials=1", "--write=t.md")
    models = [line.split("|")[4].strip() for line in shown.splitlines() if line.startswith("| 20%")]
    ways = ["Original", "Retrain", "alpha 2", "default"]
    if "nothing to match" not in shown:
        ways.append("rehearsed on 20%")
    assert models == ways
    assert shown.splitlines()[-1] in Path("t.md").read_text()


def test_margin_is_the_nearest_limit_in_standard_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(CHECKOUT / "benchmarks"))
    from choose_strength import Trial, margin, summary_of

    setting = summary_of([Trial(0.6, 0.7, 0.004), Trial(0.8, 0.5, 0.006)])
    assert setting.mean == pytest.approx((0.7, 0.6, 0.005))
    assert setting.error == pytest.approx((0.1, 0.1, 0.001))  # sd over the root of 2
    assert margin(setting) == pytest.approx(2.0)  # closed: 0.2; 5.5 above, residual 4, lost 5
    crossed = summary_of([Trial(1.3, 0.7, 0.004), Trial(1.5, 0.7, 0.004)])
    assert margin(crossed) == pytest.approx(-1.5)
    assert margin(summary_of([Trial(0.7, 0.9, 0.009)])) == pytest.approx(0.1)  # no error is known


def test_targets_has_a_line_a_setting_and_seed_and_stars_the_best_of_each_method(run: Run) -> None:
    shown = run("targets.py", *SMALL, "--seeds", "1", "--only", "E2URec", "E2URecRef")
    lines = [line.split(" | ") for line in shown.splitlines() if line.startswith("| E2")]
    assert [line[1] for line in lines] == ["1", "1", "1", "mean", "mean", "mean"]
    assert [line[2:] for line in lines[:3]] == [line[2:] for line in lines[3:]]  # of one seed
    stars = [line[0] for line in lines if line[0].endswith(" *")]
    assert len(stars) == 2
    assert "| E2URecRef *" in stars


def test_the_best_target_is_near_retrain_among_those_that_cost_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(CHECKOUT))
    from benchmarks.targets import Figures, chosen

    rest = (0.0,) * 5
    means = {
        "near": Figures(0.8, 0.5, 0.009, *rest),  # .2 + .5
        "far": Figures(1.4, 0.4, 0.001, *rest),  # .4 + .4
        "dear": Figures(1.0, 0.1, 0.011, *rest),
        "other": Figures(0.1, 0.9, 0.0, *rest),
    }
    candidates = {name: ("A" if name != "other" else "B", {}) for name in means}
    assert chosen(means, candidates) == {"near", "other"}


@pytest.mark.parametrize("script", ["seeds.py", "choose_strength.py", "targets.py"])
def test_bad_input_is_one_line(run: Run, script: str) -> None:
    with pytest.raises(SystemExit, match=r"^error: .*unknown dataset"):
        run(script, "--dataset=ml-10m0")


def test_regimes_prints_a_table_for_each(small: Run) -> None:
    Path("r.md").write_text("<!-- regimes -->\n<!-- /regimes -->\n", encoding="utf-8")
    shown = small(
        "regimes", "--only", "a", "c", "--seeds=1,2", "--model_list=TaskVector", "--write=r.md",
        "--control_users=0.2",
    )  # fmt: skip
    assert "**ml-100k, the paper's prompt**" in shown
    lines = [line for line in shown.splitlines() if line.startswith("| TaskVector")]
    assert len(lines) == 2
    assert len(lines[0].split("|")) == 2 + 9
    assert "**ml-1m, the paper's prompt and rows**" in Path("r.md").read_text(encoding="utf-8")


def test_regimes_says_where_ml_1m_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import regimes

    monkeypatch.setattr(sys, "argv", ["regimes", "--ml_1m=nowhere"])
    with pytest.raises(InputError, match="--ml_1m: no folder ml-1m in nowhere; make it as docs"):
        regimes.main()
