"""Several processes that train and score one model together, on torch.distributed.

Each of them does the same, but for its share of the rows of a step and of the prompts that are
scored, and one of them, the writer, has the files. A process alone is its own writer, and all of
this costs it nothing. Who is there stands in the environment, as ``torchrun`` writes it.
"""

import atexit
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from recbole_e2urec.errors import InputError, one_line

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")
ENVIRONMENT = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_alone = False  # inside single_process


class PeerLostError(InputError):
    """Another process is gone, or does not answer."""


def count() -> int:
    """Number of processes."""
    return int(os.environ["WORLD_SIZE"]) if _launched() and not _alone else 1


def rank() -> int:
    """Place of this process, from 0."""
    return int(os.environ["RANK"]) if count() > 1 else 0


def local_rank() -> int:
    """Place of this process among those of its machine, from 0."""
    return int(os.environ["LOCAL_RANK"]) if count() > 1 else 0


def local_count() -> int:
    """Number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", count())) if count() > 1 else 1


def is_main_process() -> bool:
    """Whether this process writes files, logs and progress bars."""
    return rank() == 0


def joined() -> bool:
    """Whether the processes can talk to each other."""
    import torch

    return count() > 1 and torch.distributed.is_initialized()


def join(device: "torch.device", minutes: float) -> None:
    """Meet the others, on the device of this process; later calls do nothing.

    Args:
        device: cpu, or cuda, of which each process of a machine takes one.
        minutes: how long any process waits for another one.

    Raises:
        InputError: too few GPUs, or the others are not to be found.
    """
    if count() == 1 or joined():
        return
    import torch
    from accelerate import PartialState

    if device.type == "cuda" and torch.cuda.device_count() < local_count():
        found = torch.cuda.device_count()
        raise InputError(
            f"gpu_id: {local_count()} processes need a GPU each, {found} are visible; write "
            "--gpu_id=0,1,..., or --use_gpu=False"
        )
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))  # or accelerate guesses
    with translate_dist_errors(minutes):
        state = PartialState(cpu=device.type == "cpu", timeout=timedelta(minutes=minutes))
    atexit.register(state.destroy_process_group)


def share(rows: T) -> T:
    """This process's part of an array, a list or a tensor: every so many-th entry."""
    return rows if count() == 1 else rows[rank() :: count()]  # type: ignore[index]


def summed(values: "Tensor") -> "Tensor":
    """Add up the tensors of all processes, in place; they must be on its device."""
    if count() > 1:
        import torch

        with translate_dist_errors():
            torch.distributed.all_reduce(values)
    return values


def total(value: float) -> float:
    """Sum of the numbers of all processes."""
    if count() == 1:
        return value
    import torch

    return float(summed(torch.tensor(value, dtype=torch.float64, device=device())))


def added(terms: dict[str, float]) -> dict[str, float]:
    """Add up named numbers; a process that lacks one has 0."""
    sums: dict[str, float] = {}
    for part in all_gather(terms):
        for name, value in part.items():
            sums[name] = sums.get(name, 0.0) + value
    return sums if count() > 1 else terms


def all_gather(value: T) -> list[T]:
    """What all processes have for this value, by rank."""
    if count() == 1:
        return [value]
    from accelerate.utils import gather_object

    with translate_dist_errors():
        return list(gather_object([value]))


def _launched() -> bool:
    return all(name in os.environ for name in ENVIRONMENT)


def device() -> Any:
    """Where tensors travel from and arrive: of the processes that have joined."""
    from accelerate import PartialState

    return PartialState().device


@contextmanager
def single_process() -> Iterator[None]:
    """Act as the only process in the body."""
    global _alone
    _alone = True
    try:
        yield
    finally:
        _alone = False


@contextmanager
def translate_dist_errors(minutes: float | None = None) -> Iterator[None]:
    """Say in one line that another process is gone."""
    try:
        yield
    except RuntimeError as error:
        waited = f" within {minutes:g} minutes" if minutes else ""
        raise PeerLostError(
            f"process {rank()} of {count()}: another one is gone or did not answer{waited}, see "
            f"process_timeout ({one_line(error)[:150]}); the same command goes on"
        ) from error


if TYPE_CHECKING:
    from torch import Tensor


class RemoteError(InputError):
    """What went wrong in the writer, which says so itself."""


def on_main_process(make: Callable[[], T]) -> T:
    """Let the writer do it alone, and give what came of it, or went wrong, to all.

    What is done sees one process.
    """
    if count() == 1:
        return make()
    made: list[Any] = [None, None]
    failure: Exception | None = None
    if is_main_process():
        with single_process():
            try:
                made[0] = make()
            except Exception as error:
                failure = error
                made[1] = str(error) if isinstance(error, InputError) else repr(error)
    value, problem = _broadcast(made)
    if failure is not None:
        raise failure
    if problem is not None:
        raise RemoteError(problem)
    return value


def broadcast(value: T) -> T:
    """What the writer has for this value."""
    return value if count() == 1 else on_main_process(lambda: value)


def tensors_from_main_process(
    read: Callable[[], tuple[Mapping[str, "Tensor"], T]],
) -> tuple[dict[str, "Tensor"], T]:
    """Give all what the writer reads: named tensors, on the CPU, and what is said about them."""
    if count() == 1:
        tensors, more = read()
        return dict(tensors), more
    import torch

    found: dict[str, Tensor] = {}

    def listed() -> tuple[list[tuple[str, Any, Any]], T]:
        tensors, more = read()
        found.update(tensors)
        return [(name, one.shape, one.dtype) for name, one in found.items()], more

    names, more = on_main_process(listed)
    for name, shape, dtype in names:
        sent = found[name] if is_main_process() else torch.empty(shape, dtype=dtype)
        sent = sent.to(device()).contiguous()
        with translate_dist_errors():
            torch.distributed.broadcast(sent, src=0)
        found[name] = sent.cpu()
    return found, more


def check_alike(name: str, inputs: Mapping[str, Any]) -> None:
    """Refuse to train a stage on what differs between processes.

    Raises:
        InputError: names the input that differs.
    """
    first, *others = all_gather(dict(inputs))
    for place, other in enumerate(others, start=1):
        different = [key for key in first if first[key] != other[key]]
        if different:
            raise InputError(
                f"{name}: process {place} has other {', '.join(different)} than process 0; start "
                "all of them with the same settings, on the same files"
            )


def main_process_only(error: InputError) -> bool:
    """Whether the writer says it: it has told us, or all see the same in their settings."""
    return not is_main_process() and (isinstance(error, RemoteError) or not joined())


def _broadcast(values: list[Any]) -> list[Any]:
    from accelerate.utils import broadcast_object_list

    with translate_dist_errors():
        return list(broadcast_object_list(values))
