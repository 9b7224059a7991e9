"""What one of several processes does for all: reading files, deciding, saying what is wrong."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from recbole_e2urec.errors import InputError
from recbole_e2urec.processes import (
    by_itself,
    count,
    device,
    gathered,
    is_writer,
    joined,
    talking,
)

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


class Told(InputError):
    """What went wrong in the writer, which says so itself."""


def from_writer(make: Callable[[], T]) -> T:
    """Let the writer do it alone, and give what came of it, or went wrong, to all.

    What is done sees one process.
    """
    if count() == 1:
        return make()
    made: list[Any] = [None, None]
    failure: Exception | None = None
    if is_writer():
        with by_itself():
            try:
                made[0] = make()
            except Exception as error:
                failure = error
                made[1] = str(error) if isinstance(error, InputError) else repr(error)
    value, problem = _broadcast(made)
    if failure is not None:
        raise failure
    if problem is not None:
        raise Told(problem)
    return value


def agreed(value: T) -> T:
    """What the writer has for this value."""
    return value if count() == 1 else from_writer(lambda: value)


def tensors_from_writer(
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

    names, more = from_writer(listed)
    for name, shape, dtype in names:
        sent = found[name] if is_writer() else torch.empty(shape, dtype=dtype)
        sent = sent.to(device()).contiguous()
        with talking():
            torch.distributed.broadcast(sent, src=0)
        found[name] = sent.cpu()
    return found, more


def check_alike(name: str, inputs: Mapping[str, Any]) -> None:
    """Refuse to train a stage on what differs between processes.

    Raises:
        InputError: names the input that differs.
    """
    first, *others = gathered(dict(inputs))
    for place, other in enumerate(others, start=1):
        different = [key for key in first if first[key] != other[key]]
        if different:
            raise InputError(
                f"{name}: process {place} has other {', '.join(different)} than process 0; start "
                "all of them with the same settings, on the same files"
            )


def leaves_it_to_writer(error: InputError) -> bool:
    """Whether the writer says it: it has told us, or all see the same in their settings."""
    return not is_writer() and (isinstance(error, Told) or not joined())


def _broadcast(values: list[Any]) -> list[Any]:
    from accelerate.utils import broadcast_object_list

    with talking():
        return list(broadcast_object_list(values))
