"""What every unlearning method offers."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.trainer.unlearning import Request


class Unlearned(NamedTuple):
    """The outcome of a method.

    Attributes:
        adapter: the adapter of the model that answers as the unlearned model does; None = the
            backbone itself.
        cost: ``seconds`` of all that the method trained and computed, ``steps``,
            ``trained_parameters`` (of all models on the way) and ``peak_memory_mb``; a method that
            leaves an adapter says its ``adapter_parameters``.
        losses: mean of each loss term by epoch.
        digest: names the stage that made it.
    """

    adapter: str | None
    cost: dict[str, Any]
    losses: list[dict[str, float]]
    digest: str


class Unlearner(ABC):
    """An unlearning method; ``options`` is its frozen dataclass, filled from the settings.

    Attributes:
        options_class: the dataclass, whose keys are its field names.
    """

    options_class: type

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def unlearn(self, original: LLMRec, request: Request) -> Unlearned:
        """Make the unlearned model beside ``original``, whose own answers do not change."""
