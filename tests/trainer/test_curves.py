"""TensorBoard and wandb show loss terms and validation metrics by name, stage by stage."""

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from atomic_files import RUN
from recbole.trainer import Trainer
from stand_ins import Recorder
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.comparison import run_comparison
from recbole_e2urec.methods import METHODS
from recbole_e2urec.methods.unlearner import GradientUnlearner
from recbole_e2urec.quick_start import run_recbole_e2urec
from recbole_e2urec.report.results import load_rows
from recbole_e2urec.trainer.checkpoint import Stage
from recbole_e2urec.trainer.recbole_trainer import fit_classic
from recbole_e2urec.trainer.training_log import Curves

ALWAYS = {
    "epochs": 2,
    "learning_rate": 0.01,
    "augmented_epochs": 1,
    "warmup_epochs": 1,
    "joint_epochs": 1,
    "title_field": "movie_title",
    "show_progress": False,
    "user_fields": [],
}


def run(data: Path, model: str, **more: Any) -> list[dict[str, Any]]:
    given = {"data_path": str(data), **ALWAYS, **more}
    rows: list[dict[str, Any]] = run_recbole_e2urec(model, "small", config_dict=given)["rows"]
    return rows


def events(stage: str) -> EventAccumulator:
    """What TensorBoard reads of a stage."""
    (folder,) = (RUN / "log_tensorboard").glob(f"*/{stage}-*")
    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def scalars(stage: str) -> dict[str, dict[int, float]]:
    found = events(stage)
    return {
        tag: {event.step: event.value for event in found.Scalars(tag)}
        for tag in found.Tags()["scalars"]
    }


def test_tensorboard_has_each_term_of_each_stage_by_name(small_data: Path) -> None:
    run(small_data, "E2URec")
    student = scalars("E2URec")
    assert student.keys() == {f"train/{term}" for term in ("loss", "forget", "remember")}
    assert student["train/loss"].keys() == {0, 1}
    assert student["train/remember"].keys() == {1}  # the warm-up sees forget rows alone
    assert student["train/loss"][0] == pytest.approx(student["train/forget"][0])
    assert scalars("augmented").keys() == {"train/loss"}
    original = scalars("Original")
    assert {"train/loss", "valid/auc", "valid/logloss", "Loss/Train"} <= original.keys()
    assert original["valid/auc"].keys() == original["train/loss"].keys() == {0, 1}
    assert original["train/loss"] == original["Loss/Train"]  # RecBole's own


def test_nothing_else_is_left_in_the_current_folder(small_data: Path) -> None:
    run(small_data, "NPO", ranking_pass="full")  # which makes trainers that only evaluate
    (folder,) = (RUN / "log_tensorboard").iterdir()  # of a log file's name
    assert {path.name.rpartition("-")[0] for path in folder.iterdir()} == {
        "Original", "Retrain", "NPO",
    }  # fmt: skip
    assert {path.name for path in Path.cwd().iterdir()} == {"data", "saved"}
    assert {path.name for path in Path("saved").iterdir()} - {".results.jsonl.lock"} == {
        "results.jsonl", RUN.name,
    }  # fmt: skip


def test_a_finished_stage_is_not_logged_again(small_data: Path) -> None:
    run(small_data, "NegGrad")
    before = sorted((RUN / "log_tensorboard").rglob("events*"))
    run(small_data, "NegGrad")
    assert sorted((RUN / "log_tensorboard").rglob("events*")) == before


STUDENTS = [name for name, kind in METHODS.items() if issubclass(kind, GradientUnlearner)]
METHOD_TERMS = {
    **{name: {"loss", "forget", "retain"} for name in STUDENTS},
    "E2URec": {"loss", "forget", "remember"},
    "E2URecRef": {"loss", "forget", "remember", "alpha"},
    "CrossFit": {"loss", "forget", "remember"},
    "NegatedE2URec": {"loss", "forget", "remember"},
    "FlipLabel": {"loss", "flipped", "retain"},
}


@pytest.mark.thorough
def test_wandb_has_the_terms_of_every_student_in_a_run_of_its_own(
    small_data: Path, wandb: Recorder
) -> None:
    given = {"data_path": str(small_data), **ALWAYS, "log_wandb": True}
    run_comparison("small", config_dict={**given, "model_list": [*METHOD_TERMS]})
    assert wandb.run is None
    rows = load_rows(Path("saved/results.jsonl"))
    assert len(wandb.logged) == 1 + len(METHOD_TERMS)  # Original and Retrain share the first
    for method, logged in zip(METHOD_TERMS, wandb.logged[1:], strict=True):
        others = ("augmented", "direction", "Without")  # models that are trained beside the student
        own = [one for one in logged if not any(kind in name for name in one for kind in others)]
        assert {name for one in own for name in one} == {
            "train_step", *(f"train/{term}" for term in METHOD_TERMS[method])
        }, method  # fmt: skip
        assert [one["train_step"] for one in own] == list(range(len(own)))
    assert [row["model"] for row in rows[2:]] == [*METHOD_TERMS]
    names = {name for one in wandb.logged[0] for name in one}
    assert {"train/Original/loss", "train/Retrain/loss", "valid/Original/auc"} <= names


def test_wandb_has_the_recommenders_terms_and_validation_metrics(
    small_data: Path, wandb: Recorder
) -> None:
    (row,) = run(small_data, "LLMRec", log_wandb=True, wandb_project="mine")
    (logged,) = wandb.logged
    assert wandb.run.project == "mine"
    assert wandb.defined == {("train/*", "train_step"), ("valid/*", "valid_step")}
    losses = {one["train_step"]: one["train/loss"] for one in logged if "train/loss" in one}
    assert losses == dict(enumerate(row["train_loss"]))
    best = max(one["valid/auc"] for one in logged if "valid/auc" in one)
    assert best == pytest.approx(row["valid"]["auc"])


def test_a_run_of_wandb_that_the_user_began_goes_on(small_data: Path, wandb: Recorder) -> None:
    wandb.init("theirs", None)
    given = {"data_path": str(small_data), **ALWAYS, "log_wandb": True}
    run_comparison("small", config_dict={**given, "model_list": ["NPO"]})
    assert wandb.run.project == "theirs"
    assert len(wandb.logged) == 1


def test_wandb_that_is_missing_is_one_line(small_config: Any) -> None:
    with pytest.raises(InputError, match="log_wandb: the package wandb is missing"):
        small_config("LLMRec", log_wandb=True)


def test_curves_without_settings_say_nothing(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "stages", "Original", {})
    stage.curves.trained(0, {"loss": 1.0})
    stage.curves.validated(0, {"auc": 0.5})
    stage.curves.close()
    assert not list(tmp_path.rglob("events*"))


def test_values_after_the_end_open_another_file(small_config: Any) -> None:
    curves = Curves(small_config("LLMRec"), "LLMRec", "LLMRec-0")
    for epoch in (0, 1):
        curves.trained(epoch, {"loss": 1.0 + epoch})
        curves.close()
    found = [EventAccumulator(str(path)) for path in (RUN / "log_tensorboard").glob("*/LLMRec-0")]
    values = []
    for one in found:
        one.Reload()
        values += [event.value for event in one.Scalars("train/loss")]
    assert sorted(values) == [1.0, 2.0]


def test_a_classic_trainer_opens_its_file_with_the_first_value(small_config: Any) -> None:
    from recbole_e2urec.data.dataset import load_dataset
    from recbole_e2urec.data.loaders import make_loaders
    from recbole_e2urec.experiment.run import parts_of

    config = small_config("FM")
    dataset = load_dataset(config)
    loaders = make_loaders(config, dataset, parts_of(config, dataset).splits)
    model = config.model_class(config, loaders.train._dataset)
    Trainer(config, model)
    assert not (RUN / "log_tensorboard").exists()
    fit_classic(config, loaders)
    assert list((RUN / "log_tensorboard").rglob("events*"))


def test_wandb_writes_to_the_runs_folder_unless_the_user_names_another(
    small_data: Path, wandb: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []
    original = wandb.init

    def init(*given: Any, **more: Any) -> None:
        used.append(os.environ["WANDB_DIR"])
        original(*given, **more)

    monkeypatch.setattr(wandb, "init", init)
    run(small_data, "LLMRec", log_wandb=True)
    assert "WANDB_DIR" not in os.environ
    wandb.run = None
    monkeypatch.setenv("WANDB_DIR", "elsewhere")
    run(small_data, "FM", log_wandb=True)
    assert used == [str(RUN.resolve()), "elsewhere"]
    assert os.environ["WANDB_DIR"] == "elsewhere"


def test_the_log_of_each_data_set_is_in_its_runs_folder(
    small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    shutil.copytree(small_data / "small", small_data / "other")
    for path in (small_data / "other").iterdir():
        path.rename(path.with_stem("other"))
    for name in ("small", "small", "other"):
        given = {"data_path": str(small_data), **ALWAYS}
        run_recbole_e2urec("FM", name, config_dict=given)
        logging.getLogger().warning("of %s", name)
    logs = {
        name: [text for path in Path(f"saved/{name}.e2urec-run/log/FM").iterdir()
               if (text := path.read_text())]
        for name in ("small", "other")
    }  # fmt: skip
    assert [text.count("of small") for text in logs["small"]] == [2]
    assert [text.count("of other") for text in logs["other"]] == [1]
    assert "of other" not in logs["small"][0]
    for handler in root.handlers:
        handler.close()
