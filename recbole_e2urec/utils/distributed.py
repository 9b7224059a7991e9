"""Several processes that train and score one model together, on torch.distributed.

All processes do the same work, except that each takes its share of the rows of a training step and
of the prompts to score. The main process alone writes files. A single process is its own main
process, and nothing in this file costs it anything. The processes are described by the environment
variables that ``torchrun`` and ``accelerate launch`` set.
"""

import atexit
import gc
import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from recbole_e2urec.errors import InputError, one_line

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

T = TypeVar("T")
ENVIRONMENT = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# Variables of ``accelerate launch`` with values that do not do, and what to write instead.
_REFUSED = {
    "ACCELERATE_USE_DEEPSPEED": ("true", "deepspeed is not used; leave it out"),
    "ACCELERATE_USE_MEGATRON_LM": ("true", "Megatron-LM is not used; leave it out"),
    "ACCELERATE_USE_PARALLELISM_CONFIG": ("true", "processes share rows alone; leave it out"),
    "FSDP_VERSION": ("1", "write fsdp_version: 2"),
    "FSDP_OFFLOAD_PARAMS": ("true", "weights stay on their device; leave it out"),
    "FSDP_AUTO_WRAP_POLICY": ("size_based_wrap", "write TRANSFORMER_BASED_WRAP"),
    "ACCELERATE_MIXED_PRECISION": ("fp16 fp8", "write --mixed_precision=bf16, or no"),
}
_ACTS_ALONE = ContextVar("whether this runs inside single_process", default=False)


class PeerLostError(InputError):
    """Another process has ended or does not answer."""


class RemoteError(InputError):
    """An error of the main process, which also reports it itself."""


def count() -> int:
    """Return the number of processes."""
    return int(os.environ["WORLD_SIZE"]) if _launched() and not _ACTS_ALONE.get() else 1


def rank() -> int:
    """Return the rank of this process, from 0."""
    return int(os.environ["RANK"]) if count() > 1 else 0


def local_rank() -> int:
    """Return the rank of this process among those on its machine, from 0."""
    return int(os.environ["LOCAL_RANK"]) if count() > 1 else 0


def local_count() -> int:
    """Return the number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", count())) if count() > 1 else 1


def is_main_process() -> bool:
    """Whether this process writes files, logs and progress bars."""
    return rank() == 0


def joined() -> bool:
    """Whether the processes are connected to each other."""
    import torch

    return count() > 1 and torch.distributed.is_initialized()


def accelerate_settings() -> dict[str, Any]:
    """Return the settings, under our names, that ``accelerate launch`` and its config file make.

    Raises:
        InputError: they ask for something that this package does not do.
    """
    said = {name: value.lower() for name, value in os.environ.items()}
    for name, (values, remedy) in _REFUSED.items():
        if said.get(name) in values.split():
            raise InputError(f"accelerate launch: {name} is {os.environ[name]}; {remedy}")
    if said.get("ACCELERATE_DYNAMO_BACKEND", "no") != "no":
        raise InputError("accelerate launch: no dynamo_backend; write --backbone_compile=True")
    settings: dict[str, Any] = {}
    if said.get("ACCELERATE_USE_FSDP") == "true":
        settings["backbone_fsdp"] = True
        if said.get("FSDP_ACTIVATION_CHECKPOINTING") == "true":
            settings["backbone_gradient_checkpointing"] = True
    if said.get("ACCELERATE_USE_CPU") in ("true", "1", "yes"):
        settings["use_gpu"] = False
    if said.get("ACCELERATE_MIXED_PRECISION") == "bf16":
        settings["enable_amp"] = True
    return settings


def join(device: "torch.device", minutes: float) -> None:
    """Connect to the other processes; later calls do nothing.

    Args:
        device: cpu or cuda; with cuda, each process of a machine takes its own GPU.
        minutes: how long a process waits for another one.

    Raises:
        InputError: there are too few GPUs, or the other processes cannot be reached.
    """
    if count() == 1 or joined():
        return
    import torch
    from accelerate import PartialState

    if device.type == "cuda" and torch.cuda.device_count() < local_count():
        visible = torch.cuda.device_count()
        raise InputError(
            f"gpu_id: {local_count()} processes need a GPU each, {visible} are visible; write "
            "--gpu_id=0,1,..., or --use_gpu=False"
        )
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))  # or accelerate guesses
    with translate_dist_errors(minutes):
        state = PartialState(cpu=device.type == "cpu", timeout=timedelta(minutes=minutes))
    atexit.register(state.destroy_process_group)


def share(rows: T) -> T:
    """Return this process's share of an array, a list or a tensor: every ``count()``-th entry."""
    return rows if count() == 1 else rows[rank() :: count()]  # type: ignore[index]


def summed(values: "Tensor") -> "Tensor":
    """Add up a tensor over all processes, in place; it must be on the process's device."""
    if count() > 1:
        import torch

        with translate_dist_errors():
            torch.distributed.all_reduce(values)
    return values


def total(value: float) -> float:
    """Add up a number over all processes."""
    if count() == 1:
        return value
    import torch

    return float(summed(torch.tensor(value, dtype=torch.float64, device=device())))


def added(terms: dict[str, float]) -> dict[str, float]:
    """Add up named numbers over all processes; a name that a process lacks counts as 0."""
    sums: dict[str, float] = {}
    for process_terms in all_gather(terms):
        for name, value in process_terms.items():
            sums[name] = sums.get(name, 0.0) + value
    return sums if count() > 1 else terms


def all_gather(value: T) -> list[T]:
    """Return the value of each process, by rank."""
    if count() == 1:
        return [value]
    from accelerate.utils import gather_object

    with translate_dist_errors():
        return list(gather_object([value]))


def device() -> Any:
    """Return the device of this process, for tensors exchanged between joined processes."""
    from accelerate import PartialState

    return PartialState().device


def data_parallel(module: "nn.Module") -> "nn.Module":
    """Wrap a module by accelerate, so that a backward pass takes the mean over the processes.

    Precision, and sharding of the backbone, are settings of this package; what accelerate's own
    environment says of them is not applied to the module a second time.
    """
    from accelerate.utils import patch_environment

    with translate_dist_errors(), patch_environment(ACCELERATE_USE_FSDP="false"):
        accelerator = _accelerator()
        accelerator.free_memory()  # it would keep every module that it has wrapped
        wrapped: nn.Module = accelerator.prepare_model(module)
        return wrapped


@cache
def _accelerator() -> Any:
    from accelerate import Accelerator, DistributedDataParallelKwargs

    options = DistributedDataParallelKwargs(find_unused_parameters=True)
    is_cpu = device().type == "cpu"
    return Accelerator(cpu=is_cpu, mixed_precision="no", kwargs_handlers=[options])


@contextmanager
def single_process() -> Iterator[None]:
    """Act as the only process inside the block."""
    before = _ACTS_ALONE.set(True)
    try:
        yield
    finally:
        _ACTS_ALONE.reset(before)


@contextmanager
def translate_dist_errors(minutes: float | None = None) -> Iterator[None]:
    """Turn a RuntimeError in the block into a one-line error that another process is gone.

    Args:
        minutes: how long this process waited, for the message.

    Raises:
        PeerLostError: for any RuntimeError.
    """
    try:
        yield
    except RuntimeError as error:
        raise peer_lost(error, minutes) from error


def peer_lost(error: RuntimeError, minutes: float | None = None) -> PeerLostError:
    """Make the one-line error that another process is gone; see :func:`translate_dist_errors`."""
    waited = f" within {minutes:g} minutes" if minutes else ""
    return PeerLostError(
        f"process {rank()} of {count()}: another one is gone or did not answer{waited}, see "
        f"process_timeout ({one_line(error)[:150]}); the same command goes on"
    )


def print_utf8() -> None:
    """Let this process, and those that it starts, print UTF-8 whatever the locale is.

    What has no UTF-8 form, such as half of a surrogate pair, is printed as an escape.
    """
    os.environ["PYTHONIOENCODING"] = "utf-8:backslashreplace"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def collect_rarely() -> None:
    """Let Python look for garbage less often, and not at the exit: imports leave none.

    Starting and ending a program takes a third less time.
    """
    gc.set_threshold(50_000, 20, 100)
    atexit.register(gc.freeze)


def on_main_process(make: Callable[[], T]) -> T:
    """Run a function in the main process alone, and return its result in all processes.

    Inside the function, the main process acts as the only process.

    Raises:
        RemoteError: the function failed; the main process raises the error itself instead.
    """
    if count() == 1:
        return make()
    outcome: list[Any] = [None, None]  # value, message
    failure: Exception | None = None
    if is_main_process():
        with single_process():
            try:
                outcome[0] = make()
            except Exception as error:
                failure = error
                outcome[1] = str(error) if isinstance(error, InputError) else repr(error)
    value, message = _broadcast_objects(outcome)
    if failure is not None:
        raise failure
    if message is not None:
        raise RemoteError(message)
    return value


def broadcast(value: T) -> T:
    """Return the main process's value in all processes."""
    return value if count() == 1 else on_main_process(lambda: value)


def tensors_from_main_process(
    read: Callable[[], tuple[Mapping[str, "Tensor"], T]],
) -> tuple[dict[str, "Tensor"], T]:
    """Read tensors in the main process and send them to all processes.

    Args:
        read: returns named tensors on the CPU, and a value that goes with them.

    Returns:
        The tensors on the CPU, and the value.
    """
    if count() == 1:
        tensors, extra = read()
        return dict(tensors), extra
    import torch

    received: dict[str, Tensor] = {}

    def read_shapes() -> tuple[list[tuple[str, Any, Any]], T]:
        tensors, extra = read()
        received.update(tensors)
        return [(name, tensor.shape, tensor.dtype) for name, tensor in received.items()], extra

    shapes, extra = on_main_process(read_shapes)
    for name, shape, dtype in shapes:
        buffer = received[name] if is_main_process() else torch.empty(shape, dtype=dtype)
        buffer = buffer.to(device()).contiguous()
        with translate_dist_errors():
            torch.distributed.broadcast(buffer, src=0)
        received[name] = buffer.cpu()
    return received, extra


def check_alike(name: str, inputs: Mapping[str, Any]) -> None:
    """Refuse to train a stage whose inputs differ between processes.

    Args:
        name: name of the stage, for the message.
        inputs: this process's inputs by name.

    Raises:
        InputError: names the inputs that differ.
    """
    first, *others = all_gather(dict(inputs))
    for other_rank, other in enumerate(others, start=1):
        different = [key for key in first if first[key] != other[key]]
        if different:
            raise InputError(
                f"{name}: process {other_rank} has other {', '.join(different)} than process 0; "
                "start all of them with the same settings, on the same files"
            )


def main_process_only(error: InputError) -> bool:
    """Whether only the main process should report an error, and this is another process.

    This is so if the error came from the main process, or if the processes have not joined yet, as
    all of them then find the same error in their settings.
    """
    return not is_main_process() and (isinstance(error, RemoteError) or not joined())


def _launched() -> bool:
    return all(name in os.environ for name in ENVIRONMENT)


def _broadcast_objects(values: list[Any]) -> list[Any]:
    from accelerate.utils import broadcast_object_list

    with translate_dist_errors():
        return list(broadcast_object_list(values))
