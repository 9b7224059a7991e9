"""Retrain: the recommender that never saw the forget set."""

from recbole_e2urec.config.schema import option_class
from recbole_e2urec.methods.unlearner import Unlearned, Unlearner, total
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.scorers import Adapted
from recbole_e2urec.trainer.adapter import UnlearningTask


@option_class()
class RetrainOptions:
    """Retrain has Original's settings and none of its own."""


class Retrain(Unlearner):
    """Train on the retain set alone, from Original's start weights, with its settings and seed.

    The reference for every distance. It is trained once for a request, whoever asks for it.
    """

    options_class = RetrainOptions

    def unlearn(self, original: LLMRec, request: UnlearningTask) -> Unlearned:
        """See :meth:`Unlearner.unlearn`."""
        if len(request.forget) == 0:  # Original is what would come out
            return Unlearned(Adapted(original.adapter), total([]), [], "original")
        retrain = request.services.fit(type(self).__name__, request.retain, request.retain_history)
        return Unlearned(retrain.scorer, dict(retrain.cost), [], retrain.digest)
