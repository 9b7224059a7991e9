"""APA: an adapter a shard on a frozen backbone, merged anew for every sample."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.methods.unlearner import Unlearned, Unlearner, total
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.scorers import Mixture
from recbole_e2urec.trainer.adapter import Fit, UnlearningTask
from recbole_e2urec.trainer.shards import ShardOptions, cosine_clusters, fit_shards
from recbole_e2urec.trainer.training_log import memory_used

CHUNK = 1024  # rows whose neighbours are looked for at once


@option_class()
class APAOptions(ShardOptions):
    """Settings of APA."""

    neighbours: int = option("Validation rows on which each adapter is judged for a sample.", ge=1)
    temperature: float = option("The smaller, the more the best adapter counts.", gt=0)


class APA(Unlearner):
    """Hu et al., "Exact and Efficient Unlearning for LLM-based Recommendation", arXiv 2404.10327.

    Users fall into shards of equal size whose prompts look alike to the backbone before tuning:
    K-means finds the centres, and users go, once, to the centres that their hidden states are most
    similar to by cosine. Each shard trains a LoRA adapter on that frozen backbone. For a sample the
    adapters are merged by weights: ``softmax(-error / temperature)``, the mean error of each
    adapter on the validation rows that look most like the sample. A request trains the touched
    adapters again.

    Departures: shards hold users, not samples, so that a user's request touches one of them, and
    are made of users' mean hidden states; the merged update is the weighted sum of the adapters'
    updates ``B_k A_k``; error is the distance of P(yes) from the label. With ``tuning: full`` the
    adapters still learn on the untrained backbone: all else would not be exact. An embedded
    backbone is random then, and the recommender poor.
    """

    options_class = APAOptions
    answers_alone = False
    trains_several = True

    def unlearn(self, original: LLMRec, request: UnlearningTask) -> Unlearned:
        """See :meth:`Unlearner.unlearn`; the cost is that of the adapters trained again."""
        started = time.perf_counter()
        members = self._members(original, request)
        clustering = time.perf_counter() - started
        shards = fit_shards(request, type(self).__name__, members, request.services.fit_adapter)
        valid, user = request.valid, request.user
        before, prior = self._merged(original, request, shards.before, valid)
        after, again = before, total([])
        if shards.again:
            stays = valid[np.isin(user[valid], user[request.retain])]
            after, again = self._merged(original, request, shards.after, stays)
        cost = total([*shards.again_costs, again])
        cost["prior_seconds"] = total([*shards.prior_costs, prior])["seconds"] + clustering
        return Unlearned(after, cost, [], shards.digest, before)

    def _members(self, model: LLMRec, request: UnlearningTask) -> list[NDArray[np.int64]]:
        """Cluster users by the mean of what the untrained backbone makes of their prompts."""
        rows, user = request.train, request.user[request.train]
        with model.using_history(request.forget_history):
            states = request.services.untrained.ask(model, rows).voices[0].states.cpu().double()
        users, place = np.unique(user, return_inverse=True)
        sums = torch.zeros(len(users), states.shape[1], dtype=torch.double)
        sums.index_add_(0, torch.from_numpy(place), states)
        points = (sums / torch.from_numpy(np.bincount(place))[:, None]).numpy()
        count = min(self.options.shards, len(users))
        cluster = cosine_clusters(points, count, request.seed)
        return [users[cluster == number] for number in range(count)]

    def _merged(
        self, model: LLMRec, request: UnlearningTask, fits: Sequence[Fit], valid: NDArray[np.int64]
    ) -> tuple[Mixture, dict[str, Any]]:
        """Judge the adapters on validation rows, and let them answer together."""
        started = time.perf_counter()
        weigh = None
        if len(valid) > 0:
            assert model.labels is not None  # Original was trained on them
            labels = torch.from_numpy(model.labels[valid])
            words = model.language_model.answer_ids
            with model.using_history(request.retain_history):
                looks = request.services.untrained.ask(model, valid).voices[0].states.cpu()
                answers = [fit.scorer.ask(model, valid).yes(words).cpu() for fit in fits]
            errors = torch.stack([(answer - labels).abs() for answer in answers], dim=1)
            weigh = _Judge(looks, errors, self.options)
        cost = {
            "seconds": time.perf_counter() - started,
            "steps": 0,
            "trained_parameters": 0,
            **memory_used(),
        }
        return Mixture([fit.weights for fit in fits], request.services.start, weigh), cost


class _Judge:
    """Weights of adapters by their errors on the validation rows most like a sample.

    Args:
        looks: [v, h], states of the validation rows.
        errors: [v, k], of each adapter on each of them.
        options: how many rows, and how sharply.
    """

    def __init__(self, looks: Tensor, errors: Tensor, options: APAOptions) -> None:
        self.looks, self.errors, self.options = F.normalize(looks.float()), errors, options

    def __call__(self, states: Tensor) -> Tensor:  # [n, h] -> [n, k]
        count = min(self.options.neighbours, len(self.looks))
        parts = []
        for part in F.normalize(states.cpu().float()).split(CHUNK):
            nearest = (part @ self.looks.T).topk(count, dim=1).indices
            error = self.errors[nearest].mean(dim=1)
            parts.append(torch.softmax(-error / self.options.temperature, dim=1))
        return torch.cat(parts) if parts else self.errors.new_zeros(0, self.errors.shape[1])
