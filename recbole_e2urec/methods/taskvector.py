"""TaskVector: what a model learns of the forget rows, taken off it."""

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.methods.unlearner import Unlearned, Unlearner, total
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.scorers import Adapted, Stored
from recbole_e2urec.trainer.adapter import UnlearningTask
from recbole_e2urec.trainer.checkpoint import Stage
from recbole_e2urec.trainer.loop import Stream, generator_of
from recbole_e2urec.trainer.teachers import (
    Direction,
    NegationOptions,
    learn_direction,
    negation_strength,
)
from recbole_e2urec.trainer.training_log import memory_used


@option_class()
class TaskVectorOptions(NegationOptions):
    """Settings of TaskVector."""

    contrast: bool = option("Leave alone what the same training on as many retain rows changes.")


class TaskVector(Unlearner):
    """Ilharco et al., "Editing Models with Task Arithmetic", ICLR 2023, arXiv 2212.04089.

    Original is trained further on the forget set, and the change is taken off it instead of added:
    ``w_o - c (w_f - w_o)``. With ``contrast``, which is not the paper's, it is trained on as many
    retain rows as well, and ``w_o - c (w_f - w_r)`` is what comes out: what any further training
    changes stays.

    Departure: the paper chooses c on held-out rows of the task to be forgotten. Here it is the c
    at which forget rows lose what a model that never saw them would lose, see :func:`target_loss`.
    """

    options_class = TaskVectorOptions
    space: ClassVar = {"augmented_learning_rate": (0.0001, 0.01), "augmented_epochs": (1.0, 6.0)}
    has_only_original = True

    def unlearn(self, original: LLMRec, request: UnlearningTask) -> Unlearned:
        """See :meth:`Unlearner.unlearn`."""
        if len(request.forget) == 0:
            return Unlearned(Adapted(original.adapter), total([]), [], "original")
        stage = request.stage(type(self).__name__, asdict(self.options))
        with stage.open():
            if not stage.finished:
                self._negate(original, request, stage)
        cost = stage.summary()
        settings, losses = cost.pop("found"), cost.pop("losses")
        scorer = Stored(original.adapter, stage.weights)
        return Unlearned(scorer, cost, losses, stage.digest, found=settings)

    def _negate(self, original: LLMRec, request: UnlearningTask, stage: Stage) -> None:
        forget = learn_direction(original, request, self.options)
        costs, direction = [forget.cost], forget
        if self.options.contrast:
            retain = learn_direction(original, _retained(request), self.options)
            costs.append(retain.cost)
            direction = Direction(forget.place, forget.start, _apart(forget, retain), {})
        started = time.perf_counter()
        strength, target = negation_strength(original, request, direction, self.options.strength)
        seconds = time.perf_counter() - started
        spent = {"seconds": seconds, "steps": 0, "trained_parameters": 0, **memory_used()}
        settings = {"strength": strength, **target.found} if target else {}
        more: dict[str, Any] = {"found": settings, "losses": forget.cost["losses"]}
        stage.finish(direction.at(-strength), {**total([*costs, spent]), **more})


def _retained(request: UnlearningTask) -> UnlearningTask:
    """The request, of as many retain rows."""
    rows = request.retain
    count = min(len(request.forget), len(rows))
    generator = generator_of(request.seed, Stream.CONTRAST_ROWS)
    drawn = generator.choice(rows, count, replace=False)
    task = replace(request, forget=np.sort(drawn), forget_history=request.retain_history)
    return task.apart(rows="retained")


def _apart(forget: Direction, retain: Direction) -> Mapping[str, Tensor]:
    """Original's weights and all that forget rows changed more than retain rows did."""
    return {
        name: start + forget.end[name] - retain.end[name] for name, start in forget.start.items()
    }
