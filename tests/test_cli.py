import os
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest

from recbole_e2urec import __version__, cli
from recbole_e2urec.errors import DISK_ERRORS, InputError

ROOT = Path(__file__).parent.parent


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Put recorders in the place of the run and of its report."""
    seen: list[dict[str, Any]] = []

    def run(**given: Any) -> dict[str, Any]:
        seen.append(given)
        return {"rows": []}

    quick_start = types.ModuleType("recbole_e2urec.quick_start")
    quick_start.run_recbole_e2urec = run  # type: ignore[attr-defined]
    report = types.ModuleType("recbole_e2urec.report.report")
    report.print_report = lambda results: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, quick_start.__name__, quick_start)
    monkeypatch.setitem(sys.modules, report.__name__, report)
    return seen


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run(**given: Any) -> None:
        raise error

    module = sys.modules["recbole_e2urec.quick_start"]
    monkeypatch.setattr(module, "run_recbole_e2urec", run)


def test_parse_reads_names_files_and_settings() -> None:
    found = cli.parse(["-m", "FM", "--dataset=ml-1m", "--config_files=a.yaml b.yaml", "--epochs=3"])
    assert found == cli.Arguments("FM", "ml-1m", ["a.yaml", "b.yaml"], {"epochs": "3"})


def test_parse_keeps_everything_after_the_first_equals_sign() -> None:
    assert cli.parse(["--prompt=a=b --c"]).settings == {"prompt": "a=b --c"}


def test_parse_takes_dry_run_without_a_value() -> None:
    assert cli.parse(["--dry_run", "--seed=1"]).settings == {"dry_run": "True", "seed": "1"}
    assert cli.parse(["--dry_run=False"]).settings == {"dry_run": "False"}


def test_parse_takes_config_files_as_separate_words() -> None:
    assert cli.parse(["--config_files", "a.yaml", "b.yaml", "--seed=1"]).config_files == [
        "a.yaml",
        "b.yaml",
    ]


def test_parse_takes_a_file_name_with_a_space(tmp_path: Path) -> None:
    (tmp_path / "my run.yaml").touch()
    assert cli.parse(["--config_files=my run.yaml"]).config_files == ["my run.yaml"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--epochs", "3"], "--epochs has no value; write --epochs=3, with an equals sign"),
        (["--epochs"], "write --epochs=value"),
        (["--epochs", "--seed=1"], "write --epochs=value"),
        (["ml-1m"], "unexpected argument 'ml-1m'; settings are written --key=value"),
        (["-x"], "unexpected argument '-x'"),
        (["--case"], "'--case'; a command comes first: recbole-e2urec case"),
        (["--seed=1", "case"], "a command comes first: recbole-e2urec case"),
        (["rehearse", "--trials=3"], "rehearse is gone; NegatedE2URec and TaskVector set how"),
        (["--a=1", "--a=2"], "--a is given twice, with different values; keep one"),
        (["--model"], "expected one argument; see recbole-e2urec --help"),
    ],
)
def test_parse_says_how_to_type_it(argv: list[str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        cli.parse(argv)
    assert message in str(caught.value)


def test_main_hands_over_what_was_typed(runs: list[dict[str, Any]]) -> None:
    assert cli.main(["--model=FM", "--forget_file=a=b.csv", "--seed=007"]) == 0
    assert runs == [
        {
            "model": "FM",
            "dataset": None,
            "config_file_list": [],
            "overrides": {"forget_file": "a=b.csv", "seed": "007"},
        }
    ]


def test_a_command_takes_its_own_arguments_with_and_without_an_equals_sign() -> None:
    found = cli.parse(["case", "--user", "007", "--topk=3", "--seed=1", "-d", "ml-1m"])
    assert (found.command, found.command_arguments) == ("case", {"user": "007", "topk": "3"})
    assert (found.dataset, found.settings) == ("ml-1m", {"seed": "1"})
    assert cli.parse(["--seed=1"]).command is None


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["hyper", "--dry_run"], "dry_run: hyper has no dry run; drop it"),
        (["hyper", "--dry_run=TRUE"], "dry_run: hyper has no dry run"),
        (["case", "--config_files=f.yaml"], "dry_run: case has no dry run"),
        (["export", "--output=o", "--dry_run=true"], "dry_run: export has no dry run"),
        (["recommend", "--dry_run=maybe"], "dry_run: 'maybe' does not do; True or False"),
        (["verify", "--dry_run", "c.json"], "dry_run: verify has no dry run"),
        (["hyper", "--config_files=p.yaml"], "--purge follows a run on a request; drop it"),
    ],
)
def test_a_switch_that_a_command_does_not_have_is_refused(
    argv: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "f.yaml").write_text("dry_run: True\n")
    (tmp_path / "p.yaml").write_text("purge: True\n")
    before = sorted(tmp_path.iterdir())
    assert cli.main(argv) == 2
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_a_commands_help_says_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["hyper", "--help"])
    shown = capsys.readouterr().out
    assert all(f"--{name} VALUE" in shown for name in ("params_file", "algo", "max_evals"))


def test_main_gives_bad_input_one_line_and_code_2(
    runs: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, InputError("forget_ratio: 2\nis too much"))
    assert cli.main(["--model=E2URec"]) == 2
    assert capsys.readouterr().err == "recbole-e2urec: error: forget_ratio: 2 is too much\n"


@pytest.mark.parametrize("code", sorted(DISK_ERRORS))
def test_main_gives_an_error_of_a_disk_one_line_and_code_2(
    code: int,
    runs: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    failing(monkeypatch, OSError(code, os.strerror(code), "log/FM.log"))
    assert cli.main(["--model=E2URec"]) == 2
    assert capsys.readouterr().err == (
        f"recbole-e2urec: error: cannot write log/FM.log: {os.strerror(code)}\n"
    )


def test_disk_errors_are_a_full_or_protected_disk_and_names_of_something_else() -> None:
    assert {os.strerror(code) for code in DISK_ERRORS} == {
        "No space left on device",
        "Disk quota exceeded",
        "Read-only file system",
        "Permission denied",
        "Operation not permitted",
        "File exists",
        "File name too long",
        "Is a directory",
        "Not a directory",
        "Too many levels of symbolic links",
    }


def test_main_lets_a_bug_show_its_traceback(
    runs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, KeyError("bug"))
    with pytest.raises(KeyError):
        cli.main(["--model=E2URec"])


def test_main_gives_an_interruption_code_130(
    runs: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, KeyboardInterrupt())
    assert cli.main(["--model=E2URec"]) == 130
    assert "the same command goes on" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["--version"], ["forget", "--version"]])
def test_version_is_that_of_the_package(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(argv)
    assert capsys.readouterr().out == f"recbole_e2urec {__version__}\n"


def test_help_names_the_main_keys(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(f"--{key}=" in text for key in ("forget_ratio", "backbone", "eval_mode"))


def test_help_answers_in_under_a_second() -> None:
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "run_recbole_e2urec.py", "--help"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    assert time.perf_counter() - started < 1


def test_parsing_imports_nothing_heavy() -> None:
    code = (
        "import sys, io, contextlib; from recbole_e2urec.cli import parse; parse(['--a=1'])\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "    parse(['--help'])\n"
        "print({'torch', 'recbole', 'numpy', 'pandas', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--model=DepFM"], "unknown model 'DepFM'; did you mean 'DeepFM'?"),
        (
            ["--dataset=ml-101k"],
            "there is no dataset/ml-101k/ml-101k.inter; did you mean 'ml-100k'?",
        ),
        (["--forget_ration=1"], "did you mean 'forget_ratio'?"),
        (["--model=FM", "--epochs=many"], "epochs: 'many' does not do"),
        (["--config_files=no.yaml"], "cannot read the config file no.yaml"),
    ],
)
def test_main_answers_a_real_mistake_in_one_line(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(argv) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("recbole-e2urec: error: ")
    assert message in lines[0]


def test_a_mistyped_argument_ends_the_process_with_code_2_and_no_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "run_recbole_e2urec.py", "--epochs"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "recbole-e2urec: error: --epochs has no value; write --epochs=value, with an equals sign\n"
    )
