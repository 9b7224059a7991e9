"""SISA: shards, one model each, and a mean; a request trains the touched shards again."""

from recbole_e2urec.methods.unlearner import Unlearned, Unlearner, total
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.scorers import Ensemble
from recbole_e2urec.trainer.adapter import UnlearningTask
from recbole_e2urec.trainer.shards import ShardOptions, fit_shards, random_shards


class SISA(Unlearner):
    """Bourtoule et al., "Machine Unlearning", IEEE S&P 2021.

    Users fall into shards at random, before the request. Each shard trains a model from Original's
    start weights; the answer is the mean of their logits, as in the E2URec scripts. The request
    trains only those shards again that hold a forgotten row, without it: what was forgotten is in
    no model. Departures: one slice a shard, so a touched shard is trained from the start; a model's
    early stopping looks at its own users' validation rows only.
    """

    options_class = ShardOptions
    answers_alone = False
    trains_several = True

    def unlearn(self, original: LLMRec, request: UnlearningTask) -> Unlearned:
        """See :meth:`Unlearner.unlearn`; the cost is that of the shards trained again."""
        name = type(self).__name__
        users = request.user[request.train]
        members = random_shards(users, request.seed, self.options.shards)
        shards = fit_shards(request, name, members, request.services.fit)
        before, after = (
            Ensemble([fit.scorer for fit in fits]) for fits in (shards.before, shards.after)
        )
        cost = total(shards.again_costs)
        cost["prior_seconds"] = total(shards.prior_costs)["seconds"]
        return Unlearned(after, cost, [], shards.digest, before)
