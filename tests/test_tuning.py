"""Hyper-parameters are chosen on other users' request, among the same number of settings each."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recbole_e2urec.compare import run_comparison
from recbole_e2urec.config import Config
from recbole_e2urec.data.forget import ForgetOptions, choose_forget
from recbole_e2urec.data.loading import load_dataset
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment import parts_of
from recbole_e2urec.methods import METHODS
from recbole_e2urec.tuning import Trial, choose, development_users, settings_to_try


def trial(gap: float, lost: float) -> Trial:
    return Trial({}, gap, lost, 1.0)


def test_choose_takes_the_smallest_gap_among_the_affordable() -> None:
    trials = [trial(0.05, 0.0), trial(-0.01, 0.009), trial(0.0, 0.011), trial(0.02, -0.1)]
    assert choose(trials) is trials[1]


def test_choose_takes_the_cheapest_where_all_cost_too_much() -> None:
    trials = [trial(0.0, 0.05), trial(0.3, 0.02)]
    assert choose(trials) is trials[1]


@pytest.mark.parametrize("method", METHODS)
def test_settings_stay_in_the_space_and_begin_with_the_defaults(method: str) -> None:
    space = METHODS[method].space
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


def test_development_users_are_as_many_and_others(toy_config: Any) -> None:
    config: Config = toy_config("E2URec")
    dataset = load_dataset(config)
    users = {dataset.ids.users[token] for token in development_users(config, dataset)}
    train = parts_of(config, dataset).splits.train
    options = config.options(ForgetOptions, "forget_")
    reported = choose_forget(options, train, dataset.rows, dataset.ids)
    forgotten = set(dataset.rows.user[reported.forget].tolist())
    assert not users & forgotten
    assert len(users) == len(forgotten)
    assert users <= set(np.unique(dataset.rows.user[train]).tolist())


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
    request = Path("saved/development/request.csv").read_text().split()
    assert request[0] == "user_id"


def test_a_number_of_trials_that_does_not_do_is_refused(toy_data: Path) -> None:
    given = {"data_path": str(toy_data), "model_list": "NPO", "tune": -1}
    with pytest.raises(InputError, match="tune: -1 does not do"):
        run_comparison("toy", config_dict=given)
