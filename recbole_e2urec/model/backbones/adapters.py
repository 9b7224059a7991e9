"""Named LoRA adapters on one backbone. No other module switches adapters.

Switching adapters in peft has side effects. Making an adapter active sets its ``requires_grad``,
and so does turning adapters off and on. A switch between a forward and its backward silently drops
gradients. Here, context managers switch adapters and then restore mode, active adapter and gradient
flags. Open and close them around forward and backward, never between the two.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_e2urec.errors import InputError, one_line
from recbole_e2urec.model.backbones.language_model import LanguageModel
from recbole_e2urec.model.backbones.lora import (
    LoraOptions,
    adapter_weights,
    backbone_weights,
    layer_names,
    learning_mode,
    learning_size,
    learning_tokens,
    lora_config,
    seeded,
    shapes,
    word_layers,
)
from recbole_e2urec.model.backbones.merging import (
    changed_matrices,
    merge_weights,
    part_weights,
    save_merged,
)
from recbole_e2urec.utils import io

PEFT_PREFIX = "base_model.model."  # how every weight name in peft's files begins
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # peft's names
BASE_FOLDER = "base"  # of the backbone, in the folder of an adapter that no hub has the backbone of


@contextmanager
def switches_kept(model: nn.Module) -> Iterator[None]:
    """Restore every module's mode and every parameter's ``requires_grad`` after the body.

    Modules that the body adds get the mode of the whole model. Parameters that it adds keep their
    flag. The state is restored after an exception, too.
    """
    modes = {module: module.training for module in model.modules()}
    try:
        with flags_kept([*model.parameters()]):
            yield
    finally:
        for module in model.modules():
            module.training = modes.get(module, modes[model])


@contextmanager
def flags_kept(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Restore these parameters' ``requires_grad`` after the body, also after an exception."""
    flags = [(parameter, parameter.requires_grad) for parameter in parameters]
    try:
        yield
    finally:
        for parameter, flag in flags:
            if parameter.requires_grad != flag:
                parameter.requires_grad_(flag)


def _set(modules: list[nn.Module], parameters: list[nn.Parameter], learns: bool) -> None:
    """Switch the training mode of these modules, and the gradient of these parameters."""
    for module in modules:
        module.training = learns
    for parameter in parameters:
        parameter.requires_grad_(learns)


@contextmanager
def peft_quiet() -> Iterator[None]:
    """Silence two peft warnings about which the user can do nothing.

    One is about a name that transformers deprecates. The other says that a layer with an adapter is
    tied to the head, which matters only when adapters are merged into the weights.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")
        warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`")
        yield


def merge_saved(language_model: LanguageModel, folder: Path) -> None:
    """Merge an adapter in peft's format into a backbone without adapters, in memory.

    Args:
        language_model: the backbone, which is not quantised.
        folder: with the adapter's config and weights.

    Raises:
        InputError: the adapter is no LoRA that can be merged, or does not fit the backbone.
    """
    model: Any = language_model.model
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise InputError(f"{folder} is an adapter without {ADAPTER_WEIGHTS}; pickles are not read")
    try:
        with warnings.catch_warnings(), peft_quiet():
            warnings.filterwarnings("error", "Found missing adapter keys")
            peft = PeftModel.from_pretrained(model, str(folder))
        expected = language_model.own_answer()
        merge_weights(model, peft.active_adapter)
        peft.unload()
    except Exception as error:  # damaged files and other kinds of adapters raise any type
        raise InputError(
            f"the adapter in {folder} cannot be merged into its backbone: "
            f"{one_line(error)[:200]}; a LoRA of this backbone is needed"
        ) from error
    model.requires_grad_(True)
    if not language_model.agrees_with(expected):
        raise InputError(
            f"the adapter in {folder} does more than a plain LoRA; merge it by peft's "
            "merge_and_unload, and name the folder of the merged model"
        )


@contextmanager
def mixed_layers(model: nn.Module, names: Sequence[str], weights: Tensor) -> Iterator[None]:
    """Add ``sum over k of w_k B_k A_k`` to every adapted layer, with weights for each sample.

    The result equals that of merging the adapters for each sample by itself, because an update is
    linear in its weight; but nothing is merged. No adapter may be active.

    Args:
        model: the model with the adapters.
        names: names of the k adapters.
        weights: weights for the batch that the body runs, [b, k].
    """
    hooks = []
    try:
        for layer in model.modules():
            if isinstance(layer, BaseTunerLayer):
                hooks.append(layer.register_forward_hook(_adder(names, weights)))
        with torch.compiler.set_stance("force_eager"):  # compiled code ignores hooks added later
            yield
    finally:
        for hook in hooks:
            hook.remove()


def _adder(names: Sequence[str], weights: Tensor) -> Any:
    def add(layer: Any, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        for name, weight in zip(names, weights.unbind(dim=1), strict=True):
            if name in layer.lora_A or name in layer.lora_embedding_A:
                shape = (-1, *[1] * (output.dim() - 1))
                output = output + weight.view(shape).to(output.dtype) * _update(
                    layer, name, inputs[0]
                )
        return output

    return add


def _update(layer: Any, name: str, inputs: Tensor) -> Tensor:
    """Compute what one adapter adds to the layer's output at weight 1."""
    scaling = layer.scaling[name]
    if name in layer.lora_A:
        first = layer.lora_A[name]
        return layer.lora_B[name](first(inputs.to(first.weight.dtype))) * scaling
    first = F.embedding(inputs, layer.lora_embedding_A[name].T)
    return torch.matmul(first, layer.lora_embedding_B[name].T) * scaling


class _Parts(NamedTuple):
    """Parts of a model that stay the same until an adapter is added or removed.

    Attributes:
        modules: all of them.
        parameters: those of the backbone and of all adapters, tied ones once.
        adapters: see :func:`adapter_weights`.
    """

    modules: list[nn.Module]
    parameters: list[nn.Parameter]
    adapters: dict[str, dict[str, nn.Parameter]]


class AdapterBank:
    """The adapters of one language model. Make only one bank for a language model.

    Wherever a name is expected, ``None`` stands for the bare backbone. At first no adapter is
    active, and a new adapter changes no output. Only :meth:`training` decides what learns.
    """

    def __init__(self, language_model: LanguageModel) -> None:
        self.language_model = language_model
        self._layers = layer_names(language_model.model)
        words: Any = language_model.model.get_input_embeddings()
        self._word_layers = word_layers(language_model.model, words.num_embeddings)
        self._options: dict[str, LoraOptions] = {}
        self._peft: PeftModel | None = None
        self._open: list[str | None] = [None]  # names of the open contexts; the last is active
        self._parts: _Parts | None = None  # of the model, found when they are needed

    @property
    def names(self) -> list[str]:
        """Names of the adapters, oldest first."""
        return list(self._options)

    def check(self, options: LoraOptions) -> None:
        """Raise the error that :meth:`add` would raise for these options, without adding."""
        lora_config(options, self.language_model, self._layers)

    def reaches_words(self, options: LoraOptions) -> bool:
        """Whether an adapter with these options changes the word embeddings."""
        return not self._word_layers.isdisjoint(options.target_modules)

    def add(self, name: str, options: LoraOptions, seed: int) -> None:
        """Add an adapter that changes no output yet (its B matrices are zero).

        Args:
            name: a new name, without dots.
            options: the adapter's shape.
            seed: seed of its A matrices; the global random state stays untouched.

        Raises:
            InputError: the backbone lacks a target module, or LoRA cannot adapt it.
            ValueError: the name is taken, empty or dotted.
        """
        if not name or "." in name or name in self._options:
            raise ValueError(f"adapter name {name!r} is taken, empty or dotted; have {self.names}")
        config = lora_config(options, self.language_model, self._layers)
        self._parts = None
        model = self.language_model.model
        with switches_kept(model), seeded(seed), peft_quiet():
            if self._peft is None:
                self._peft = PeftModel(model, config, adapter_name=name)
            else:
                self._peft.add_adapter(name, config)
        model.disable_input_require_grads()  # peft's hook serves reentrant checkpoints only
        self._options[name] = options
        for parameter in self.parameters(name):
            parameter.requires_grad_(False)
        self._switch()

    def copy(self, source: str, target: str) -> None:
        """Add ``target``, an adapter with the options and the weights of ``source``."""
        self._check(source)
        self.add(target, self._options[source], seed=0)
        self.load(target, self.state(source))

    def remove(self, name: str) -> None:
        """Remove an adapter; without any, the model is what it was before the first was added.

        Raises:
            ValueError: there is no such adapter, or one of its contexts is still open.
        """
        self._check(name)
        if name in self._open:
            raise ValueError(f"adapter {name!r} is in use; leave its context first")
        del self._options[name]
        self._parts = None
        peft: Any = self._peft
        with switches_kept(self.language_model.model):
            if self._options:
                peft.set_adapter(self.names[0])  # or peft chooses one itself and warns
                peft.delete_adapter(name)
            else:
                peft.unload()
                self._peft = None
        self._switch()

    def parameters(self, name: str | None) -> list[nn.Parameter]:
        """List an adapter's or the bare backbone's parameters in a fixed order, tied ones once."""
        return list(self._weights(name).values())

    def state(self, name: str | None) -> dict[str, Tensor]:
        """Copy the weights; their names do not contain the adapter's name."""
        return {key: weight.detach().clone() for key, weight in self._weights(name).items()}

    def load(self, name: str | None, state: Mapping[str, Tensor]) -> None:
        """Load weights that :meth:`state` returned into an adapter or the bare backbone.

        Raises:
            ValueError: names or shapes do not match; nothing is changed then.
        """
        weights = self._fitting(name, state)
        with torch.no_grad():
            for key, weight in weights.items():
                weight.copy_(state[key])

    @contextmanager
    def restored_after(self, name: str | None) -> Iterator[None]:
        """Restore the weights of an adapter, or of the bare backbone, after the body."""
        before = self.state(name)
        try:
            yield
        finally:
            self.load(name, before)

    @contextmanager
    def swapped_weights(self, name: str | None, state: Mapping[str, Tensor]) -> Iterator[None]:
        """Use other weights inside the block, see :meth:`load`. Do not train them there.

        The parameters refer to the given tensors for that time, so no set of weights is copied.
        """
        weights = self._fitting(name, state)
        before = {key: weight.data for key, weight in weights.items()}
        try:
            for key, weight in weights.items():
                weight.data = state[key].to(weight)
            yield
        finally:
            for key, weight in weights.items():
                weight.data = before[key]

    def save(self, name: str, folder: Path, base: str | None = None) -> None:
        """Save an adapter in peft's format, for ``PeftModel.from_pretrained(model, folder)``.

        Args:
            name: name of the adapter.
            folder: target folder; created if missing.
            base: what the adapter's config calls the backbone; None: as it was loaded.
        """
        self._check(name)
        config = lora_config(self._options[name], self.language_model, self._layers).to_dict()
        config["inference_mode"] = True
        config["base_model_name_or_path"] = base or config["base_model_name_or_path"]
        config["target_modules"] = sorted(config["target_modules"])
        state = {PEFT_PREFIX + key: weight for key, weight in self.state(name).items()}
        io.write_tensors(folder / ADAPTER_WEIGHTS, state, {"format": "pt"})
        io.write_json(folder / ADAPTER_CONFIG, config)

    def save_merged(self, name: str | None, folder: Path, tokenizer: Any = None) -> None:
        """Save the backbone, with an adapter merged in, as a model for plain transformers.

        ``tokenizer`` is saved instead of the backbone's own.

        Raises:
            InputError: see :func:`recbole_e2urec.model.backbones.merging.save_merged`.
        """
        self._check(name)
        save_merged(self.language_model, name, folder, tokenizer)

    def merge(self, name: str) -> None:
        """Merge an adapter into the backbone's weights and remove it; others stay as they are.

        If the backbone uses one matrix in several places and the adapter changes it in one of them,
        that place gets a matrix of its own, and :meth:`state` has one more weight.

        Raises:
            InputError: the backbone is quantised.
        """
        self._check(name)
        merge_weights(self.language_model.model, name)
        self.remove(name)

    @contextmanager
    def changed_matrices(
        self, name: str | None, change: Callable[[Tensor], Tensor]
    ) -> Iterator[None]:
        """Let the bare backbone have other matrices, see :func:`merging.changed_matrices`.

        Args:
            name: name of the adapter that is merged into them.
            change: gives what replaces a matrix.
        """
        self._check(name)
        self._found()  # before the matrices are others for a while
        with changed_matrices(self.language_model.model, name, change), self.frozen(None):
            yield

    def part(self, state: Mapping[str, Tensor]) -> None:
        """Untie the backbone's matrices that are separate in a state from after :meth:`merge`.

        Afterwards, :meth:`load` accepts that state. There must be no adapters yet.
        """
        self._parts = None
        part_weights(self.language_model.model, state)

    @contextmanager
    def active(self, name: str | None) -> Iterator[None]:
        """Use this adapter (``None``: no adapter) in every forward of the body."""
        self._check(name)
        before = self._open[-1]
        self._open.append(name)
        try:
            if name != before:
                self._switch()
            yield
        finally:
            self._open.pop()
            if name != before:
                self._switch()

    @contextmanager
    def frozen(self, name: str | None) -> Iterator[None]:
        """Use this adapter in evaluation mode, without any gradient."""
        parts = self._found()
        with self.active(name), torch.no_grad():
            learning = [module for module in parts.modules if module.training]
            free = [parameter for parameter in parts.parameters if parameter.requires_grad]
            try:
                _set(learning, free, False)
                yield
            finally:
                _set(learning, free, True)

    @contextmanager
    def mixed(self, names: Sequence[str], weights: Tensor) -> Iterator[None]:
        """Mix adapters with weights for each sample, [b, names]; otherwise as :meth:`frozen`."""
        for name in names:
            self._check(name)
        with self.frozen(None), mixed_layers(self.language_model.model, names, weights):
            yield

    @contextmanager
    def training(
        self,
        name: str | None,
        tokens: Tensor | None = None,
        backbone: bool = False,
        dropout: bool = True,
        alone: bool = False,
    ) -> Iterator[None]:
        """Use this adapter in training mode; only its weights (``None``: the backbone's) learn.

        Args:
            name: name of the adapter.
            tokens: ids of the only tokens that adapted embeddings learn, int64 [m]; None: all
                tokens.
            backbone: whether the backbone learns instead, while the adapter is used but frozen.
            dropout: whether the backbone drops activations, see :func:`learning_mode`.
            alone: whether nothing but these tokens learns.
        """
        learns = None if backbone else name
        model = self.language_model
        with self.active(name), switches_kept(model), torch.enable_grad():
            learning_mode(model.requires_grad_(False), dropout)
            for parameter in self.parameters(learns):
                parameter.requires_grad_(True)
            with learning_tokens(self._weights(learns), tokens, alone):
                yield

    def learning(self, name: str | None, tokens: Tensor | None = None, alone: bool = False) -> int:
        """Count the weights that learn in :meth:`training`, as single numbers."""
        return learning_size(self._weights(name), tokens, alone)

    def _check(self, name: str | None) -> None:
        if name is not None and name not in self._options:
            raise ValueError(f"no adapter {name!r}; have {self.names}")

    def _weights(self, name: str | None) -> dict[str, nn.Parameter]:
        self._check(name)
        if name is None:
            return backbone_weights(self.language_model.model)
        return self._found().adapters[name]

    def _found(self) -> _Parts:
        """Look for the model's parts, unless they are known: it takes longer than most uses."""
        if self._parts is None:
            model = self.language_model
            adapters = adapter_weights(model.model)
            self._parts = _Parts([*model.modules()], [*model.parameters()], adapters)
        return self._parts

    def _fitting(self, name: str | None, state: Mapping[str, Tensor]) -> dict[str, nn.Parameter]:
        """Return the weights that a state replaces, if names and shapes match."""
        weights = self._weights(name)
        difference = shapes(weights) ^ shapes(state)
        if difference:
            key, shape = min(difference)
            raise ValueError(f"this state does not fit {name!r}: first difference at {key} {shape}")
        return weights

    def _switch(self) -> None:
        """Activate the adapter of the innermost open context, and change nothing else."""
        if self._peft is None:
            return
        tuner: Any = self._peft.base_model
        with flags_kept(self._found().parameters):  # peft leaves modes as they are
            if self._open[-1] is None:
                tuner.disable_adapter_layers()
            else:
                tuner.enable_adapter_layers()
                self._peft.set_adapter(self._open[-1])
