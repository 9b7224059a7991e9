"""Hyper-parameters are chosen on other users' request, among the same number of settings each."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from splits import choose_forget

from recbole_e2urec.config.config import Config, RunSettings
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.data.request.selection import ForgetOptions
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment import tuning
from recbole_e2urec.experiment.comparison import run_comparison
from recbole_e2urec.experiment.launch import Latest
from recbole_e2urec.experiment.run import parts_of
from recbole_e2urec.experiment.tuning import (
    COLUMNS,
    Development,
    Objective,
    Trial,
    best_of,
    development_request,
    distance_to_retrain,
    settings_to_try,
)
from recbole_e2urec.methods import METHODS


def trial(left: float, lost: float, residual: float = 1.0) -> Trial:
    valid = {"gap": -0.1 * left, "left": left, "lost": lost, "residual": residual}
    return Trial("NegGrad", {}, distance_to_retrain(valid), valid)


def test_the_best_is_the_nearest_among_the_affordable() -> None:
    trials = [trial(0.5, 0.0), trial(0.1, 0.009), trial(0.0, 0.011), trial(0.2, -0.1)]
    assert best_of(trials) is trials[1]
    assert (
        best_of([*trials, trial(0.4, 0.01, 0.6)]).valid["residual"] == 0.6
    )  # 1.0 in all against 1.1


def test_the_best_is_the_cheapest_where_all_cost_too_much() -> None:
    trials = [trial(0.0, 0.05), trial(3.0, 0.02)]
    assert best_of(trials) is trials[1]


@pytest.mark.parametrize("method", METHODS)
def test_settings_stay_in_the_space_and_begin_with_the_defaults(method: str) -> None:
    space = METHODS[method].searched(())
    first, *drawn = settings_to_try(method, (), 5)
    assert first == {}
    assert len(drawn) == (4 if space else 0)
    for values in drawn:
        assert values.keys() == space.keys()
        assert all(space[key][0] * 0.99 <= values[key] <= space[key][1] * 1.01 for key in values)
    assert settings_to_try(method, (), 5)[1:] == drawn


def test_a_key_that_the_user_set_is_not_searched() -> None:
    for values in settings_to_try("NPO", {"npo_beta"}, 4)[1:]:
        assert values.keys() == {"unlearn_learning_rate", "retain_weight"}


@pytest.mark.parametrize("method", ["NegGrad", "FlipLabel", "GradDiff", "NPO", "SimNPO", "BadT"])
def test_the_rates_of_the_rivals_papers_are_among_those_that_are_tried(method: str) -> None:
    low, high = METHODS[method].searched(())["unlearn_learning_rate"]
    assert low <= 1e-5 < 1e-4 < high  # TOFU's of GradDiff and NPO, and the port's of BadT
    drawn = [one["unlearn_learning_rate"] for one in settings_to_try(method, (), 400)[1:]]
    middle = (low * high) ** 0.5
    assert np.mean([rate < middle for rate in drawn]) == pytest.approx(0.5, abs=0.1)


def named(rows: Any, part: Any, by: str) -> set[tuple[int, ...]]:
    columns = {"user": [rows.user], "item": [rows.item], "interaction": [rows.user, rows.item]}
    return set(zip(*(column[part].tolist() for column in columns[by]), strict=True))


@pytest.mark.parametrize("by", ["user", "item", "interaction"])
def test_the_development_request_names_as_much_and_nothing_reported(
    toy_config: Any, by: str
) -> None:
    config: Config = toy_config("E2URec", forget_by=by)
    dataset = load_dataset(config)
    kind, lines = development_request(config, dataset)
    assert kind == by
    ids = {"user": dataset.ids.users, "item": dataset.ids.items}
    found = {
        tuple(ids[of][token] for of, token in zip(COLUMNS[by], line, strict=True)) for line in lines
    }
    train = parts_of(config, dataset).splits.train
    reported = choose_forget(config.options(ForgetOptions), train, dataset.rows, dataset.ids)
    forgotten = named(dataset.rows, reported.forget, by)
    assert not found & forgotten
    assert len(found) == len(lines) == len(forgotten)
    assert found <= named(dataset.rows, train, by)


def test_a_reported_file_of_pairs_has_a_development_request_of_pairs(
    toy_config: Any, tmp_path: Path
) -> None:
    config: Config = toy_config("E2URec")
    dataset = load_dataset(config)
    rows, train = dataset.rows, parts_of(config, dataset).splits.train
    users, items = (
        {at: token for token, at in ids.items()} for ids in (dataset.ids.users, dataset.ids.items)
    )
    pairs = [f"{users[rows.user[row]]},{items[rows.item[row]]}" for row in train[:7]]
    (tmp_path / "pairs.csv").write_text("\n".join(["user_id,item_id", *pairs]))
    config = toy_config("E2URec", forget_file=str(tmp_path / "pairs.csv"))
    kind, lines = development_request(config, dataset)
    assert (kind, len(lines)) == ("interaction", 7)
    assert not {",".join(line) for line in lines} & set(pairs)


@pytest.mark.parametrize("by", ["item", "interaction"])
def test_trials_forget_what_the_reported_request_forgets(toy_config: Any, by: str) -> None:
    config: Config = toy_config("NegGrad", forget_by=by, joint_epochs=1)
    measures = Development(config).measures(config.with_settings({"forget_weight": 0.1}))
    assert measures.keys() == {"gap", "left", "lost", "residual"}
    assert np.isfinite(list(measures.values())).all()


def test_all_methods_of_a_process_share_one_development_request(
    small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr(tuning, "Development", lambda config: made.append(config) or made[-1])
    given, latest = RunSettings("small", (), {"data_path": str(small_data)}), Latest()

    def development(method: str, **settings: float) -> Any:
        objective = Objective(method, given, latest)
        return objective.development(objective.config(settings))

    first = development("NegGrad", unlearn_learning_rate=0.001)
    for method in METHODS:
        assert development(method) is first
    assert development("NPO", npo_beta=0.5) is first
    assert development("NPO", seed=1) is not first
    assert len(made) == 2


@pytest.mark.slow
def test_a_tuned_comparison_says_what_it_tried_and_uses_what_it_chose(toy_data: Path) -> None:
    given = {
        "data_path": str(toy_data),
        "epochs": 1,
        "model_list": ["NegGrad", "BadT", "SISA"],
        "tune": 3,
        "joint_epochs": 1,
        "show_progress": False,
    }
    rows = {row["model"]: row for row in run_comparison("toy", config_dict=given)["rows"]}
    for name in ("NegGrad", "BadT"):
        told = rows[name]["tuning"]
        assert len(told["trials"]) == 3
        assert told["chosen"] in [tried["settings"] for tried in told["trials"]]
        assert told["chosen"].items() <= rows[name]["settings"].items()
        assert json.loads(json.dumps(rows[name])) == rows[name]
    assert "tuning" not in rows["SISA"]
    request = Path("saved/toy.e2urec-run/development/request.csv").read_text().split()
    assert request[0] == "user_id"


def test_a_number_of_trials_that_does_not_do_is_refused(toy_data: Path) -> None:
    given = {"data_path": str(toy_data), "model_list": "NPO", "tune": -1}
    with pytest.raises(InputError, match="tune: -1 does not do"):
        run_comparison("toy", config_dict=given)
