"""Successive forget requests on a served model: ``python -m benchmarks.queueing``.

Run it from a checkout with the package installed. It trains a recommender on ml-100k, with user and
item numbers in the prompt or with another ``--prompt``, and exports it. The command ``forget`` then
executes one request after the other in the model folder. Each request names 1 to 10 users, drawn by
a seed. After each request the model is measured on test rows of users whom no request names, on all
rows forgotten so far, and on the rows of the first request, which must stay forgotten. After some
requests, a Retrain on the remaining data serves as the target. Last, a single request names all of
these users at once.

``--methods`` are NegatedE2URec, E2URec, NPO, NegGrad or TokenReset, each in its own folder.
``NPO-all`` and ``NegGrad-all`` always change more than forget-only tokens
(``forget_tokens_until: 0``).
The tables are printed, and the plot is ``queue.svg`` below ``--folder``. ``--size small`` is a
quick look whose numbers mean nothing. If the benchmark is killed, the same command continues it.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.utils import init_seed
from tabulate import tabulate

from benchmarks.common import SYNTHETIC, run_main, synthetic
from benchmarks.lineplots import Line, Panel, svg
from recbole_e2urec.config.config import RunSettings
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.data.loaders import evaluation_loader, make_loaders
from recbole_e2urec.deployment.export import ExportOptions, export
from recbole_e2urec.deployment.forget import QueueOptions, forget
from recbole_e2urec.deployment.model_folder import ModelFolder
from recbole_e2urec.deployment.served_model import ServedModel, drift_between, open_folder
from recbole_e2urec.errors import InputError
from recbole_e2urec.evaluator.metrics import labelled_metrics, residual
from recbole_e2urec.experiment.finished import settings_of
from recbole_e2urec.experiment.run import Experiment
from recbole_e2urec.quick_start import run_recbole_e2urec
from recbole_e2urec.report.results import load_rows, save_rows
from recbole_e2urec.report.tables import value_of
from recbole_e2urec.utils import recbole_compat

ALL = "-all"
RESET = "TokenReset"
METHODS = ("NegatedE2URec", "E2URec", "NPO", "NegGrad", RESET, f"NPO{ALL}", f"NegGrad{ALL}")
ORIGINAL, RETRAIN = "Original", "Retrain"
QUIET = {"show_progress": False}
NUMBERED = {"prompt": "numbered"}
COLUMNS = {
    "test AUC": "test.auc", "test LogLoss": "test.logloss", "bias": "bias",
    "forgotten AUC": "forgotten.auc", "residual": "residual", "first's LogLoss": "first.logloss",
    "drift": "drift", "seconds": "seconds",
}  # fmt: skip
PANELS = {
    "test AUC, users who stay": "test.auc",
    "test LogLoss, users who stay": "test.logloss",
    "AUC of all rows forgotten so far": "forgotten.auc",
    "residual on them: 0 Retrain, 1 did nothing": "residual",
    "LogLoss of the first request's rows": "first.logloss",
    "drift, nats": "drift",
    "seconds of a request": "seconds",
}
Row = Mapping[str, Any]
Rows = NDArray[np.int64]
Yes = NDArray[np.float64]  # P(yes) by row id; NaN where nothing was asked
NOTHING: Rows = np.empty(0, np.int64)


@dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes:
        folder: the folder of all files.
        requests: number of requests.
        most: the most users of a request.
        draw: the seed that draws the users.
        retrain_after: the numbers of requests after which a Retrain is trained.
        seeds: further seeds. The distance between models of different seeds is the scale of drift.
        settings: data set, prompt, and all that differs from the defaults.
    """

    folder: Path
    requests: int = 20
    most: int = 10
    draw: int = 1
    retrain_after: tuple[int, ...] = (1, 5, 10, 15, 20)
    seeds: tuple[int, ...] = (2021, 2022)
    settings: Mapping[str, Any] = field(default_factory=lambda: dict(NUMBERED))

    @property
    def saved(self) -> Path:
        """The folder of the results and of all stages."""
        return self.folder / "saved"

    def path(self, name: str) -> Path:
        """Return the path of a file or folder that belongs to these requests."""
        requests = f"{self.requests}-requests-{self.draw}-{self.settings['prompt']}"
        return self.folder / requests / name


def small_plan(folder: Path) -> Plan:
    """Return the plan of a quick look, on synthetic data."""
    name = synthetic(folder, 3000)
    settings = {"dataset": name, "data_path": str(folder), "epochs": 1, **NUMBERED, **SYNTHETIC}
    return Plan(folder, 2, 2, 1, (1, 2), (2021,), settings)


class Requests(NamedTuple):
    """Successive requests, and the rows on which every model is measured.

    Attributes:
        users: inner ids of each request's users; no user is in two requests.
        forget: training rows of each request.
        valid, test: rows of users whom no request names.
    """

    users: list[Rows]
    forget: list[Rows]
    valid: Rows
    test: Rows

    def so_far(self, count: int) -> Rows:
        """Return the training rows of the first ``count`` requests, sorted."""
        return np.sort(np.concatenate([NOTHING, *self.forget[:count]]))


def draw_requests(run: Experiment, count: int, most: int, seed: int) -> Requests:
    """Draw requests of 1 to ``most`` users with training rows.

    Raises:
        InputError: there are too few users.
    """
    user, splits = run.dataset.rows.user, run.parts.splits
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, most + 1, count)
    trained = np.unique(user[splits.train])
    if sizes.sum() >= len(trained):
        raise InputError(f"requests: they name {sizes.sum()} of {len(trained)} users; ask for less")
    named = generator.permutation(trained)[: sizes.sum()]
    users = np.split(named, np.cumsum(sizes)[:-1])
    forget = [splits.train[np.isin(user[splits.train], some)] for some in users]
    valid, test = (part[~np.isin(user[part], named)] for part in (splits.valid, splits.test))
    return Requests(users, forget, valid, test)


class Benchmark:
    """Runs a plan, and skips what is already measured.

    Attributes:
        plan: the plan.
        rows: the measures by key.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        settings = {**QUIET, "checkpoint_dir": str(plan.saved), **plan.settings}
        dataset = settings.pop("dataset", None)
        trained = run_recbole_e2urec("LLMRec", dataset, config_dict=settings)
        self._recommender: Row = trained["rows"][0]
        self._run = self._experiment()
        self._requests = draw_requests(self._run, plan.requests, plan.most, plan.draw)
        self._retrained: dict[tuple[int, int | None], Yes] = {}
        self._path = plan.path("measured.jsonl")
        self._path.parent.mkdir(exist_ok=True)
        self.rows: dict[str, Row] = {row["key"]: row for row in load_rows(self._path)}

    def measure_references(self) -> None:
        """Measure Original, the Retrains, and models of other seeds."""
        plan = self.plan
        references: list[tuple[str, int, int | None]] = [
            (ORIGINAL, 0, None),
            *((RETRAIN, count, None) for count in plan.retrain_after),
            *((ORIGINAL, 0, seed) for seed in plan.seeds),
            *((RETRAIN, max(plan.retrain_after), seed) for seed in plan.seeds[:1]),
        ]
        for model, count, seed in references:
            key = f"{model} {count} {seed or ''}".strip()
            if key not in self.rows:
                measures = self._measures(self._run, self._retrain(count, seed), count)
                self._add(key, {"model": model, "seed": seed, **measures})
        for count in plan.retrain_after:  # Original on the rows that later models forgot
            key = f"{ORIGINAL} on {count}"
            if key not in self.rows:
                measures = self._measures(self._run, self._retrain(0), count)
                self._add(key, {"model": ORIGINAL, "seed": None, **measures})

    def carry_out(self, method: str) -> None:
        """Execute every request by one method, and measure the model after each."""
        folder = self._exported(method)
        for count in range(1, self.plan.requests + 1):
            key = f"{method} {count}"
            if key in self.rows:
                continue
            seconds = None
            if len(folder.read(with_tensors=False).record["requests"]) < count:
                started = time.perf_counter()
                self._forget(method, folder, count, count)
                seconds = time.perf_counter() - started
            measures = self._served_measures(folder, count)
            self._add(key, {"model": method, **measures, "command_seconds": seconds})

    def carry_out_at_once(self, method: str) -> None:
        """Execute one request that names all users, and measure the model."""
        key = f"{method} at once"
        if key in self.rows:
            return
        folder = self._exported(f"{method}-at-once")
        self._forget(method, folder, 1, self.plan.requests)
        self._add(key, {"model": key, **self._served_measures(folder, self.plan.requests)})

    def _experiment(self, seed: int | None = None) -> Experiment:
        """Recreate the recommender's run, untrained, with another seed if one is given."""
        row = self._recommender if seed is None else {**self._recommender, "seed": seed}
        config = settings_of(row, self.plan.saved, RunSettings())
        init_seed(config["seed"], config["reproducibility"])
        return Experiment(config, load_dataset(config))

    def _retrain(self, requests: int, seed: int | None = None) -> Yes:
        """Train without the rows of the first requests, and return P(yes); 0 requests: Original."""
        if (requests, seed) not in self._retrained:
            run = self._experiment(seed)
            user, splits = run.dataset.rows.user, run.parts.splits
            train = np.setdiff1d(splits.train, self._requests.so_far(requests))
            if not requests:
                train = splits.train
            valid = splits.valid[np.isin(user[splits.valid], user[train])]
            loaders = make_loaders(run.config, run.dataset, splits, train)
            validation = evaluation_loader(run.config, run.dataset, splits, "valid", valid)
            history = run.history(NOTHING)  # requests name whole users: no other history changes
            with run.model.using_history(history):
                trainer = run.trainer(RETRAIN if requests else "LLMRec", train, valid)
                trainer.run(loaders.train, validation)
                yes = self._ask(run, lambda rows: run.model.answer(rows, None).cpu())
            self._retrained[requests, seed] = yes
        return self._retrained[requests, seed]

    def _ask(self, run: Experiment, answer: Callable[[Rows], torch.Tensor]) -> Yes:
        """Return P(yes) of all rows on which models are measured; NaN for other rows."""
        requests = self._requests
        rows = np.unique(np.concatenate([requests.valid, requests.test, *requests.forget]))
        yes = np.full(len(run.dataset.rows), np.nan)
        yes[rows] = answer(rows).double().numpy()
        return yes

    def _measures(self, run: Experiment, yes: Yes, count: int) -> dict[str, Any]:
        """Measure a model after ``count`` requests.

        ``drift`` is the distance from Original on all validation rows of users who stay. ``bias``
        is mean P(yes) minus the share of yes on their test rows. ``residual`` is measured if a
        Retrain exists for this number of requests.
        """
        requests, label = self._requests, run.dataset.rows.label
        forget, valid, test = requests.so_far(count), requests.valid, requests.test
        groups = {"test": test, "valid": valid, "forgotten": forget, "first": requests.forget[0]}
        original = torch.from_numpy(self._retrain(0))
        model = torch.from_numpy(yes)
        measures: dict[str, Any] = {
            "requests": count,
            **{
                group: labelled_metrics(run.config, yes[rows], label[rows])
                for group, rows in groups.items()
            },
            "drift": drift_between(original[valid], model[valid]),
            "bias": float(yes[test].mean() - label[test].mean()),
        }
        if count in self.plan.retrain_after:
            retrain = torch.from_numpy(self._retrain(count))
            measures["residual"] = residual(model[forget], original[forget], retrain[forget])
        return measures

    def _served_measures(self, folder: ModelFolder, count: int) -> dict[str, Any]:
        run: ServedModel = open_folder(folder, QUIET)
        history = run.history(run.forgotten[:0])
        request = run.record["requests"][-1]
        return {
            **self._measures(run, self._ask(run, lambda rows: run.yes(rows, history)), count),
            "rows": request["training_rows"],
            "told_drift": request["drift"],
            "seconds": request["seconds"],
        }

    def _exported(self, name: str) -> ModelFolder:
        plan, folder = self.plan, ModelFolder(self.plan.path(name))
        if not folder.has_model:
            paths = {key: plan.settings[key] for key in ("data_path",) if key in plan.settings}
            settings = {"checkpoint_dir": str(plan.saved), **paths}
            run = RunSettings(plan.settings.get("dataset"), (), settings)
            export(ExportOptions(str(folder.path)), "LLMRec", run)
        return folder

    def _forget(self, method: str, folder: ModelFolder, first: int, last: int) -> None:
        """Execute requests ``first`` to ``last``, counted from 1, as a single request."""
        settings: dict[str, Any] = dict(QUIET)
        if method.endswith(ALL):
            settings["forget_tokens_until"] = 0
        if method == RESET:  # leave users without forget-only tokens as they are
            settings["partial"] = True
        tokens = {inner: token for token, inner in self._run.dataset.ids.users.items()}
        users = np.concatenate(self._requests.users[first - 1 : last]).tolist()
        path = self.plan.path(f"requests{first}-{last}.csv")
        path.write_text("\n".join(["user_id", *(tokens[user] for user in users)]) + "\n")
        forget(QueueOptions(str(folder.path), str(path)), method.removesuffix(ALL), settings)

    def _add(self, key: str, measures: Row) -> None:
        self.rows[key] = {"key": key, **measures}
        save_rows(self._path, [self.rows[key]], ("key",))
        print(json.dumps(self.rows[key]), flush=True)


def table_of(rows: Sequence[Row]) -> str:
    """Return a Markdown table of every model, after the requests for which a Retrain exists."""
    counts = {0, *(row["requests"] for row in rows if row["model"] == RETRAIN)}
    lines = [_cells(row) for row in rows if row["requests"] in counts]
    head = ["model", "requests", *COLUMNS]
    return str(tabulate(lines, head, tablefmt="pipe", disable_numparse=True))


def _cells(row: Row) -> list[str]:
    seed = f", seed {row['seed']}" if row.get("seed") else ""
    cells = [row["model"] + seed, str(row["requests"])]
    for column, path in COLUMNS.items():
        value, digits = value_of(row, path), 1 if column == "seconds" else 4
        cells.append("-" if value is None else f"{value:.{digits}f}")
    return cells


def plot_of(rows: Sequence[Row]) -> str:
    """Return an SVG with a panel for each measure, over the number of requests."""
    rows = [row for row in rows if not row.get("seed") and not row["model"].endswith("at once")]
    models = dict.fromkeys([RETRAIN, ORIGINAL, *(row["model"] for row in rows)])
    panels = []
    for title, measure in PANELS.items():
        lines = [
            Line(model, _points(rows, model, measure), style, model == RETRAIN)
            for style, model in enumerate(models)
        ]
        panels.append(Panel(title, lines))
    return svg(panels, "requests")


def _points(rows: Sequence[Row], model: str, measure: str) -> list[tuple[float, float]]:
    """Return a model's measure over requests; all models except Retrain start as Original."""
    first = [row for row in rows if row["model"] == ORIGINAL and row["requests"] == 0]
    later = [row for row in rows if row["model"] == model and row["requests"] > 0]
    values = [
        (float(row["requests"]), value_of(row, measure))
        for row in (later if model == RETRAIN else [*first, *later])
    ]
    return [(count, float(value)) for count, value in values if value is not None]


def main() -> None:
    """Run the plan of the command line, print the table, and draw the plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--methods", choices=METHODS, nargs="+", default=METHODS[:1])
    parser.add_argument("--size", choices=("full", "small"), default="full")
    parser.add_argument("--requests", type=int, help="how many; 20")
    parser.add_argument("--draw", type=int, default=1, help="the seed that draws users")
    parser.add_argument("--prompt", default="numbered", help="TokenReset needs numbered")
    parser.add_argument("--retrain_after", type=int, nargs="*", help="1 5 10 15 20")
    parser.add_argument(
        "--seeds", type=int, nargs="*", help="further ones of the models; 2021 2022"
    )
    parser.add_argument("--folder", type=Path, default=Path("saved/queue"))
    options = parser.parse_args()
    recbole_compat.apply()
    options.folder.mkdir(parents=True, exist_ok=True)
    benchmark = Benchmark(_plan(options))
    benchmark.measure_references()
    for method in options.methods:
        benchmark.carry_out(method)
        benchmark.carry_out_at_once(method)
    rows = list(benchmark.rows.values())
    print(table_of(rows))
    benchmark.plan.path("queue.svg").write_text(plot_of(rows), encoding="utf-8")


def _plan(options: argparse.Namespace) -> Plan:
    plan = Plan(options.folder) if options.size == "full" else small_plan(options.folder)
    count = options.requests or plan.requests
    after = plan.retrain_after if options.retrain_after is None else options.retrain_after
    return replace(
        plan,
        requests=count,
        draw=options.draw,
        retrain_after=tuple(sorted({*(number for number in after if number < count), count})),
        seeds=plan.seeds if options.seeds is None else tuple(options.seeds),
        settings={**plan.settings, "prompt": options.prompt},
    )


if __name__ == "__main__":
    run_main(main)
