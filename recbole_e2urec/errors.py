"""The exceptions that a user's input can cause, and how they suggest a name."""

import difflib
import errno
from collections.abc import Iterable

# Codes of the OSError of a disk that is full or may not be written to, and of names that belong to
# something else. EPERM is that of a file which is protected by more than its mode, and of some
# mounted and network disks.
DISK_ERRORS = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EEXIST,
    errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP,
}  # fmt: skip


class InputError(ValueError):
    """Bad input: one line that says what was given, where, and what would do.

    The command line prints the line and exits with code 2; from Python it is a ``ValueError``.
    Whatever it quotes, it is one line.
    """

    def __init__(self, message: object) -> None:
        super().__init__(" ".join(str(message).splitlines()))


class Diverged(InputError):
    """Training that came to nothing: a loss or scores that are no numbers."""


def one_line(error: BaseException) -> str:
    """What an exception of somebody else's says, without its line ends."""
    return " ".join(str(error).split())


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint such as `; did you mean 'title'?`, or the known names when none is close."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(names)}"
