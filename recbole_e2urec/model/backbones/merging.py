"""Merges adapters into a backbone, in memory or as a saved model, and resets token embeddings.

In T5 and other models, head and embeddings are one matrix, but an adapter may change the embeddings
alone. Merging then unties them.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from torch import Tensor, nn

from recbole_e2urec.errors import InputError, one_line
from recbole_e2urec.model.backbones.language_model import LanguageModel
from recbole_e2urec.model.backbones.lora import (
    COLUMNS,
    adapter_weights,
    backbone_weights,
    word_embeddings,
)

BASE = ".base_layer"  # where peft keeps the layer that it adapts


@torch.no_grad()
def save_merged(
    language_model: LanguageModel, name: str | None, folder: Path, tokenizer: Any = None
) -> None:
    """Write weights, config and tokenizer; the model in memory stays as it is.

    Where head and embeddings are one matrix and only the embeddings are adapted, they are written
    as two. An encoder-decoder may have four: the embeddings that both parts share, those of each
    part, and the head.

    Args:
        language_model: with its adapters.
        name: name of the adapter to merge; None saves the bare backbone.
        folder: target folder; created if missing. Files move there once all are written.
        tokenizer: is written instead of the backbone's own.

    Raises:
        InputError: the weights are quantised, or the folder cannot be written to.
    """
    model: Any = language_model.model
    if getattr(model, "is_quantized", False):
        raise InputError(
            "an adapter cannot be merged into quantised weights; save the adapter, and merge it "
            "into the backbone without backbone_quantization"
        )
    merged = _merged_weights(model, name)
    tied = _tied(model, merged)
    with torch.device("meta"):  # no numbers are drawn for weights that are about to be replaced
        plain = type(model)(_config_for(model, tied))
    plain.load_state_dict(merged, assign=True)
    for key, other in tied.items():
        path, _, kind = key.rpartition(".")
        setattr(plain.get_submodule(path), kind, plain.get_parameter(other))
    plain.all_tied_weights_keys = tied  # what is not among these is written
    if hasattr(plain.config, "scale_decoder_outputs"):  # T5: read from this very word in a file
        plain.config.tie_word_embeddings = plain.config.scale_decoder_outputs
    plain.generation_config = _generation_config(model)
    with _arriving(folder) as written:
        plain.save_pretrained(written)
        (tokenizer or language_model.codec.tokenizer).save_pretrained(written)


@contextmanager
def _arriving(folder: Path) -> Iterator[Path]:
    """Provide a temporary folder; its files move to ``folder`` after the body has written all."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".", dir=folder) as name:
            written = Path(name)
            yield written
            mode = (written / "config.json").stat().st_mode
            for file in [path for path in written.rglob("*") if path.is_file()]:
                file.chmod(mode)  # safetensors makes files for their owner alone
                target = folder / file.relative_to(written)
                target.parent.mkdir(parents=True, exist_ok=True)
                file.replace(target)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"the model cannot be written to {folder}: {one_line(error)}; free some space, or name "
            "another folder"
        ) from error


def _generation_config(model: Any) -> Any:
    """Copy the model's generation config in a form that transformers accepts for saving.

    Some configs, such as that of the first Llama 2, set sampling parameters without ``do_sample``,
    which transformers refuses.
    """
    config = copy.deepcopy(model.generation_config)
    try:
        config.validate(strict=True)
    except ValueError:
        config.do_sample = True
    return config


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


def _tied(model: Any, merged: dict[str, Tensor]) -> dict[str, str]:
    """Return the weights that are written as one with another, and give others their own memory."""
    tied = {}
    for name, other in model.all_tied_weights_keys.items():
        if torch.equal(merged[name], merged[other]):
            tied[name] = other
        else:
            merged[name] = merged[name].clone()
    return tied


def _config_for(model: Any, tied: Mapping[str, str]) -> Any:
    """Return the model's config; head and embeddings are parted where their weights differ.

    Encoder-decoders keep their config. transformers ties their embeddings when it loads them,
    except those that a file holds with different numbers.
    """
    config = copy.deepcopy(model.config)
    config.dtype = model.dtype
    if len(tied) < len(model.all_tied_weights_keys) and not config.is_encoder_decoder:
        config.tie_word_embeddings = False
    return config


@torch.no_grad()
def merge_weights(model: Any, name: str) -> None:
    """Add the update of an adapter to the backbone's own weights; the adapter is not removed.

    Raises:
        InputError: the backbone is quantised.
    """
    if getattr(model, "is_quantized", False):
        raise InputError(
            "an adapter cannot be merged into quantised weights; see docs/how-to/backbones.md"
        )
    uses = Counter(id(weight) for _, weight in model.named_parameters(remove_duplicate=False))
    layers: list[Any] = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        if name not in layer.scaling:
            continue
        base = layer.get_base_layer()
        update = layer.get_delta_weight(name)
        if not update.any():
            continue
        merged = (base.weight + update).to(base.weight.dtype)
        if uses[id(base.weight)] > 1:
            base.weight = nn.Parameter(merged, base.weight.requires_grad)
        else:
            base.weight.copy_(merged)


@contextmanager
def changed_matrices(
    model: nn.Module, name: str | None, change: Callable[[Tensor], Tensor]
) -> Iterator[None]:
    """Replace every matrix of the backbone, with an adapter merged in, inside the block.

    No adapter may be active there. A matrix that is used in several places is replaced in each, so
    that an adapter in one of them changes this one alone. The weights themselves are not touched.

    Args:
        model: the model.
        name: name of the adapter to merge; None: only the backbone's own matrices.
        change: gives what replaces a matrix.
    """
    of_adapters = {w for weights in adapter_weights(model).values() for w in weights.values()}
    layers: list[Any] = [layer for layer in model.modules() if isinstance(layer, BaseTunerLayer)]
    adapted = {layer.get_base_layer(): layer for layer in layers if name in layer.scaling}
    before = [
        (module, kind, weight)
        for module in model.modules()
        for kind, weight in module.named_parameters(recurse=False)
        if weight.dim() > 1 and weight not in of_adapters
    ]
    try:
        for module, kind, weight in before:
            matrix = weight.detach()
            if kind == "weight" and module in adapted:
                matrix = (matrix + adapted[module].get_delta_weight(name)).to(weight.dtype)
            setattr(module, kind, nn.Parameter(change(matrix), requires_grad=False))
        with torch.compiler.set_stance("force_eager"):  # compiled code may know the old ones
            yield
    finally:
        for module, kind, weight in before:
            setattr(module, kind, weight)


def part_weights(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Untie those matrices of a model without adapters that are separate in a state."""
    known = backbone_weights(model)
    shared = dict(model.named_parameters(remove_duplicate=False))
    for name in set(state) & set(shared) - set(known):
        path, _, kind = name.rpartition(".")
        weight = shared[name]
        parameter = nn.Parameter(weight.detach().clone(), weight.requires_grad)
        setattr(model.get_submodule(path), kind, parameter)


LEAST_UNSHOWN = 30  # tokens; the error of their mean is then below a fifth of their spread


def reset_forget_tokens(
    language_model: LanguageModel,
    state: Mapping[str, Tensor],
    start: Mapping[str, Tensor],
    tokens: Tensor,
    unshown: Tensor,
    overshoot: float = 0.0,
) -> dict[str, Tensor]:
    """Reset the embeddings of some tokens, as if no training prompt had shown them.

    A reset embedding is its start plus the drift that training gives every word. If the head and
    the embeddings are one matrix, each softmax moves all words, shown or not. The drift is
    estimated as the mean movement of the unshown tokens. If the head is a matrix of its own, or the
    embeddings have an adapter, the softmax moves the head alone; unshown tokens then do not move,
    and the drift is zero. The drift is also set to zero if there are fewer than ``LEAST_UNSHOWN``
    unshown tokens, too few for a mean.

    Args:
        language_model: the model to which the weights belong.
        state: weights of the backbone or of an adapter, as from ``AdapterBank.state``; not changed.
        start: the same weights before training.
        tokens: token ids, int64 [m].
        unshown: ids of other tokens, which no training prompt shows, int64 [u].
        overshoot: how much further the tokens are moved, as a share of the way; -1 leaves them as
            they are.

    Returns:
        The weights with the embeddings reset.
    """
    tables = word_embeddings(language_model.model)
    rows = {name for name, w in backbone_weights(language_model.model).items() if w in tables}
    weights = dict(state)
    for name, weight in state.items():
        if name in rows:
            weights[name] = _reset(weight, start[name], tokens, unshown, overshoot)
        elif name.endswith(COLUMNS):
            columns = _reset(weight.T, start[name].T, tokens, unshown, overshoot)
            weights[name] = columns.T.contiguous()
    return weights


def _reset(
    now: Tensor, start: Tensor, tokens: Tensor, unshown: Tensor, overshoot: float
) -> Tensor:  # [v, h], [v, h], [m], [u] -> [v, h]
    """A copy of an embedding in which these tokens have their start and the mean drift."""
    fresh = start[tokens].to(now.device).float()
    if len(unshown) >= LEAST_UNSHOWN:
        fresh += (now[unshown].float() - start[unshown].to(now.device).float()).mean(dim=0)
    fresh += overshoot * (fresh - now[tokens].float())
    reset = now.clone()
    reset[tokens] = fresh.to(now.dtype)
    return reset
