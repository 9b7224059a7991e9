"""Some tokens' embeddings put back to what they were before training."""

from collections.abc import Mapping

from torch import Tensor

from recbole_e2urec.llm.base import LanguageModel
from recbole_e2urec.llm.lora import COLUMNS, backbone_weights


def renewed(
    language_model: LanguageModel,
    state: Mapping[str, Tensor],
    start: Mapping[str, Tensor],
    tokens: Tensor,
) -> dict[str, Tensor]:
    """Weights in which the input embeddings of these tokens are those of other weights.

    A head that shares its matrix with the embeddings changes with them.

    Args:
        language_model: whose weights they are.
        state: of the backbone or of an adapter, as ``AdapterBank.state`` gives it; it stays.
        start: the same before training.
        tokens: int64 [m], token ids.
    """
    embedding = language_model.model.get_input_embeddings().weight
    rows = {name for name, w in backbone_weights(language_model.model).items() if w is embedding}
    found = dict(state)
    for name, weight in state.items():
        if name in rows:
            found[name] = weight.clone()
            found[name][tokens] = start[name][tokens].to(weight)
        elif name.endswith(COLUMNS):
            found[name] = weight.clone()
            found[name][:, tokens] = start[name][:, tokens].to(weight)
    return found
