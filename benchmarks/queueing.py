"""Requests in a row on a model in use: ``python -m benchmarks.queueing``.

Run it from a checkout with the package installed. A recommender is trained on ml-100k with user and
item numbers in the prompt, or with ``--prompt``, and exported. Then each request, 1 to 10 users
whom a seed draws, is carried out by ``forget`` in the folder, and the model is measured: on test
rows of users whom no request names, on all rows forgotten so far, and on those of the first
request, which must not come back. At some of the requests a Retrain on what is left says what is
wanted. Last, one request names all of these users at once. ``--methods`` are NegatedE2URec, E2URec,
NPO, NegGrad or TokenReset, each in a folder of its own; ``NPO-all`` and ``NegGrad-all`` change more
than the tokens that only a small request shows.
The tables are printed, the plot is ``queue.svg`` below ``--folder``. ``--size small`` is a quick
look whose numbers mean nothing. Killed, the same command goes on.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.queue_plan import Notes, Plan, small
from benchmarks.queue_report import draw_plots, tables
from benchmarks.yardsticks import Draw, Yardstick, drawn, experiment
from recbole_e2urec.config.config import RunSettings
from recbole_e2urec.deployment.export import ExportOptions, export
from recbole_e2urec.deployment.forget import QueueOptions, forget
from recbole_e2urec.deployment.model_folder import ModelFolder
from recbole_e2urec.deployment.served_model import ServedModel, open_folder
from recbole_e2urec.errors import InputError
from recbole_e2urec.quick_start import run_recbole_e2urec
from recbole_e2urec.utils import recbole_compat

ALL = "-all"
RESET = "TokenReset"
METHODS = ("NegatedE2URec", "E2URec", "NPO", "NegGrad", RESET, f"NPO{ALL}", f"NegGrad{ALL}")
QUIET = {"show_progress": False}


def trained(plan: Plan) -> dict[str, Any]:
    """Train the recommender; its row of the results."""
    given = {key: value for key, value in plan.given.items() if key != "dataset"}
    config = {**QUIET, "checkpoint_dir": str(plan.saved), **given}
    made = run_recbole_e2urec("LLMRec", plan.given.get("dataset"), config_dict=config)
    row: dict[str, Any] = made["rows"][0]
    return row


def references(plan: Plan, notes: Notes, yardstick: Yardstick) -> None:
    """Measure Original, the Retrains, and models of other seeds."""
    run = experiment(yardstick.row, plan.saved)
    last = max(plan.retrain_after)
    wanted: list[tuple[str, int, int | None]] = [
        ("Original", 0, None),
        *(("Retrain", k, None) for k in plan.retrain_after),
    ]
    wanted += [("Original", 0, seed) for seed in plan.seeds]
    wanted += [("Retrain", last, seed) for seed in plan.seeds[:1]]
    for name, count, seed in wanted:
        key = f"{name} {count} {seed or ''}".strip()
        if key not in notes.rows:
            said = yardstick.trained(count, seed)
            against = yardstick.trained(count) if count else None
            more = yardstick.measured(run, said, count, against)
            notes.add(key, {"model": name, "seed": seed, **more})
    for count in plan.retrain_after:  # what was not forgotten
        key = f"Original on {count}"
        if key not in notes.rows:
            more = yardstick.measured(run, yardstick.original, count, yardstick.trained(count))
            notes.add(key, {"model": "Original", "seed": None, **more})


def carried_out(plan: Plan, method: str, notes: Notes, yardstick: Yardstick) -> None:
    """Carry out every request by one method, and measure the model after each."""
    folder = _exported(plan, method)
    for count in range(1, plan.requests + 1):
        key = f"{method} {count}"
        if key in notes.rows:
            continue
        seconds = None
        if len(folder.read(whole=False).record["requests"]) < count:
            started = time.perf_counter()
            _forget(method, folder, _request(plan, yardstick, count, count))
            seconds = time.perf_counter() - started
        run = open_folder(folder, QUIET)
        more = {**_measured(plan, run, count, yardstick), "command_seconds": seconds}
        notes.add(key, {"model": method, **more})


def at_once(plan: Plan, method: str, notes: Notes, yardstick: Yardstick) -> None:
    """Carry out one request of all these users, and measure the model."""
    key = f"{method} at once"
    if key in notes.rows:
        return
    folder = _exported(plan, key.replace(" ", "-"))
    _forget(method, folder, _request(plan, yardstick, 1, plan.requests))
    run = open_folder(folder, QUIET)
    notes.add(key, {"model": key, **_measured(plan, run, plan.requests, yardstick)})


def _exported(plan: Plan, name: str) -> ModelFolder:
    folder = ModelFolder(plan.named(name))
    if not folder.is_one:
        data = {key: plan.given[key] for key in ("data_path",) if key in plan.given}
        given = RunSettings(
            plan.given.get("dataset"), (), {"checkpoint_dir": str(plan.saved), **data}
        )
        export(ExportOptions(str(folder.path)), "LLMRec", given)
    return folder


def _forget(method: str, folder: ModelFolder, request: Path) -> None:
    given = {**QUIET, "own_tokens_until": 0} if method.endswith(ALL) else QUIET
    if method == RESET:  # a user without a token of their own is left as before
        given = {**QUIET, "partial": True}
    forget(QueueOptions(str(folder.path), str(request)), method.removesuffix(ALL), given)


def _request(plan: Plan, yardstick: Yardstick, first: int, last: int) -> Path:
    """Write these requests, counted from 1, as one file."""
    run = experiment(yardstick.row, plan.saved)
    tokens = {inner: token for token, inner in run.dataset.ids.users.items()}
    users = yardstick.of.users[first - 1 : last]
    named = [tokens[inner] for some in users for inner in some.tolist()]
    path = plan.named(f"requests{first}-{last}.csv")
    path.write_text("\n".join(["user_id", *named]) + "\n")
    return path


def _measured(plan: Plan, run: ServedModel, count: int, yardstick: Yardstick) -> dict[str, Any]:
    shown = run.history(run.forgotten[:0])
    said = yardstick.asked(run, lambda rows: run.yes(rows, shown))
    retrain = yardstick.trained(count) if count in plan.retrain_after else None
    entry = run.record["requests"][-1]
    return {
        **yardstick.measured(run, said, count, retrain),
        "rows": entry["training_rows"],
        "told_drift": entry["drift"],
        "seconds": entry["seconds"],
    }


def main() -> None:
    """Carry out what the command line asks for, and print the tables."""
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
    given = parser.parse_args()
    recbole_compat.apply()
    given.folder.mkdir(parents=True, exist_ok=True)
    base = Plan(given.folder) if given.size == "full" else small(given.folder)
    count = given.requests or base.requests
    retrains = base.retrain_after if given.retrain_after is None else given.retrain_after
    after = tuple(sorted({*(one for one in retrains if one < count), count}))
    seeds = base.seeds if given.seeds is None else tuple(given.seeds)
    settings = {**base.given, "prompt": given.prompt}
    plan = Plan(base.folder, count, base.most, given.draw, after, seeds, settings)
    row = trained(plan)
    of: Draw = drawn(experiment(row, plan.saved), plan.requests, plan.most, plan.draw)
    plan.named("").mkdir(exist_ok=True)
    notes, yardstick = Notes(plan.named("measured.jsonl")), Yardstick(row, plan.saved, of)
    references(plan, notes, yardstick)
    for method in given.methods:
        carried_out(plan, method, notes, yardstick)
        at_once(plan, method, notes, yardstick)
    print(tables(notes.rows.values()))
    draw_plots(notes.rows.values(), plan.named("queue.svg"))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
