"""TaskVector: what a model learns of the forget rows, taken off it."""

import time
from dataclasses import asdict
from typing import Any, ClassVar

from recbole_e2urec.methods.base import Unlearned, Unlearner, total
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.scorers import Adapted
from recbole_e2urec.trainer.cost import memory_used
from recbole_e2urec.trainer.negation import (
    NegationOptions,
    learn_direction,
    naming_tokens,
    turned,
)
from recbole_e2urec.trainer.pairing import Pairing
from recbole_e2urec.trainer.stage import Stage
from recbole_e2urec.trainer.unlearning import Request


class TaskVector(Unlearner):
    """Ilharco et al., "Editing Models with Task Arithmetic", ICLR 2023, arXiv 2212.04089.

    Original is trained further on the forget set, and the change is taken off it instead of added:
    ``w_o - c (w_a - w_o)``. What is trained is an adapter, so that the unlearned model is Original
    and one adapter with its sign turned (as in Zhang et al., "Composing Parameter-Efficient Modules
    with Arithmetic Operations", NeurIPS 2023).

    Departures: the paper chooses c on held-out rows of the task to be forgotten. Here it is the c
    at which forget rows lose what a model that never saw them would lose, see :func:`target_loss`.
    """

    options_class = NegationOptions
    space: ClassVar = {"augmented_learning_rate": (0.0001, 0.01), "augmented_epochs": (1.0, 6.0)}
    has_only_original = True

    def unlearn(self, original: LLMRec, request: Request) -> Unlearned:
        """See :meth:`Unlearner.unlearn`."""
        if len(request.forget) == 0:
            return Unlearned(Adapted(original.adapter), total([]), [], "original")
        name = type(self).__name__
        stage = request.stage(name, asdict(self.options))
        with stage.open():
            if not stage.finished:
                self._negate(original, request, stage)
        cost = stage.summary()
        found, losses = cost.pop("found"), cost.pop("losses")
        original.fresh_adapter(name, request.seed)
        original.bank.load(name, stage.weights())
        return Unlearned(Adapted(name), cost, losses, stage.digest, found=found)

    def _negate(self, original: LLMRec, request: Request, stage: Stage) -> None:
        started = time.perf_counter()
        tokens = naming_tokens(original, Pairing(request, original.table, 1))
        looking = time.perf_counter() - started
        direction = learn_direction(original, request, self.options, tokens)
        started = time.perf_counter()
        strength, target = turned(original, request, direction, self.options.strength)
        seconds = looking + time.perf_counter() - started
        spent = {"seconds": seconds, "steps": 0, "trained_parameters": 0, **memory_used()}
        cost: dict[str, Any] = total([direction.cost, spent])
        cost["adapter_parameters"] = cost["trained_parameters"]
        found = {} if target is None else {"strength": strength, **target.found}
        more = {"found": found, "losses": direction.cost["losses"]}
        stage.finish(direction.at(-strength), {**cost, **more})
