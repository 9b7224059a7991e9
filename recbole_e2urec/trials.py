"""The trials of a search for hyper-parameters: made, written down, and told."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_e2urec.config import Config
from recbole_e2urec.errors import Diverged
from recbole_e2urec.keys import name_of
from recbole_e2urec.methods import METHODS
from recbole_e2urec.objective import Objective, Result, is_bigger_better, result_of
from recbole_e2urec.storage import write_json
from recbole_e2urec.tables import Cells


class SearchLog:
    """The trials of a search, written down after each of them."""

    def __init__(self, objective: Objective, config: Config, algo: str, file: Path) -> None:
        self._objective, self._file = objective, file
        method = config.model in METHODS
        self.told: Result = {
            "model": name_of(str(config.model), config.way),
            "dataset": str(config["dataset"]),
            "algo": algo,
            "seed": config["seed"],
            "criterion": "distance to Retrain" if method else str(config["valid_metric"]).lower(),
            "trials": [],
        }
        self.best: Result | None = None

    def __call__(self, settings: Mapping[str, Any], files: Any = None) -> Result:
        """Make a trial. One that diverges is the worst of all, and the search goes on."""
        started = time.perf_counter()
        config = self._objective.config(settings)
        trial: Result = {"settings": {name: config[name] for name in settings}}
        bigger = is_bigger_better(config)
        try:
            result = self._objective(settings)
            score = result["best_valid_score"]
            trial |= {"score": score, "valid": result["best_valid_result"]}
            better = self.best is None or (
                score > self.best["score"] if bigger else score < self.best["score"]
            )
            self.best = trial if better else self.best
        except Diverged as error:
            result = result_of(config, float("-inf" if bigger else "inf"), {})
            trial["failed"] = str(error)
        trial["seconds"] = time.perf_counter() - started
        self.told["trials"].append(trial)
        write_json(self._file, {**self.told, "best": self.best})
        return result


def told(found: Result) -> str:
    """A search for the terminal: every trial, and which is the best."""
    lines = []
    for trial in found["trials"]:
        settings = ", ".join(f"{name}={value}" for name, value in trial["settings"].items())
        score = f"{trial['score']:.4f}" if "score" in trial else trial["failed"]
        valid = trial.get("valid", {}).items()  # a residual has no floor here, and is not shown
        measures = ", ".join(f"{key} {value:.4f}" for key, value in valid if key != "residual")
        mark = "best" if trial["settings"] == found["best"]["settings"] else ""
        lines.append([mark, settings, score, measures, f"{trial['seconds']:.1f}"])
    header = ["", "settings", found["criterion"], "on validation", "seconds"]
    return (
        f"{found['model']} on {found['dataset']}, {found['algo']}, seed {found['seed']}\n\n"
        f"{Cells(header, lines).drawn()}\n\n"
        f"trials: {found['file']}\nto use the best: --config_files={found['best_file']}"
    )
