"""RecBole's HyperTuning finds settings of our models, on validation rows alone."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import as_arguments, write
from stand_ins import Recorder

import recbole_e2urec.experiment.search as searching
from recbole_e2urec import cli
from recbole_e2urec.config.config import Config, RunSettings
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.data.rows import Splits
from recbole_e2urec.errors import Diverged, InputError
from recbole_e2urec.experiment.run import parts_of
from recbole_e2urec.experiment.search import SearchOptions, search
from recbole_e2urec.experiment.tuning import (
    Objective,
    Space,
    Trial,
    best_of,
    distance_to_retrain,
    whole,
)
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.trainer import llmrec_trainer

pytest.importorskip("hyperopt")
ALWAYS: dict[str, Any] = {
    "epochs": 1,
    "learning_rate": 0.01,
    "joint_epochs": 1,
    "title_field": "movie_title",
    "show_progress": False,
}


def found(data: Path, model: str, params: str, algo: str = "exhaustive", **more: Any) -> Any:
    """Search on ``small``; keyword arguments that are no options of the search are settings."""
    file = write(Path("hyper.test"), params)
    own = {key: more.pop(key) for key in ("max_evals", "early_stop") if key in more}
    given = RunSettings("small", (), {"data_path": str(data), **ALWAYS, **more})
    return search(SearchOptions(file, algo, **own), model, given)  # type: ignore[arg-type]


# the file


def test_a_params_file_is_read_as_recbole_reads_it() -> None:
    text = (
        "# searched\n\nlearning_rate loguniform -7,-4\ntrain_batch_size choice [64, 128]\n"
        "beta uniform 0.2,0.8\njoint_epochs quniform 1,4,1\nlayers choice ['[64,64]', [8]]\n"
    )
    space = Space.read(Path(write(Path("p.test"), text)))
    assert [*space.parts] == [
        "train_batch_size", "layers", "learning_rate", "beta", "joint_epochs",
    ]  # fmt: skip
    assert space.for_recbole() == {
        "choice": {"train_batch_size": [64, 128], "layers": ["[64,64]", "[8]"]},
        "loguniform": {"learning_rate": [-7, -4]},
        "uniform": {"beta": [0.2, 0.8]},
        "quniform": {"joint_epochs": [1, 4, 1]},
    }
    assert space.size is None
    assert {"joint_epochs": 4} in space.samples()
    assert space.samples()[4]["learning_rate"] == pytest.approx(0.000912, abs=1e-6)  # e^-7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names nothing to search"),
        ("learning_rate choice\n", "line 1: 'learning_rate choice' is none of name choice"),
        ("\nlearning_rate chioce [1]\n", "line 2: "),
        ("a choice []\n", "line 1"),
        ("a choice __import__('os').system('touch hacked')\n", "line 1"),
        ("a uniform 2,1\n", "line 1"),
        ("a uniform 1\n", "line 1"),
        ("a quniform 1,2,0\n", "line 1"),
        ("a uniform 1,inf\n", "line 1"),
        ("a choice [1]\na choice [2]\n", "line 2: a is there twice"),
    ],
)
def test_a_line_that_is_none_is_refused_and_never_evaluated(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Space.read(Path(write(Path("p.test"), text)))
    assert not Path("hacked").exists()


@pytest.mark.parametrize(("value", "expected"), [(64.0, 64), (0.5, 0.5), ("64.0", "64.0")])
def test_whole_numbers_become_ints(value: Any, expected: Any) -> None:
    assert (whole(value), type(whole(value))) == (expected, type(expected))


@pytest.mark.parametrize(("file", "model"), [("llmrec", "LLMRec"), ("e2urec", "E2URec")])
def test_the_params_files_of_the_docs_fit_their_models(
    file: str, model: str, small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching.HyperTuning, "run", lambda self: None)
    folder = Path(__file__).parents[2] / "docs" / "how-to"
    params = (folder / f"{file}.test").read_text(encoding="utf-8")
    settings = {"title_field": "movie_title", "learning_rate": 0.01}
    with pytest.raises(InputError, match="no trial came to an end"):
        found(small_data, model, params, "random", **settings)


# the choice


@pytest.mark.parametrize(
    ("left", "lost", "residual", "distance"),
    [
        (0.2, 0.0, 1.0, 1.2 / 2.2),
        (0.0, 0.02, 0.0, 1.02),
        (9, 0.011, 9, 1.011),
        (9, 0.01, 9, 18 / 19),
    ],
)
def test_what_costs_too_much_comes_after_all_others_the_least_dear_first(
    left: float, lost: float, residual: float, distance: float
) -> None:
    measures = {"left": left, "lost": lost, "residual": residual}
    assert distance_to_retrain(measures) == pytest.approx(distance)


@pytest.mark.parametrize(("bigger", "best"), [(True, 1), (False, 0)])
def test_the_best_trial_has_the_greatest_or_the_least_score(bigger: bool, best: int) -> None:
    trials = [Trial("FM", {}, score, {}, bigger) for score in (0.1, 0.9, 0.9, 0.1)]
    assert best_of(trials) is trials[best]


def scored(settings: Any, score: float) -> Trial:
    return Trial("FM", dict(settings), score, {}, True)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Rows that a language model is asked about or learns from."""
    rows: set[int] = set()
    hidden, answer_losses = LLMRec.hidden, LLMRec.answer_losses

    def noted_hidden(model: Any, part: Any, items: Any = None) -> Any:
        rows.update(part.tolist())
        return hidden(model, part, items)

    def noted_losses(model: Any, part: Any, items: Any = None) -> Any:
        rows.update(part.tolist())
        return answer_losses(model, part, items)

    monkeypatch.setattr(LLMRec, "hidden", noted_hidden)
    monkeypatch.setattr(LLMRec, "answer_losses", noted_losses)
    return rows


def splits_of(data: Path, model: str) -> Splits:
    """The parts of ``small``."""
    config = Config(model, "small", config_dict={"data_path": str(data), **ALWAYS})
    return parts_of(config, load_dataset(config)).splits


def test_a_grid_of_a_recommender_is_tried_whole_and_chosen_by_validation(
    small_data: Path, asked: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    params = "average_decay choice [0.0,0.9]\ntrain_batch_size choice [32,64]\n"
    made = found(small_data, "LLMRec", params)
    splits = splits_of(small_data, "LLMRec")
    assert asked == {*splits.train.tolist(), *splits.valid.tolist()}  # and no test row
    settings = [tuple(trial["settings"].values()) for trial in made["trials"]]
    assert sorted(settings) == [(0.0, 32), (0.0, 64), (0.9, 32), (0.9, 64)]
    assert all(trial["score"] == trial["valid"]["auc"] for trial in made["trials"])
    assert made["best"]["score"] == max(trial["score"] for trial in made["trials"])
    kept = json.loads(Path("saved/hyper.json").read_text())
    assert kept["trials"] == made["trials"]
    assert kept["best"] == made["best"]
    best = yaml.safe_load(Path("saved/hyper-best.yaml").read_text())
    assert best == made["best"]["settings"]

    def train(*given: Any, **more: Any) -> Any:
        raise AssertionError("a finished stage is being trained")

    monkeypatch.setattr(llmrec_trainer, "train_epoch", train)
    again = found(small_data, "LLMRec", params)
    for one, other in zip(made["trials"], again["trials"], strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


@pytest.mark.thorough
def test_a_methods_settings_are_chosen_on_the_development_request(
    small_data: Path, asked: set[int]
) -> None:
    made = found(small_data, "NegGrad", "forget_weight choice [0.1,0.9]\nlora_r choice [2,4]\n")
    assert not asked.intersection(splits_of(small_data, "NegGrad").test.tolist())
    assert len(made["trials"]) == 4
    for trial in made["trials"]:
        assert trial["valid"].keys() == {"gap", "left", "lost", "residual"}
        assert trial["score"] == distance_to_retrain(trial["valid"])
    assert made["best"]["score"] == min(trial["score"] for trial in made["trials"])
    assert len({trial["valid"]["residual"] for trial in made["trials"]}) == 4
    stages = [path.name.split("-")[0] for path in Path("saved").glob("**/stages/*")]
    assert sorted(stages) == ["NegGrad"] * 4 + ["Original", "Retrain"]
    assert {path.parts[2] for path in Path("saved").glob("**/stages/*")} == {"development"}


@pytest.mark.parametrize("algo", ["random", "bayes"])
def test_draws_are_the_same_for_the_same_seed(small_data: Path, algo: str) -> None:
    params = "embedding_size choice [4,8]\nlearning_rate loguniform -6,-3\n"
    trials = [found(small_data, "FM", params, algo, max_evals=4)["trials"] for _ in range(2)]
    first, again = ([trial["settings"] for trial in part] for part in trials)
    assert first == again
    assert len({one["learning_rate"] for one in first}) == 4
    assert all(0.0024 < one["learning_rate"] < 0.05 for one in first)
    assert not list(Path("saved").rglob("*.pth"))


@pytest.mark.thorough
def test_a_search_ends_after_trials_without_a_better_one(
    small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Objective, "__call__", lambda self, settings: scored(settings, 0.5))
    params = "learning_rate uniform 0.001,0.1\n"
    assert len(found(small_data, "FM", params, "random", early_stop=3)["trials"]) == 3
    assert len(found(small_data, "FM", params, "random")["trials"]) == 10
    grid = f"learning_rate choice {[place / 100 for place in range(1, 7)]}\n"
    assert len(found(small_data, "FM", grid)["trials"]) == 6
    assert len(found(small_data, "FM", grid, max_evals=3)["trials"]) == 3


def test_a_trial_that_diverges_is_told_and_the_search_goes_on(
    small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(self: Any, settings: Any) -> Trial:
        if settings["learning_rate"] > 0.5:
            raise Diverged("the loss became NaN")
        return scored(settings, settings["learning_rate"])

    monkeypatch.setattr(Objective, "__call__", answer)
    made = found(small_data, "FM", "learning_rate choice [0.1,0.2,0.9]\n")
    assert sorted(trial.get("failed", "") for trial in made["trials"]) == [
        "", "", "the loss became NaN",
    ]  # fmt: skip
    assert made["best"]["settings"] == {"learning_rate": 0.2}
    with pytest.raises(InputError, match="no trial came to an end: the loss became NaN"):
        found(small_data, "FM", "learning_rate choice [0.8,0.9]\n")


def test_each_trial_of_a_recommender_is_a_run_of_wandb(small_data: Path, wandb: Recorder) -> None:
    made = found(small_data, "LLMRec", "learning_rate choice [0.01,0.02]\n", log_wandb=True)
    assert len(wandb.logged) == 2
    assert wandb.run is None
    for logged, trial in zip(wandb.logged, made["trials"], strict=True):
        assert max(one.get("valid/auc", 0) for one in logged) == trial["score"]


def test_recboles_hypertuning_takes_our_objective(small_data: Path) -> None:
    from recbole.trainer import HyperTuning

    from recbole_e2urec.experiment.search import objective_function

    settings = {"data_path": str(small_data), "model": "LLMRec", "dataset": "small", **ALWAYS}
    del settings["learning_rate"]
    file = write(Path("mine.yaml"), yaml.safe_dump(settings))
    tuning = HyperTuning(
        objective_function,
        params_file=write(Path("hyper.test"), "learning_rate choice [0.01,0.001]\n"),
        fixed_config_file_list=[file],
        algo="exhaustive",
    )
    tuning.run()
    tuning.export_result("hyper.result")
    assert len(tuning.params2result) == 2
    assert tuning.best_params["learning_rate"] in (0.01, 0.001)
    assert tuning.best_score == max(tuning.score_list)
    assert "learning_rate:0.001" in Path("hyper.result").read_text()
    assert all(result["test_result"] == {} for result in tuning.params2result.values())


# the command


def test_the_command_prints_every_trial(
    small_data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(Path("hyper.test"), "learning_rate choice [0.01,0.002]\n")
    given = {"data_path": small_data, "epochs": 1, "show_progress": False}
    command = ["hyper", "--model=FM", "--dataset", "small", "--params_file", "hyper.test"]
    assert cli.main([*command, "--output_file=mine.json", *as_arguments(given)]) == 0
    shown = capfd.readouterr().out
    assert "FM on small, exhaustive, seed 2020" in shown
    assert "learning_rate=0.002" in shown
    assert "--config_files=mine-best.yaml" in shown
    assert len(json.loads(Path("mine.json").read_text())["trials"]) == 2
    assert "running parameters" not in shown


def test_a_missing_hyperopt_is_one_line(small_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install hyperopt"):
        found(small_data, "FM", "learning_rate choice [0.1]\n")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--params_file=no.test"], "cannot read no.test"),
        (["--algo=grid"], "'exhaustive' or 'random' or 'bayes' is needed"),
        (["--max_evals=0"], "max_evals is 0"),
        (["--max_evals=many"], "max_evals: 'many' does not do"),
        (["--learning_rate=0.1"], "learning_rate is both set and searched"),
        (["--model=NPO"], "learning_rate decides Original as well"),
        (["--model=FM-SISA"], "search FM itself"),
        (["--params_file=range.test"], "beta is a range; a grid needs choices"),
        (["--params_file=typo.test"], "did you mean 'learning_rate'"),
        (["--params_file=value.test", "--model=E2URec"], "beta is 2.0; it must be in"),
        (["--params_file"], "expected one argument"),
    ],
)
def test_a_mistake_is_refused_before_anything_is_trained(
    argv: list[str], message: str, small_data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(Path("hyper.test"), "learning_rate choice [0.01,0.002]\n")
    write(Path("range.test"), "beta uniform 0.1,0.2\n")
    write(Path("typo.test"), "learning_rat choice [0.1]\n")
    write(Path("value.test"), "beta choice [0.5,2]\n")
    model = [] if any(one.startswith("--model") for one in argv) else ["--model=FM"]
    file = [] if any(one.startswith("--params") for one in argv) else ["--params_file=hyper.test"]
    given = as_arguments({"data_path": small_data, "dataset": "small"})
    assert cli.main(["hyper", *model, *file, *given, *argv]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert message in line
    assert not Path("saved").exists()
