"""The memory gauge."""

import resource
import sys

import numpy as np
import pytest

from recbole_e2urec.trainer.training_log import peak_memory_mb, restart_peak


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not restart the gauge")
def test_memory_that_was_given_back_before_does_not_count() -> None:
    restart_peak()
    before = peak_memory_mb()
    held = np.ones(25_000_000)  # 200 MB
    assert peak_memory_mb() - before == pytest.approx(held.nbytes / 1e6, abs=20)
    del held
    assert peak_memory_mb() - before > 180
    restart_peak()
    assert peak_memory_mb() - before < 20


def test_without_proc_it_is_the_system_s_own_count(monkeypatch: pytest.MonkeyPatch) -> None:
    from recbole_e2urec.trainer import training_log

    monkeypatch.setattr(training_log, "_PROCESS", training_log.Path("/nowhere"))
    restart_peak()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024
    assert peak_memory_mb() == pytest.approx(peak * unit / 1e6)
