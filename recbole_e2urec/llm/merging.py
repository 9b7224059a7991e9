"""A backbone with an adapter merged into it, as a folder that plain transformers reads."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor

from recbole_e2urec.errors import InputError
from recbole_e2urec.llm.base import LanguageModel

BASE = ".base_layer"  # where peft keeps the layer that it adapts


@torch.no_grad()
def save_merged(language_model: LanguageModel, name: str | None, folder: Path) -> None:
    """Write weights, config and tokenizer; the model in memory stays as it is.

    Where head and embeddings are one matrix and only the embeddings are adapted, they are written
    as two.

    Args:
        language_model: with its adapters.
        name: of the adapter that is merged; None writes the bare backbone.
        folder: where to; made if need be.

    Raises:
        InputError: plain transformers has no place for such weights.
    """
    model: Any = language_model.model
    if getattr(model, "is_quantized", False):
        raise InputError(
            "an adapter cannot be merged into quantised weights; save the adapter, and merge it "
            "into the backbone without backbone_quantization"
        )
    merged = _merged_weights(model, name)
    with torch.device("meta"):  # no numbers are drawn for weights that are about to be replaced
        plain = type(model)(_config_for(model, merged))
    plain.load_state_dict(merged, assign=True)
    plain.tie_weights()
    if hasattr(plain.config, "scale_decoder_outputs"):  # T5: read from this very word in a file
        plain.config.tie_word_embeddings = plain.config.scale_decoder_outputs
    plain.generation_config = model.generation_config
    plain.save_pretrained(folder)
    language_model.codec.tokenizer.save_pretrained(folder)


def _merged_weights(model: Any, name: str | None) -> dict[str, Tensor]:
    """All weights under the names of the bare model, adapted ones with the update in them."""
    layers: dict[str, Any] = {
        p: m for p, m in model.named_modules() if isinstance(m, BaseTunerLayer)
    }
    adapters = tuple(f"{p}.{kind}." for p, m in layers.items() for kind in m.adapter_layer_names)
    merged = {}
    for key, weight in model.state_dict().items():
        if key.startswith(adapters):
            continue
        path, base, rest = key.rpartition(f"{BASE}.")
        if base and rest == "weight" and name in layers[path].scaling:
            weight = (weight + layers[path].get_delta_weight(name)).to(weight.dtype)
        merged[key.replace(f"{BASE}.", ".")] = weight
    return merged


def _config_for(model: Any, merged: Mapping[str, Tensor]) -> Any:
    """The model's config; head and embeddings are parted where their weights differ.

    Raises:
        InputError: the architecture keeps embeddings equal that the adapter made different.
    """
    config = copy.deepcopy(model.config)
    config.dtype = model.dtype
    tied = model.all_tied_weights_keys
    parted = [one for one, other in tied.items() if not torch.equal(merged[one], merged[other])]
    if not parted:
        return config
    head = model.get_output_embeddings()
    heads = [f"{path}.weight" for path, module in model.named_modules() if module is head]
    if parted != heads or config.is_encoder_decoder:
        raise InputError(
            f"the adapter changes embeddings that {config.model_type} keeps equal in "
            f"{', '.join(parted)}; save the adapter, or tune without embeddings in "
            "lora_target_modules"
        )
    config.tie_word_embeddings = False
    return config
