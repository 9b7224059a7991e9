"""Some tokens' embeddings as in a model whose training prompts never showed these tokens."""

from collections.abc import Mapping

from torch import Tensor

from recbole_e2urec.llm.base import LanguageModel
from recbole_e2urec.llm.lora import COLUMNS, backbone_weights, word_embeddings

LEAST_UNSHOWN = 30  # tokens; the error of their mean is then below a fifth of their spread


def renewed(
    language_model: LanguageModel,
    state: Mapping[str, Tensor],
    start: Mapping[str, Tensor],
    tokens: Tensor,
    unshown: Tensor,
    overshoot: float = 0.0,
) -> dict[str, Tensor]:
    """Weights in which these tokens' embeddings are as if no training prompt had shown them.

    That is their start and the drift that training gives every word. Where the head is the matrix
    of the embeddings, each softmax pushes all words, shown or not; the drift is the mean of what
    the unshown tokens have moved. A head of its own takes that push alone, and so does the head
    beside an adapter's embedding: there the unshown tokens stay, and the drift comes out as zero.
    It is set to zero where there are fewer than ``LEAST_UNSHOWN`` of them, too few for a mean.

    Args:
        language_model: whose weights they are.
        state: of the backbone or of an adapter, as ``AdapterBank.state`` gives it; it stays.
        start: the same before training.
        tokens: int64 [m], token ids.
        unshown: int64 [u], ids of other tokens, which no training prompt shows.
        overshoot: how much further they are moved, as a share of the way; at least 0.
    """
    tables = word_embeddings(language_model.model)
    rows = {name for name, w in backbone_weights(language_model.model).items() if w in tables}
    found = dict(state)
    for name, weight in state.items():
        if name in rows:
            found[name] = _renewed(weight, start[name], tokens, unshown, overshoot)
        elif name.endswith(COLUMNS):
            columns = _renewed(weight.T, start[name].T, tokens, unshown, overshoot)
            found[name] = columns.T.contiguous()
    return found


def _renewed(
    now: Tensor, start: Tensor, tokens: Tensor, unshown: Tensor, overshoot: float
) -> Tensor:  # [v, h], [v, h], [m], [u] -> [v, h]
    """A copy of an embedding in which these tokens have their start and the mean drift."""
    fresh = start[tokens].to(now.device).float()
    if len(unshown) >= LEAST_UNSHOWN:
        fresh += (now[unshown].float() - start[unshown].to(now.device).float()).mean(dim=0)
    fresh += overshoot * (fresh - now[tokens].float())
    found = now.clone()
    found[tokens] = fresh.to(now.dtype)
    return found
