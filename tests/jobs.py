"""Jobs for worker processes, which import this file: it imports nothing heavy."""

import signal
from typing import Any


def die(latest: Any) -> None:
    """Be killed."""
    signal.raise_signal(signal.SIGKILL)


def count(latest: Any) -> int:
    """How many jobs of this kind the process had before."""
    jobs = latest.get("jobs", list)
    jobs.append("job")
    return len(jobs) - 1
