"""What is to run, in processes that RecBole's own flags ask for (``--nproc=2``), or by workers.

torch's elastic launch is not used: it stops all processes when the first one fails, so that the one
that knows the cause may not report it, and it numbers processes by itself (``group_offset``).
"""

import json
import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from recbole_e2urec.config.keys import LAUNCHING, protocol
from recbole_e2urec.config.schema import AUTO, build_options, check_values, option, option_class
from recbole_e2urec.config.yaml import parse_value, properties_folder, read_switch, read_yaml
from recbole_e2urec.errors import InputError
from recbole_e2urec.utils import distributed
from recbole_e2urec.utils.distributed import PeerLostError

if TYPE_CHECKING:
    from recbole_e2urec.config.config import Config

T = TypeVar("T")

START = "spawn"  # fresh processes: a GPU cannot be shared with a fork of this one
MADE = "made"
DATA_LOG = "recbole_e2urec.data.dataset"  # the logger of what the data hold
GRACE = 10.0  # seconds that other processes have to report errors after one has failed
ONE_RUN = {"model_list": None, "seeds": None, "tune": 0}  # other values ask for a comparison
_ACCELERATE = ("launch", "accelerate-launch.exe")  # how the name of its command ends
NO_RESULT: dict[str, Any] = {"rows": [], "groups": {}, "results_file": ""}


class Latest:
    """A cache of one value, such as a trained run, which the jobs of a process share."""

    def __init__(self) -> None:
        self._key: Hashable = None
        self._value: Any = None

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the value of this key, created unless it is the cached one."""
        if key != self._key:
            self._key = self._value = None  # free the old value before creating another
            self._value, self._key = make(), key
        value: T = self._value
        return value


Job = Callable[[Latest], Any]


@contextmanager
def workers_of(processes: int) -> Iterator[Callable[[Iterable[Job]], Iterator[Any]]]:
    """Yield a function that runs jobs in worker processes and returns their results in order.

    The processes are spawned and share the machine's cores equally, unless OMP_NUM_THREADS is set.
    With one process, jobs run in this one. What the data hold is logged once.

    Raises:
        InputError: a process died.
    """
    if processes == 1:
        latest, once = Latest(), _LoggedOnce(Lock())
        logging.getLogger(DATA_LOG).addFilter(once)
        try:
            yield lambda jobs: (job(latest) for job in jobs)
        finally:
            logging.getLogger(DATA_LOG).removeFilter(once)
        return
    context = get_context(START)
    try:
        with (
            cores_shared(processes),
            ProcessPoolExecutor(processes, context, _begin_worker, (context.Lock(),)) as pool,
        ):
            yield partial(pool.map, _run)
    except BrokenProcessPool as error:
        raise InputError(
            f"nproc_rows: one of its {processes} processes died: killed, out of memory, or started "
            "by a script that does not check __name__ == '__main__'; the same command goes on"
        ) from error


class _LoggedOnce(logging.Filter):
    """Lets one process log each line, and only the first time.

    Args:
        lock: is taken by the first process that logs a line, and never released.
    """

    def __init__(self, lock: Any) -> None:
        super().__init__()
        self._lock, self._mine, self._lines = lock, False, set[str]()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log a line."""
        line = record.getMessage()
        self._mine = self._mine or self._lock.acquire(False)
        is_new = line not in self._lines
        self._lines.add(line)
        return self._mine and is_new


def _begin_worker(lock: Any) -> None:
    distributed.collect_rarely()
    logging.getLogger(DATA_LOG).addFilter(_LoggedOnce(lock))


@cache
def _worker_cache() -> Latest:
    """Return the cache that all jobs of a worker process share."""
    return Latest()


def _run(job: Job) -> Any:
    """Run a job in a worker process."""
    return job(_worker_cache())


@contextmanager
def cores_shared(processes: int) -> Iterator[None]:
    """Give processes that start in the body an equal share of the machine's cores."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = before or str(max(1, (os.cpu_count() or 1) // processes))
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]


@dataclass(frozen=True)
class ComparisonSpec:
    """What to compare.

    Attributes:
        models: names, in the order of the table.
        seeds: every model is run with each of them; None: the seed in the settings.
        processes: how many rows are computed at the same time; None: :meth:`workers` says.
        tries: how many settings of every method are tried first; 0 = take its defaults.
        show: whether to show progress.
        prompts: how many prompts to show instead of running the comparison; 0 = run it.
    """

    models: list[str]
    seeds: list[int | None]
    processes: int | None
    tries: int
    show: bool
    prompts: int = 0

    @classmethod
    def of(cls, layers: Sequence[Mapping[str, Any]], model: str | None = None) -> "ComparisonSpec":
        """Read the settings; later layers win. Without a ``model_list``, one model is compared.

        Raises:
            InputError: a value is invalid; the message names its key.
        """
        models = _listed(layers, "model_list", [])
        if models and model is not None:
            raise InputError(f"--model={model} and a model_list; give one of them")
        seeds = _listed(layers, "seeds", [])
        for seed in seeds:
            check_values({"seed": _whole("seeds", seed, 0)}, {})
        processes = _last(layers, "nproc_rows", 1)
        return cls(
            [str(model) for model in models or [model or _named(layers)]],
            seeds or [None],
            None if processes == AUTO else _whole("nproc_rows", processes, 1),
            _whole("tune", _last(layers, "tune", 0), 0),
            read_switch(_last(layers, "show_progress", True), "show_progress"),
            _whole("show_prompts", _last(layers, "show_prompts", 0), 0),
        )

    def workers(self, config: "Config") -> int:
        """Return how many rows are computed at the same time.

        Unless a number is given, these are two for a small model that is trained on a CPU with two
        threads or more, and one elsewhere. Two processes of one thread train such a model faster
        than one of two threads.
        """
        import torch

        from recbole_e2urec.model.backbones.tiny import EMBEDDED

        if self.processes is not None:
            return self.processes
        small = config["backbone"] in EMBEDDED and str(config["device"]) == "cpu"
        together = distributed.count() > 1
        return 2 if small and not together and torch.get_num_threads() > 1 else 1


def _listed(layers: Sequence[Mapping[str, Any]], key: str, default: list[Any]) -> list[Any]:
    """Return the values of a key that holds a list; text is split at its commas."""
    value = _last(layers, key, None)
    if value is None:
        return default
    if isinstance(value, str):
        value = [parse_value(part.strip(), key) for part in value.strip("[]").split(",")]
    values = value if isinstance(value, list) else [value]
    if not values or any(part in ("", None) for part in values):
        raise InputError(f"{key} is empty, or a part of it is; write --{key}=A,B")
    if len({str(part) for part in values}) < len(values):
        raise InputError(f"{key}: something is named twice in {values}")
    return values


def _named(layers: Sequence[Mapping[str, Any]]) -> str:
    """Return the one model that the settings name."""
    overall = read_yaml(properties_folder() / "overall.yaml")
    default = {**overall, **protocol(_last(layers, "protocol", None))}["model"]
    return str(_last(layers, "model", default))


def _last(layers: Sequence[Mapping[str, Any]], key: str, default: Any) -> Any:
    """Return the value of the last layer that has the key; text is read as on the command line."""
    for layer in reversed(layers):
        if key in layer:
            value = layer[key]
            return parse_value(value, key) if isinstance(value, str) else value
    return default


def _whole(key: str, value: Any, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{key}: {value!r} does not do; whole numbers from {least} on do")
    return value


@option_class()
class Launch:
    """The processes of a run, with RecBole's names for the options."""

    nproc: int = option(
        "Processes on this machine that share every step and every pass of scoring; torchrun does "
        "as well."
    )
    world_size: int | None = option("Processes on all machines; ~ or -1 = nproc.")
    ip: str = option("Address of the machine with the first process.")
    port: int | None = option("A free port there; ~ = any, where all processes are on one machine.")
    group_offset: int = option("Processes on the machines before this one.")
    process_timeout: float = option(
        "Minutes that a process waits for another one before the run ends.", gt=0
    )

    @classmethod
    def of(cls, layers: Sequence[Mapping[str, Any]]) -> "Launch":
        """Read the settings; later layers win.

        Raises:
            InputError: a value is invalid, or does not fit the processes of ``torchrun``.
        """
        settings = read_yaml(properties_folder() / "overall.yaml")
        given = {key: layer[key] for layer in layers for key in LAUNCHING if key in layer}
        for key, value in given.items():
            if isinstance(value, str) and key != "ip":
                given[key] = parse_value(value, key)
        for key, value in _wanted_by_accelerate().items():
            if given.setdefault(key, value) != value:
                raise InputError(
                    f"{key} is {given[key]}, but accelerate launch says {value}; leave it out"
                )
        return build_options(cls, {**settings, **given})

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        if self.nproc < 1:  # the same message as from check_values
            raise InputError(
                f"nproc: {self.nproc!r} does not do; a whole number from 1 on is needed"
            )
        if not 0 <= self.group_offset <= self.total - self.nproc:
            raise InputError(
                f"group_offset is {self.group_offset}: of {self.total} processes (world_size), "
                f"{self.nproc} are started here (nproc), and that many lie before them"
            )
        if self.total > self.nproc and (self.port is None or self.ip == "localhost"):
            raise InputError(
                f"world_size: {self.total} processes on several machines need the ip and a free "
                "port of the first one; write --ip=10.0.0.1 --port=5678"
            )
        here = distributed.local_count()
        if here > 1 and self.nproc not in (1, here):
            raise InputError(
                f"nproc is {self.nproc}, but {here} processes were started; drop nproc"
            )

    @property
    def total(self) -> int:
        """Number of processes on all machines."""
        return self.nproc if self.world_size in (None, -1) else int(self.world_size or 0)

    @property
    def is_needed(self) -> bool:
        """Whether processes must be started, because neither torchrun nor this class did so."""
        return self.total > 1 and distributed.count() == 1

    def run(self, job: Callable[..., Any], job_arguments: Mapping[str, Any]) -> Any:
        """Run a job in all processes of this machine.

        Args:
            job: a module-level function; its result must be serialisable as JSON.
            job_arguments: arguments of the job by name.

        Returns:
            The job's result in the main process; :data:`NO_RESULT` on any other machine.

        Raises:
            InputError: the job got bad input, or a process died.
        """
        from torch import multiprocessing

        logging.getLogger("torch.multiprocessing.spawn").setLevel(
            logging.ERROR
        )  # _reason reports it
        port = self.port or _free_port()
        with TemporaryDirectory() as name, cores_shared(self.nproc):
            folder = Path(name)
            arguments = self, port, folder, job, dict(job_arguments)
            context: Any = multiprocessing.start_processes(
                _enter, arguments, self.nproc, False, start_method=START
            )
            try:
                while not context.join(grace_period=GRACE):
                    pass
            except multiprocessing.ProcessExitedException as error:
                codes = [process.exitcode for process in context.processes]
                raise self._reason(folder, codes, error.error_index) from error
            finally:
                for process in context.processes:
                    process.terminate()
            result = folder / MADE
            return json.loads(result.read_text()) if result.is_file() else dict(NO_RESULT)

    def _reason(self, folder: Path, codes: Sequence[int], first: int) -> Exception:
        """Return the error that ended a run; a cause takes precedence over its consequences.

        Args:
            folder: where each process that could do so reported its error.
            codes: exit codes of all processes.
            first: the process that was seen to end first.
        """
        failures = [json.loads(path.read_text()) for path in sorted(folder.glob("*.failed"))]
        for cause in (failure for failure in failures if failure["kind"] != PeerLostError.__name__):
            if cause["kind"] == OSError.__name__:
                return OSError(*cause["arguments"])
            known = cause["kind"] == InputError.__name__
            return (InputError if known else RuntimeError)(cause["message"])
        ended = sorted(
            range(len(codes)), key=lambda failure: (failure != first, codes[failure] >= 0)
        )
        for number in ended:
            if codes[number] and not (folder / f"{number}.failed").is_file():
                how = "did not start: the script must check __name__ == '__main__'; then"
                if codes[number] < 0:
                    how = f"was killed by {signal.Signals(-codes[number]).name};"
                place = f"process {self.group_offset + number} of {self.total}"
                return InputError(f"nproc: {place} {how} the same command goes on")
        return InputError(failures[0]["message"])

    def environment(self, number: int, port: int) -> dict[str, str]:
        """Return the environment variables that ``torchrun`` would set for this local rank."""
        return {
            "RANK": str(self.group_offset + number),
            "LOCAL_RANK": str(number),
            "WORLD_SIZE": str(self.total),
            "LOCAL_WORLD_SIZE": str(self.nproc),
            "MASTER_ADDR": self.ip,
            "MASTER_PORT": str(port),
        }


def _wanted_by_accelerate() -> dict[str, Any]:
    """Return settings of the processes that ``accelerate launch`` leaves to others to start.

    On CPUs, it starts a single process, and tells it only where the first one is. How many there
    are to be is in its command line and its config file, which its own parser reads.

    Raises:
        InputError: these cannot be read.
    """
    told = os.environ.keys() >= {"ACCELERATE_USE_CPU", "MASTER_ADDR", "MASTER_PORT"}
    if not told or "RANK" in os.environ:
        return {}
    import psutil
    from accelerate.commands import launch

    words = psutil.Process(os.getppid()).cmdline()
    start = next((n for n, word in enumerate(words, 1) if word.endswith(_ACCELERATE)), len(words))
    logging.getLogger(launch.__name__).setLevel(logging.ERROR)  # it has warned already
    try:
        asked = launch._validate_launch_command(
            launch.launch_command_parser().parse_args(words[start:])
        )[0]
    except SystemExit as error:
        raise InputError(
            "accelerate launch asks for several processes, but started one, and its command line "
            "cannot be read; write --nproc=2, or use torchrun"
        ) from error
    machines, total = asked.num_machines or 1, asked.num_processes
    settings = {"nproc": total // machines}
    if machines > 1:
        settings["world_size"] = total
        settings["group_offset"] = (asked.machine_rank or 0) * settings["nproc"]
        settings["ip"] = asked.main_process_ip
    if asked.main_process_port:
        settings["port"] = asked.main_process_port
    return settings


def layers_of(
    files: Sequence[Any] | None,
    config_dict: Mapping[str, Any] | None,
    overrides: Mapping[str, Any] | None,
) -> list[Mapping[str, Any]]:
    """Return the layers of settings; later ones win. Arguments as of ``run_recbole_e2urec``."""
    return [*(read_yaml(Path(file)) for file in files or ()), config_dict or {}, overrides or {}]


def compares(layers: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the settings ask for several models, seeds or trials; later layers win."""
    given = {key: layer[key] for layer in layers for key in ONE_RUN if key in layer}
    return any(
        (parse_value(value, key) if isinstance(value, str) else value) != ONE_RUN[key]
        for key, value in given.items()
    )


def _enter(
    number: int,
    launch: Launch,
    port: int,
    folder: Path,
    job: Callable[..., Any],
    job_arguments: Mapping[str, Any],
) -> None:
    """Run the job in this process, and write its result or its error to a file in the folder."""
    os.environ.update(launch.environment(number, port))
    failed = folder / f"{number}.failed"
    try:
        result = job(**job_arguments)
        if distributed.is_main_process():
            (folder / MADE).write_text(json.dumps(result))
    except InputError as error:
        kind = PeerLostError.__name__ if isinstance(error, PeerLostError) else InputError.__name__
        _leave(failed, {"kind": kind, "message": str(error)})
    except OSError as error:
        arguments = [error.errno, error.strerror, error.filename]
        _leave(failed, {"kind": OSError.__name__, "arguments": arguments})
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if isinstance(error, RuntimeError) and ("gloo" in str(error) or "NCCL" in str(error)):
            lost = distributed.peer_lost(error)  # such as in a pass of a sharded backbone
            _leave(failed, {"kind": PeerLostError.__name__, "message": str(lost)})
        _leave(failed, {"kind": "", "message": traceback.format_exc()})


def _leave(path: Path, reason: Mapping[str, Any]) -> NoReturn:
    path.write_text(json.dumps(reason))
    sys.exit(2)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return int(listener.getsockname()[1])
