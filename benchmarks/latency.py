"""How long a request on a model in use takes: ``python -m benchmarks.latency --checkpoint=DIR``.

The folder, as ``recbole-e2urec export`` made it, is copied; nothing is forgotten in it. Each
request names one user, drawn by ``--seed``. For each of ``--methods`` there is a line:

- the command ``recbole-e2urec forget``, in a process of its own: seconds until the new model is in
  place, and until the request is certified; the median of ``--commands`` requests;
- a loaded recommender (``load_recommender(DIR).forget``): the same, the median and the 90th
  percentile of ``--requests`` requests in a row, after a first one that opens the second model;
- ``recommend`` of ten items for one user: alone, and the median of those that were asked for while
  the recommender forgot;
- what the folder weighs on the disk, and while a request is measured.

The last column is the command's time until the model is in place, in units of what Python takes to
import the package, since both depend on the machine alike.
"""

import argparse
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from tabulate import tabulate

from benchmarks.common import run_main, seconds
from recbole_e2urec.deployment.model_folder import POINTER, ModelFolder
from recbole_e2urec.deployment.recommend import Recommender, load_recommender
from recbole_e2urec.deployment.served_model import open_folder
from recbole_e2urec.utils.distributed import collect_rarely

HEAD = (
    "method", "command, in place", "certified", "Python, in place", "90 %", "certified",
    "recommend", "meanwhile", "folder, MB", "measuring, MB", "in place / imports",
)  # fmt: skip
PROGRAM = (sys.executable, "-m", "recbole_e2urec")
MEGABYTE = 2**20


class Request(NamedTuple):
    """A request that was carried out: seconds until the model was in place, and until the end."""

    in_place: float
    certified: float


def main() -> None:
    """Measure, and print a line for each method."""
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="a model folder")
    parser.add_argument("--methods", nargs="+", default=["NegatedE2URec", "E2URec", "NPO"])
    parser.add_argument("--requests", type=int, default=50, help="from Python")
    parser.add_argument("--commands", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1, help="draws the users")
    options = parser.parse_args()
    collect_rarely()  # as the program does
    users = draw_users(options.checkpoint, options.seed)[: 1 + options.requests + options.commands]
    imports = median([seconds(import_package) for _ in range(3)])
    lines = []
    for method in options.methods:
        with copied(options.checkpoint) as folder:
            line = [method, *measured(folder, method, users, options.commands)]
        lines.append([*line, line[1] / imports])
        print(tabulate([lines[-1]], HEAD, tablefmt="pipe", floatfmt=".2f"), flush=True)
    print(f"importing the package takes {imports:.2f} s\n")
    print(tabulate(lines, HEAD, tablefmt="pipe", floatfmt=".2f"))


def draw_users(checkpoint: Path, seed: int) -> list[str]:
    """Return users with training rows, in random order."""
    run = open_folder(ModelFolder(checkpoint))
    tokens = {inner: token for token, inner in run.dataset.ids.users.items()}
    users = np.unique(run.dataset.rows.user[run.live])
    return [tokens[int(user)] for user in np.random.default_rng(seed).permutation(users)]


def import_package() -> None:
    """Start Python and import what ``forget`` needs."""
    code = "from recbole_e2urec.utils.distributed import collect_rarely; collect_rarely()\n"
    code += "import recbole_e2urec.deployment.forget"
    subprocess.run([sys.executable, "-c", code], check=True)


@contextmanager
def copied(checkpoint: Path) -> Iterator[Path]:
    """Copy a model folder for the time of the body."""
    with TemporaryDirectory() as name:
        yield Path(shutil.copytree(checkpoint, Path(name) / "model"))


def measured(folder: Path, method: str, users: list[str], commands: int) -> Iterator[float]:
    """Carry out a request for each user, the first ones by the command."""
    by_command = [command(folder, method, user) for user in users[:commands]]
    yield median([request.in_place for request in by_command])
    yield median([request.certified for request in by_command])
    recommender, weights = load_recommender(folder), [0.0]
    watch = Watch(recommender, folder, users[-1], weights)
    requests = [from_python(recommender, method, user) for user in users[commands:-1]][1:]
    yield median([request.in_place for request in requests])
    yield float(np.quantile([request.in_place for request in requests], 0.9))
    yield median([request.certified for request in requests])
    meanwhile = watch.end()
    yield median([seconds(lambda: recommender.recommend(users[-1])) for _ in range(20)])
    yield median(meanwhile)
    yield weight_of(folder)
    yield max(weights)


def command(folder: Path, method: str, user: str) -> Request:
    """Carry out a request by the command, and watch when the folder has another model."""
    started, before = time.perf_counter(), (folder / POINTER).read_bytes()
    arguments = (f"--checkpoint={folder}", f"--forget_where=user_id == '{user}'")
    process = subprocess.Popen(
        [*PROGRAM, "forget", *arguments, f"--model={method}", "--show_progress=False"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while (folder / POINTER).read_bytes() == before and process.poll() is None:
        time.sleep(0.02)
    in_place = time.perf_counter() - started
    if process.wait():
        raise RuntimeError(f"forget ended with {process.returncode}")
    return Request(in_place, time.perf_counter() - started)


def from_python(recommender: Recommender, method: str, user: str) -> Request:
    """Carry out a request by a loaded recommender."""
    started = time.perf_counter()
    report = recommender.forget(where=f"user_id == '{user}'", method=method, show_progress=False)
    assert report.seconds is not None  # each user is named once
    return Request(report.seconds, time.perf_counter() - started)


class Watch:
    """Asks for recommendations once a second, and weighs the folder, while others forget."""

    def __init__(
        self, recommender: Recommender, folder: Path, user: str, weights: list[float]
    ) -> None:
        self._ended, self._times = threading.Event(), list[float]()

        def ask() -> None:
            while not self._ended.wait(1.0):
                self._times.append(seconds(lambda: recommender.recommend(user)))
                weights.append(weight_of(folder))

        self._thread = threading.Thread(target=ask)
        self._thread.start()

    def end(self) -> list[float]:
        """Stop, and return how long each answer took."""
        self._ended.set()
        self._thread.join()
        return self._times


def weight_of(folder: Path) -> float:
    """Return what the files of a folder hold, in MB; some may go meanwhile."""
    size = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            size += path.stat().st_size if path.is_file() else 0
    return size / MEGABYTE


def median(values: list[float]) -> float:
    """Return the median; NaN of nothing."""
    return float(np.median(values)) if values else float("nan")


if __name__ == "__main__":
    run_main(main)
