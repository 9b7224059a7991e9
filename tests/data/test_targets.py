"""The counting rules of protocols: worked by hand, and against a plain loop."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from atomic_files import INTER, write_table
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_files import write_lines
from splits import choose_forget

from recbole_e2urec.config.config import Config
from recbole_e2urec.data.convert.__main__ import main
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.data.request.selection import ForgetOptions
from recbole_e2urec.data.rows import IdMap, RowTable, TargetOptions, target_rows
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.run import parts_of
from recbole_e2urec.methods.e2urec import E2URecOptions
from recbole_e2urec.model.llmrec import LLMRecOptions
from recbole_e2urec.model.prompting import shown_histories
from recbole_e2urec.trainer.loop import StepRule, steps_until


def table_of(rows: list[tuple[int, int, float]]) -> tuple[RowTable, IdMap]:
    """Rows (user, item, time); tokens are the numbers, inner ids go down as they go up."""
    users, items = ({str(99 - k): k for k in range(1, 99)} for _ in range(2))
    user, item, time = (np.array(column) for column in zip(*rows, strict=True))
    return RowTable(99 - user, 99 - item, time.astype(np.float64)), IdMap(users, items)


def chosen(rows: list[tuple[int, int, float]], **options: Any) -> list[int]:
    return target_rows(*table_of(rows), TargetOptions(**options)).tolist()


def test_without_rules_all_rows_take_part_in_their_order() -> None:
    assert chosen([(1, 1, 9), (1, 2, 3)]) == [0, 1]


def test_rows_with_too_few_earlier_ones_are_left_out() -> None:
    rows = [(1, 1, 3), (1, 2, 1), (1, 3, 2), (2, 1, 0), (2, 2, 5)]
    assert chosen(rows, min_history=1) == [2, 0, 4]
    assert chosen(rows, min_history=2) == [0]


def test_rows_of_equal_time_count_in_the_order_of_user_and_item_as_numbers() -> None:
    rows = [(10, 1, 7), (9, 20, 7), (9, 3, 7)]
    assert chosen(rows, last_rows=3) == [2, 1, 0]
    assert chosen(rows, min_history=1) == [1]


def test_last_rows_are_counted_after_the_history_rule() -> None:
    rows = [(1, 1, 1), (1, 2, 2), (1, 3, 3), (2, 1, 9)]
    assert chosen(rows, min_history=1, last_rows=1) == [2]


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(0, 4)), min_size=1),
    st.integers(0, 3),
)
def test_rules_are_those_of_a_plain_loop(rows: list[tuple[int, int, float]], least: int) -> None:
    order = sorted(range(len(rows)), key=lambda row: (rows[row][2], *rows[row][:2], row))
    seen: dict[int, int] = {}
    expected = []
    for row in order:
        user = rows[row][0]
        if seen.setdefault(user, 0) >= least:
            expected.append(row)
        seen[user] += 1
    if not expected:
        with pytest.raises(InputError, match="no row has"):
            chosen(rows, min_history=least)
    elif least:
        assert chosen(rows, min_history=least) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_history": -1}, "min_history is -1"),
        ({"last_rows": 0}, "last_rows is 0"),
        ({"last_rows": 3}, "last_rows: 3 of 2 rows"),
        ({"min_history": 2}, "min_history: no row has 2 earlier rows"),
    ],
)
def test_rules_that_leave_nothing_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        chosen([(1, 1, 1), (1, 2, 2)], **options)


# in a run


def test_rows_left_out_are_in_no_part_but_in_histories(small_config: Callable[..., Any]) -> None:
    by_time = {"group_by": "none", "split": {"RS": [0.6, 0.2, 0.2]}}
    config = small_config("LLMRec", min_history=5, last_rows=100, eval_args=by_time)
    dataset = load_dataset(config)
    parts = parts_of(config, dataset).whole
    assert [len(part) for part in parts] == [60, 20, 20]
    assert dataset.rows.time[parts.train].max() <= dataset.rows.time[parts.valid].min()
    assert dataset.rows.time[parts.valid].max() <= dataset.rows.time[parts.test].min()
    history = shown_histories(dataset.rows, parts, parts.train[:0], 10)
    left_out = np.setdiff1d(np.arange(len(dataset.rows)), np.concatenate(parts))
    shown = history[parts.train]
    assert ((shown >= 0).sum(axis=1) >= 5).all()
    assert np.isin(left_out, shown).any()
    assert not np.isin(np.concatenate(parts[1:]), shown).any()


@pytest.mark.parametrize("model", ["FM", "SASRec", "DIN"])
def test_every_model_gets_the_same_rows(small_config: Callable[..., Any], model: str) -> None:
    rules = {"min_history": 5, "last_rows": 100}
    mine, theirs = (load_dataset(small_config(name, **rules)) for name in ("LLMRec", model))
    for one, other in zip(mine.split_rows(), theirs.split_rows(), strict=True):
        assert one.tolist() == other.tolist()
    assert sum(len(part) for part in theirs.build()) == 100


def test_rules_beside_given_parts_are_refused(small_config: Callable[..., Any]) -> None:
    config = small_config("FM", min_history=5, benchmark_filename=["a", "b", "c"])
    with pytest.raises(InputError, match="drop min_history and last_rows"):
        load_dataset(config)


# the paper's protocol


def write_as_ml_1m(users: int, each: int) -> str:
    """Users one after the other, each with ``each`` ratings in a time of their own."""
    rows = [
        [user, 1 + item, 1 + (user + item) % 5, 1_000_000 * user + item]
        for user in range(users)
        for item in range(each)
    ]
    write_table(Path("data/ml-1m/ml-1m.inter"), INTER, rows)
    return "data"


def test_protocol_of_the_paper_on_a_twentieth_of_its_size() -> None:
    # 250 users of 25 rows: 250 * (25 - 5) = 5,000 have a history. The last 2,000 of them are the
    # last 100 users' rows; 60 % of those, 1,200, are 60 users' rows, of whom 12 are forgotten.
    settings = {"data_path": write_as_ml_1m(250, 25), "last_rows": 2_000}
    names = {"title_field": "none", "user_fields": []}
    config = Config("LLMRec", config_dict={"protocol": "e2urec-ml-1m", **settings, **names})
    dataset = load_dataset(config)
    assert len(target_rows(dataset.rows, dataset.ids, TargetOptions(min_history=5))) == 5_000
    parts = parts_of(config, dataset)
    assert [len(part) for part in parts.splits] == [1_200, 400, 400]
    assert len(parts.control) == 0
    request = config.options(ForgetOptions)
    split = choose_forget(request, parts.splits.train, dataset.rows, dataset.ids)
    assert len(np.unique(dataset.rows.user[parts.splits.train])) == 60
    assert len(np.unique(dataset.rows.user[split.forget])) == 12
    assert (len(split.forget), len(split.retain)) == (240, 960)


def test_protocol_has_the_counts_of_the_paper() -> None:
    # 6,040 users and 1,000,209 rows, every user with at least 5: 1,000,209 - 5 * 6,040 = 970,009.
    each = np.full(6_040, 165)
    each[: 1_000_209 - 165 * 6_040] += 1
    place = np.concatenate([np.arange(rows) for rows in each])
    user = np.repeat(np.arange(1, 6_041), each)[np.argsort(place, kind="stable")]
    count = len(user)
    ids = IdMap({str(k): k for k in range(1, 6_041)}, {"1": 1})
    rows = RowTable(user, np.ones(count, np.int64), np.arange(count, dtype=np.float64))
    assert count == 1_000_209
    assert len(target_rows(rows, ids, TargetOptions(min_history=5))) == 970_009
    config = Config(
        "LLMRec", config_dict={"protocol": "e2urec-ml-1m", "data_path": write_as_ml_1m(1, 1)}
    )
    chosen = config.options(TargetOptions)
    assert chosen == TargetOptions(min_history=5, last_rows=100_000)
    assert target_rows(rows, ids, chosen).tolist() == list(range(count - 100_000, count))
    assert round(config["forget_ratio"] * 1_025) == 205


def test_protocol_takes_the_steps_and_the_trainer_of_the_public_scripts() -> None:
    given = {"protocol": "e2urec-ml-1m", "data_path": write_as_ml_1m(1, 1)}
    config = Config("E2URec", config_dict=given)
    options = config.options(E2URecOptions)
    a_pass = -(-12_982 // options.unlearn_batch_size)
    assert a_pass == 812
    assert steps_until(options.augmented_epochs, a_pass) == 1_200
    assert steps_until(options.warmup_epochs, a_pass) == 812
    whole = options.warmup_epochs + options.joint_epochs
    assert steps_until(options.unlearn_stop, steps_until(whole, a_pass)) == 812 + 188
    torch = {"rate_schedule": "constant", "clip_norm": None, "adam_epsilon": 1e-8}
    assert options.rule(0.001, 1.0) == StepRule(0.001, **torch, weight_decay=0.01)
    for_original = config.options(LLMRecOptions)
    assert {key: getattr(for_original, key) for key in torch} == torch
    assert (config["weight_decay"], config["learning_rate"]) == (0.01, 0.0005)
    same = [key for key, value in Config("E2URec").settings().items() if config[key] == value]
    differ = {field.name for field in fields(E2URecOptions)} - set(same)
    assert differ == {"augmented_epochs"}  # 1.5 passes unless told otherwise


@pytest.mark.slow
def test_files_of_the_size_of_ml_1m_give_the_parts_of_the_paper(tmp_path: Path) -> None:
    films = [f"{item}::Film {item} (1990)::Drama" for item in range(1, 3_884)]
    write_lines(tmp_path / "movies.dat", films)
    people = [f"{user}::F::25::{user % 21}::1" for user in range(1, 6_041)]
    write_lines(tmp_path / "users.dat", people)
    rows = (
        f"{1 + row % 6_040}::{1 + row // 6_040}::{1 + row % 5}::{956_000_000 + row}"
        for row in range(1_000_209)
    )
    write_lines(tmp_path / "ratings.dat", rows)
    assert main(["ml-1m", str(tmp_path), "--strict"]) == 0
    config = Config("LLMRec", config_dict={"protocol": "e2urec-ml-1m"})
    parts = parts_of(config, load_dataset(config))
    assert [len(part) for part in parts.splits] == [60_000, 20_000, 20_000]


def test_own_settings_win_over_the_protocol() -> None:
    given = {"protocol": "e2urec-ml-1m", "data_path": write_as_ml_1m(1, 1), "backbone": "tiny-t5"}
    config = Config("E2URec", config_dict=given, overrides={"alpha": "3"})
    assert config["dataset"] == "ml-1m"
    assert [config[key] for key in ("backbone", "alpha", "beta", "last_rows")] == [
        "tiny-t5", 3, 0.4, 100_000,
    ]  # fmt: skip
    assert config.settings()["protocol"] == "e2urec-ml-1m"


def test_unknown_protocol_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'e2urec-ml-1m'"):
        Config("LLMRec", config_dict={"protocol": "e2urec-ml-1"})


def test_rules_need_numbers(small_config: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match="min_history: 'x' does not do"):
        small_config("FM", min_history="x")
