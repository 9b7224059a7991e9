"""RecBole's trainers with two changes: safe checkpoints, and sampled ranking that is not slow."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.utils import EvaluatorType, ModelType
from torch import Tensor

from recbole_e2urec.compat import own_checkpoints
from recbole_e2urec.data.dataset import ROW_ID


class OwnCheckpoints:
    """Mixin for RecBole's trainers: whole checkpoint files, loaded if this trainer wrote them."""

    def _save_checkpoint(self, *args: Any, **options: Any) -> None:
        with own_checkpoints(self._written):
            super()._save_checkpoint(*args, **options)  # type: ignore[misc]

    def save_pretrained_model(self, *args: Any, **options: Any) -> None:
        """As RecBole's, for the models that it trains in two stages."""
        with own_checkpoints(self._written):
            super().save_pretrained_model(*args, **options)  # type: ignore[misc]

    def resume_checkpoint(self, resume_file: Any) -> None:
        """Go on from a checkpoint that this trainer wrote."""
        with own_checkpoints(self._written):
            super().resume_checkpoint(resume_file)  # type: ignore[misc]

    def evaluate(self, *args: Any, **options: Any) -> Any:
        """As RecBole's; the best model comes from a checkpoint that this trainer wrote."""
        with own_checkpoints(self._written):
            return super().evaluate(*args, **options)  # type: ignore[misc]

    @property
    def _written(self) -> set[Path]:
        return self.__dict__.setdefault("_own_checkpoints", set())


class QuickSampledRanking:
    """Mixin for RecBole's trainers: score sampled candidates from one answer per user or row.

    RecBole scores each candidate with a whole forward pass: 101 times the work for SASRec, and a
    propagation through the graph per batch for LightGCN. ``full_sort_predict`` gives the same
    scores for all items at once; a model that lacks it is evaluated as RecBole does.
    """

    config: Any
    model: Any
    device: Any
    test_batch_size: int
    tot_item_num: int

    def _neg_sample_batch_eval(self, batched_data: Any) -> Any:
        interaction, row_idx, positive_u, positive_i = batched_data
        if self.config["eval_type"] == EvaluatorType.RANKING and row_idx is not None:
            try:
                answers = self._answers(interaction)
            except NotImplementedError:
                return super()._neg_sample_batch_eval(batched_data)  # type: ignore[misc]
            scores = torch.full(
                (int(positive_u[-1]) + 1, self.tot_item_num), -np.inf, device=self.device
            )
            scores[row_idx, interaction[self.config["ITEM_ID_FIELD"]]] = answers
            return interaction, scores, positive_u, positive_i
        return super()._neg_sample_batch_eval(batched_data)  # type: ignore[misc]

    def _answers(self, interaction: Any) -> Tensor:  # n candidates -> [n]
        """Score each candidate for its user, or for its row where the history matters."""
        sequential = self.config["MODEL_TYPE"] == ModelType.SEQUENTIAL
        key = interaction[ROW_ID if sequential else self.config["USER_ID_FIELD"]].numpy()
        _, first, place = np.unique(key, return_index=True, return_inverse=True)
        items = interaction[self.config["ITEM_ID_FIELD"]].numpy()
        answers = torch.empty(len(key), device=self.device)
        step = max(self.test_batch_size // self.tot_item_num, 1)
        for start in range(0, len(first), step):
            asked = interaction[first[start : start + step]].to(self.device)
            table = self.model.full_sort_predict(asked).view(-1, self.tot_item_num)
            here = np.flatnonzero((place >= start) & (place < start + step))
            answers[here] = table[place[here] - start, items[here]].to(answers.dtype)
        return answers


@cache
def eased(trainer_class: type) -> type:
    """Give a trainer class of RecBole with both mixins in front, made once per class."""
    mixins = (OwnCheckpoints, QuickSampledRanking)
    return type(trainer_class.__name__, (*mixins, trainer_class), {})
