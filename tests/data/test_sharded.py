"""Rows in shards: the same rows, parts, histories, prompts and results as rows in memory."""

import errno
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from atomic_files import INTER, small_interactions, write_table

from recbole_e2urec.data import sharded
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.data.history import ABSENT
from recbole_e2urec.data.sharded import FACTS, prepared_rows
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.unlearning import Forgetting
from recbole_e2urec.quick_start import run_recbole_e2urec

SEVERAL = [1, 7, 100, 10**6]  # rows in a shard
LEAVE_ONE_OUT = {"split": {"LS": "valid_and_test"}}


def both(config: Callable[..., Any], **settings: Any) -> list[Forgetting]:
    """Open the same run on rows in memory, and on rows in shards."""
    settings.setdefault("shard_rows", 7)
    configs = [config("E2URec", **{**settings, "shard_rows": None}), config("E2URec", **settings)]
    return [Forgetting(each, load_dataset(each)) for each in configs]


def assert_alike(memory: Forgetting, shards: Forgetting) -> None:
    """All that a run takes from the rows is equal, prompt by prompt."""
    for name in ("user", "item", "time", "rating", "label", "highest_rating"):
        np.testing.assert_array_equal(
            getattr(memory.dataset.rows, name), getattr(shards.dataset.rows, name)
        )
    assert shards.dataset.ids == memory.dataset.ids
    assert shards.dataset.findings == memory.dataset.findings
    assert shards.config["threshold"] == memory.config["threshold"]
    for of_shards, of_memory in zip(shards.parts.whole, memory.parts.whole, strict=True):
        assert of_shards.tolist() == of_memory.tolist()
    for of_shards, of_memory in zip(shards.split, memory.split, strict=True):
        assert of_shards.tolist() == of_memory.tolist()
    rows = np.arange(len(memory.dataset.rows))
    mixed = np.random.default_rng(3).permutation(rows)
    for name in ("before", "after"):
        history = getattr(memory, name)
        assert getattr(shards, name)[rows].tolist() == history.tolist()
        tables = [run.model.table.with_history(getattr(run, name)) for run in (memory, shards)]
        assert (tables[0].lengths(mixed) == tables[1].lengths(mixed)).all()
        batches = [table.batch(mixed) for table in tables]
        assert all(map(torch.equal, *batches))
        assert tables[0].text(5) == tables[1].text(5)
        assert tables[0].seen(5).shown.tolist() == tables[1].seen(5).shown.tolist()
    assert shards.comparison == memory.comparison


@pytest.mark.parametrize("shard_rows", SEVERAL)
def test_everything_is_as_with_rows_in_memory(shard_rows: int, toy_config: Any) -> None:
    memory, shards = both(toy_config, shard_rows=shard_rows, history_length=4)
    assert memory.after.max() > ABSENT
    assert_alike(memory, shards)


@pytest.mark.parametrize(
    "settings",
    [
        {"forget_by": "interaction"},  # hides rows of users who stay
        {"eval_args": LEAVE_ONE_OUT},
        {"threshold": {"rating": 3}},
        {"history_length": 0},
        {"load_col": {"inter": "*", "user": ["user_id", "age"], "item": ["item_id", "genre"]}},
    ],
)
def test_settings_mean_the_same(settings: dict[str, Any], small_config: Any) -> None:
    memory, shards = both(small_config, **settings)
    assert_alike(memory, shards)
    if "forget_by" in settings:
        rows = np.arange(len(memory.dataset.rows))
        assert (shards.before[rows] != shards.after[rows]).any()


def test_pieces_of_the_table_make_no_difference(
    toy_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharded, "PIECE", 13)
    assert_alike(*both(toy_config, shard_rows=100))


def test_labels_of_the_data_are_taken(small_config: Any, small_data: Path) -> None:
    rows = [[user, item, rating % 2, time] for user, item, rating, time in small_interactions()]
    write_table(small_data / "small" / "small.inter", INTER.replace("rating", "label"), rows)
    assert_alike(*both(small_config))


def test_rows_of_nobody_and_of_strangers_are_left_out(small_config: Any, small_data: Path) -> None:
    rows = small_interactions()
    rows[0][0] = "stranger"
    write_table(small_data / "small" / "small.inter", INTER, rows)
    settings = {"load_col": {"inter": "*", "user": ["user_id", "age"]}}
    memory, shards = both(small_config, **settings)
    told = shards.dataset.findings.warnings.pop()
    assert told.startswith("1 of 288 rows are left out")
    assert memory.dataset.findings.warnings.pop().startswith("1 of 288 rows are left out")
    assert_alike(memory, shards)
    rows[0][0] = ""
    write_table(small_data / "small" / "small.inter", INTER, rows)
    memory, shards = both(small_config)
    assert shards.dataset.findings.warnings.pop().startswith("1 rows name no user")
    assert_alike(memory, shards)


def run_of(data: Path, **settings: Any) -> list[dict[str, Any]]:
    """Train, retrain, forget and evaluate; the measures that depend on no clock."""
    always = {"data_path": str(data), "epochs": 1, "joint_epochs": 1, "show_progress": False}
    rows = run_recbole_e2urec("E2URec", "small", config_dict={**always, **settings})["rows"]
    kept = ("model", "test", "forget", "to_retrain", "mia_auc", "train_loss", "comparison")
    return [{name: row.get(name) for name in kept} for row in rows]


@pytest.mark.parametrize("forget_by", ["user", "interaction"])
def test_a_whole_run_has_the_same_results(forget_by: str, small_data: Path, tmp_path: Path) -> None:
    memory = run_of(small_data, forget_by=forget_by, checkpoint_dir=str(tmp_path / "a"))
    shards = run_of(
        small_data, forget_by=forget_by, checkpoint_dir=str(tmp_path / "b"), shard_rows=50
    )
    assert shards == memory


# Parquet and Arrow


@pytest.mark.parametrize("kind", ["parquet", "arrow", "folder"])
def test_parquet_and_arrow_files_give_the_same(
    kind: str, small_config: Any, small_data: Path
) -> None:
    pytest.importorskip("pyarrow")
    import pandas as pd
    from pyarrow import feather

    memory = both(small_config)[0]
    atomic = small_data / "small" / "small.inter"
    table = pd.read_csv(atomic, sep="\t").rename(columns=lambda name: name.split(":")[0])
    atomic.unlink()
    if kind == "folder":
        folder = Path(f"{atomic}.parquet")
        folder.mkdir()
        for number, part in enumerate((table[:100], table[100:])):
            part.to_parquet(folder / f"part-{number}.parquet")
    elif kind == "arrow":
        feather.write_feather(table, f"{atomic}.arrow")
    else:
        table.to_parquet(f"{atomic}.parquet")
    config = small_config("E2URec", shard_rows=50)
    assert_alike(memory, Forgetting(config, load_dataset(config)))
    with pytest.raises(InputError, match="is read in shards only: write --shard_rows"):
        small_config("E2URec")


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("user_id", [1.5] * 4, "user_id has fractions"),
        ("rating", [1.0, None, 2.0, 3.0], "rating has a missing or infinite number"),
        ("rating", ["good"] * 4, "small.inter.parquet: "),
        ("timestamp", None, "no column 'timestamp' among user_id, item_id, rating"),
    ],
)
def test_a_parquet_file_that_does_not_do_is_refused(
    column: str, values: Any, message: str, small_config: Any, small_data: Path
) -> None:
    pytest.importorskip("pyarrow")
    import pandas as pd

    columns = {"user_id": [1, 1, 2, 2], "item_id": [1, 2, 1, 2], "rating": [1.0, 5, 2, 4]}
    table = pd.DataFrame({**columns, "timestamp": [1, 2, 3, 4], column: values})
    table = table.drop(columns=[column] if values is None else [])
    atomic = small_data / "small" / "small.inter"
    atomic.unlink()
    table.to_parquet(f"{atomic}.parquet")
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(small_config("E2URec", shard_rows=50))
    assert "\n" not in str(caught.value)


# What is refused, and what is on the disk


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_history": 2}, "min_history needs all rows at once"),
        ({"rm_dup_inter": "last"}, "rm_dup_inter needs all rows at once"),
        ({"user_inter_num_interval": "[5,inf)"}, "user_inter_num_interval needs all rows"),
        ({"eval_args": {"order": "RO"}}, "the rows of each user are split in the order of time"),
        ({"eval_args": {"group_by": "none"}}, "the rows of each user are split"),
        ({"eval_args": {"split": {"RS": [0.8, 0.2]}}}, "the split gives 2 parts"),
        ({"threshold": {"timestamp": 5}}, "labels are made from rating alone"),
        ({"TIME_FIELD": "when"}, "no column 'when' among"),
    ],
)
def test_refused_in_one_line(settings: dict[str, Any], message: str, small_config: Any) -> None:
    config = small_config("E2URec", shard_rows=50, **settings)
    with pytest.raises(InputError, match=message):
        load_dataset(config).split_rows()


def test_a_bad_cell_is_pointed_at(small_config: Any, small_data: Path) -> None:
    rows = small_interactions()
    rows[3][2] = "four"
    write_table(small_data / "small" / "small.inter", INTER, rows)
    with pytest.raises(InputError, match="line 5, column rating: 'four' is not a number"):
        load_dataset(small_config("E2URec", shard_rows=50))


def folders(config: Any) -> list[Path]:
    """The prepared rows of a data set, and what is unfinished."""
    place = config.run_folder / "rows"
    return sorted(path for path in place.iterdir() if path.is_dir())


def test_rows_are_prepared_once_until_the_table_changes(
    small_config: Any, small_data: Path
) -> None:
    config = small_config("E2URec", shard_rows=50)
    first = prepared_rows(config).folder
    made = (first / FACTS).stat().st_mtime_ns
    assert prepared_rows(small_config("LLMRec", shard_rows=9, threshold=None)).folder == first
    assert (first / FACTS).stat().st_mtime_ns == made
    write_table(small_data / "small" / "small.inter", INTER, small_interactions()[1:])
    assert len(prepared_rows(config).ids.users) == 24
    assert len(folders(config)) == 2
    assert not list(first.glob("shard-*"))


def test_a_full_disk_leaves_nothing(small_config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sharded._Preparation, "_sort", full)
    config = small_config("E2URec", shard_rows=50)
    with pytest.raises(InputError, match="No space left on device; free some space"):
        load_dataset(config)
    assert folders(config) == []


def test_corrections_and_erasing_are_refused(small_config: Any) -> None:
    dataset = load_dataset(small_config("E2URec", shard_rows=50))
    with pytest.raises(InputError, match="rows in shards cannot be erased"):
        dataset.lines  # noqa: B018
    with pytest.raises(InputError, match="rows in shards cannot be corrected"):
        dataset.replace_rows(dataset.rows)


# Memory


def write_rows(folder: Path, count: int) -> None:
    """Write a data set of 50 users and 40 items."""
    generator = np.random.default_rng(1)
    columns = (
        generator.integers(50, size=count),
        generator.integers(40, size=count),
        generator.integers(1, 6, count),
        generator.integers(10**8, size=count),
    )
    write_table(folder / "small" / "small.inter", INTER, list(zip(*columns, strict=True)))


def test_memory_of_the_preparation_does_not_grow_with_the_rows(
    small_config: Any, small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharded, "PIECE", 1000)
    peaks = []
    for count in (50_000, 50_000, 150_000):  # the first one imports what is needed
        write_rows(small_data, count)
        tracemalloc.start()
        prepared_rows(small_config("E2URec", shard_rows=10_000))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.2 * peaks[1]
