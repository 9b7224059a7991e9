"""RecBole's Config with our layers, checks and option classes. All settings are read here.

Layers, of which later ones win: RecBole's defaults, our ``overall.yaml``, the evaluation mode, the
model, the data set, the protocol, the prompt's backbone, config files, config dict, command line.
Nothing here reads ``sys.argv``.
"""

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from recbole.config.configurator import Config as RecBoleConfig
from recbole.utils import ModelType

from recbole_e2urec.config.evaluation_mode import (
    EvalPlan,
    merge_load_col,
    plan_evaluation,
    register_accuracy,
)
from recbole_e2urec.config.expression import without_values
from recbole_e2urec.config.keys import (
    BUNDLED,
    LAUNCHING,
    POST_RUN_KEYS,
    check_dataset,
    check_keys,
    downloadable_datasets,
    find_model,
    protocol,
    split_forget_method,
    with_forget_method,
)
from recbole_e2urec.config.schema import (
    DATA_DRIVEN,
    build_options,
    check_negatives,
    check_supported,
    check_values,
)
from recbole_e2urec.config.yaml import (
    SettingsLoader,
    parse_value,
    properties,
    properties_folder,
    read_yaml,
)
from recbole_e2urec.errors import InputError
from recbole_e2urec.utils import distributed, recbole_compat
from recbole_e2urec.utils.io import outside_run_folder, run_folder
from recbole_e2urec.utils.recbole_compat import as_input_errors

T = TypeVar("T")
_FIELDS = ("USER_ID", "ITEM_ID", "RATING", "TIME", "LABEL")


class Config(RecBoleConfig):
    """All settings of one run.

    ``forget_method`` says how a classic model forgets, from a name such as ``DeepFM-SISA``; None:
    not at all. ``remainder`` is what a model folder keeps of the data after rows were erased from
    the files; None: they are as they were.

    Args:
        model: a model's name (RecBole's, ``LLMRec`` or a method such as ``E2URec``) or a model
            class; None: the one that other layers name.
        dataset: a data set's name; None: the one that other layers name.
        config_file_list: yaml files; later ones win.
        config_dict: settings from Python; strings stay strings.
        overrides: settings of the command line; a string is parsed as a yaml scalar.

    Raises:
        InputError: a model, data set or key is unknown (the message names the nearest), a file is
            missing or does not parse, or a value does not fit.
    """

    remainder: Any = None

    def __init__(
        self,
        model: str | type | None = None,
        dataset: str | None = None,
        config_file_list: Sequence[str | os.PathLike[str]] | None = None,
        config_dict: Mapping[str, Any] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> None:
        recbole_compat.apply()
        self.command_line = {
            key: parse_value(value, key) if isinstance(value, str) else value
            for key, value in (overrides or {}).items()
        }
        self.forget_method: str | None = None
        self.own_model = model is not None and not isinstance(model, str)
        super().__init__(model, dataset, config_file_list, config_dict)

    def options(self, kind: type[T]) -> T:
        """Create the option class ``kind``.

        Raises:
            InputError: a key is missing or its value does not fit.
        """
        return build_options(kind, self.final_config_dict)

    def is_given(self, key: str) -> bool:
        """Return whether the user set a key, rather than the defaults of a model or a data set."""
        return key in {**self.protocol, **self.external_config_dict}

    def with_settings(self, settings: Mapping[str, Any]) -> "Config":
        """Return a copy with some settings replaced. These are not checked again."""
        config = copy.copy(self)
        config.final_config_dict = {**self.final_config_dict, **settings}
        return config

    def settings(self) -> dict[str, Any]:
        """Return the settings that the user gave, and all settings with keys of our own."""
        documented = read_yaml(properties_folder() / "overall.yaml")
        for name in ("LLMRec", self.model) if self.is_language_model else (self.model,):
            documented.update(properties("model", str(name)))
        keys = {*documented, *self.external_config_dict, "epochs", "learning_rate", "valid_metric"}
        keys -= {*LAUNCHING, *POST_RUN_KEYS}
        settings = {key: self.final_config_dict.get(key) for key in sorted(keys)}
        if settings["forget_where"]:  # results must not name users, items or titles
            settings["forget_where"] = without_values(settings["forget_where"])
        if distributed.count() > 1:
            settings["processes"] = distributed.count()
        return settings

    def ranked(self) -> "Config | None":
        """Return the settings of the same run, evaluated by ranking items; None if not wanted.

        If the run is already evaluated by ranking, its own settings are returned. For other runs
        ``ranking_pass`` names the mode.

        Raises:
            InputError: ``ranking_pass`` names a mode that ranks nothing.
        """
        if self.plan.kind == "ranking":
            return self
        if self["ranking_pass"] is None:
            return None
        of_labels = ("metrics", "valid_metric")
        external = self.external_config_dict.items()
        settings = {key: value for key, value in external if key not in of_labels}
        if "eval_args" in settings:
            settings["eval_args"] = {k: v for k, v in settings["eval_args"].items() if k != "mode"}
        settings["eval_mode"] = self["ranking_pass"]
        settings.update({key: self[key] for key in DATA_DRIVEN})
        ranked = type(self)(
            with_forget_method(str(self.model), self.forget_method), self.dataset, None, settings
        )
        if ranked.plan.kind != "ranking":
            raise InputError("ranking_pass: labeled ranks nothing; write uni100, pop100 or full")
        return ranked

    @property
    def run_folder(self) -> Path:
        """The folder of all that the run writes, except its results."""
        return run_folder(str(self["checkpoint_dir"]), str(self["dataset"]))

    @property
    def is_language_model(self) -> bool:
        """Whether the model is this package's language model rather than a classic one."""
        return str(self.model_class.__module__).startswith("recbole_e2urec.")

    @property
    def borrowed_rates(self) -> str:
        """A warning if tiny-t5's learning rates apply to a backbone without settings of its own.

        They are too large for a pretrained model. The warning is empty if the backbone has settings
        or the user chose a rate.
        """
        chosen = {**self.protocol, **self.external_config_dict}
        name = str(self["backbone"])
        if "learning_rate" in chosen or properties("backbone", name):
            return ""
        return (
            f"backbone {name} has no settings of its own: learning_rate {self['learning_rate']:g} "
            "and all others are those of tiny-t5, much too large for a pretrained model; give "
            f"yours, or take a name's, as in --backbone=t5-base --backbone_source={name}"
        )

    def compatibility_settings(self) -> None:
        """Let RecBole know this package's metric; called first by RecBole's own constructor."""
        register_accuracy()

    def _build_yaml_loader(self) -> type:
        return SettingsLoader

    def _load_config_files(self, file_list: Sequence[Any] | None) -> dict[str, Any]:
        settings: dict[str, Any] = {}
        for file in file_list or ():
            values = read_yaml(Path(file))
            self._check_keys(values, str(file))
            settings.update(values)
        return settings

    def _load_variable_config_dict(self, config_dict: Mapping[str, Any] | None) -> dict[str, Any]:
        settings = copy.deepcopy(dict(config_dict or {}))  # RecBole completes dicts in place
        self._check_keys(settings, "config_dict")
        return settings

    def _load_cmd_line(self) -> dict[str, Any]:
        self._check_keys(self.command_line, "the command line")
        return self.command_line

    def _check_keys(self, settings: Mapping[str, Any], source: str) -> None:
        if not self.own_model:  # a model class from elsewhere may have keys of its own
            check_keys(settings, source)

    def _get_model_and_dataset(
        self, model: str | type | None, dataset: str | None
    ) -> tuple[str, type, str]:
        defaults = read_yaml(properties_folder() / "overall.yaml")
        self.protocol = protocol(self.external_config_dict.get("protocol"))
        chosen = {**defaults, **self.protocol, **self.external_config_dict}
        name = str(dataset or chosen["dataset"])
        if self.own_model:
            return model.__name__, model, name  # type: ignore[union-attr, return-value]
        model, self.forget_method = split_forget_method(str(model or chosen["model"]))
        model_class = find_model(model)
        if self.forget_method and model_class.__module__.startswith("recbole_e2urec."):
            way = self.forget_method
            raise InputError(f"{model}-{way}: for classic models; write --model={way}")
        return model, model_class, name

    def _load_internal_config_dict(self, model: str, model_class: type, dataset: str) -> None:
        super()._load_internal_config_dict(model, model_class, dataset)
        overall = read_yaml(properties_folder() / "overall.yaml")
        self._add_layer(overall)
        self.plan: EvalPlan = plan_evaluation(
            self.external_config_dict, overall["eval_mode"], self.learns_labels
        )
        self._add_layer(properties("evaluation", self.plan.kind))
        names = [("model", "LLMRec")] if self.is_language_model else []
        names += [("model", model), ("dataset", dataset)]
        for kind, name in names:
            self._add_layer(properties(kind, name))
        self._add_layer(self.protocol)
        if self.is_language_model:
            chosen = {**self.internal_config_dict, **self.external_config_dict}
            self._add_layer(properties("backbone", str(chosen["backbone"])))

    @property
    def learns_labels(self) -> bool:
        """Whether the model learns from likes and dislikes rather than from what was seen."""
        kind = self.internal_config_dict["MODEL_TYPE"]
        return kind in (ModelType.CONTEXT, ModelType.DECISIONTREE) or self.model in ("DIN", "DIEN")

    def _add_layer(self, layer: Mapping[str, Any]) -> None:
        columns = merge_load_col(self.internal_config_dict.get("load_col"), layer.get("load_col"))
        self.internal_config_dict.update(layer)
        self.internal_config_dict["load_col"] = columns

    def _get_final_config_dict(self) -> dict[str, Any]:
        external = self.external_config_dict
        _add_accelerate_settings(external)
        if not self.own_model:
            check_values(external, self.internal_config_dict)
        _check_place(Path(external.get("checkpoint_dir") or "."))
        final = super()._get_final_config_dict()
        final.update(self.plan.resolve(self.internal_config_dict, external))
        for key in ("field_separator", "seq_separator"):
            final[key] = str(final[key]).replace("\\t", "\t")  # a tab as it is often typed
        if external.get("normalize_field") and "normalize_all" not in external:
            final["normalize_all"] = None
        is_sequential = final["MODEL_TYPE"] == ModelType.SEQUENTIAL
        if is_sequential and final.get("loss_type") == "CE" and not self.learns_labels:
            final["train_neg_sample_args"] = external.get("train_neg_sample_args")
        if "load_col" not in external:
            self._load_configured_columns(final)
        check_supported(external, self.model, self.is_language_model)
        return final

    def _load_configured_columns(self, final: dict[str, Any]) -> None:
        """Load the columns that the settings name; RecBole ignores columns that a file lacks."""
        threshold = final["threshold"] if isinstance(final["threshold"], Mapping) else {}
        named = [final[f"{kind}_FIELD"] for kind in _FIELDS] + list(threshold)
        final["load_col"] = merge_load_col(final["load_col"], {"inter": [*filter(None, named)]})

    def _set_default_parameters(self) -> None:
        final = self.final_config_dict
        folder = Path(str(final["data_path"]))
        with as_input_errors():
            super()._set_default_parameters()
        if self.is_given("data_path"):
            final["data_path"] = str(folder / self.dataset)  # RecBole forces its own ml-100k
        if self.dataset not in downloadable_datasets():  # commands on results need no data
            self.check_data()

    def check_data(self) -> None:
        """Refuse a data set whose files are not there, see :func:`check_dataset`."""
        final = self.final_config_dict
        folder = Path(final["data_path"])
        if not (self.is_bundled or (final["benchmark_filename"] and folder.is_dir())):
            in_shards = self.is_language_model and bool(final["shard_rows"])
            check_dataset(self.dataset, folder.parent, bool(final["download"]), in_shards)

    @property
    def is_bundled(self) -> bool:
        """Whether the data are those that come with RecBole."""
        return self.dataset == BUNDLED and not self.is_given("data_path")

    def _init_device(self) -> None:
        """Choose the device as RecBole does, but keep CUDA_VISIBLE_DEVICES in a run on the CPU.

        This is where RecBole joins its processes. Ours are joined by :mod:`distributed` instead. To
        RecBole, each process looks like a single one. Only the main process shows progress.
        """
        before = os.environ.get("CUDA_VISIBLE_DEVICES")
        final = self.final_config_dict
        if not final["use_gpu"]:
            final["gpu_id"] = ""
        elif distributed.count() > 1 and "gpu_id" not in self.external_config_dict:
            final["gpu_id"] = before or ",".join(map(str, range(distributed.local_count())))
        with as_input_errors():
            super()._init_device()
        if final["device"] == torch.device("cpu"):
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
            if before is not None:
                os.environ["CUDA_VISIBLE_DEVICES"] = before
        distributed.join(final["device"], float(final["process_timeout"]))
        if not distributed.is_main_process():
            final.update(show_progress=False, log_wandb=False)

    def _set_train_neg_sample_args(self) -> None:
        with as_input_errors():
            super()._set_train_neg_sample_args()
        check_negatives(self.final_config_dict, self.model)

    def _set_eval_neg_sample_args(self, phase: str) -> None:
        with as_input_errors():
            super()._set_eval_neg_sample_args(phase)


def _add_accelerate_settings(settings: dict[str, Any]) -> None:
    """Add what ``accelerate launch`` was told; refuse settings that say something else."""
    for key, value in distributed.accelerate_settings().items():
        if settings.setdefault(key, value) != value:
            raise InputError(
                f"{key} is {settings[key]}, but accelerate launch says {value}; change one of them"
            )


def _check_place(checkpoint_dir: Path) -> None:
    """Refuse a ``checkpoint_dir`` in a run's folder, where a purge would remove the results."""
    if outside_run_folder(checkpoint_dir) != checkpoint_dir:
        raise InputError(
            f"checkpoint_dir: {checkpoint_dir} lies in a run's folder; name the folder that holds "
            "the runs' folders"
        )


@dataclass(frozen=True)
class RunSettings:
    """The arguments of a run except its model; they are those of :class:`Config`."""

    dataset: str | None = None
    config_files: tuple[str, ...] = ()
    config_dict: Mapping[str, Any] | None = None
    overrides: Mapping[str, Any] | None = None

    def overridden(self, settings: Mapping[str, Any]) -> "RunSettings":
        """Return a copy with further settings, which win over all others."""
        return replace(self, overrides={**(self.overrides or {}), **settings})

    def config(self, model: str | None) -> Config:
        """Return the Config of a run of this model; None: the model that the settings name."""
        return Config(model, self.dataset, self.config_files, self.config_dict, self.overrides)
