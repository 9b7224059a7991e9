import math
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_e2urec.config.config import Config
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.data.loaders import build_splits, make_loaders, without_users
from recbole_e2urec.data.request.selection import choose_control_users
from recbole_e2urec.errors import InputError
from recbole_e2urec.trainer.recbole_trainer import fit_classic, make_trainer, plain_values

SMALL = {"train_batch_size": 64, "MAX_ITEM_LIST_LENGTH": 5, "mlp_hidden_size": [8]}
RECBOLE_RANKED = {
    "eval_args": {
        "split": {"RS": [0.8, 0.1, 0.1]},
        "order": "RO",
        "group_by": "user",
        "mode": "full",
    },
    "metrics": ["Recall", "MRR", "NDCG"],
    "threshold": None,
    "rank_positives": "all",
    "eval_batch_size": 4096,
}
RECBOLE_LABELED = {
    "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "group_by": None},
    "metrics": ["AUC", "LogLoss"],
}


def loaders_of(config):
    dataset = load_dataset(config)
    return make_loaders(config, dataset, build_splits(dataset))


def fit(config):
    return fit_classic(config, loaders_of(config))


def fit_as_recbole(model, settings):
    """One epoch on ml-100k under RecBole's own settings and default seed, 2020."""
    always = {"epochs": 1, "show_progress": False}
    return fit(Config(model, "ml-100k", config_dict={**settings, **always})).results


@pytest.mark.parametrize(
    "model",
    ["Pop", "ItemKNN", "BPR", "LightGCN", "EASE", "FM", "DeepFM", "DIN", "SASRec", "GRU4Rec"],
)
def test_fit_gives_finite_plain_numbers(small_config, model):
    results = fit(small_config(model, **SMALL)).results
    for phase in ("valid", "test"):
        assert results[phase]
        assert all(type(value) is float for value in results[phase].values())
        assert all(math.isfinite(value) for value in results[phase].values())


@pytest.mark.parametrize("model", ["FM", "BPR", "SASRec"])
def test_fit_survives_ties_in_time(toy_config, model):
    test = fit(toy_config(model, **SMALL)).results["test"]
    assert all(math.isfinite(value) for value in test.values())


@pytest.mark.parametrize("model", ["FM", "BPR", "SASRec"])
def test_fit_repeats_itself_bit_for_bit(small_config, model):
    first, second = (fit(small_config(model, **SMALL)).results for _ in range(2))
    for key in ("valid", "test", "train_loss", "trained_parameters"):
        assert first[key] == second[key]


def test_two_fits_in_one_second_have_two_checkpoints(small_config):
    names = {fit(small_config("FM", **SMALL)).results["checkpoint"] for _ in range(2)}
    assert len(names) == 2
    assert all(Path(name).is_file() for name in names)


def test_fit_tests_the_best_epoch(small_config):
    config = small_config("FM", **{**SMALL, "epochs": 5, "learning_rate": 0.5})
    run = fit(config)
    again = run.trainer.evaluate(loaders_of(config).valid, load_best_model=False)
    assert plain_values(again) == run.results["valid"]


def test_fit_refuses_a_loss_that_became_nan(small_config, monkeypatch):
    config = small_config("FM", **SMALL)
    monkeypatch.setattr(
        config.model_class, "calculate_loss", lambda self, batch: torch.tensor(float("nan"))
    )
    with pytest.raises(InputError, match="loss became NaN; try a smaller learning_rate"):
        fit(config)


def test_fit_without_validation_tests_the_last_epoch(small_config):
    config = small_config("FM", **SMALL, eval_args={"split": {"LS": "test_only"}})
    results = fit(config).results
    assert results["valid"] == {}
    assert "auc" in results["test"]


def test_beyond_accuracy_metrics_work(small_config):
    names = ["ItemCoverage", "AveragePopularity", "GiniIndex", "ShannonEntropy", "TailPercentage"]
    config = small_config("EASE", **SMALL, eval_mode="full", metrics=names, topk=[3])
    test = fit(config).results["test"]
    assert set(test) == {f"{name.lower()}@3" for name in names}
    assert 0 < test["itemcoverage@3"] <= 1


@pytest.mark.parametrize("model", ["BPR", "LightGCN", "EASE", "SASRec", "GRU4Rec"])
def test_sampled_ranking_scores_as_recboles_own(small_config, model, monkeypatch):
    config = small_config(model, **SMALL, eval_mode="uni5")
    loaders = loaders_of(config)
    trainer = make_trainer(config, loaders)
    trainer.eval_collector.data_collect(loaders.train)
    quick = trainer.evaluate(loaders.test, load_best_model=False)

    def lacking(self, interaction):
        raise NotImplementedError

    monkeypatch.setattr(config.model_class, "full_sort_predict", lacking)
    assert trainer.evaluate(loaders.test, load_best_model=False) == quick


def test_a_context_model_can_rank(small_config):
    test = fit(small_config("FM", **SMALL, eval_mode="uni5")).results["test"]
    assert set(test) == {"recall@10", "ndcg@10", "mrr@10", "hit@10"}


def test_a_checkpoint_of_another_run_is_not_loaded(small_config):
    config = small_config("FM", **SMALL)
    foreign = fit(config).results["checkpoint"]
    loaders = loaders_of(config)
    trainer = make_trainer(config, loaders)
    with pytest.raises(InputError, match="was not written by this run"):
        trainer.evaluate(loaders.test, model_file=foreign)


def test_a_retrained_sequential_model_never_saw_the_forgotten(small_config):
    config = small_config("SASRec", **SMALL)
    dataset = load_dataset(config)
    splits = build_splits(dataset)
    loaders = make_loaders(config, dataset, splits, splits.train[::2])
    forgotten = set(splits.train[1::2].tolist())
    seen = loaders.train._dataset.inter_feat["row_id"].tolist()
    assert not forgotten & set(seen)
    assert fit_classic(config, loaders).results["test"]


# RecBole 1.2.1's own numbers: one epoch, seed 2020, its own settings


def test_pop_is_recboles() -> None:
    test = fit_as_recbole("Pop", RECBOLE_RANKED)["test"]
    assert test == {"recall@10": 0.0838, "mrr@10": 0.1896, "ndcg@10": 0.1005}


def test_fm_is_recboles() -> None:
    results = fit_as_recbole("FM", RECBOLE_LABELED)
    assert results["train_loss"][0] == pytest.approx(28.061960577964783, rel=1e-6)
    assert results["test"] == {"auc": 0.573, "logloss": 0.6814}


@pytest.mark.thorough
def test_bpr_is_recboles() -> None:
    results = fit_as_recbole("BPR", RECBOLE_RANKED)
    assert results["train_loss"][0] == pytest.approx(27.724031150341034, rel=1e-6)
    assert results["test"] == {"recall@10": 0.0067, "mrr@10": 0.0206, "ndcg@10": 0.0087}


@pytest.mark.slow
@pytest.mark.parametrize("model", ["FM", "DeepFM"])
def test_a_context_model_learns_labels_on_our_default_split(model: str) -> None:
    config = Config(model, "ml-100k", config_dict={"epochs": 5, "show_progress": False})
    dataset = load_dataset(config)
    left_out = choose_control_users(np.unique(dataset.rows.user), 0.1, 2020)
    splits = without_users(build_splits(dataset), dataset.rows.user, left_out)
    loaders = make_loaders(config, dataset, splits)
    assert fit_classic(config, loaders).results["test"]["auc"] > 0.6


@pytest.mark.slow
def test_deepfm_is_recboles() -> None:
    results = fit_as_recbole("DeepFM", RECBOLE_LABELED)
    assert results["train_loss"][0] == pytest.approx(27.69650137424469, rel=1e-6)
    assert results["test"] == {"auc": 0.6598, "logloss": 0.6514}


@pytest.mark.slow
def test_lightgcn_is_recboles() -> None:
    results = fit_as_recbole("LightGCN", RECBOLE_RANKED)
    assert results["train_loss"][0] == pytest.approx(27.60949319601059, rel=1e-6)
    assert results["test"] == {"recall@10": 0.1361, "mrr@10": 0.2790, "ndcg@10": 0.1521}


@pytest.mark.slow
def test_ease_is_recboles() -> None:
    test = fit_as_recbole("EASE", RECBOLE_RANKED)["test"]
    assert test == {"recall@10": 0.2805, "mrr@10": 0.5277, "ndcg@10": 0.3295}


@pytest.mark.slow
def test_itemknn_is_recboles_up_to_ties() -> None:
    test = fit_as_recbole("ItemKNN", RECBOLE_RANKED)["test"]
    expected = {"recall@10": 0.2469, "mrr@10": 0.4630, "ndcg@10": 0.2835}
    assert test == pytest.approx(expected, abs=0.001)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "loss"), [("SASRec", 85.649), ("GRU4Rec", 85.703)])
def test_a_sequential_model_is_recboles_up_to_the_order_of_close_times(
    model: str, loss: float
) -> None:
    settings = {
        **RECBOLE_RANKED,
        "eval_args": {
            "split": {"LS": "valid_and_test"},
            "order": "TO",
            "group_by": "user",
            "mode": "full",
        },
        "user_inter_num_interval": "[0,100]",
        "MAX_ITEM_LIST_LENGTH": 10,
        "hidden_size": 16,
        "inner_size": 16,
    }
    assert fit_as_recbole(model, settings)["train_loss"][0] == pytest.approx(loss, rel=0.01)


def test_fit_counts_its_steps(small_config):
    config = small_config("FM", **{**SMALL, "epochs": 2})
    results = fit(config).results
    assert results["epochs"] == 2
    assert results["steps"] == 2 * math.ceil(240 / 64)  # 24 users with 10 training rows each


def test_fit_names_a_missing_package(small_config, monkeypatch):
    config = small_config("FM", **SMALL)

    def lacking(self, batch):
        raise ModuleNotFoundError("No module named 'faiss'", name="faiss")

    monkeypatch.setattr(config.model_class, "calculate_loss", lacking)
    with pytest.raises(InputError, match="model FM needs the package faiss"):
        fit(config)
