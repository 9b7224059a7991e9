"""Bad data, bad requests and a full disk, from the command line: one line, code 2, no leftovers."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import as_arguments

from recbole_e2urec import cli
from recbole_e2urec.report.report import main as report

ALWAYS = {"dataset": "small", "title_field": "movie_title", "show_progress": False, "epochs": 1}


def refusal(capfd: pytest.CaptureFixture[str], data: Path, **settings: Any) -> str:
    """Run the main job, which must refuse in one line, and leave no result; gives the line."""
    given = {"data_path": data, **ALWAYS, **settings}
    assert cli.main(as_arguments(given)) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("recbole-e2urec: error: ")
    left = [path for path in Path("saved").rglob("*") if path.is_file() and path.suffix != ".log"]
    assert left == []
    return lines[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "forget.csv names nobody; give one user token a line"),
        ("user_id\n\n", "forget.csv names nobody"),
        ("u1\nnobody\n", "(line 2); remove them"),
        ("user_id,item_id\nu1,i999\n", "(line 2); remove them"),
        ("u1,i1,5\n", "columns do not fit forget_by 'user'"),
        ("user_id\n" + "".join(f"u{user}\n" for user in range(24)), "names all"),
        ("user_id,item_id\nu1\n", "1 columns where 2 were expected"),
    ],
)
def test_a_forget_file_that_does_not_do(
    text: str, message: str, small_data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("forget.csv").write_text(text, encoding="utf-8")
    assert message in refusal(capfd, small_data, forget_file="forget.csv")


def test_a_forget_file_that_names_nobody_in_training(
    small_data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    table = (small_data / "small" / "small.inter").read_text(encoding="utf-8").splitlines()
    newest = max((line for line in table if line.startswith("u1\t")), key=lambda x: x.split()[3])
    user, item = newest.split()[:2]  # the user's last row: a test row
    Path("forget.csv").write_text(f"user_id,item_id\n{user},{item}\n", encoding="utf-8")
    message = refusal(capfd, small_data, forget_file="forget.csv")
    assert "nothing that it names is in the training part" in message


def edit(data: Path, change: Callable[[list[list[str]]], None], suffix: str = "inter") -> None:
    """Change the cells of an atomic file of ``small``."""
    path = data / "small" / f"small.{suffix}"
    cells = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    change(cells)
    path.write_text("\n".join("\t".join(line) for line in cells) + "\n", encoding="utf-8")


def cell(line: int, column: int, value: str) -> Callable[[list[list[str]]], None]:
    """Put a value into one cell."""

    def change(cells: list[list[str]]) -> None:
        cells[line][column] = value

    return change


def without(column: int) -> Callable[[list[list[str]]], None]:
    """Drop a column."""

    def change(cells: list[list[str]]) -> None:
        for line in cells:
            del line[column]

    return change


def all_five(cells: list[list[str]]) -> None:
    """Give every row the same rating."""
    for line in cells[1:]:
        line[2] = "5"


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (cell(3, 2, "good"), ("rating", "'good'", "line 4")),
        (cell(5, 3, "2021-02-03"), ("timestamp", "'2021-02-03'", "line 6")),
        (without(1), ("item_id",)),
        (without(2), ("no labels", "rating")),
        (all_five, ("every rating is 5", "ratings that differ")),
    ],
)
def test_data_that_the_job_cannot_use(
    change: Callable[[list[list[str]]], None],
    parts: tuple[str, ...],
    small_data: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    edit(small_data, change)
    message = refusal(capfd, small_data)
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"answer_yes": "very likely"}, "the answer word 'very likely' is not one token"),
        ({"answer_yes": "No"}, "are the same token"),
        ({"user_fields": "[shoe_size]"}, "no column 'shoe_size'"),
        ({"eval_args": "{'split': {'RS': [1, 0, 0]}}"}, "leaves no test rows"),
        ({"eval_args": "{'split': {'RS': [0.9, 0.1, 0]}}"}, "leaves no test rows"),
        ({"control_users": 1.0}, "the share of control users is 1.0"),
        ({"lora_target_modules": "[nose]"}, "['nose'] are no layers of the backbone"),
        ({"backbone_quantization": "4bit"}, "quantised weights cannot learn; choose tuning: lora"),
        ({"backbone_quantization": "2bit"}, "'4bit' or '8bit' or nothing (~) is needed"),
        ({"backbone_chat": "True"}, "backbone_chat: tiny-t5 is made on the spot; leave it out"),
        ({"backbone_attention": "fast"}, "backbone_attention: 'fast' does not do"),
        ({"checkpoint_dir": "saved/small.e2urec-run"}, "the folder that holds the runs' folders"),
        ({"learner": "sgd"}, "E2URec learns by adamw alone"),
        ({"learner": "adamm"}, "learner: 'adamm' does not do; adam or adamw"),
        ({"adam_epsilon": 0}, "adam_epsilon is 0.0; it must be above 0"),
        ({"learning_rate": "~"}, "learning_rate: None does not do; a number"),
        ({"alpha": -1}, "alpha is -1.0; it must be at least 0"),
        ({"alpha": "~"}, "alpha: None does not do; a number"),
        ({"teacher_divergence": 0.24}, "teacher_divergence in the command line is gone; give"),
        ({"calibration": "c.json"}, "calibration in the command line is gone; NegatedE2URec and"),
        ({"own_tokens_only": True}, "own_tokens_only in the command line is gone; it is called"),
        ({"encoding": "klingon"}, "an encoding such as utf-8"),
        ({"normalize_field": "age"}, "a list such as [age]"),
        ({"model": ""}, "--model is empty"),
        ({"model": "BPR", "train_neg_sample_args": "~"}, "BPR learns from pairs"),
        ({"model": "BPR", "embedding_size": 16.5}, "a whole number is needed"),
        ({"model": "SASRec", "MAX_ITEM_LIST_LENGTH": 0}, "a whole number from 1 on"),
        ({"benchmark_filename": "train"}, "benchmark_filename: 'train' does not do; three names"),
        ({"benchmark_filename": "[a, b]"}, "benchmark_filename: ['a', 'b'] does not do; three"),
        ({"benchmark_filename": "[a, a, b]"}, "as in [train, valid, test] for small.train.inter"),
        ({"benchmark_filename": "[a, b, c]"}, "benchmark_filename: there is no file"),
        ({"model": "SASRec", "benchmark_filename": "[]"}, "benchmark_filename: [] does not do"),
        ({"epochs": -1}, "epochs: -1 does not do; a whole number from 0 on"),
        ({"stopping_step": -1}, "stopping_step: -1 does not do; a whole number from 0 on"),
        ({"learning_rate": -1}, "learning_rate: -1 does not do; a number from 0 on"),
        ({"learning_rate": ".nan"}, "learning_rate: nan does not do; a number from 0 on"),
        ({"unlearn_learning_rate": -0.1}, "unlearn_learning_rate: -0.1 does not do"),
        ({"model": "DeepFM", "weight_decay": -1}, "weight_decay: -1 does not do"),
        ({"checkpoint_dir": ""}, "checkpoint_dir: '' does not do; text is needed"),
        ({"seeds": "1-3"}, "seeds: '1-3' does not do; whole numbers from 0 on do"),
        ({"seeds": ""}, "seeds is empty"),
        ({"seeds": f"1,{2**40}"}, "a whole number up to 4294967295"),
        ({"tune": "x"}, "tune: 'x' does not do"),
        ({"model": "FM", "tune": 2}, "tune: there is nothing to try for FM"),
    ],
)
def test_settings_that_do_not_fit_the_data(
    settings: dict[str, Any], message: str, small_data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert message in refusal(capfd, small_data, **settings)


def files(folder: str) -> list[str]:
    """Names of all files below a folder."""
    return sorted(path.name for path in Path(folder).rglob("*") if path.is_file())


@pytest.mark.parametrize("writes", [0, 1, 4])
def test_a_full_disk_leaves_whole_files_and_the_same_command_goes_on(
    writes: int,
    small_data: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = {"data_path": small_data, **ALWAYS}
    command = as_arguments(given)
    room = [writes]

    def flush(handle: int) -> None:
        room[0] -= 1
        if room[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", flush)
        assert cli.main(command) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "No space left on device" in lines[0]
    assert "free some space" in lines[0]
    assert not [name for name in files("saved") if name.endswith(".part")]
    assert "results.jsonl" not in files("saved")
    assert cli.main(command) == 0
    assert "results.jsonl" in files("saved")


@pytest.mark.parametrize("model", ["LLMRec", "FM", "E2URec"])
@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("plain", "checkpoint_dir: cannot make the folder plain: it is a file; name another"),
        ("plain/below", "cannot make the folder plain/below: Not a directory"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_folder_of_results_that_cannot_be_made(
    model: str, folder: str, message: str, small_data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("plain").write_text("a file")
    assert message in refusal(capfd, small_data, model=model, checkpoint_dir=folder)
    assert Path("plain").read_text() == "a file"


@pytest.mark.parametrize(
    "place", ["small.e2urec-run", "small.e2urec-run/log", "small.e2urec-run/log/FM"]
)
def test_a_log_that_cannot_be_made(
    place: str, small_data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = Path("saved") / place
    file.parent.mkdir(parents=True)
    file.write_text("a file")
    assert cli.main(as_arguments({"data_path": small_data, **ALWAYS, "model": "FM"})) == 2
    message = capfd.readouterr().err
    assert f"cannot write {Path('saved/small.e2urec-run/log').resolve()}: " in message
    assert "name another checkpoint_dir" in message


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", "no row of results"),
        ("null", "no row of results"),
        ("{}", "(model: Field required)"),
        ('{"model": 1}', "(model: Input should be a valid string)"),
        ('{"model": "FM", "dataset": "small", "seed": "x"}', "(seed: "),
        ('{"model": "FM", "dataset": "small", "seed": 1, "settings": 2}', "(settings: "),
        ('{"model": "FM", "dataset": "small", "seed": 1, "test": {"auc": "x"}}', "(test.auc: "),
        ('{"model": "FM", "dataset": "small", "seed": 1, "cost": {"steps": NaN}}', "(cost.steps: "),
        ("\udcff", "not utf-8 text"),
    ],
)
def test_a_results_file_that_holds_something_else(
    line: str, message: str, small_data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("other").mkdir()
    path = Path("other/results.jsonl")
    path.write_text(f"{line}\n", encoding="utf-8", errors="surrogateescape")
    content = path.read_bytes()
    run = refusal(capfd, small_data, model="FM", checkpoint_dir="other")
    assert cli.main(["export", "--output=shop", "--checkpoint_dir=other"]) == 2
    exported = capfd.readouterr().err
    assert report([str(path)]) == 2
    for said in (run, exported, capfd.readouterr().err):
        assert len(said.splitlines()) == 1
        assert f"{path}, line 1: " in said
        assert message in said
    assert path.read_bytes() == content
    assert [found.name for found in Path("other").iterdir()] == ["results.jsonl"]
