"""What a request costs: against Retrain, against a larger training set, for one user alone."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.racing import ratio_of, seconds
from benchmarks.settings import Size, forgetting
from recbole_e2urec.experiment.unlearning import Forgetting
from recbole_e2urec.methods import method_of


def trained(folder: Path, size: Size, **given: Any) -> Forgetting:
    """A run with its Original and Retrain."""
    more: dict[str, Any] = {} if size.epochs is None else {"epochs": size.epochs}
    run = forgetting(folder, size, **more | given)
    run.train()
    return run


def unlearned(run: Forgetting) -> float:
    """Seconds of the request, from the trained Original on; all that the method does."""
    method = method_of(run.config)
    with run.model.using_history(run.after):
        return seconds(lambda: method.unlearn(run.model, run.request))


def cost_to_retrain(folder: Path, size: Size) -> dict[str, Any]:
    """``cost_to_retrain``: E2URec's seconds / Retrain's, a fifth of the users."""
    run = trained(folder, size)
    taken, retrain = unlearned(run), run.retrain.cost["seconds"]
    return {
        "cost_to_retrain": taken / retrain,
        "e2urec_seconds": taken,
        "retrain_seconds": retrain,
    }


def one_user(folder: Path, size: Size) -> dict[str, Any]:
    """``one_user_to_retrain``: the request of one user, of the median number of rows."""
    rows = forgetting(folder, size).dataset
    user, count = np.unique(rows.rows.user, return_counts=True)
    inner = int(user[np.argsort(count, kind="stable")[len(count) // 2]])
    token = next(token for token, known in rows.ids.users.items() if known == inner)
    request = folder / "request.csv"
    request.write_text(f"user_id\n{token}\n", encoding="utf-8")
    run = trained(folder, size, forget_file=str(request), control_users=0)
    taken, retrain = unlearned(run), run.retrain.cost["seconds"]
    return {"one_user_to_retrain": taken / retrain, "one_user_seconds": taken}


def growth(folder: Path, size: Size) -> dict[str, Any]:
    """``growth_with_training_set``: cost with twice the other users / cost, forget set kept.

    The weights are untrained, on which no time depends.
    """
    taken = [with_others(folder / str(turn), size, (1, 2)) for turn in range(size.rounds)]
    ratios = [double / base for base, double in taken]
    return {
        "growth_with_training_set": ratio_of(ratios),
        "growth_base_seconds": median(base for base, _ in taken),
    }


def with_others(folder: Path, size: Size, times: Sequence[int]) -> list[float]:
    """Seconds of one request in data that has every user who stays so many times."""
    run = forgetting(folder, size)
    folder.mkdir(exist_ok=True)
    ids = {inner: token for token, inner in run.dataset.ids.users.items()}
    forgotten = sorted({ids[int(user)] for user in run.dataset.rows.user[run.split.forget]})
    request = folder / "request.csv"
    request.write_text("\n".join(["user_id", *forgotten]) + "\n", encoding="utf-8")
    source = Path(run.config["data_path"])
    same = {key: run.config[key] for key in ("title_field", "user_fields", "history_length")}
    same |= {"threshold": {"rating": 4}, "control_users": 0, "forget_file": str(request)}
    found = []
    for count in times:
        name = f"times{count}"
        _multiplied(source, folder / name, set(forgotten), count)
        part = forgetting(folder / "runs" / name, size, name, data_path=str(folder), **same)
        found.append(unlearned(part))
    return found


def _multiplied(source: Path, target: Path, forgotten: set[str], count: int) -> None:
    """Copy a data set, with so many users for each that is not forgotten."""
    target.mkdir(parents=True)
    for path in source.glob(f"{source.name}.*"):
        head, *lines = path.read_text(encoding="utf-8").splitlines()
        if head.startswith("user_id:token"):
            kept = [line for line in lines if line.split("\t")[0] not in forgotten]
            lines += [f"twin{twin}-{line}" for twin in range(1, count) for line in kept]
        copied = target / f"{target.name}{path.suffix}"
        copied.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
