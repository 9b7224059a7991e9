import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import write
from recbole.utils import InputType, ModelType

from recbole_e2urec.config import keys
from recbole_e2urec.config.config import Config
from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.config.yaml import properties
from recbole_e2urec.errors import InputError
from recbole_e2urec.utils import recbole_compat


@pytest.fixture
def language_model(monkeypatch: pytest.MonkeyPatch) -> type:
    """Put a class that trains nothing in the place of LLMRec, and name a method after it."""
    module = types.ModuleType("recbole_e2urec.model.llmrec")
    kind = type("LLMRec", (), {"type": ModelType.CONTEXT, "input_type": InputType.POINTWISE})
    kind.__module__ = module.__name__
    module.LLMRec = kind  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(keys, "METHODS", {"Forgetful": object})
    return kind


# layers


def test_later_layers_win(tmp_path: Path) -> None:
    first = write(tmp_path / "a.yaml", "epochs: 2\nseed: 2\ntopk: [2]\nlearning_rate: 0.2\n")
    second = write(tmp_path / "b.yaml", "seed: 3\ntopk: [3]\nlearning_rate: 0.3\n")
    config = Config(
        "BPR",
        "ml-100k",
        [first, second],
        {"topk": [4], "learning_rate": 0.4},
        {"learning_rate": "0.5"},
    )
    assert [config[key] for key in ("epochs", "seed", "topk", "learning_rate")] == [2, 3, [4], 0.5]


def test_model_and_dataset_come_from_files_when_not_given(tmp_path: Path) -> None:
    config = Config(None, None, [write(tmp_path / "a.yaml", "model: Pop\ndataset: ml-100k\n")])
    assert (config["model"], config["dataset"]) == ("Pop", "ml-100k")


def test_the_command_line_of_the_process_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["pytest", "--epochs=99", "--timeout=60"])
    assert Config("Pop", "ml-100k")["epochs"] != 99


@pytest.mark.parametrize(
    "text", ["os.txt", "re.csv", "2014-2018", "1,2", "a=b.csv", "007", "google/flan-t5-base"]
)
def test_a_file_name_of_the_command_line_arrives_as_typed(text: str) -> None:
    assert Config("Pop", "ml-100k", overrides={"forget_file": text})["forget_file"] == text


def test_a_wrong_recbole_is_refused_before_its_config_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> None:
        raise InputError("RecBole 1.1.1 is installed")

    monkeypatch.setattr(recbole_compat, "apply", refuse)
    monkeypatch.setattr(Config, "compatibility_settings", None)  # which 1.1.1 does not call
    with pytest.raises(InputError, match=r"RecBole 1\.1\.1"):
        Config("no such model")


def test_strings_of_the_config_dict_are_not_evaluated() -> None:
    assert Config("Pop", "ml-100k", config_dict={"wandb_project": "1 + 1"})["wandb_project"] == (
        "1 + 1"
    )


def test_the_config_dict_of_the_caller_stays_as_it_was() -> None:
    given = {"train_neg_sample_args": {"distribution": "uniform"}}
    Config("BPR", "ml-100k", config_dict=given)
    assert given == {"train_neg_sample_args": {"distribution": "uniform"}}


def test_named_columns_are_loaded_beside_those_of_the_model() -> None:
    columns = Config("FM", "ml-100k", config_dict={"TIME_FIELD": "when"})["load_col"]
    assert "when" in columns["inter"]
    assert columns["item"] == ["item_id", "release_year", "class"]


def test_load_col_of_the_user_replaces_ours() -> None:
    given = {"inter": ["user_id", "item_id"]}
    assert Config("Pop", "ml-100k", config_dict={"load_col": given})["load_col"] == given


# models


def test_a_method_is_the_language_model_under_its_own_name(language_model: type) -> None:
    config = Config("Forgetful", "ml-100k")
    assert config.model_class is language_model
    assert config["model"] == "Forgetful"
    assert config.is_language_model


def test_the_language_model_is_evaluated_by_labels_in_order_of_time(language_model: type) -> None:
    config = Config("LLMRec", "ml-100k")
    assert config["metrics"] == ["AUC", "ACC", "LogLoss"]
    assert config["eval_args"]["order"] == "TO"
    assert config["train_neg_sample_args"]["distribution"] == "none"


def test_the_backbones_file_is_a_layer(language_model: type) -> None:
    chosen = Config("LLMRec", "ml-100k", config_dict={"backbone": "tiny-llama"})
    assert properties("backbone", "tiny-llama").items() <= chosen.final_config_dict.items()


def test_a_classic_model_is_not_a_language_model() -> None:
    assert not Config("FM", "ml-100k").is_language_model


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"backbone": "models/flan"}, True),
        ({"backbone": "models/flan", "learning_rate": 0.001}, False),
        ({"backbone": "t5-base", "backbone_source": "models/flan"}, False),
        ({}, False),
    ],
)
def test_a_backbone_without_rates_of_its_own_is_told(
    language_model: type, settings: dict[str, Any], told: bool
) -> None:
    assert ("models/flan" in Config("LLMRec", "ml-100k", None, settings).borrowed_rates) == told


@pytest.mark.parametrize(
    ("wrong", "right"), [("DepFM", "DeepFM"), ("deepfm", "DeepFM"), ("LLMRek", "LLMRec")]
)
def test_an_unknown_model_is_met_with_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(InputError, match=f"unknown model '{wrong}'; did you mean '{right}'"):
        Config(wrong, "ml-100k")


def test_an_unknown_dataset_is_met_with_the_nearest() -> None:
    with pytest.raises(
        InputError, match=r"'ml-101k': there is no .*ml-101k\.inter; did you mean 'ml-100k'"
    ):
        Config("FM", "ml-101k")


def test_a_dataset_near_nothing_is_told_where_to_go() -> None:
    with pytest.raises(
        InputError, match=r"no dataset/qqqq/qqqq\.inter; put its atomic files there"
    ):
        Config("FM", "qqqq")


def test_a_file_beside_the_datasets_is_not_proposed_as_one(tmp_path: Path) -> None:
    (tmp_path / "qqqr").write_text("")
    with pytest.raises(InputError, match=r"qqqq\.inter; put its atomic files there"):
        Config("FM", "qqqq", None, {"data_path": str(tmp_path)})
    (tmp_path / "qqqs").mkdir()
    with pytest.raises(InputError, match=r"qqqq\.inter; did you mean 'qqqs'"):
        Config("FM", "qqqq", None, {"data_path": str(tmp_path)})


# keys and values


@pytest.mark.parametrize("source", ["config_dict", "the command line", "a file"])
def test_an_unknown_key_is_met_with_the_nearest(source: str, tmp_path: Path) -> None:
    given = {"forget_ration": 0.1}
    files = [write(tmp_path / "a file", "forget_ration: 0.1\n")] if source == "a file" else []
    with pytest.raises(InputError, match=f"'forget_ration' in .*{source}.*'forget_ratio'"):
        Config(
            "FM",
            "ml-100k",
            files,
            given if source == "config_dict" else None,
            given if source == "the command line" else None,
        )


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("use_gpu", "no", "True or False"),
        ("learning_rate", "fast", "a number"),
        ("epochs", 2.5, "a whole number"),
        ("topk", "5,10", "a list such as"),
        ("rank_positives", "some", "label or all"),
        ("save_dataset", True, "a cache keeps"),
        ("nproc", "many", "a whole number"),
        ("threshold", 4, "a mapping such as {a: 1}"),
        ("threshold", {"rating": "high"}, "a number, as in {rating: 4}"),
        ("val_interval", "[3,inf)", "a mapping such as {a: 1}"),
        ("load_col", ["rating"], "a mapping such as {a: 1}"),
        ("learning_rate", [0.1], "a number"),
        ("train_batch_size", 0, "a whole number from 1 on"),
        ("eval_batch_size", 0, "a whole number from 1 on"),
        ("seed", -1, "a whole number from 0 on"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(key: str, value: Any, wanted: str) -> None:
    with pytest.raises(InputError, match=f"{key}.*{wanted}"):
        Config("FM", "ml-100k", config_dict={key: value})


# device


def test_use_gpu_false_is_the_cpu_and_hides_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    config = Config("Pop", "ml-100k", config_dict={"use_gpu": False, "gpu_id": "1"})
    assert config["device"] == torch.device("cpu")
    import os

    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"


# evaluation


@pytest.mark.parametrize(
    ("model", "given", "mode", "first", "valid"),
    [
        ("FM", {}, "labeled", "AUC", "AUC"),
        ("DIN", {}, "labeled", "AUC", "AUC"),
        ("BPR", {}, "uni100", "Recall", "NDCG@10"),
        ("SASRec", {}, "uni100", "Recall", "NDCG@10"),
        ("FM", {"eval_mode": "full"}, "full", "Recall", "NDCG@10"),
        ("FM", {"eval_args": {"mode": "uni50"}}, "uni50", "Recall", "NDCG@10"),
        ("FM", {"metrics": ["Hit"], "topk": [5]}, "uni100", "Hit", "Hit@5"),
        ("BPR", {"metrics": "LogLoss"}, "labeled", "LogLoss", "LogLoss"),
        ("DIN", {"eval_mode": "uni100", "metrics": ["AUC"]}, "uni100", "AUC", "AUC"),
    ],
)
def test_mode_metrics_and_valid_metric_fit_each_other(
    model: str, given: dict[str, Any], mode: str, first: str, valid: str
) -> None:
    config = Config(model, "ml-100k", config_dict=given)
    assert config["eval_args"]["mode"] == {"valid": mode, "test": mode}
    assert config["metrics"][0] == first
    assert config["valid_metric"] == valid


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"eval_mode": "labelled"}, "'labelled' is not one of"),
        ({"eval_mode": "labeled", "metrics": ["NDCG"]}, "NDCG ranks items"),
        ({"metrics": ["NDCG", "AUC"]}, "mix labels and ranking"),
        ({"metrics": ["Acuracy"]}, "unknown metric 'Acuracy'"),
        ({"valid_metric": "MRR@10"}, "MRR@10 is not among AUC, ACC, LogLoss"),
        ({"eval_args": {"mode": {"valid": "labeled", "test": "full"}}}, "mixes labels and ranking"),
        ({"eval_args": {"ordr": "TO"}}, "unknown part 'ordr'"),
        ({"eval_args": {"split": "RS"}}, "split 'RS'"),
        ({"eval_args": {"split": {"RS": 3}}}, r"split RS 3; write shares"),
        ({"eval_args": {"split": {"RS": [0.8, "x"]}}}, "write shares"),
        ({"eval_args": {"split": {"RS": [0, 0, 0]}}}, "write shares"),
        ({"eval_args": {"split": {"TS": [0.8, 0.2]}}}, r"write shares such as \[0.8, 0.1, 0.1\]"),
    ],
)
def test_settings_of_evaluation_that_do_not_fit_are_refused(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Config("FM", "ml-100k", config_dict=given)


def test_a_part_of_eval_args_keeps_our_other_parts() -> None:
    args = Config("FM", "ml-100k", config_dict={"eval_args": {"group_by": "none"}})["eval_args"]
    assert (args["group_by"], args["order"], args["split"]) == (
        "none",
        "TO",
        {"RS": [0.8, 0.1, 0.1]},
    )


def test_cross_entropy_takes_no_negatives_and_pairwise_loss_takes_one() -> None:
    assert Config("SASRec", "ml-100k")["train_neg_sample_args"]["distribution"] == "none"
    pairwise = Config("SASRec", "ml-100k", config_dict={"loss_type": "BPR"})
    assert pairwise["train_neg_sample_args"]["sample_num"] == 1


def test_one_normalised_field_switches_the_others_off() -> None:
    config = Config("FM", "ml-100k", config_dict={"normalize_field": ["timestamp"]})
    assert config["normalize_all"] is None


def test_config_makes_options() -> None:
    @option_class()
    class Seed:
        seed: int = option("A seed.")

    assert Config("Pop", "ml-100k", config_dict={"seed": 5}).options(Seed).seed == 5
