"""``--finalize=DIR`` and ``--purge``: keep the outcome of a run as a model folder, remove the rest.

Unsuitable runs and folders are refused before anything is trained. The folder is written after the
comparison has been measured. If the process is killed, the same command continues: if the folder
already holds the outcome, nothing is trained, and only the steps that are left are carried out.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from recbole_e2urec.config.config import Config, RunSettings
from recbole_e2urec.config.keys import POST_RUN_KEYS
from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.data.request.selection import ForgetOptions
from recbole_e2urec.deployment.certificate import certify_if_missing
from recbole_e2urec.deployment.export import export_row, refuse_used
from recbole_e2urec.deployment.model_folder import ModelFolder, model_settings
from recbole_e2urec.deployment.purge import certify_purge, purge
from recbole_e2urec.deployment.served_model import FIRST_REQUEST, open_folder
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.finished import FILTER
from recbole_e2urec.experiment.launch import ONE_RUN, layers_of
from recbole_e2urec.experiment.preview import preview
from recbole_e2urec.methods import METHODS
from recbole_e2urec.utils import distributed, recbole_compat

_NO_POST_RUN: dict[str, Any] = {"finalize": None, "purge": False}


@option_class()
class FinalizeOptions:
    """What follows a run."""

    finalize: str | int | None = option(
        "A new folder for the model that forgot, merged into one, to use by recommend and forget; "
        "~ = none is made."
    )
    purge: bool = option(
        "After finalize, remove all else that the run left and that holds the data. --purge alone "
        "does."
    )

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        if self.finalize == "":
            raise InputError("finalize: where to? write --finalize=DIR")
        if self.purge and self.finalize is None:
            raise InputError(
                "purge: a run would lose its outcome; write --finalize=DIR as well, or purge it "
                "later by recbole-e2urec purge --checkpoint_dir=saved"
            )


class PostRun:
    """The steps that follow a run: writing the model folder, and the purge.

    Args:
        model: the model, as for :func:`run_recbole_e2urec`.
        settings: its other arguments.

    Attributes:
        is_wanted: whether anything is to follow.
        is_done: whether the folder already holds the outcome.
        run_settings: the settings of the run, without what follows it.

    Raises:
        InputError: the run cannot be finalized, or the folder is not free.
    """

    def __init__(self, model: str | None, settings: RunSettings) -> None:
        layers = layers_of(settings.config_files, settings.config_dict, settings.overrides)
        self.is_wanted = any(key in layer for layer in layers for key in POST_RUN_KEYS)
        self.is_done = False
        self.run_settings = settings
        if not self.is_wanted:
            return
        recbole_compat.apply()
        with distributed.single_process():  # the run itself looks for a GPU; reading needs none
            config = settings.overridden({"use_gpu": False}).config(model)
            self.options = config.options(FinalizeOptions)
            self._check(config)
        without_steps = dict(settings.config_dict or {})
        if config[FILTER] is not None:  # it may be in a file, and results do not keep its values
            without_steps[FILTER] = config[FILTER]
        self.run_settings = replace(settings.overridden(_NO_POST_RUN), config_dict=without_steps)

    def _check(self, config: Config) -> None:
        self.is_wanted = self.options.finalize is not None
        if not self.is_wanted:
            return
        refuse_unfit(config)
        self.name = str(config.model)
        self.folder = ModelFolder(str(self.options.finalize))
        self.source = Path(str(config["checkpoint_dir"]))
        refuse_overlap(self.folder.path, self.source)
        if config["dry_run"]:
            self.is_wanted = False
        elif self.folder.has_model:
            self.is_done = is_outcome(self.folder, config)
        if not self.is_done:
            refuse_used(self.folder, "finalize")

    def carry_out(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """Write the model folder, and purge if that is wanted; only the main process does so.

        Args:
            rows: results of the run; empty if the outcome already exists.

        Returns:
            What was done, for people.

        Raises:
            InputError: the merged model does not answer as the student did, or the disk fails.
        """
        with distributed.single_process():
            lines = [f"{self.folder.path} has it already; nothing was trained"]
            if not self.is_done:
                row = next(row for row in rows if row["model"] == self.name)
                lines = [export_row(self.folder, row, self.source, self.run_settings)]
            with self.folder.locked():
                self.folder.tidy()
                self.folder.remove_work()
                return "\n".join([*lines, *self._certify_if_missing(), *self._purge()])

    def _certify_if_missing(self) -> list[str]:
        """Write the certificate if a killed process left it out."""
        requests = self.folder.read(with_tensors=False).record["requests"]
        if not requests:
            return []
        return certify_if_missing(
            lambda: open_folder(self.folder).request_numbers,
            self.folder,
            requests[0],
            FIRST_REQUEST,
        )

    def _purge(self) -> list[str]:
        if not self.options.purge:
            return []
        run = open_folder(self.folder)  # before anything is removed
        purged = purge(self.source, self.folder.path, run.record["dataset"])
        for entry in run.record["requests"][:1]:
            certify_purge(run, self.folder, entry["digest"], purged)
        return purged.lines()


def refuse_unfit(config: Config) -> None:
    """Refuse a run whose outcome is not a single model that has carried out a request."""
    name = str(config.model)
    fitting = ", ".join(method for method, kind in METHODS.items() if kind.answers_alone)
    for key in ONE_RUN:
        if config[key]:
            raise InputError(f"finalize: one model; drop {key}, or export one of them afterwards")
    if config["show_prompts"]:
        raise InputError("finalize: show_prompts trains nothing; drop one of them")
    if name not in METHODS:
        raise InputError(
            f"finalize: {name} forgets nothing that a model folder holds; {fitting} do"
        )
    if not METHODS[name].answers_alone:
        raise InputError(f"finalize: {name} is several models, a model folder holds one: {fitting}")
    options = config.options(ForgetOptions)
    if options.file is None and options.where is None:
        raise InputError(
            "finalize: of which request? write --forget_file=FILE or --forget_where=FILTER "
            "(forget_ratio draws users for experiments)"
        )


def refuse_overlap(folder: Path, checkpoint_dir: Path) -> None:
    """Refuse a model folder inside ``checkpoint_dir``, or the other way round."""
    path, place = folder.resolve(), checkpoint_dir.resolve()
    if path.is_relative_to(place) or place.is_relative_to(path):
        raise InputError(
            f"finalize: {folder} and checkpoint_dir, {place}, must not hold one another"
        )


def is_outcome(folder: ModelFolder, config: Config) -> bool:
    """Return whether a folder holds the model of such a run.

    Method, data set, seed, settings and request must be the same. Whether a GPU was used does not
    matter.
    """
    record = folder.read(with_tensors=False).record
    identity = {
        "model": str(config.model),
        "dataset": str(config["dataset"]),
        "seed": config["seed"],
    }
    if any(record[key] != value for key, value in identity.items()):
        return False
    digest = preview(config).digest  # loads the data, from which some settings follow
    settings = model_settings(config.settings(), config)
    recorded = dict(record["settings"])
    recorded.pop("use_gpu", None)
    settings.pop("use_gpu", None)
    if recorded != json.loads(json.dumps(settings)):
        return False
    made_for = record.get("made_for") or {}
    return bool(made_for.get("request_digest") == digest)
