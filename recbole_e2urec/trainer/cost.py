"""What training costs."""

import re
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

REQUESTS = (1, 10, 100)  # over so many, what was trained before any of them is spread
_PROCESS = Path("/proc/self")  # Linux only
_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


def restart_peak() -> None:
    """Let :func:`peak_memory_mb` count from here on; without Linux it goes on as before."""
    with suppress(OSError):
        (_PROCESS / "clear_refs").write_text("5")
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def memory_used() -> dict[str, float]:
    """``peak_memory_mb``, and ``peak_gpu_memory_mb`` (of tensors) where a GPU is used."""
    used = {"peak_memory_mb": peak_memory_mb()}
    if torch.cuda.is_initialized():
        used["peak_gpu_memory_mb"] = torch.cuda.max_memory_allocated() / 1e6
    return used


def peak_memory_mb() -> float:
    """Largest resident memory of this process, in MB of 10**6 bytes."""
    with suppress(OSError):
        found = _PEAK.search((_PROCESS / "status").read_text())
        if found is not None:
            return int(found[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


def amortised(seconds: float, prior: float) -> dict[str, float]:
    """Seconds a request, if what was trained before any request serves so many of them."""
    return {str(count): seconds + prior / count for count in REQUESTS}
