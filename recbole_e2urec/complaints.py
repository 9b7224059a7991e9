"""RecBole's many kinds of complaint as the one error that a user's input can cause."""

from collections.abc import Iterator
from contextlib import contextmanager

from recbole_e2urec.errors import InputError, one_line


@contextmanager
def as_input_errors() -> Iterator[None]:
    """Give ValueError and NotImplementedError as an InputError of one line.

    For calls into RecBole's checks of settings and data, not for training, where they are bugs.
    """
    try:
        yield
    except InputError:
        raise
    except (ValueError, NotImplementedError) as error:
        raise InputError(one_line(error)) from error
