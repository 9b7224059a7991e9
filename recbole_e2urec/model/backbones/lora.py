"""LoRA adapters: their options, their peft config, their weights and which of these learn."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.errors import InputError
from recbole_e2urec.model.backbones.language_model import LanguageModel

EMBEDDING = "lora_embedding_"  # part of the names of an adapted embedding's matrices, A and B
COLUMNS = f"{EMBEDDING}A"  # [r, vocabulary]; B is [h, r]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's CPU generator inside the block, and restore its old state afterwards.

    Weights are always made on the CPU. The generators of accelerators are therefore neither read
    nor changed; ``torch.manual_seed`` would reseed all of them.
    """
    generator = torch.random.default_generator
    state = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(state)


@option_class(prefix="lora_")
class LoraOptions:
    """Shape of a LoRA adapter (Hu et al. 2022); the defaults are those of the E2URec scripts."""

    r: int = option("Rank of a LoRA adapter.", ge=1, default=16)
    alpha: int = option(
        "Scale of a LoRA adapter: its update counts lora_alpha / lora_r times.", default=32
    )
    dropout: float = option(
        "Share of an adapter's inputs dropped in training.", ge=0, lt=1, default=0.05
    )
    target_modules: tuple[str, ...] = option(
        "Names of the adapted layers; empty = attention queries and values.", default=()
    )


def lora_config(options: LoraOptions, model: LanguageModel, layers: Sequence[str]) -> LoraConfig:
    """Build peft's config of an adapter.

    Args:
        options: the adapter's shape.
        model: the backbone.
        layers: names that ``target_modules`` may choose from, see :func:`layer_names`.

    Raises:
        InputError: the backbone lacks a target module (peft objects only if all are missing).
    """
    targets = list(options.target_modules or model.lora_targets)
    missing = [target for target in targets if target not in layers]
    if missing:
        raise InputError(
            f"lora_target_modules {missing} are no layers of the backbone; "
            f"choose from {list(layers)}"
        )
    return LoraConfig(
        r=options.r,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=targets,
        bias="none",
        task_type=model.task_type,
        base_model_name_or_path=model.model.name_or_path,
    )


def layer_names(model: nn.Module) -> list[str]:
    """List the last name parts of the layers that LoRA can adapt, in a model without adapters."""
    return sorted(
        {
            path.rpartition(".")[2]
            for path, module in model.named_modules()
            if isinstance(module, nn.Linear | nn.Embedding) or type(module).__name__ == "Conv1D"
        }
    )


def adapter_weights(model: nn.Module) -> dict[str, dict[str, nn.Parameter]]:
    """Find the weights of every adapter, by adapter name and by weight name without the former."""
    by_layer: dict[str, dict[str, nn.Parameter]] = {}
    for path, module in model.named_modules():
        if not isinstance(module, BaseTunerLayer):
            continue
        for kind in module.adapter_layer_names:  # lora_A, lora_B, ...
            for key, weight in getattr(module, kind).named_parameters():
                adapter, _, rest = key.partition(".")
                name = ".".join(filter(None, (path, kind, rest)))
                by_layer.setdefault(adapter, {})[name] = weight
    return by_layer


def interpolated(
    start: Mapping[str, Tensor], end: Mapping[str, Tensor], share: float
) -> dict[str, Tensor]:
    """Interpolate linearly between two sets of weights, or extrapolate beyond them.

    For an adapter that started fresh, the update itself is scaled: the one of its two matrices that
    started as zeros is multiplied by ``share``, and the other is that of ``end``.

    Args:
        start: weights of one adapter, as :func:`adapter_weights` names them, or of a backbone.
        end: other weights of the same adapter or backbone.
        share: 0 = start, 1 = end, -1 = as far from the start in the opposite direction.
    """
    zeros = [name for name, weight in start.items() if not weight.any()]
    if all("lora_" in name for name in start) and 2 * len(zeros) == len(start):
        return {name: weight * (share if name in zeros else 1.0) for name, weight in end.items()}
    return {name: start[name] + share * (weight - start[name]) for name, weight in end.items()}


def learning_mode(model: nn.Module, dropout: bool) -> None:
    """Set training mode; without ``dropout``, for the adapters alone.

    Layers with gradient checkpointing stay in training mode too, because they would otherwise store
    their activations. A layer that applies both checkpointing and dropout itself, as BART's do,
    therefore keeps its dropout.
    """
    model.train(dropout)
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.train()
        elif getattr(module, "gradient_checkpointing", False):
            module.training = True


def word_layers(model: nn.Module, words: int) -> set[str]:
    """Last name parts of the embeddings that have ``words`` rows, in a model without adapters."""
    return {path.rpartition(".")[2] for path, _ in _of_all_words(model, words)}


def word_embeddings(model: Any) -> set[Tensor]:
    """Matrices of the word embeddings: one, or several if merging an adapter has untied them."""
    words = len(model.get_input_embeddings().weight)
    return {module.weight for _, module in _of_all_words(model, words)}


def _of_all_words(model: nn.Module, words: int) -> Iterator[tuple[str, nn.Embedding]]:
    """Find the embeddings that have ``words`` rows, with their paths."""
    for path, module in model.named_modules():
        if isinstance(module, nn.Embedding) and module.num_embeddings == words:
            yield path, module


@contextmanager
def learning_tokens(
    weights: Mapping[str, nn.Parameter], tokens: Tensor | None, alone: bool = False
) -> Iterator[None]:
    """Limit what adapted embeddings learn to the rows of these tokens.

    The adapter changes the row of token t by ``B @ A[:, t]``. Inside the block, the other columns
    of A get no gradient, and B, which all tokens share, does not learn.

    Args:
        weights: weights of one adapter, as :func:`adapter_weights` names them.
        tokens: token ids, int64 [m]; None: no limit.
        alone: whether nothing but these rows learns.
    """
    hooks = []
    limited = _limited(weights, tokens)
    try:
        if alone:
            for name in weights.keys() - limited.keys():
                weights[name].requires_grad_(False)
        for name, weight in limited.items():
            if name.endswith(COLUMNS):
                learns = torch.zeros(weight.shape[1], dtype=weight.dtype, device=weight.device)
                learns[tokens] = 1
                hooks.append(weight.register_hook(learns.mul))
            else:
                weight.requires_grad_(False)
        yield
    finally:
        for hook in hooks:
            hook.remove()


def learning_size(
    weights: Mapping[str, nn.Parameter], tokens: Tensor | None, alone: bool = False
) -> int:
    """Count the numbers that learn under :func:`learning_tokens`."""
    limited = _limited(weights, tokens)
    others = (weight for name, weight in weights.items() if name not in limited and not alone)
    columns = (weight for name, weight in limited.items() if name.endswith(COLUMNS))
    learned = sum(weight[:, tokens].numel() for weight in columns)
    return learned + sum(weight.numel() for weight in others)


def _limited(weights: Mapping[str, nn.Parameter], tokens: Tensor | None) -> dict[str, nn.Parameter]:
    """Select the weights that ``tokens`` limits: the matrices of adapted embeddings."""
    if tokens is None:
        return {}
    return {name: weight for name, weight in weights.items() if EMBEDDING in name}


def backbone_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Weights of the backbone itself, tied ones once, under the names of the bare model."""
    of_adapters = {w for weights in adapter_weights(model).values() for w in weights.values()}
    return {
        name.replace(".base_layer.", "."): weight
        for name, weight in model.named_parameters()
        if weight not in of_adapters
    }


def shapes(weights: Mapping[str, Tensor]) -> set[tuple[str, tuple[int, ...]]]:
    """Names and shapes of weights; they must be equal for one set to replace another."""
    return {(name, tuple(weight.shape)) for name, weight in weights.items()}
