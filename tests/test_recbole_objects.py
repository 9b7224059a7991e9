"""A run in Python by RecBole's own objects: docs/how-to/recbole-objects.md."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recbole.data import data_preparation as recboles_data_preparation
from recbole.utils.case_study import full_sort_topk

import recbole_e2urec
from recbole_e2urec import (
    Config,
    LLMRec,
    LLMRecTrainer,
    UnlearningTrainer,
    create_dataset,
    data_preparation,
    run_recbole_e2urec,
)
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.unlearning import Forgetting
from recbole_e2urec.methods import method_of
from recbole_e2urec.model.scorers import answering

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "recbole-objects.md"
FAST = {"data_path": "data", "epochs": 3, "show_progress": False, "learning_rate": 0.01}

pytestmark = pytest.mark.usefixtures("small_data")


def prepared(model: Any = LLMRec, **settings: Any) -> tuple[Any, Any, Any]:
    config = Config(model=model, dataset="small", config_dict={**FAST, **settings})
    dataset = create_dataset(config)
    return config, dataset, data_preparation(config, dataset)


def trained(**settings: Any) -> tuple[LLMRec, Any, Any]:
    config, dataset, loaders = prepared(**settings)
    model = LLMRec(config, dataset)
    LLMRecTrainer(config, model).fit(loaders.train, loaders.valid)
    return model, dataset, loaders


def test_the_page_runs_and_gives_the_commands_numbers() -> None:
    text = PAGE.read_text().replace('"ml-100k"', '"small"').replace('{"epochs": 3}', repr(FAST))
    blocks = [block.split("\n```")[0] for block in text.split("```python\n")[1:]]
    assert len(blocks) == 2
    names: dict[str, Any] = {}
    exec("\n".join(blocks), names)
    told = run_recbole_e2urec("LLMRec", "small", config_dict=FAST)
    assert told["best_valid_result"] == dict(names["best_valid_result"])
    assert told["test_result"] == dict(names["test_result"])
    assert names["cost"]["seconds"] > 0


def test_the_package_offers_what_it_names() -> None:
    for name in recbole_e2urec.__all__:
        assert getattr(recbole_e2urec, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'Trainer'"):
        _ = recbole_e2urec.Trainer


def test_prompts_show_histories_once_the_data_are_split() -> None:
    config, dataset, loaders = prepared()
    rows = loaders.test.dataset.inter_feat["row_id"].numpy()
    model = LLMRec(config, dataset)
    assert any(model.table.seen(row).shown.size for row in rows)
    dataset.shown_parts = None
    assert not any(LLMRec(config, dataset).table.seen(row).shown.size for row in rows)


def test_recboles_own_preparation_works_for_labelled_evaluation() -> None:
    config, dataset, _ = prepared()
    train, valid, test = recboles_data_preparation(config, dataset)
    trainer = LLMRecTrainer(config, LLMRec(config, dataset))
    trainer.fit(train, valid, verbose=False)
    assert 0 <= trainer.evaluate(test)["auc"] <= 1


def test_full_sort_topk_ranks_as_the_loader_does() -> None:
    config, dataset, loaders = prepared(eval_mode="full")
    model = LLMRec(config, dataset)
    users = loaders.test.uid_list[:2].numpy()
    scores, items = full_sort_topk(users, model, loaders.test, k=3)
    rows = loaders.test.user_df["row_id"].numpy()[:2]
    for row, of_user, ranked in zip(rows, scores, items, strict=True):
        own = model.answer(np.repeat(row, 3), ranked.numpy())
        assert torch.allclose(own, of_user, atol=1e-6)
    with pytest.raises(InputError, match="has no row in this part of the data"):
        full_sort_topk([0], model, loaders.test, k=3)


def test_weights_are_kept_and_loaded_unless_not_wanted() -> None:
    config, dataset, loaders = prepared()
    model = LLMRec(config, dataset)
    trainer, seen = LLMRecTrainer(config, model), []
    trainer.fit(loaders.train, loaders.valid, callback_fn=lambda epoch, _: seen.append(epoch))
    assert seen == [0, 1, 2]
    result = trainer.evaluate(loaders.test)
    other = LLMRecTrainer(config, LLMRec(config, dataset))
    assert other.stage.folder != trainer.stage.folder
    assert other.evaluate(loaders.test, model_file=trainer.saved_model_file) == result
    other.fit(loaders.train, loaders.valid, saved=False)
    assert not other.stage.folder.exists()
    with pytest.raises(InputError, match="no weights of this model"):
        other.evaluate(loaders.test, model_file="data/small/small.inter")
    with pytest.raises(InputError, match="give the trainer the stage"):
        other.resume_checkpoint("x.pth")


def test_what_is_not_ours_is_refused() -> None:
    config, _, _ = prepared()
    with pytest.raises(InputError, match=r"recbole_e2urec\.create_dataset"):
        LLMRec(config, object())


@pytest.mark.parametrize("method", ["TaskVector", "TokenReset", "SISA"])
def test_the_unlearning_trainer_does_what_a_run_does(method: str) -> None:
    settings = {"prompt": "numbered", "forget_ratio": 0.2, "partial": True, "shards": 2}
    given = {key: value for key, value in settings.items() if key in method_keys(method)}
    run = Forgetting(*prepared(method, **given)[:2])
    run.train()
    config, dataset, loaders = prepared(method, **given)
    rows = run.split.forget
    with run.model.using_history(run.after):
        unlearned = method_of(run.config).unlearn(run.model, run.request)
        with answering(run.model, unlearned.scorer):
            expected = run.model.answer(rows, None)
    model = LLMRec(config, dataset)
    model.bank.load(None, run.model.bank.state(None))
    trainer = UnlearningTrainer(config, model, dataset)
    assert trainer.fit()["seconds"] >= 0
    assert torch.equal(model.answer(rows, None), expected)
    assert 0 <= trainer.evaluate(loaders.test)["auc"] <= 1


def method_keys(method: str) -> set[str]:
    more = {"TokenReset": {"partial"}, "SISA": {"shards"}}
    return {"prompt", "forget_ratio", *more.get(method, set())}
