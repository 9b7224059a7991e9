import math

import numpy as np
import pytest
from recbole.evaluator import metric_types, register

from recbole_e2urec.config.evaluation_mode import accuracy, register_accuracy
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.data.loaders import build_splits, make_loaders
from recbole_e2urec.trainer.recbole_trainer import fit_classic


def test_accuracy_is_the_share_of_right_answers():
    scores, labels = np.array([0.9, 0.2, 0.6, 0.4]), np.array([1, 0, 0, 1])
    assert accuracy(scores, labels) == 0.5


def test_accuracy_takes_one_half_as_a_no():
    assert accuracy(np.array([0.5]), np.array([0])) == 1


def test_accuracy_of_no_rows_is_nan():
    assert math.isnan(accuracy(np.empty(0), np.empty(0)))


def test_register_makes_it_a_metric_of_recbole():
    register_accuracy()
    assert metric_types["acc"] == metric_types["auc"]
    assert register.metric_information["acc"] == register.metric_information["auc"]
    assert "acc" not in register.smaller_metrics


def test_acc_of_a_run_is_the_accuracy_of_its_scores(small_config):
    config = small_config("FM", train_batch_size=64, metric_decimal_place=8)
    dataset = load_dataset(config)
    loaders = make_loaders(config, dataset, build_splits(dataset))
    run = fit_classic(config, loaders)
    labels, scores = [], []
    for batch, *_ in loaders.test:
        labels.append(batch["label"].numpy())
        scores.append(run.trainer.model.predict(batch).detach().numpy())
    expected = accuracy(np.concatenate(scores), np.concatenate(labels))
    assert run.results["test"]["acc"] == pytest.approx(expected, abs=1e-8)
