"""Words that no training prompt shows stay nearly where they began."""

from collections.abc import Callable
from typing import Any

import torch

from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.experiment.run import Experiment


def drift(config: Any) -> float:
    """How far training moves an unshown word, relative to a shown one; means over coordinates."""
    run = Experiment(config, load_dataset(config))
    model = run.model
    weights = model.language_model.model.get_input_embeddings().weight
    before = weights.detach().clone()
    with model.using_history(run.history(run.parts.control[:0])):
        shown = model.table.batch(run.parts.splits.train).input_ids.unique()
    run.recommend()
    moved = (weights.detach() - before).abs().mean(dim=1)
    hidden = torch.ones(len(moved), dtype=torch.bool)
    hidden[shown] = False
    return float(moved[hidden].mean() / moved[~hidden].mean())


def test_a_large_epsilon_keeps_words_that_are_not_shown(small_config: Callable[..., Any]) -> None:
    given = {"epochs": 6, "control_users": 0.3, "learning_rate": 0.01}
    far, near = (
        drift(small_config("LLMRec", checkpoint_dir=str(epsilon), adam_epsilon=epsilon, **given))
        for epsilon in (1e-12, 1e-3)
    )
    assert near < far / 2, (near, far)
