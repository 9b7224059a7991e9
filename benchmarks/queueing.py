"""Hundreds of requests in a row on a served model: ``python -m benchmarks.queueing``.

Run it from a checkout with the package installed. It trains a recommender on ml-100k, with the
default prompt or another ``--prompt``, and exports it. Requests, drawn by a seed, are then carried
out one after the other in the model folder, by the commands ``forget`` and ``correct`` with
``--retrain_when_due``; :func:`draw_requests` says which kinds of requests there are. Each method of
``--methods`` has its own folder.

Every request is timed. After every ``--every``-th one, and where a model was trained anew, the
model is asked about test rows of users whom no request names, about rows forgotten so far, about
the first request's rows, which must stay forgotten, and about corrected rows. After the requests in
``--retrain_after``, Original and a Retrain on the data as they are by then are asked as well; after
the last one, also a Retrain of the next seed.

``--kills`` carries out all requests once more in another folder, each by a command of its own. So
many of them are killed, as by kill -9, at a random moment, and given again; those that train anew
are among them. Nothing may be lost or done twice: :func:`check_alike` compares the two folders.

The tables are printed, and the plot is ``queue.svg`` below ``--folder``, or ``--plot``. ``--size
small`` is a quick look whose numbers mean nothing. If the benchmark is killed, the same command
continues it.
"""

import argparse
import io
import json
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from tabulate import tabulate

from benchmarks.common import SYNTHETIC, run_main, seconds, synthetic
from benchmarks.latency import PROGRAM, import_package, weight_of
from benchmarks.lineplots import Line, Panel, svg
from recbole_e2urec import cli
from recbole_e2urec.config.config import RunSettings
from recbole_e2urec.deployment.evidence import Reference, delta_of
from recbole_e2urec.deployment.export import ExportOptions, export
from recbole_e2urec.deployment.forget import RequestOptions, check_method
from recbole_e2urec.deployment.model_folder import (
    CERTIFICATES,
    POINTER,
    ModelFolder,
    unmeasured_of,
)
from recbole_e2urec.deployment.served_model import ServedModel, drift_between, open_folder
from recbole_e2urec.deployment.verify import VerifyOptions, verify
from recbole_e2urec.errors import InputError
from recbole_e2urec.evaluator.metrics import labelled_metrics
from recbole_e2urec.quick_start import run_recbole_e2urec
from recbole_e2urec.report.results import load_rows, save_rows
from recbole_e2urec.report.tables import value_of
from recbole_e2urec.trainer.training_log import peak_memory_mb, restart_peak
from recbole_e2urec.utils import recbole_compat

METHODS = ("NegatedE2URec", "E2URec")
ORIGINAL, RETRAIN, NEXT_SEED = "Original", "Retrain", "Retrain, next seed"
DELETION, OVERLAP, CORRECTION, AGAIN = "deletion", "overlap", "correction", "again"
SHARES = {CORRECTION: 0.15, AGAIN: 0.15, OVERLAP: 0.05}  # of all requests; the others are deletions
QUIET = {"show_progress": False}
COLUMNS = {
    "test AUC": "test.auc", "test LogLoss": "test.logloss", "forgotten AUC": "forgotten.auc",
    "first's LogLoss": "first.logloss", "corrected LogLoss": "corrected.logloss",
    "drift": "drift", "trained anew": "trainings",
}  # fmt: skip
PANELS = {
    "test AUC, users whom nobody names": "test.auc",
    "test LogLoss, users whom nobody names": "test.logloss",
    "AUC of rows forgotten so far": "forgotten.auc",
    "LogLoss of the first request's rows": "first.logloss",
    "LogLoss of the right answers of corrected rows": "corrected.logloss",
    "drift since the last training, nats": "drift",
    "seconds until the new model is in place": "seconds.in_place",
    "seconds until the request is certified": "seconds.certified",
    "the folder, MB": "folder_mb",
    "largest resident memory, MB": "peak_mb",
}
COSTS = ("in_place", "certified", "total")
NOT_PLACED, PLACED, CERTIFIED = "not in place", "in place", "certified"  # a killed request
LOST = "the killed requests differ from the others: "
Row = Mapping[str, Any]
Rows = NDArray[np.int64]
NOTHING: Rows = np.empty(0, np.int64)


@dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes:
        folder: the folder of all files.
        requests: number of requests.
        most: the most users that a request names for the first time.
        draw: the seed that draws the requests, and the moments at which they are killed.
        kills: how many requests are killed.
        every: a model is asked after every so many requests.
        retrain_after: the numbers of requests after which a Retrain is trained.
        drift_budget: above which a model is trained anew.
        settings: data set, prompt, and all that differs from the defaults.
    """

    folder: Path
    requests: int = 200
    most: int = 10
    draw: int = 1
    kills: int = 0
    every: int = 5
    retrain_after: tuple[int, ...] = (1, 50, 100, 150, 200)
    drift_budget: float = RequestOptions.drift_budget
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def saved(self) -> Path:
        """The folder of the results and of all stages."""
        return self.folder / "saved"

    def path(self, name: str) -> Path:
        """Return the path of a file or folder that belongs to these requests."""
        prompt = self.settings.get("prompt", "default")
        return (
            self.folder
            / f"{self.requests}-requests-{self.draw}-{prompt}-{self.drift_budget:g}"
            / name
        )


def small_plan(folder: Path) -> Plan:
    """Return the plan of a quick look, on synthetic data."""
    settings = {"dataset": synthetic(folder, 3000), "data_path": str(folder), "epochs": 1}
    return Plan(folder, 8, 2, 1, 0, 2, (1, 8), 2e-6, {**settings, **SYNTHETIC})


class Request(NamedTuple):
    """A request.

    Attributes:
        kind: deletion, overlap, correction or again.
        command: forget or correct.
        users: inner ids of the users whom it names first.
        text: what its file says.
    """

    kind: str
    command: str
    users: Rows
    text: str


def draw_requests(run: ServedModel, count: int, most: int, seed: int) -> list[Request]:
    """Draw requests of several kinds, in random order; the first one is a deletion.

    - 65 % deletions of 1 to ``most`` whole users whom no other request names; n users are drawn
      with a probability in proportion to n ** -1.5;
    - 5 % deletions that also name a user who was forgotten and one who was corrected before;
    - 15 % corrections of as many users. By turns, all of their ratings are turned round, or each of
      at least two users gives a fifth of the rows to the next one;
    - 15 % that give an earlier request once more, word for word.

    Raises:
        InputError: there are too few users.
    """
    generator = np.random.default_rng(seed)
    others = [kind for kind in SHARES for _ in range(max(1, round(SHARES[kind] * count)))]
    later = [*others, *[DELETION] * (count - 1 - len(others))]
    kinds = [DELETION, *generator.permutation(later).tolist()][:count]
    trained = generator.permutation(np.unique(run.dataset.rows.user[run.live]))
    chances = np.arange(1.0, most + 1) ** -1.5
    sizes = generator.choice(np.arange(1, most + 1), count, p=chances / chances.sum())
    moves = np.zeros(count, bool)
    moves[[place for place, kind in enumerate(kinds) if kind == CORRECTION][1::2]] = True
    sizes[moves] = np.maximum(sizes[moves], 2)
    sizes[[kind == AGAIN for kind in kinds]] = 0
    if sizes.sum() >= len(trained):
        raise InputError(f"requests: they name {sizes.sum()} of {len(trained)} users; ask for less")
    requests: list[Request] = []
    for kind, users, move in zip(kinds, np.split(trained, np.cumsum(sizes)), moves, strict=False):
        if kind == AGAIN:
            earlier = [request for request in requests if request.kind != AGAIN]
            again = earlier[generator.integers(len(earlier))]
            requests.append(again._replace(kind=AGAIN, users=users))
        elif kind == CORRECTION:
            text = moving(run, users, generator) if move else turning(run, users)
            requests.append(Request(kind, "correct", users, text))
        else:
            named = users if kind == DELETION else [*users, *_named_before(requests, generator)]
            requests.append(Request(kind, "forget", users, deleting(run, named)))
    return requests


def _named_before(requests: Sequence[Request], generator: np.random.Generator) -> Iterator[int]:
    """Draw a user who was forgotten, and one who was corrected if there is one."""
    for command in ("forget", "correct"):
        users = [user for request in requests if request.command == command
                 for user in request.users.tolist()]  # fmt: skip
        if users:
            yield users[generator.integers(len(users))]


def deleting(run: ServedModel, users: Sequence[int] | Rows) -> str:
    """Write a request to forget users."""
    names = _names(run.dataset.ids.users)
    return "\n".join(["user_id", *(names[int(user)] for user in users)]) + "\n"


def turning(run: ServedModel, users: Rows) -> str:
    """Write a correction: what users like they do not, and the reverse."""
    table = run.dataset.rows
    low, high = f"{np.nanmin(table.rating):g}", f"{np.nanmax(table.rating):g}"
    right = [low if table.label[row] else high for row in _rows_of(run, users)]
    return _correcting(run, _rows_of(run, users), "new_rating", right)


def moving(run: ServedModel, users: Rows, generator: np.random.Generator) -> str:
    """Write a correction: of each user's rows, a fifth belongs to the next user."""
    names, table = _names(run.dataset.ids.users), run.dataset.rows
    following = dict(zip(users.tolist(), np.roll(users, -1).tolist(), strict=True))
    moved: list[int] = []
    for user in users:
        rows = generator.permutation(_rows_of(run, np.array([user])))
        moved += sorted(rows[: max(1, len(rows) // 5)].tolist())
    right = [names[following[int(table.user[row])]] for row in moved]
    return _correcting(run, moved, "new_user_id", right)


def _correcting(
    run: ServedModel, rows: Sequence[int] | Rows, column: str, right: Sequence[str]
) -> str:
    table, ids = run.dataset.rows, run.dataset.ids
    users, items = _names(ids.users), _names(ids.items)
    lines = [
        f"{users[int(table.user[row])]},{items[int(table.item[row])]},{value}"
        for row, value in zip(rows, right, strict=True)
    ]
    return "\n".join([f"user_id,item_id,{column}", *lines]) + "\n"


def _rows_of(run: ServedModel, users: Rows) -> Rows:
    """Return the rows of users, without those of an item that a user has several times."""
    table = run.dataset.rows
    rows = np.flatnonzero(np.isin(table.user, users))
    pairs = np.stack([table.user[rows], table.item[rows]])
    _, place, count = np.unique(pairs, axis=1, return_inverse=True, return_counts=True)
    once: Rows = rows[count[place.ravel()] == 1]
    return once


def _names(ids: Mapping[str, int]) -> dict[int, str]:
    return {inner: token for token, inner in ids.items()}


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
        run_recbole_e2urec("LLMRec", dataset, config_dict=settings)
        self._original = self._exported(ORIGINAL)
        run = open_folder(self._original, QUIET)
        self._requests = draw_requests(run, plan.requests, plan.most, plan.draw)
        user, splits = run.dataset.rows.user, run.parts.splits
        named = np.concatenate([request.users for request in self._requests])
        self._valid, self._test = (
            part[~np.isin(user[part], named)] for part in (splits.valid, splits.test)
        )
        for number, request in enumerate(self._requests, 1):
            self._file(number).write_text(request.text)
        self._path = plan.path("measured.jsonl")
        self.rows: dict[str, Row] = {row["key"]: row for row in load_rows(self._path)}

    def carry_out(self, method: str) -> None:
        """Carry out every request by one method, and measure what becomes of the model."""
        folder = self._exported(method)
        for number, request in enumerate(self._requests, 1):
            key = f"{method} {number}"
            if key in self.rows:
                continue
            measures = self._timed(method, folder, number)
            is_compared = number in self.plan.retrain_after
            if is_compared or measures["trained_anew"] or number % self.plan.every == 0:
                run = open_folder(folder, QUIET)
                if is_compared:
                    self._measure_references(run, number)
                measures |= self._measures(run, run)
            named = {"model": method, "requests": number, "kind": request.kind}
            self._add(key, {**named, **measures})

    def carry_out_killed(self, method: str) -> None:
        """Carry out every request by a command of its own, kill some, and compare the outcome."""
        name = f"{method}, {self.plan.kills} killed"
        if name in self.rows:
            return
        folder, moments = self._exported(name), self._moments(method)
        for number, request in enumerate(self._requests, 1):
            key = f"{name} {number}"
            if key in self.rows:
                continue
            before, count = (folder.path / POINTER).read_bytes(), self._count(folder)
            found, moment = None, moments.get(number)
            if moment is not None and self._command(method, folder, number, moment):
                record = folder.read(with_tensors=False).record
                found = NOT_PLACED
                if len(record["requests"]) > count:
                    found = PLACED if unmeasured_of(record) else CERTIFIED
            self._command(method, folder, number)
            if request.kind == AGAIN and (folder.path / POINTER).read_bytes() != before:
                raise RuntimeError(f"{LOST}request {number} is another's repetition")
            self._add(key, {"killed_after": moment, "found": found})
        states = [self.rows[f"{name} {n}"]["found"] for n in range(1, self.plan.requests + 1)]
        counts = {state: states.count(state) for state in (NOT_PLACED, PLACED, CERTIFIED)}
        in_ledger = np.cumsum([request.kind != AGAIN for request in self._requests])
        killed = {int(number) for number, state in zip(in_ledger, states, strict=True) if state}
        checked = check_alike(self._exported(method), folder, int(in_ledger[-1]), killed)
        self._add(name, {"killed": counts, "check": checked})

    def _timed(self, method: str, folder: ModelFolder, number: int) -> dict[str, Any]:
        """Carry out a request in this process, and return what it costs.

        There are no seconds if an earlier run of this benchmark was killed in the request.
        """
        kind = self._requests[number - 1].kind
        before, count = (folder.path / POINTER).read_bytes(), self._count(folder)
        is_resumed = folder.work.exists()
        restart_peak()
        started = time.time()
        with noted_writes() as written, redirect_stdout(io.StringIO()) as told:
            if cli.main(self._arguments(method, folder, number)):
                raise RuntimeError(f"request {number} failed: {told.getvalue()}")
        total, peak = time.time() - started, peak_memory_mb()
        if kind == AGAIN and (folder.path / POINTER).read_bytes() != before:
            raise RuntimeError(f"request {number} is another's repetition, and changed the folder")
        record = folder.read(with_tensors=False).record
        entry, trainings = record["requests"][-1], record.get("trainings", [])
        costs: dict[str, float] = {"total": total}
        if self._count(folder) > count:
            certificates = (folder.path / CERTIFICATES).glob("*.json")
            certified = max(path.stat().st_mtime for path in certificates)
            costs |= {"in_place": written[0] - started, "certified": certified - started}
        elif kind != AGAIN:
            is_resumed = True
        anew = kind != AGAIN and bool(trainings) and trainings[-1]["after"] == self._count(folder)
        return {
            "seconds": None if is_resumed else costs,
            "training_rows": 0 if kind == AGAIN else entry["training_rows"],
            "drift": entry["drift"],
            "trained_anew": anew,
            "training_seconds": trainings[-1]["seconds"] if anew else None,
            "trainings": len(trainings),
            "folder_mb": weight_of(folder.path),
            "peak_mb": max(peak, entry["evidence"]["cost"].get("peak_memory_mb", 0)),
        }

    def _command(
        self, method: str, folder: ModelFolder, number: int, moment: float | None = None
    ) -> bool:
        """Carry out a request by a command, and say whether it was killed.

        Args:
            method: the method.
            folder: the model folder.
            number: number of the request, from 1.
            moment: after how many seconds the command is killed; None: never.
        """
        process = subprocess.Popen(
            [*PROGRAM, *self._arguments(method, folder, number)],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            _, complaint = process.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return True
        if process.returncode:
            raise RuntimeError(f"request {number} failed: {complaint.decode()}")
        return False

    def _moments(self, method: str) -> dict[int, float]:
        """Draw which requests are killed, and after how many seconds; trainings anew come first."""
        generator = np.random.default_rng(self.plan.draw)
        rows = [self.rows[f"{method} {number}"] for number in range(1, self.plan.requests + 1)]
        order = sorted(
            generator.permutation(len(rows)), key=lambda at: not rows[at]["trained_anew"]
        )
        known = [row["seconds"]["total"] for row in rows if row["seconds"]]
        start = seconds(import_package)
        return {
            int(at) + 1: (start + (rows[at]["seconds"] or {"total": np.median(known)})["total"])
            * generator.random()
            for at in order[: self.plan.kills]
        }

    def _arguments(self, method: str, folder: ModelFolder, number: int) -> list[str]:
        values = {
            "checkpoint": folder.path, "request": self._file(number), "model": method,
            "retrain_when_due": True, "drift_budget": self.plan.drift_budget, **QUIET,
        }  # fmt: skip
        command = self._requests[number - 1].command
        return [command, *(f"--{key}={value}" for key, value in values.items())]

    def _measure_references(self, run: ServedModel, number: int) -> None:
        """Measure Original and Retrain on the data of a served model, which other methods share."""
        original = ServedModel(run.config, run.dataset, self._original.read(), self._original.path)
        original.number, original.corrections = run.number, run.corrections
        if len(run.corrections.rows):
            original.use_corrections()
        models: dict[str, Callable[[], Any]] = {
            ORIGINAL: lambda: original,
            RETRAIN: lambda: self._retrain(run, 0),
        }
        if number == self.plan.requests:
            models[NEXT_SEED] = lambda: self._retrain(run, 1)
        history = run.history(NOTHING)
        first = self._yes(original, history, self._valid)
        for model, make in models.items():
            if f"{model} {number}" not in self.rows:
                reference = make()
                measures = {
                    **self._measures(reference, run),
                    "drift": drift_between(first, self._yes(reference, history, self._valid)),
                }
                self._add(f"{model} {number}", {"model": model, "requests": number, **measures})

    def _retrain(self, run: ServedModel, after: int) -> Reference:
        """Train on what a served model may know, under its seed or a later one."""
        reference = Reference(run, self.plan.path("retrains"), run.config["seed"] + after)
        reference.train(delta_of(run, run.forgotten, run.forgotten))
        return reference

    def _measures(self, asked: Any, run: ServedModel) -> dict[str, Any]:
        """Measure a model on the data of a served model; no row is hidden in prompts."""
        label, train, history = run.dataset.rows.label, run.parts.splits.train, run.history(NOTHING)
        groups = {
            "test": self._test,
            "forgotten": np.intersect1d(train, run.forgotten),
            "first": np.intersect1d(train, np.flatnonzero(run.number == 1)),
            "corrected": np.intersect1d(run.corrections.rows, run.live),
        }
        return {
            name: labelled_metrics(run.config, self._yes(asked, history, rows).numpy(), label[rows])
            for name, rows in groups.items()
        }

    @staticmethod
    def _yes(asked: Any, history: Rows, rows: Rows) -> torch.Tensor:  # [n] -> [n]
        with asked.model.using_history(history):
            return asked.model.answer(rows, None).double().cpu()

    def _exported(self, name: str) -> ModelFolder:
        plan, folder = self.plan, ModelFolder(self.plan.path(name))
        if not folder.has_model:
            paths = {key: plan.settings[key] for key in ("data_path",) if key in plan.settings}
            settings = {"checkpoint_dir": str(plan.saved), **paths}
            run = RunSettings(plan.settings.get("dataset"), (), settings)
            export(ExportOptions(str(folder.path)), "LLMRec", run)
        return folder

    def _file(self, number: int) -> Path:
        return self.plan.path(f"{number:03d}.csv")

    def _count(self, folder: ModelFolder) -> int:
        return len(folder.read(with_tensors=False).record["requests"])

    def _add(self, key: str, measures: Row) -> None:
        self.rows[key] = {"key": key, **measures}
        save_rows(self._path, [self.rows[key]], ("key",))
        print(json.dumps(self.rows[key]), flush=True)


@contextmanager
def noted_writes() -> Iterator[list[float]]:
    """Note when model folders were written to inside the block."""
    times: list[float] = []
    write = ModelFolder.write

    def noted(*given: Any) -> Any:
        generation = write(*given)
        times.append(time.time())
        return generation

    with patch.object(ModelFolder, "write", noted):
        yield times


def check_alike(
    kept: ModelFolder, other: ModelFolder, requests: int, killed: Collection[int]
) -> dict[str, int]:
    """Check that killed requests were carried out once each, as those that were not killed.

    Both ledgers have the same requests in the same order, with the same measures, and note the same
    trainings. All files of the model are the same, byte for byte. Every request has a certificate,
    and ``verify`` accepts those of killed requests and of the last one.

    Args:
        kept: the folder of requests that were not killed.
        other: the folder of the same requests, of which some were.
        requests: how many requests had something to do.
        killed: which of them were killed, counted from 1.

    Returns:
        How many requests, trainings anew and verified certificates there were.

    Raises:
        RuntimeError: they differ.
    """
    records = [folder.read(with_tensors=False).record for folder in (kept, other)]
    ledgers = [[_outcome(entry) for entry in record["requests"]] for record in records]
    if ledgers[0] != ledgers[1] or len(ledgers[0]) != requests:
        raise RuntimeError(f"{LOST}{[len(ledger) for ledger in ledgers]} of {requests} requests")
    trained = [
        [(each["after"], each["rows"]) for each in record.get("trainings", [])]
        for record in records
    ]
    if trained[0] != trained[1]:
        raise RuntimeError(f"{LOST}trained anew: {trained}")
    files = [record["files"] for record in records]
    if files[0] != files[1]:
        raise RuntimeError(f"{LOST}files of the model: {files}")
    certificates = sorted((other.path / CERTIFICATES).glob("*.json"))
    if len(certificates) != requests:
        raise RuntimeError(f"{LOST}{len(certificates)} certificates of {requests} requests")
    verified = sorted({*killed, requests})
    for number in verified:
        verdict = verify(VerifyOptions(str(certificates[number - 1])), QUIET)
        if verdict.failed:
            raise RuntimeError(f"{LOST}{certificates[number - 1]}: {verdict.text}")
    return {"requests": requests, "trainings": len(trained[0]), "verified": len(verified)}


def _outcome(entry: Row) -> dict[str, Any]:
    """Return what an entry of the ledger says, without salt, dates, costs and hashes."""
    names = ("request_id", "digest", "method", "kind", "rows", "training_rows", "forget_loss",
             "drift", "drift_rows")  # fmt: skip
    kept = {name: entry.get(name) for name in names}
    return {**kept, "measures": entry["evidence"]["measures"]}


def table_of(rows: Sequence[Row]) -> str:
    """Return a Markdown table of every model, after the requests for which a Retrain exists."""
    counts = {row["requests"] for row in rows if row["model"] == RETRAIN}
    lines = [
        [row["model"], str(row["requests"]), *(_cell(row, path) for path in COLUMNS.values())]
        for row in rows
        if row["requests"] in counts
    ]
    return _markdown(lines, ["model", "requests", *COLUMNS])


def _cell(row: Row, path: str) -> str:
    value = value_of(row, path)
    return "-" if value is None else str(value) if isinstance(value, int) else f"{value:.4f}"


def costs_of(rows: Sequence[Row]) -> str:
    """Return a Markdown table of what requests cost, by method and kind.

    Seconds are the median and the 90th percentile; requests after which a model was trained anew
    count in a line of their own. The folder is given after the first and the last of them.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if "kind" in row:
            kind = "trained anew" if row["trained_anew"] else row["kind"]
            groups.setdefault((row["model"], kind), []).append(row)
    lines = []
    for (model, kind), of_kind in groups.items():
        spans = [_quantiles([value_of(row, f"seconds.{cost}") for row in of_kind])
                 for cost in COSTS]  # fmt: skip
        first, last = of_kind[0]["folder_mb"], of_kind[-1]["folder_mb"]
        peak = max(row["peak_mb"] for row in of_kind)
        lines.append(
            [model, kind, str(len(of_kind)), *spans, f"{first:.1f}, {last:.1f}", f"{peak:.0f}"]
        )
    heads = [f"seconds, {cost.replace('_', ' ')}" for cost in COSTS]
    return _markdown(lines, ["model", "kind", "number", *heads, "folder, MB", "memory, MB"])


def spread_of(rows: Sequence[Row]) -> str:
    """Return a Markdown table of what a request costs on average, with all trainings anew.

    The average is over the first 1, 10, 100 requests, and over all of them. The last column is that
    cost in units of the mean training anew, so a Retrain for each request would be 1.
    """
    by_model: dict[str, list[Row]] = {}
    for row in rows:
        if "kind" in row:
            by_model.setdefault(row["model"], []).append(row)
    lines = []
    for model, requests in by_model.items():
        spent = np.cumsum([row["seconds"]["total"] for row in requests])
        trainings = np.array([row["training_seconds"] or 0.0 for row in requests])
        anew = trainings[trainings > 0]
        for count in sorted({min(count, len(requests)) for count in (1, 10, 100, len(requests))}):
            mean = spent[count - 1] / count
            share = f"{mean / anew.mean():.3f}" if len(anew) else "-"
            number, part = (trainings[:count] > 0).sum(), trainings[:count].sum() / count
            lines.append([model, str(count), f"{mean:.1f}", str(number), f"{part:.1f}", share])
    heads = ["seconds a request", "trained anew", "of the seconds", "a request / a training"]
    return _markdown(lines, ["model", "first requests", *heads])


def _quantiles(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{np.median(known):.1f}, {np.quantile(known, 0.9):.1f}" if known else "-"


def _markdown(lines: Sequence[Sequence[str]], head: Sequence[str]) -> str:
    return str(tabulate(lines, head, tablefmt="pipe", disable_numparse=True))


def plot_of(rows: Sequence[Row]) -> str:
    """Return an SVG with a panel for each measure, over the number of requests.

    Large dots are Retrains, and requests after which a model was trained anew.
    """
    rows = [row for row in rows if row["model"] != NEXT_SEED]
    models = list(dict.fromkeys([RETRAIN, ORIGINAL, *(row["model"] for row in rows)]))
    panels = []
    for title, measure in PANELS.items():
        lines = []
        for style, model in enumerate(models):
            own = [row for row in rows if row["model"] == model]
            lines.append(Line(model, _points(own, measure), style, model == RETRAIN))
            anew = _points([row for row in own if row.get("trained_anew")], measure)
            if anew:
                lines.append(Line(f"{model}, trained anew", anew, style, True))
        panels.append(Panel(title, lines))
    return svg(panels, "requests")


def _points(rows: Sequence[Row], measure: str) -> list[tuple[float, float]]:
    values = [(float(row["requests"]), value_of(row, measure)) for row in rows]
    return [(count, float(value)) for count, value in values if value is not None]


def main() -> None:
    """Run the plan of the command line, print the tables, and draw the plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--size", choices=("full", "small"), default="full")
    parser.add_argument("--requests", type=int, help="how many; 200")
    parser.add_argument("--draw", type=int, help="the seed that draws requests and kills; 1")
    parser.add_argument("--kills", type=int, help="how many requests are killed once; 0")
    parser.add_argument("--every", type=int, help="a model is asked after so many requests; 5")
    parser.add_argument("--retrain_after", type=int, nargs="*", help="1 50 100 150 200")
    parser.add_argument("--drift_budget", type=float, help="the default of the package")
    parser.add_argument("--prompt", help="such as numbered; the default of the package")
    parser.add_argument("--folder", type=Path, default=Path("saved/queue"))
    parser.add_argument("--plot", type=Path, help="the plot's file; queue.svg below --folder")
    options = parser.parse_args()
    recbole_compat.apply()
    options.folder.mkdir(parents=True, exist_ok=True)
    plan = _plan(options)
    for method in options.methods:
        check_method(method)
    benchmark = Benchmark(plan)
    for method in options.methods:
        benchmark.carry_out(method)
        if plan.kills:
            benchmark.carry_out_killed(method)
    rows = [row for row in benchmark.rows.values() if "model" in row]
    print(table_of(rows), costs_of(rows), spread_of(rows), sep="\n\n")
    for row in benchmark.rows.values():
        if "check" in row:
            print(f"{row['key']}: {json.dumps({**row['killed'], **row['check']})}")
    (options.plot or plan.path("queue.svg")).write_text(plot_of(rows), encoding="utf-8")


def _plan(options: argparse.Namespace) -> Plan:
    plan = Plan(options.folder) if options.size == "full" else small_plan(options.folder)
    names = ("requests", "draw", "kills", "every", "retrain_after", "drift_budget")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    plan = replace(plan, **given)
    after = {number for number in plan.retrain_after if number < plan.requests}
    prompt = {"prompt": options.prompt} if options.prompt else {}
    return replace(
        plan,
        retrain_after=tuple(sorted({*after, plan.requests})),
        settings={**plan.settings, **prompt},
    )


if __name__ == "__main__":
    run_main(main)
