"""RecEraser: shards of users with similar taste, and attention over their models."""

import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.methods.unlearner import Unlearned, Unlearner, total
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.scorers import Ensemble, Scorer
from recbole_e2urec.trainer.adapter import Fit, UnlearningTask
from recbole_e2urec.trainer.loop import Stream, generator_of
from recbole_e2urec.trainer.shards import (
    AttentionPlan,
    ShardOptions,
    balanced_clusters,
    fit_shards,
    train_attention,
)
from recbole_e2urec.trainer.training_log import memory_used

BATCH = 256  # rows a step of the attention


@option_class()
class RecEraserOptions(ShardOptions):
    """Settings of RecEraser."""

    attention_size: int = option("Width of the space in which the shards' answers are compared.")
    attention_learning_rate: float = option("AdamW's learning rate for the attention.")
    attention_epochs: int = option("Passes over the rows that the attention learns from.")
    attention_rows: int = option(
        "Most training rows that the attention learns from, drawn at random."
    )


class RecEraser(Unlearner):
    """Chen et al., "Recommendation Unlearning", WWW 2022.

    Before the request users are clustered into shards of equal size by the embeddings of a matrix
    factorisation, RecBole's BPR trained on the same rows. Each shard trains a model from Original's
    start weights, and attention learns how much each of them counts in a row. The request trains
    the touched shards again without the forgotten rows, and then the attention, on retain rows.
    Departures: attention weighs the models' logits by what their heads read, since language models
    have no user and item embeddings to merge; a model's early stopping looks at its own users'
    validation rows only. As in the paper, who is in which shard was found with the forgotten rows.
    """

    options_class = RecEraserOptions
    answers_alone = False
    trains_several = True

    def unlearn(self, original: LLMRec, request: UnlearningTask) -> Unlearned:
        """See :meth:`Unlearner.unlearn`; the cost is that of what was trained again."""
        started = time.perf_counter()
        members = self._members(request)
        clustering = time.perf_counter() - started
        shards = fit_shards(request, type(self).__name__, members, request.services.fit)
        before, prior = self._attended(
            original, request, shards.before, request.train, request.forget_history
        )
        if not shards.again:  # nothing was touched
            after, again = before, total([])
        else:
            after, again = self._attended(
                original, request, shards.after, request.retain, request.retain_history
            )
        cost = total([*shards.again_costs, again])
        cost["prior_seconds"] = total([*shards.prior_costs, prior])["seconds"] + clustering
        return Unlearned(after, cost, [], shards.digest, before)

    def _members(self, request: UnlearningTask) -> list[NDArray[np.int64]]:
        users = np.unique(request.user[request.train])
        count = min(self.options.shards, len(users))
        points = request.services.embed(request.train)[users]
        cluster = balanced_clusters(points, count, request.seed)
        return [users[cluster == number] for number in range(count)]

    def _attended(
        self,
        model: LLMRec,
        request: UnlearningTask,
        fits: list[Fit],
        rows: NDArray[np.int64],
        history: NDArray[np.int64],
    ) -> tuple[Scorer, dict[str, Any]]:
        """Train attention over these models on a sample of these rows."""
        options, started = self.options, time.perf_counter()
        generator = generator_of(request.seed, Stream.ATTENTION_ROWS, len(rows))
        count = min(options.attention_rows, len(rows))
        rows = np.sort(generator.choice(rows, count, replace=False))
        scorers = [fit.scorer for fit in fits]
        with model.using_history(history):
            answers = Ensemble(scorers).ask(model, rows)
        plan = AttentionPlan(
            options.attention_size,
            options.attention_learning_rate,
            options.attention_epochs,
            BATCH,
            request.seed,
        )
        assert model.labels is not None  # Original was trained on them
        labels = torch.from_numpy(model.labels[rows]).to(model.device)
        attention, steps = train_attention(answers, labels, model.language_model.answer_ids, plan)
        cost = {
            "seconds": time.perf_counter() - started,
            "steps": steps,
            "trained_parameters": sum(weight.numel() for weight in attention.parameters()),
            **memory_used(),
        }
        return Ensemble(scorers, attention.weigh), cost
