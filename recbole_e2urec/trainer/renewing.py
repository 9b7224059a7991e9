"""Original with some tokens as if its training prompts had never shown them."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_e2urec.llm.renewing import renewed
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.scorers import Stored
from recbole_e2urec.trainer.unlearning import Request


def renewing(model: LLMRec, request: Request, tokens: Tensor) -> Callable[[float], Stored]:
    """Original without what it learned of some tokens, see :func:`renewed`, by the overshoot.

    For tokens that only forget rows show, such as forgotten users' names, that is about what
    Retrain has: it is read off Original and its start alone. The overshoot is how much further they
    are moved, as a share of the way; -1 leaves them where Original has them.

    Args:
        model: Original.
        request: knows the weights before training, and Original's training rows.
        tokens: int64 [m], token ids; without any, Original answers.
    """
    unshown = unshown_tokens(model, request)  # once: it looks through all training prompts

    def scorer(overshoot: float) -> Stored:
        def read() -> Mapping[str, Tensor]:
            start, state = request.tools.untrained.read(), model.bank.state(model.adapter)
            return renewed(model.language_model, state, start, tokens, unshown, overshoot)

        return Stored(model.adapter, read)

    return scorer


def unshown_tokens(model: LLMRec, request: Request) -> Tensor:
    """Tokens that no prompt of Original's training shows, int64 [u], sorted.

    Special tokens are left out, and the answer words, which every step teaches. Words of earlier
    requests, which a model in use has forgotten, are among them, as those requests left them.
    """
    lm = model.language_model
    shown = model.table.with_history(request.forget_history).tokens(request.train)
    around = [lm.pad_id, *lm.prefix_ids, *lm.suffix_ids, *lm.codec.tokenizer.all_special_ids]
    words: Any = lm.model.get_input_embeddings()
    every = np.arange(len(words.weight))
    return torch.from_numpy(np.setdiff1d(every, [*shown, *around, *lm.answer_ids]))
