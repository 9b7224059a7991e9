"""``recbole-e2urec export``: the models of a finished run as folders."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from in_use import opened, write_data

from recbole_e2urec import cli
from recbole_e2urec.config.config import RunSettings
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.deployment.recommend import load_recommender
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.finished import settings_of
from recbole_e2urec.experiment.unlearning import Forgetting
from recbole_e2urec.methods import method_of
from recbole_e2urec.quick_start import run_recbole_e2urec
from recbole_e2urec.report.results import load_rows, save_rows

GIVEN = {
    "title_field": "movie_title", "user_fields": ["age"], "prompt": "numbered", "epochs": 1,
    "augmented_epochs": 1, "joint_epochs": 1, "learning_rate": 0.02, "show_progress": False,
    "control_users": 0.2,
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished comparison."""
    folder = tmp_path_factory.mktemp("finished")
    data = write_data(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_recbole_e2urec("E2URec", "small", config_dict={"data_path": str(data), **GIVEN})
    return folder


@pytest.fixture(scope="module")
def exported(finished: Path) -> Path:
    """The folders of three of its models."""
    for name in ("E2URec", "LLMRec", "Retrain"):
        argv = ["export", f"--model={name}", f"--output={finished / name}"]
        assert cli.main([*argv, f"--checkpoint_dir={finished / 'saved'}"]) == 0
    return finished


def test_exported_models_answer_as_those_of_the_run(finished: Path, exported: Path):
    saved = finished / "saved"
    row = next(row for row in load_rows(saved / "results.jsonl") if row["model"] == "E2URec")
    config = settings_of(row, saved, RunSettings())
    run = Forgetting(config, load_dataset(config))
    run.train()
    asked = {
        "LLMRec": run.original,
        "Retrain": run.retrain,
        "E2URec": run.unlearn(method_of(config)),
    }
    rows = run.groups.test
    for name, answered in asked.items():
        other = opened(exported / name)
        yes = other.yes(rows, run.after).numpy()
        assert yes == pytest.approx(answered.answers.yes[rows], abs=1e-5)
        forgotten = [] if name == "LLMRec" else np.unique(run.dataset.rows.user[run.split.forget])
        assert other.gone.tolist() == list(forgotten)
        drift = other.drift()
        assert drift is not None
        assert (drift > 0) == (name != "LLMRec")
    (first, *_) = opened(exported / "E2URec").gone
    token = next(t for t, inner in run.dataset.ids.users.items() if inner == first)
    with pytest.raises(InputError, match="nothing is known"):
        load_recommender(exported / "E2URec").recommend(token)
    assert load_recommender(exported / "LLMRec").recommend(token)


def test_the_request_of_a_comparison_has_its_certificate(finished: Path, exported: Path, capsys):
    row = next(
        row for row in load_rows(finished / "saved/results.jsonl") if row["model"] == "E2URec"
    )
    (file,) = (exported / "E2URec/certificates").glob("*.json")
    whole = json.loads(file.read_text())
    original = opened(exported / "LLMRec").record["files"]["weights.safetensors"]
    assert whole["before"] == {
        "generation": "000000", "files": {"weights.safetensors": original}
    }  # fmt: skip
    assert whole["request"]["digest"] == row["request_digest"]
    assert whole["asked"]["training_rows"] == whole["measures"]["after"]["forget"]["rows"]
    assert whole["cost"]["request_seconds"] == row["cost"]["seconds"]
    loss = {side: whole["measures"][side]["forget"]["loss"] for side in ("before", "after")}
    assert loss["after"] == pytest.approx(row["forget"]["logloss"], abs=1e-5)
    assert loss["before"] != loss["after"]
    told = whole["retrain"]["distances"]
    assert told["before"]["residual"] == 1
    assert told["after"]["residual"] == pytest.approx(row["to_retrain"]["residual"], abs=1e-4)
    assert "Original, which was in no folder" in file.with_suffix(".html").read_text()
    (file,) = (exported / "Retrain/certificates").glob("*.json")
    words = json.loads(file.read_text())["in_words"]
    assert words["cannot_show"][0].startswith("The model was trained anew")
    assert not any("No Retrain was made" in sentence for sentence in words["found"])
    assert cli.main(["verify", str(file)]) == 0
    assert "nothing failed" in capsys.readouterr().out
    assert not (exported / "LLMRec/certificates").exists()  # it has carried out nothing


def test_a_run_of_several_processes_is_exported_by_one(finished: Path):
    """Rows of such a run say how many there were, which is no setting; the only method is taken."""
    shutil.copytree(finished / "saved", "saved")
    rows = load_rows(Path("saved/results.jsonl"))
    save_rows(Path("saved/results.jsonl"), [
        {**row, "settings": {**row["settings"], "processes": 2}} for row in rows
    ])  # fmt: skip
    assert cli.main(["export", "--output=m"]) == 0
    assert opened("m").record["model"] == "E2URec"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "where to? write --output=DIR"),
        (["--output=x", "--model=NPO"], "has no comparison with NPO"),
        (["--output=x", "--checkpoint_dir=elsewhere"], "has no comparison with Original"),
        (["--output=taken"], "output: taken is there and not empty"),
        (["--output=saved/small.e2urec-run/x"], "a purge would remove saved/small.e2urec-run/x"),
    ],
)
def test_what_cannot_be_exported_is_one_line(argv, message, finished: Path, capsys):
    Path("taken").mkdir()
    Path("taken/file").touch()
    where = [] if "elsewhere" in str(argv) else [f"--checkpoint_dir={finished / 'saved'}"]
    assert cli.main(["export", *argv, *where]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not Path("x").exists()


def test_without_a_name_the_model_of_the_newest_run_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"data_path": str(write_data(tmp_path)), **GIVEN}
    for model in ("NegGrad", "LLMRec"):
        run_recbole_e2urec(model, "small", config_dict=data)
        run_recbole_e2urec("FM", "small", config_dict={"data_path": data["data_path"], "epochs": 1})
        assert cli.main(["export", f"--output={model}"]) == 0
        assert f"{model} of small is in {model}" in capsys.readouterr().out
        shutil.rmtree(model)
