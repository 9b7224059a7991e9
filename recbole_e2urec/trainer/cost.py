"""What training costs."""

import resource
import sys


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MB of 10**6 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6
