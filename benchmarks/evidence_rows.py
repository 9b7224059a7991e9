"""What the evidence is made of: data and backbones, rows, requests that nothing was chosen on."""

import argparse
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.given import TUNED, UNREHEARSED, config_of, taking
from benchmarks.targets import ECONOMY
from recbole_e2urec.cli import Arguments
from recbole_e2urec.config import Config
from recbole_e2urec.data.forget import Asked
from recbole_e2urec.data.rehearsed import RehearseOptions, rehearsed_request
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment import Parts, request_of
from recbole_e2urec.tuning import development_request

SIZES = (0.01, 0.05, 0.2)  # shares of the training users
SEEDS = (3001, 3002, 3003, 3004, 3005)  # of models; nothing was chosen under them
DRAW_SEED = 8000  # of requests; the size in thousandths is added
REHEARSED_SEED = 9000  # of rehearsals
ORIGINAL, RETRAIN = "Original", "Retrain"
PAPER, REHEARSED = "E2URec, alpha 2", "E2URec, rehearsed"


class Setup(NamedTuple):
    """A data set and a backbone: title, and settings that are not the default."""

    title: str
    settings: Mapping[str, Any]


class Way(NamedTuple):
    """How a row is made: a method, its settings, and whether a rehearsal sets the rest.

    E2URec is that of ``tuned.yaml``.
    """

    method: str
    settings: Mapping[str, Any] = {}
    rehearsed: bool = False


SETUPS = {
    "t5": Setup("ml-100k, tiny-t5", {"dataset": "ml-100k", "backbone": "tiny-t5"}),
    "llama": Setup("ml-100k, tiny-llama", {"dataset": "ml-100k", "backbone": "tiny-llama"}),
    "five": Setup(
        "ml-100k, five stars, tiny-t5",
        {
            "dataset": "ml-100k",
            "backbone": "tiny-t5",
            "threshold": {"rating": 5},
            "item_fields": ["class", "release_year"],
            "prompt": str(Path(__file__).with_name("evidence_prompt.yaml")),
        },
    ),
}
SMALL = {"item_fields": [], "prompt": "compact"}  # data made up have titles alone
# Besides Original and Retrain, in the order of the tables.
WAYS = {
    PAPER: Way("E2URec", {"alpha": 2.0}),
    "E2URec": Way("E2URec"),
    "E2URec, economy": Way("E2URec", ECONOMY),
    REHEARSED: Way("E2URec", rehearsed=True),
    "CrossFit": Way("CrossFit"),
    "CrossFit, 2 epochs": Way("CrossFit", {"joint_epochs": 2}),
    "CrossFit, 4 parts": Way("CrossFit", {"parts": 4, "overshoot": 0.3}),
    "CrossFit, rehearsed": Way("CrossFit", rehearsed=True),
    "E2URecRef": Way("E2URecRef"),
    "TokenReset": Way("TokenReset", {"partial": True}),
}
MODEL = Way("LLMRec")  # Original and Retrain, which no method's settings decide
ROWS = (ORIGINAL, RETRAIN, *WAYS)
PLACES = ("checkpoint_dir", "data_path", "show_progress", "seed")  # do not decide what a row says


def wanted_rows(only: Sequence[str] | None) -> list[str]:
    """Names of the rows that ``--only`` leaves, in the order of the tables."""
    return [name for name in ROWS if only is None or name in {ORIGINAL, RETRAIN, *only}]


@dataclass(frozen=True)
class Task:
    """What the command line asks for.

    Attributes:
        own: the benchmark's own arguments.
        arguments: all others.
        given: settings common to all runs.
    """

    own: argparse.Namespace
    arguments: Arguments
    given: Mapping[str, Any]

    def config(self, setup: str, seed: int, way: Way) -> Config:
        """Settings of a run; what the command line sets wins, except over what makes the way."""
        small = SMALL if self.own.small else {}
        tuned = UNREHEARSED if way.rehearsed else TUNED
        base = tuned if way.method == "E2URec" else {}
        common = {**base, **SETUPS[setup].settings, **small, **self.given, **way.settings}
        return config_of(common, self.arguments._replace(model=way.method), seed=seed)

    @cached_property
    def digests(self) -> dict[tuple[str, str], str]:
        """Names, by setup and row, all settings that decide a row, but for its seed and size."""
        return {
            (setup, name): self._digest(setup, WAYS.get(name, MODEL))
            for setup in SETUPS
            for name in ROWS
        }

    def _digest(self, setup: str, way: Way) -> str:
        settings = self.config(setup, 0, way).settings()
        if (prompt := Path(str(settings["prompt"]))).is_file():
            settings["prompt"] = prompt.read_text(encoding="utf-8")  # wherever it lies
        own = [self.own.rehearsed, self.own.trials] if way.rehearsed else []
        kept = [sorted((key, str(settings[key])) for key in settings.keys() - set(PLACES)), own]
        return hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:16]


class Requests(NamedTuple):
    """The fresh requests by size, and one that takes the users of all of them."""

    fresh: dict[float, Asked]
    away: Asked


def fresh_requests(config: Config, dataset: Any, parts: Parts, sizes: Iterable[float]) -> Requests:
    """Draw requests of users whom neither the reported nor the development request names.

    Each size has a draw of its own. Which sizes are asked for changes none of them, nor, if they
    are among ``SIZES``, who is left for a rehearsal.

    Raises:
        InputError: a request that does not name users, or nobody is left.
    """
    train, reported = parts.splits.train, request_of(config, dataset, parts)
    kind, lines = development_request(config, dataset)
    if kind != "user":
        raise InputError(f"forget_by: requests of the evidence name users, not {kind}s")
    known = np.isin(dataset.rows.user, [dataset.ids.users[token] for (token,) in lines])
    users = len(np.unique(dataset.rows.user[train]))
    taken = taking(reported, np.flatnonzero(known))
    fresh = {
        size: rehearsed_request(
            RehearseOptions(
                count=max(1, round(size * users)), draw_seed=DRAW_SEED + round(1000 * size)
            ),
            dataset,
            train,
            taken,
        )._replace(request_id=f"evidence-{size:g}")
        for size in sorted({*sizes, *SIZES})
    }
    nobody = Asked(
        reported.split._replace(retain=train, forget=train[:0]), train[:0], "", "none", ()
    )
    for one in fresh.values():
        nobody = taking(nobody, one.rows)
    return Requests(fresh, nobody)
