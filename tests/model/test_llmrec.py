"""What the recommender answers, however it is asked."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from recbole_e2urec.data.loading import load_dataset
from recbole_e2urec.experiment import parts_of
from recbole_e2urec.llm.causal import CausalLM
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
    with model.shown(history):
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
