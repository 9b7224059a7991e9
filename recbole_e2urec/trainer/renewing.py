"""Original with some tokens as they were before training."""

from collections.abc import Mapping

from torch import Tensor

from recbole_e2urec.llm.renewing import renewed
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.scorers import Stored
from recbole_e2urec.trainer.student import Student
from recbole_e2urec.trainer.unlearning import Request

RENEWED = "renewed"  # teacher


def teach_renewed(student: Student) -> None:
    """Let :func:`renewed_scorer` answer the forget rows, as the teacher ``RENEWED``."""
    if student.stage.finished:
        return
    tokens = student.timed(student.pairing.own_tokens)
    scorer = renewed_scorer(student.model, student.request, tokens)
    student.teach(RENEWED, scorer, forget=True)


def renewed_scorer(model: LLMRec, request: Request, tokens: Tensor) -> Stored:
    """Original without what it learned of some tokens: their embeddings are as before training.

    For tokens that only forget rows show, such as forgotten users' names, that is what Retrain has.

    Args:
        model: Original.
        request: knows the weights before training.
        tokens: int64 [m], token ids; without any, Original answers.
    """

    def read() -> Mapping[str, Tensor]:
        start = request.tools.untrained.read()
        return renewed(model.language_model, model.bank.state(model.adapter), start, tokens)

    return Stored(model.adapter, read)
