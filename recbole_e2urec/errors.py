"""The one exception that a user's input can cause."""


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
