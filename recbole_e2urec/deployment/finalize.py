"""``--finalize=DIR`` and ``--purge``: what forgot becomes a model folder, and the rest goes.

The folder is refused before anything is trained; written, when the comparison has been measured.
Whoever is killed gives the same command again: where the folder has the outcome already, nothing is
trained, and only what is left is removed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recbole_e2urec.config.config import Config, RunSettings
from recbole_e2urec.config.keys import POST_RUN_KEYS
from recbole_e2urec.data.request.selection import ForgetOptions
from recbole_e2urec.deployment.certificate import certify_again
from recbole_e2urec.deployment.export import export_row, refuse_used
from recbole_e2urec.deployment.model_folder import MADE_FOR, ModelFolder, settings_kept
from recbole_e2urec.deployment.purge import file_purge, purge
from recbole_e2urec.deployment.scan import Places
from recbole_e2urec.deployment.served_model import FIRST, open_folder
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.finished import FILTER
from recbole_e2urec.experiment.launch import layers_of
from recbole_e2urec.experiment.preview import preview
from recbole_e2urec.methods import METHODS
from recbole_e2urec.utils import distributed, recbole_compat


def refuse_unfit(config: Config) -> None:
    """Refuse a run whose outcome is no single model that has carried out a request."""
    name = str(config.model)
    fitting = ", ".join(one for one, kind in METHODS.items() if kind.answers_alone)
    if config["model_list"]:
        raise InputError("finalize: one model; drop model_list, or export one of them afterwards")
    if config["show_prompts"]:
        raise InputError("finalize: show_prompts trains nothing; drop one of them")
    if name not in METHODS:
        raise InputError(
            f"finalize: {name} forgets nothing that a model folder holds; {fitting} do"
        )
    if not METHODS[name].answers_alone:
        raise InputError(f"finalize: {name} is several models, a model folder holds one: {fitting}")
    asked = config.options(ForgetOptions, "forget_")
    if asked.file is None and asked.where is None:
        raise InputError(
            "finalize: of which request? write --forget_file=FILE or --forget_where=FILTER "
            "(forget_ratio draws users for experiments)"
        )


def refuse_overlap(folder: Path, places: Places) -> None:
    """Refuse a model folder that a purge of the run would look through, or that holds the run."""
    own = folder.resolve()
    for name, place in places._asdict().items():
        if own.is_relative_to(place) or place.is_relative_to(own):
            raise InputError(f"finalize: {folder} and {name}, {place}, must not hold one another")


def is_outcome(folder: ModelFolder, config: Config) -> bool:
    """Whether the folder has the model of such a run: method, settings, seed and request."""
    record = folder.read(whole=False).record
    settings = settings_kept(config.settings(), config)
    own = {"model": str(config.model), "dataset": str(config["dataset"]), "seed": config["seed"]}
    if any(record[key] != value for key, value in own.items()):
        return False
    kept = dict(record["settings"])
    for one in (kept, settings):
        one.pop("use_gpu", None)
    if kept != json.loads(json.dumps(settings)):
        return False
    made_for = record.get("made_for") or {}
    return bool(made_for.get(MADE_FOR[1]) == preview(config).digest)


_WITHOUT: dict[str, Any] = {"finalize": None, "purge": False}


@dataclass(frozen=True)
class FinalizeOptions:
    """What follows a run.

    Attributes:
        finalize: the folder for its outcome; None = none is made.
        purge: whether what else the run left is removed.
    """

    finalize: str | int | None
    purge: bool

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        if self.finalize == "":
            raise InputError("finalize: where to? write --finalize=DIR")
        if self.purge and self.finalize is None:
            raise InputError(
                "purge: a run would lose its outcome; write --finalize=DIR as well, or purge it "
                "later by recbole-e2urec purge --checkpoint_dir=saved"
            )


class Ending:
    """What is to follow a run.

    Args:
        model: as of :func:`run_recbole_e2urec`.
        given: the same, of the rest.

    Attributes:
        wanted: whether anything is.
        done: whether the folder has the outcome already.
        given: without what follows, for the run.

    Raises:
        InputError: the run could not be finalized, or the folder is not free.
    """

    def __init__(self, model: str | None, given: RunSettings) -> None:
        layers = layers_of(given.config_files, given.config_dict, given.overrides)
        self.wanted = any(key in layer for layer in layers for key in POST_RUN_KEYS)
        self.done = False
        self.given = given
        if not self.wanted:
            return
        recbole_compat.apply()
        with distributed.single_process():  # the run itself looks for a GPU
            config = given.overridden({"use_gpu": False}).config(model)
            self.options = config.options(FinalizeOptions)
            self._check(config)
        own = dict(given.config_dict or {})
        if config[FILTER] is not None:  # which may stand in a file, and results do not keep
            own[FILTER] = config[FILTER]
        self.given = replace(given.overridden(_WITHOUT), config_dict=own)

    def _check(self, config: Config) -> None:
        self.wanted = self.options.finalize is not None
        if not self.wanted:
            return
        refuse_unfit(config)
        self.name = str(config.model)
        self.folder = ModelFolder(str(self.options.finalize))
        self.source = Path(str(config["checkpoint_dir"]))
        self.places = Places.below(Path.cwd(), self.source)
        refuse_overlap(self.folder.path, self.places)
        if config["dry_run"]:
            self.wanted = False
        elif self.folder.is_one:
            self.done = is_outcome(self.folder, config)
        if not self.done:
            refuse_used(self.folder, "finalize")

    def follow(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """Make the folder of the run's outcome, and purge if that is asked for; the writer does.

        Args:
            rows: of the run; where the outcome is there already, none.

        Returns:
            What was done, for a person.

        Raises:
            InputError: the merged model answers otherwise than the student did, or the disk fails.
        """
        with distributed.single_process():
            told = [f"{self.folder.path} has it already; nothing was trained"]
            if not self.done:
                row = next(row for row in rows if row["model"] == self.name)
                told = [export_row(self.folder, row, self.source, self.given)]
            with self.folder.locked():
                self.folder.tidy()
                self.folder.done()
                return "\n".join([*told, *self._filed(), *self._purged()])

    def _filed(self) -> list[str]:
        """Write the certificate that somebody who was killed owed."""
        requests = self.folder.read(whole=False).record["requests"]
        if not requests:
            return []
        return certify_again(
            lambda: open_folder(self.folder).named, self.folder, requests[0], FIRST
        )

    def _purged(self) -> list[str]:
        if not self.options.purge:
            return []
        run = open_folder(self.folder)  # before anything is removed
        purged = purge(self.places, self.folder.path)
        for entry in run.record["requests"][:1]:
            file_purge(run, self.folder, entry["digest"], purged)
        return purged.lines()
