"""Shared by the tests of model folders."""

from collections.abc import Iterator

import pytest

from recbole_e2urec.evaluator import attacks


@pytest.fixture(scope="module")
def short_relearning() -> Iterator[None]:
    """Measure relearning after fewer steps, which takes a tenth of the time of a request."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attacks, "CURVE_STEPS", (0, 1, 2))
        yield
