from pathlib import Path

import numpy as np
import pytest
from atomic_files import small_interactions, write_table

from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.data.loaders import (
    build_splits,
    evaluation_loader,
    make_loaders,
    without_users,
)
from recbole_e2urec.errors import InputError

RANKED = ["BPR", "SASRec", "FM", "EASE"]


def prepare(config, left_out=None):
    dataset = load_dataset(config)
    splits = build_splits(dataset)
    if left_out is not None:
        splits = without_users(splits, dataset.rows.user, left_out)
    return dataset, splits


def candidates(loader):
    """(row id, item) of everything that an evaluation loader asks a model, sorted."""
    pairs = []
    for interaction, *_ in loader:
        pairs += zip(interaction["row_id"].tolist(), interaction["item_id"].tolist(), strict=True)
    return sorted(pairs)


def test_left_out_users_are_in_no_part(small_config):
    dataset, splits = prepare(small_config("FM"), np.array([3, 5]))
    users = dataset.rows.user[np.concatenate(splits)]
    assert set(users) == set(range(1, 25)) - {3, 5}


def test_leaving_everyone_out_is_refused(small_config):
    dataset = load_dataset(small_config("FM"))
    with pytest.raises(InputError, match="no training rows are left"):
        without_users(build_splits(dataset), dataset.rows.user, np.arange(25))


def test_training_shows_each_row_once_an_epoch(small_config):
    config = small_config("FM")
    dataset, splits = prepare(config)
    loader = make_loaders(config, dataset, splits).train
    seen = np.concatenate([batch["row_id"].numpy() for batch in loader])
    assert sorted(seen) == sorted(splits.train)


@pytest.mark.parametrize("model", ["FM", "BPR", "SASRec", "DIN", "MultiVAE"])
def test_training_on_a_part_shows_that_part_only(small_config, model):
    config = small_config(model)
    dataset, splits = prepare(config)
    retain = splits.train[dataset.rows.user[splits.train] > 6]
    loader = make_loaders(config, dataset, splits, retain).train
    assert set(loader._dataset.inter_feat["row_id"].tolist()) <= set(retain.tolist())


def test_forgotten_pairs_count_as_unseen_when_training_negatives_are_sampled(small_config):
    config = small_config("BPR")
    dataset, splits = prepare(config)
    retain = splits.train[::2]
    used = make_loaders(config, dataset, splits, retain).train._sampler.used_ids
    for user in range(1, 25):
        mine = retain[dataset.rows.user[retain] == user]
        assert used[user] == set(dataset.rows.item[mine].tolist())


def test_every_model_meets_the_same_candidates(small_config):
    asked = []
    for model in RANKED:
        config = small_config(model, eval_mode="uni5")
        asked.append(candidates(make_loaders(config, *prepare(config)).test))
    assert asked[1:] == asked[:1] * (len(RANKED) - 1)


def test_uni100_gives_bpr_and_sasrec_the_same_candidates_despite_ties(toy_config):
    asked = [
        candidates(make_loaders(config, *prepare(config)).test)
        for config in (toy_config(model, eval_mode="uni100") for model in ("BPR", "SASRec"))
    ]
    assert asked[0] == asked[1]
    assert asked[0]


def test_each_evaluation_meets_the_same_candidates_in_batches_of_any_size(small_config):
    asked = []
    for size in (7, 70_000):
        config = small_config("BPR", eval_mode="uni5", eval_batch_size=size)
        loader = make_loaders(config, *prepare(config)).valid
        asked += [candidates(loader), candidates(loader)]
    assert asked[1:] == asked[:1] * 3


def test_candidates_do_not_depend_on_what_is_trained_on(small_config):
    config = small_config("BPR", eval_mode="uni5")
    dataset, splits = prepare(config)
    whole = make_loaders(config, dataset, splits)
    part = make_loaders(config, dataset, splits, splits.train[::2])
    assert candidates(whole.test) == candidates(part.test)


@pytest.mark.parametrize("model", ["BPR", "SASRec"])
def test_candidates_were_never_used_by_the_user(small_config, model):
    config = small_config(model, eval_mode="uni5")
    dataset, splits = prepare(config)
    everything = np.concatenate(splits)
    used = set(zip(dataset.rows.user[everything], dataset.rows.item[everything], strict=True))
    for row, item in candidates(make_loaders(config, dataset, splits).test):
        is_target = item == dataset.rows.item[row]
        assert is_target or (dataset.rows.user[row], item) not in used


def test_a_positive_comes_with_the_asked_number_of_candidates(small_config):
    config = small_config("BPR", eval_mode="uni5")
    dataset, splits = prepare(config)
    asked = candidates(make_loaders(config, dataset, splits).test)
    positives = splits.test[dataset.rows.label[splits.test] == 1]
    assert len(asked) == 6 * len(positives)
    assert {row for row, _ in asked} == set(positives.tolist())


def test_all_rows_are_positives_if_asked(small_config):
    config = small_config("BPR", eval_mode="uni5", rank_positives="all")
    dataset, splits = prepare(config)
    asked = candidates(make_loaders(config, dataset, splits).test)
    assert {row for row, _ in asked} == set(splits.test.tolist())


def test_popular_items_are_drawn_more_often(small_config):
    config = small_config("BPR", eval_mode="pop50")
    dataset, splits = prepare(config)
    drawn = [item for _, item in candidates(make_loaders(config, dataset, splits).test)]
    assert set(drawn) <= set(dataset.rows.item.tolist())


def test_labelled_evaluation_asks_every_row_once(small_config):
    config = small_config("FM")
    dataset, splits = prepare(config)
    asked = candidates(make_loaders(config, dataset, splits).test)
    assert asked == sorted((row, dataset.rows.item[row]) for row in splits.test)


def test_full_ranking_names_the_earliest_row_of_each_user(small_config):
    config = small_config("EASE", eval_mode="full", eval_args={"split": {"RS": [0.5, 0.2, 0.3]}})
    dataset, splits = prepare(config)
    liked = splits.test[dataset.rows.label[splits.test] == 1]
    for users, _, _, _ in make_loaders(config, dataset, splits).test:
        for user, row in zip(users["user_id"].tolist(), users["row_id"].tolist(), strict=True):
            mine = liked[dataset.rows.user[liked] == user]
            assert dataset.rows.time[row] == dataset.rows.time[mine].min()


def test_full_ranking_masks_what_was_used_before(small_config):
    config = small_config("EASE", eval_mode="full")
    dataset, splits = prepare(config)
    loader = make_loaders(config, dataset, splits).test
    everything = np.concatenate(splits)
    for users, (history_u, history_i), positive_u, positive_i in loader:
        for place, user in enumerate(users["user_id"].tolist()):
            used = set(dataset.rows.item[everything[dataset.rows.user[everything] == user]])
            positive = set(positive_i[positive_u == place].tolist())
            assert set(history_i[history_u == place].tolist()) == used - positive


def test_any_rows_can_be_evaluated(small_config):
    config = small_config("BPR", eval_mode="uni5", rank_positives="all")
    dataset, splits = prepare(config)
    forgotten = splits.train[:9]
    loader = evaluation_loader(config, dataset, splits, "test", forgotten)
    assert {row for row, _ in candidates(loader)} == set(forgotten.tolist())


def test_a_part_without_rows_has_no_loader(small_config):
    config = small_config("FM", eval_args={"split": {"LS": "test_only"}})
    loaders = make_loaders(config, *prepare(config))
    assert loaders.valid is None
    assert loaders.test is not None


def test_a_user_who_used_every_item_cannot_be_ranked_by_samples(small_config):
    config = small_config("BPR", eval_mode="uni5")
    rows = [row for row in small_interactions() if row[0] != "u0"]
    rows += [["u0", f"i{item}", 5, 1_600_000_000 + item] for item in range(20)]
    header = "user_id:token item_id:token rating:float timestamp:float"
    write_table(Path(config["data_path"]) / "small.inter", header, rows)
    with pytest.raises(InputError, match=r"interacted with (every item|all items)"):
        make_loaders(config, *prepare(config))


@pytest.mark.parametrize("mode", ["full", "uni5"])
def test_a_ranked_list_longer_than_the_catalogue_is_refused(small_config, mode):
    config = small_config("BPR", eval_mode=mode, topk=[5, 21])
    with pytest.raises(InputError, match="topk: 21 is more than the 20 items"):
        make_loaders(config, *prepare(config))
