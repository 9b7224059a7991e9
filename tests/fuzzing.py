"""What fuzz tests share. E2UREC_FUZZ=20000 tries so many inputs a test instead of a few."""

import os
from typing import Any

from hypothesis import HealthCheck, settings

from recbole_e2urec.errors import InputError


def budget(some: int) -> Any:
    """So many examples, which share the folder of the test and write its files anew."""
    asked = os.environ.get("E2UREC_FUZZ")
    return settings(
        max_examples=int(asked) if asked else some,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )


def one_line(error: InputError) -> None:
    """A clear line, which is not a whole file."""
    assert len(str(error).splitlines()) == 1
    assert len(str(error)) < 1_000
