"""What the recommender answers, however it is asked."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.experiment.run import parts_of
from recbole_e2urec.model.backbones.causal import CausalLM
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.prompting import shown_histories


@pytest.mark.parametrize("size", [256, 7, 1])
def test_candidates_of_a_row_are_answered_as_by_whole_prompts(
    small_config: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    config = small_config("LLMRec", backbone="tiny-llama", score_batch_size=size)
    dataset = load_dataset(config)
    model = LLMRec(config, dataset)
    parts = parts_of(config, dataset).whole
    history = shown_histories(dataset.rows, parts, parts.train[:0], 3)
    items = np.tile(np.arange(1, dataset.item_num), 4)  # some stand in the histories
    rows = np.repeat(parts.test[:4], dataset.item_num - 1)
    with model.using_history(history):
        assert any(
            np.isin(items[rows == row], dataset.rows.item[history[row]]).any() for row in rows
        )
        shared = model.hidden(rows, items)
        read: list[int] = []
        whole = CausalLM.hidden

        def hidden(model: Any, ids: Any, mask: Any) -> Any:
            read.append(len(ids))
            return whole(model, ids, mask)

        monkeypatch.setattr(model.language_model, "shares_beginnings", False)
        monkeypatch.setattr(CausalLM, "hidden", hidden)
        plain = model.hidden(rows, items)
    assert sum(read) == len(rows)
    torch.testing.assert_close(shared, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backbone", ["tiny-t5", "tiny-llama"])
@pytest.mark.parametrize(("size", "tokens"), [(3, 10**6), (256, 60), (1, 1)])
def test_answers_do_not_depend_on_how_many_are_asked_at_once(
    small_config: Callable[..., Any], backbone: str, size: int, tokens: int
) -> None:
    config = small_config("LLMRec", backbone=backbone)
    dataset = load_dataset(config)
    model = LLMRec(config, dataset)
    rows = np.arange(0, len(dataset.rows), 5)
    asked = []
    for given in ({}, {"score_batch_size": size, "tokens_at_once": tokens}):
        model.options = replace(model.options, **given)
        with model.bank.frozen(None):
            asked.append(model.language_model.head(model.hidden(rows)))
    torch.testing.assert_close(*asked, rtol=1e-5, atol=1e-6)


def test_the_default_prompt_names_nobody(small_config: Callable[..., Any]) -> None:
    config = small_config("LLMRec", title_field="movie_title", user_fields=["age"])
    dataset = load_dataset(config)
    model = LLMRec(config, dataset)
    assert not model.table.named(np.arange(dataset.user_num)).any()  # though ages differ
    row = dataset.ids.users["u5"], dataset.ids.items["i15"]
    (at,) = np.flatnonzero((dataset.rows.user == row[0]) & (dataset.rows.item == row[1]))
    assert model.table.text(at) == "25\nFilm 15 ?"


@pytest.mark.parametrize("backbone", ["tiny-t5", "tiny-llama"])
@pytest.mark.parametrize("fields", [[], ["age"], ["user_id", "age"]])
def test_numbered_prompts_have_a_word_for_each_user_and_item_whoever_is_forgotten(
    small_config: Callable[..., Any], backbone: str, fields: list[str]
) -> None:
    settings = {"prompt": "numbered", "backbone": backbone, "user_fields": fields}
    made = []
    for seed in (1, 2):
        config = small_config("LLMRec", forget_seed=seed, **settings)
        dataset = load_dataset(config)
        made.append(LLMRec(config, dataset))
    ids, model = dataset.ids, made[0]
    words = [f"user{user}" for user in ids.users] + [f"item{item}" for item in ids.items]
    found = model.language_model.encode(words)
    assert {len(tokens) for tokens in found} == {1}
    assert len({tokens[0] for tokens in found}) == len(words) == 24 + 20
    assert model.table.named(np.array([*ids.users.values()])).all()
    assert not model.table.named(np.array([0]))  # nobody
    vocabularies = [one.language_model.codec.tokenizer.get_vocab() for one in made]
    assert vocabularies[0] == vocabularies[1]
    for row in range(0, len(dataset.rows), 50):
        user = next(token for token, at in ids.users.items() if at == dataset.rows.user[row])
        item = next(token for token, at in ids.items.items() if at == dataset.rows.item[row])
        text = model.table.text(row)
        assert text.split()[0] == f"user{user}"
        assert text.endswith(f" item{item} ?")
