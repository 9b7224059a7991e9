"""Evaluating a split, and ranking candidates."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from benchmarks.plain import PlainReader
from benchmarks.racing import race
from benchmarks.settings import Size, forgetting, nudged, reduced, shaped
from recbole_e2urec.evaluator.measure import Answers, distance_to
from recbole_e2urec.evaluator.metrics import labelled_metrics
from recbole_e2urec.model.scorers import Adapted

BATCH = 16  # the plain reading's
CANDIDATES = 101


def evaluation(folder: Path, size: Size) -> dict[str, Any]:
    """``evaluation_ratio``: AUC, ACC, LogLoss, JSD and L2 of a model, Retrain's answers at hand."""
    backbone = str(shaped(folder, "t5", size))
    run = forgetting(folder, size, backbone=backbone, prompt="plain", history_length=10)
    model, lm = run.model, run.model.language_model
    rows, _ = reduced(run, size.rows)
    moved = nudged(model.bank.state(None), seed=2)
    retrained = AutoModelForSeq2SeqLM.from_pretrained(backbone).eval()
    retrained.load_state_dict(moved, strict=False)
    retrained.tie_weights()
    labels = model.labels
    assert labels is not None

    def answers() -> Answers:
        asked = Adapted(None).ask(model, rows)
        yes = np.full(len(labels), np.nan)
        yes[rows] = asked.yes(lm.answer_ids).numpy()
        return Answers(yes, asked)

    with model.using_history(run.before):
        own = lm.model
        with model.bank.swapped_weights(None, moved):
            kept = answers()

        def ours() -> dict[str, Any]:
            said = answers()
            utility = labelled_metrics(run.config, said.yes[rows], labels[rows])
            return {**utility, **distance_to(said, said, kept, rows)}

        table = model.table
        reader = PlainReader(lm.codec.tokenizer, table.text, lm.answer_ids, BATCH)

        def theirs() -> dict[str, Any]:
            return reader.evaluate(own.eval(), retrained, rows, labels)

        mine, other = ours(), theirs()
        for name, value in other.items():
            assert abs(mine[name] - value) < 1e-3, (name, mine[name], value)
        return {"evaluation_ratio": race(theirs, ours, size.rounds)}


def ranking(folder: Path, size: Size) -> dict[str, Any]:
    """``ranking_ratio``: 101 candidates a row, by a causal model.

    ``ranking_to_own_whole_prompts``: the same against our own engine without sharing.
    """
    backbone = str(shaped(folder, "llama", size))
    run = forgetting(folder, size, backbone=backbone, prompt="plain", history_length=10)
    model, lm = run.model, run.model.language_model
    generator = np.random.default_rng(1)
    users = generator.choice(run.parts.splits.test, size.users, replace=False)
    rows = np.repeat(users, CANDIDATES)
    items = np.concatenate(
        [1 + generator.choice(run.dataset.item_num - 1, CANDIDATES, replace=False) for _ in users]
    )
    plain = AutoModelForCausalLM.from_pretrained(backbone).eval()
    with model.using_history(run.before):
        table = model.table

        def text(place: int) -> str:
            return table.text(int(rows[place]), int(items[place]))

        reader = PlainReader(lm.codec.tokenizer, text, lm.answer_ids, BATCH)

        @torch.no_grad()
        def theirs() -> np.ndarray[Any, Any]:
            said = []
            for at in range(0, len(rows), BATCH):
                logits = reader.logits(plain, range(at, min(at + BATCH, len(rows))))
                said.append(torch.softmax(logits[:, list(lm.answer_ids)], dim=1)[:, 1])
            return torch.cat(said).numpy()

        def ours() -> np.ndarray[Any, Any]:
            with model.bank.frozen(None):
                return model.yes(model.hidden(rows, items)).numpy()

        assert lm.shares_beginnings
        difference = float(np.abs(ours() - theirs()).max())
        assert difference < 1e-4, difference
        ratio = race(theirs, ours, size.rounds)

        def whole() -> None:
            lm.shares_beginnings = False
            ours()
            lm.shares_beginnings = True

        return {
            "ranking_ratio": ratio,
            "ranking_to_own_whole_prompts": race(whole, ours, size.rounds),
        }
