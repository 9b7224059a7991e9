"""A model in use and its successor, which has forgotten more."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from recbole_e2urec.deployment.change import Change
from recbole_e2urec.deployment.deployed import Deployed
from recbole_e2urec.deployment.folder import WEIGHTS, ModelFolder
from recbole_e2urec.deployment.merged import CHECKED, merge
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment import Rows, hash_of, unseen_of
from recbole_e2urec.keys import LORA
from recbole_e2urec.methods import METHODS, method_of
from recbole_e2urec.model.scorers import Stored
from recbole_e2urec.trainer.cost import restart_peak
from recbole_e2urec.trainer.stage import Stage
from recbole_e2urec.trainer.unlearning import Fit, Request, Tools


def check_method(name: str) -> None:
    """Refuse a method that cannot follow a model in use.

    Raises:
        InputError: it is none, trains anew instead of changing the model, or needs other models.
    """
    known = [one for one, kind in METHODS.items() if kind.has_only_original]
    if name not in known:
        raise InputError(f"--model={name}: a model in use forgets by one of {', '.join(known)}")


def succeed(run: Deployed, folder: ModelFolder, change: Change) -> dict[str, Any]:
    """Forget rows, and put the successor in the model's place, in memory.

    Args:
        run: the model; it has forgotten the rows afterwards.
        folder: where what is needed to go on after a kill is kept.
        change: the request.

    Returns:
        What it cost: nothing where no training row is to be forgotten.

    Raises:
        InputError: the merged model answers otherwise than the student did.
    """
    cost = _unlearn(run, folder, change) if len(change.forget) else {}
    run.forget(change.forgotten)
    return cost


def _unlearn(run: Deployed, folder: ModelFolder, change: Change) -> dict[str, Any]:
    """Unlearn the rows; the successor's weights are the model's afterwards."""
    model, shown = run.model, (change.before, change.after)
    rows = run.dataset.rows
    request = Request(
        change.forget, change.retain, np.setdiff1d(run.parts.splits.valid, run.forgotten),
        unseen_of(run.parts, rows.user, change.retain), rows.user, rows.item,
        *shown, _tools(run, folder, change.forget, shown),
        run.config["seed"], run.shows,
    )  # fmt: skip
    restart_peak()
    with model.shown(change.after):
        made = method_of(run.config).unlearn(model, request)
        rows = np.concatenate([change.forget[:CHECKED], run.sample.rows[:CHECKED]])
        merge(model, made.scorer, rows)
    return {**made.cost, "found": dict(made.found)}


def _tools(run: Deployed, folder: ModelFolder, forget: Rows, shown: tuple[Rows, Rows]) -> Tools:
    """What a method may ask for: its stages are in the folder, until the request is carried out."""
    inputs = {
        "weights": run.record["files"][WEIGHTS],
        "lora": {key: str(run.config[key]) for key in LORA},
        "forget": hash_of(forget),
        "histories": [hash_of(history) for history in shown],
        "training": run.training_settings(),
    }

    def stage(name: str, settings: Mapping[str, Any]) -> Stage:
        return Stage(folder.work, name, {**inputs, "settings": dict(settings)})

    def no_fit(name: str, train: Rows, history: Rows) -> Fit:
        raise InputError(f"{name} would be trained anew; a model in use has only itself")

    def no_users(train: Rows) -> Any:
        raise InputError("users are grouped before a model is trained, not after")

    adapter = run.model.adapter
    start = (lambda: run.start) if adapter is None else None
    return Tools(stage, no_fit, no_fit, start, Stored(adapter, lambda: run.start), no_users)
