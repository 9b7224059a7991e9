"""``--finalize=DIR --purge``: what forgot becomes a model folder, and nothing else is left."""

import contextlib
import json
import logging
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from atomic_files import RUN
from command_line import as_arguments, write
from in_use import CANARY, CANARY_ITEM, CANARY_TITLE, NAMES, opened, write_data
from recbole.data.utils import create_dataset, data_preparation, save_split_dataloaders

from recbole_e2urec import cli
from recbole_e2urec.config.config import Config
from recbole_e2urec.deployment import forget
from recbole_e2urec.deployment.recommend import load_recommender
from recbole_e2urec.errors import InputError
from recbole_e2urec.quick_start import run_and_finalize, run_recbole_e2urec
from recbole_e2urec.report.results import load_rows
from recbole_e2urec.trainer import llmrec_trainer

GIVEN = {
    "dataset": "small", "title_field": "movie_title", "user_fields": "[age]", "epochs": 1,
    "augmented_epochs": 1, "joint_epochs": 1, "learning_rate": 0.02, "show_progress": False,
    "control_users": 0, "train_batch_size": 64, "prompt": "numbered",
}  # fmt: skip
OUTPUT = ("saved", "log", "log_tensorboard", "wandb", "shop")


def run(*more: str, **settings: Any) -> int:
    return cli.main([*as_arguments({**GIVEN, "data_path": "data", **settings}), *more])


CODES = ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")  # the last: NumPy's text


def contents(path: Path) -> Iterator[bytes]:
    """A file as it is, and what is packed in it."""
    data = path.read_bytes()
    yield data
    if zipfile.is_zipfile(path):  # as torch.save writes
        with zipfile.ZipFile(path) as packed:
            yield from (packed.read(name) for name in packed.namelist())
    for window in (15, 31, -15):  # zlib, gzip, deflate alone
        with contextlib.suppress(zlib.error):
            yield zlib.decompress(data, window)


def holding(*canaries: str) -> set[str]:
    """Files below the folders of output that hold one of these, in any usual encoding."""
    wanted = [canary.encode(code) for canary in canaries for code in CODES]
    paths = (path for top in OUTPUT for path in Path(top).rglob("*") if path.is_file())
    return {str(path) for path in paths if any(w in c for c in contents(path) for w in wanted)}


def files(*folders: str) -> dict[str, int]:
    found = (path for top in folders for path in Path(top).rglob("*"))
    return {str(path): os.stat(path).st_mtime_ns for path in found if path.is_file()}


@pytest.fixture
def request_file(tmp_path: Path) -> str:
    """The data, and a request that names the canary."""
    write_data(tmp_path, names=NAMES)
    return write(tmp_path / "r.csv", f"user_id\n{CANARY}\nu2\n")


def log_as_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let RecBole open its log: it does not where pytest listens."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of stages that began to train."""
    began: list[str] = []
    original = llmrec_trainer.LLMRecTrainer._finish

    def finish(self: Any, *given: Any, **more: Any) -> Any:
        began.append(self.stage.name)
        return original(self, *given, **more)

    monkeypatch.setattr(llmrec_trainer.LLMRecTrainer, "_finish", finish)
    return began


def pickle_the_data() -> None:
    """Leave what RecBole's save_dataset and save_dataloaders leave."""
    columns = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "movie_title"]}
    given = {"data_path": "data", "epochs": 1, "load_col": columns, "threshold": None}
    config = Config("BPR", "small", config_dict=given)
    dataset = create_dataset(config)
    dataset.save()
    save_split_dataloaders(config, data_preparation(config, dataset))


def test_nothing_of_the_forgotten_is_left(request_file, capsys, training, monkeypatch):
    log_as_alone(monkeypatch)
    canaries = (CANARY, CANARY_TITLE, CANARY_ITEM)
    pickle_the_data()
    assert run("--model=DIN", epochs=1) == 0
    forget = {"forget_file": request_file}
    assert run(**forget) == 0
    assert run(**forget, show_prompts=3, prompt_users=CANARY) == 0
    assert cli.main(["case", f"--user={CANARY}", *as_arguments(forget)]) == 0
    assert cli.main(["case", f"--user={CANARY}", "--output_file=saved/one.html"]) == 0
    assert run("--model=NegGrad", forget_where=f"user_id == '{CANARY}'") == 0
    local = RUN / "wandb" / "offline-run-20261127_010203-abc12345"  # see test_curves.py
    (local / "files").mkdir(parents=True)
    text = f"wandb_project: recbole\nforget_where: {CANARY}\n"
    write(local / "files" / "config.yaml", text)
    (RUN / "wandb" / "latest-run").symlink_to(local.name)
    before = holding(*canaries)
    in_run = {path.removeprefix(f"{RUN}/") for path in before if path.startswith(f"{RUN}/")}
    tops = {path.split("/")[0] for path in in_run}
    assert {"log_tensorboard", "wandb", "prompts.html", "case.html"} <= tops
    assert "log" not in tops  # logs name nobody
    assert any(path.stat().st_size for path in (RUN / "log").rglob("*.log"))
    assert "saved/one.html" in before
    assert {"saved/small-Dataset.pth", "saved/small-for-BPR-dataloader.pth"} <= before
    assert any(path.startswith("DIN-") for path in in_run)
    training.clear()

    assert run("--finalize=shop", "--purge", **forget) == 0
    assert training == []  # the stages were there
    told = capsys.readouterr().out
    assert "E2URec of small is in shop; 24 rows of the data are forgotten in it" in told
    assert "purged " in told
    assert "warning" not in told
    assert CANARY not in told.split("E2URec of small is in shop")[1]
    assert holding(*canaries) == set()
    assert not any(Path(name).exists() for name in ("log", "log_tensorboard", "wandb"))
    assert {path.name for path in Path("saved").iterdir()} == {
        "results.jsonl",
        ".results.jsonl.lock",
    }
    logging.getLogger().error("after the purge")
    assert not RUN.exists()
    (file,) = Path("shop/certificates").glob("*.json")
    certificate = json.loads(file.read_text())
    report = certificate["purged"]
    assert report["unknown"] == []
    assert f"certificate: {file}" in told
    assert cli.main(["verify", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "nothing failed"
    assert any("test utility after" in line and line.startswith("ok") for line in lines)
    assert {one["name"] for one in report["kept"]} >= {"checkpoint_dir/results.jsonl"}
    assert {"Original", "Retrain", "E2URec", "NegGrad", "TokenReset", "augmented", "logs",
            "tensorboard events", "pages of prompts and users", "wandb's local runs",
            "RecBole's checkpoints and pickles", "answers"} == set(report["removed"])  # fmt: skip

    with pytest.raises(InputError, match="nothing is known about this user"):
        load_recommender("shop").recommend(CANARY)
    assert load_recommender("shop").recommend("u3")
    before = files("saved", "shop")
    assert run("--finalize=shop", "--purge", **forget) == 0
    told = capsys.readouterr().out
    assert "shop has it already; nothing was trained\npurged 0 files of 0 bytes" in told
    assert training == []
    assert {k: v for k, v in files("saved", "shop").items() if ".lock" not in k} == {
        k: v for k, v in before.items() if ".lock" not in k
    }
    assert len(load_rows(Path("saved/results.jsonl"))) >= 4
    again = ["forget", "--checkpoint=shop", "--model=NegGrad", "--purge", "--joint_epochs=1"]
    assert cli.main([*again, f"--forget_where=item_id == '{CANARY_ITEM}'"]) == 0
    assert "purged 0 files" in capsys.readouterr().out
    assert holding(*canaries) == set()
    assert len(list(Path("shop/certificates").glob("*.json"))) == 2
    assert cli.main(["export", "--model=E2URec", "--output=other"]) == 2
    assert "Retrain is not in saved/small.e2urec-run/stages" in capsys.readouterr().err


@pytest.mark.thorough
def test_a_model_that_answers_as_the_student_is_made_and_no_other(request_file, capsys):
    """The request stands in a file, as a filter, which results do not keep whole."""
    config = write(Path("more.yaml"), f"forget_where: \"user_id == '{CANARY}'\"\nfinalize: shop\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forget, "ROUNDING", dict.fromkeys(forget.ROUNDING, -1.0))
        assert run(f"--config_files={config}", "--model=NegGrad", "--purge") == 2
    assert "otherwise than before; no folder is changed or made" in capsys.readouterr().err
    assert not Path("shop").exists()
    assert (RUN / "stages").is_dir()  # and nothing was purged
    given = {**GIVEN, "data_path": "data", "user_fields": ["age"]}
    done = run_and_finalize("NegGrad", None, [config], given)
    assert [row["model"] for row in done["rows"]] == ["Original", "Retrain", "NegGrad"]
    assert done["post_run"].startswith("NegGrad of small is in shop; 12 rows")
    assert (RUN / "stages").is_dir()  # it was not to be purged
    one = opened("shop")
    assert len(one.forgotten) == 12
    assert one.record["places"]["checkpoint_dir"] == str(Path("saved").resolve())
    assert run("--finalize=shop", "--model=NegGrad", forget_file=request_file) == 2
    assert "finalize: shop is there and not empty" in capsys.readouterr().err
    where = f"user_id == '{CANARY}'"
    (file,) = Path("shop/certificates").glob("*.json")
    told = file.read_text()
    for page in Path("shop/certificates").iterdir():  # whoever was killed had not written them
        page.unlink()
    assert run("--finalize=shop", "--model=NegGrad", forget_where=where) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "shop has it already; nothing was trained" in lines
    assert lines[-1] == f"its certificate was missing: {file}"
    assert file.read_text() == told
    assert json.loads(told)["purged"] is None
    assert cli.main(["forget", "--checkpoint=shop", f"--forget_where={where}"]) == 0
    assert "was carried out before; nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--finalize=shop"], "finalize: of which request? write --forget_file=FILE"),
        (["--finalize=shop", "--model=SISA", "--forget_file=r.csv"], "SISA is several models"),
        (["--finalize=shop", "--model=RecEraser", "--forget_file=r.csv"], "RecEraser is several"),
        (["--finalize=shop", "--model=APA", "--forget_file=r.csv"], "APA is several models"),
        (["--finalize=shop", "--model=LLMRec"], "LLMRec forgets nothing that a model folder holds"),
        (["--finalize=shop", "--model=DeepFM-Retrain"], "DeepFM forgets nothing"),
        (["--finalize=shop", "--model_list=E2URec,NPO", "--forget_file=r.csv"], "drop model_list"),
        (["--finalize=shop", "--show_prompts=3", "--forget_file=r.csv"], "show_prompts trains"),
        (["--finalize=taken", "--forget_file=r.csv"], "finalize: taken is there and not empty"),
        (["--finalize=saved/shop", "--forget_file=r.csv"], "must not hold one another"),
        (["--finalize=.", "--forget_file=r.csv"], "must not hold one another"),
        (["--finalize=", "--forget_file=r.csv"], "finalize: where to?"),
        (["--purge", "--forget_file=r.csv"], "purge: a run would lose its outcome"),
        (["--purge=maybe", "--finalize=shop"], "purge: 'maybe' does not do"),
    ],
)
def test_what_cannot_be_finalized_is_refused_before_training(
    argv, message, request_file, capsys, training
):
    write(Path("x"), "")
    Path("taken").mkdir()
    Path("x").rename("taken/x")
    assert run(*argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert training == []
    assert not Path("shop").exists()
    assert not (RUN / "stages").exists()


def test_a_dry_run_makes_no_folder(request_file, capsys, training):
    assert run("--finalize=shop", "--purge", "--dry_run", forget_file=request_file) == 0
    assert "dry run: nothing was trained" in capsys.readouterr().out
    assert training == []
    assert not Path("shop").exists()


def test_python_and_other_commands_do_not_pass_over_it(request_file, capsys):
    given = {**GIVEN, "user_fields": [], "data_path": "data", "finalize": "shop"}
    with pytest.raises(InputError, match="finalize: from Python, call"):
        run_recbole_e2urec(config_dict=given)
    assert cli.main(["export", "--output=x", "--purge"]) == 2
    assert "--purge follows a run on a request" in capsys.readouterr().err
