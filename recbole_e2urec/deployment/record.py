"""What a model folder says about its model: under which settings and on which data it was made."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recbole_e2urec.deployment.places import DEFAULT, Places
from recbole_e2urec.experiment import Experiment, hash_of
from recbole_e2urec.keys import GONE
from recbole_e2urec.results import versions

# What a run says about itself and its request, not about the model.
OF_RUNS = {
    "model", "dataset", "checkpoint_dir", "show_prompts", "prompt_users", "train_neg_sample_args",
    "model_list", "seeds", "tune", "nproc_rows", "forget_by", "forget_ratio", "forget_file",
    "forget_where", "forget_unknown", "request_id", "dry_run", "retrain_share", "ranking_pass",
    "log_wandb", "processes", "show_progress", *GONE,
}  # fmt: skip
MADE_FOR = ("request_id", "request_digest")  # of the comparison that it comes from
_PATHS = ("backbone", "backbone_source", "prompt")  # which may be paths


def first_record(row: Mapping[str, Any], run: Experiment) -> dict[str, Any]:
    """What a new folder says about a model of the results."""
    told = str(row["settings"].get("checkpoint_dir") or DEFAULT)
    places = Places.of_run(Path(run.config["checkpoint_dir"]), told)
    return {
        "model": row["model"],
        "dataset": row["dataset"],
        "seed": row["seed"],
        "settings": settings_kept(row["settings"], run.config),
        "fingerprint": fingerprint(run),
        "requests": [],
        "versions": versions(),
        "made_for": {key: row.get(key) for key in MADE_FOR},
        "places": places.told(row["stage"]),
    }


def settings_kept(settings: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """Those of a run's settings that say something of its model; paths are made absolute."""
    kept = {key: value for key, value in settings.items() if key not in OF_RUNS}
    if "data_path" in settings:  # RecBole puts the name behind what it is given
        path = Path(str(config["data_path"])).resolve()
        kept["data_path"] = str(path.parent if path.name == config["dataset"] else path)
    for key in _PATHS:
        if kept.get(key) and Path(str(kept[key])).exists():
            kept[key] = str(Path(str(kept[key])).resolve())
    return kept


def data_digest(dataset: Any) -> str:
    """Hash of all rows with users, items and their names, in the order of the files."""
    rows, ids = dataset.rows, dataset.ids
    digest = hashlib.sha256(dataset.dataset_name.encode())
    for names in (ids.users, ids.items):
        digest.update("\0".join(sorted(names, key=names.__getitem__)).encode() + b"\n")
    for column in (rows.user, rows.item, rows.time, rows.rating, rows.label):
        digest.update(b"-" if column is None else np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()


def fingerprint(run: Experiment) -> dict[str, str]:
    """What must be the same for the model to mean the same: data, prompts and parts."""
    return {
        "data": data_digest(run.dataset),
        "prompts": run.model.table.fingerprint(),
        "train": hash_of(run.parts.splits.train),
    }
