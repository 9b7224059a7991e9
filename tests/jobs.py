"""Jobs for worker processes, which import this file: it imports nothing heavy."""

import logging
import os
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


def say(latest: Any) -> tuple[int, list[str]]:
    """Log what data hold; return the number of the process, and what came through."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("recbole_e2urec.data.dataset")
    logger.addHandler(handler)
    logger.warning("%d rows", 288)
    logger.removeHandler(handler)
    return os.getpid(), lines
