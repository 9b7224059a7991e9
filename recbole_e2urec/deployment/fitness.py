"""Which runs can be finalized, into which folders."""

import json
from pathlib import Path

from recbole_e2urec.config import Config
from recbole_e2urec.data.forget import ForgetOptions
from recbole_e2urec.deployment.folder import ModelFolder
from recbole_e2urec.deployment.places import Places
from recbole_e2urec.deployment.record import MADE_FOR, settings_kept
from recbole_e2urec.errors import InputError
from recbole_e2urec.methods import METHODS
from recbole_e2urec.preview import preview


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
