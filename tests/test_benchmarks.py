"""The benchmarks run, on small data, and go on where they were."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from recbole_e2urec.errors import InputError

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


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a benchmark on the data that it makes itself; gives what it prints."""
    monkeypatch.syspath_prepend(str(CHECKOUT))

    def module(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, "--small", *arguments])
        runpy.run_module(f"benchmarks.{name}", run_name="__main__")
        return capsys.readouterr().out

    return module


def test_bad_input_is_one_line(run: Run) -> None:
    with pytest.raises(SystemExit, match=r"^error: .*unknown dataset"):
        run("seeds.py", "--dataset=ml-10m0")


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
