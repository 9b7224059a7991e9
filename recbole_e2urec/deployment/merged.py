"""One model out of a model and its student: the student's weights take the place of the model's."""

import torch
from torch import Tensor

from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment import Rows
from recbole_e2urec.kept import NotKept
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.scorers import Adapted, Scorer, Stored

CHECKED = 512  # rows of a part, at most, on which a merged model is compared with the student
ROUNDING = {torch.float32: 1e-4}  # most that P(yes) may differ; 2e-2 in smaller dtypes


def merge(model: LLMRec, scorer: Scorer, rows: Rows) -> dict[str, Tensor]:
    """As :func:`weights_of`, if the model then answers these rows as the scorer did.

    Raises:
        InputError: it does not, or several models answer together.
    """
    wanted = scorer.ask(model, rows).yes(model.language_model.answer_ids).cpu()
    weights = weights_of(model, scorer)
    _check_alike(wanted, model.answer(rows, None).cpu(), model.language_model.model.dtype)
    return weights


def weights_of(model: LLMRec, scorer: Scorer) -> dict[str, Tensor]:
    """The weights that answer as a scorer does; the model then has them itself.

    A student's adapter is merged into the backbone's weights, or takes the place of the adapter
    that was tuned: nothing of the model before is left to go back to.

    Raises:
        InputError: several models answer together.
    """
    bank = model.bank
    if isinstance(scorer, Stored) and scorer.place == scorer.adapter == model.adapter:
        bank.load(model.adapter, scorer.read())
    elif isinstance(scorer, Adapted) and scorer.adapter is not None:
        if model.adapter is None:
            bank.merge(scorer.adapter)
        else:
            bank.load(model.adapter, bank.state(scorer.adapter))
            bank.remove(scorer.adapter)
    else:
        raise NotKept("several models answer together; a model folder holds one")
    return bank.state(model.adapter)


def _check_alike(student: Tensor, merged: Tensor, dtype: torch.dtype) -> None:
    apart = float((student - merged).abs().max()) if len(student) else 0.0
    if not apart <= ROUNDING.get(dtype, 2e-2):
        raise InputError(
            f"merged into the weights, the model answers {apart:.2g} otherwise than before; "
            "no folder is changed or made (backbone_dtype: float32 rounds less)"
        )
