"""The words of ``forget_where``: fields, values, signs, each with the column where it is."""

import math
import re
from typing import NamedTuple

from recbole_e2urec.errors import InputError

LONGEST = 10_000  # characters
KEY = "forget_where"
WORDS = ("and", "or", "not", "in")
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)(?![\w.])
    | (?P<text>'(?:[^'\\]|\\.)*' | "(?:[^"\\]|\\.)*")
    | (?P<field>`[^`]+`)
    | (?P<word>[^\W\d]\w*)
    | (?P<sign>==|!=|<=|>=|[<>(),\[\]])
    | (?P<end>\Z)
    )""",
    re.VERBOSE | re.DOTALL,
)


class Value(NamedTuple):
    """A value as it was typed."""

    text: str
    number: float | None  # None for text in quotes


class Token(NamedTuple):
    """A piece of the text."""

    kind: str  # number, text, field, word, sign or end
    text: str
    column: int  # where it begins, from 1

    @property
    def is_field(self) -> bool:
        """Whether it names a field."""
        return self.kind == "field" or (self.kind == "word" and self.text not in WORDS)

    @property
    def shown(self) -> str:
        """For messages: values and unknown words are not repeated."""
        if self.kind == "sign" or self.text in WORDS:
            return repr(self.text)
        shown = {"number": "a number", "text": "a text", "end": "the end"}
        return shown.get(self.kind, "a word")

    def value(self) -> Value:
        """The value that it stands for.

        Raises:
            InputError: it stands for none, or for no finite number.
        """
        if self.kind == "text":
            return Value(re.sub(r"\\(.)", r"\1", self.text[1:-1], flags=re.DOTALL), None)
        if self.kind != "number":
            raise self.wrong("a field, a number or a quoted text")
        if not math.isfinite(float(self.text)):
            raise InputError(f"{KEY}, column {self.column}: this number is too large")
        return Value(self.text, float(self.text))

    def wrong(self, wanted: str) -> InputError:
        """The error of a token in the wrong place."""
        return InputError(f"{KEY}, column {self.column}: {wanted} is needed, not {self.shown}")


def tokens_of(text: str) -> list[Token]:
    """Take an expression apart; the last token is its end.

    Raises:
        InputError: too long a text, or a character that no token begins with.
    """
    if len(text) > LONGEST:
        raise InputError(f"{KEY}: {len(text):,} characters where {LONGEST:,} do; use a forget_file")
    tokens: list[Token] = []
    at = 0
    while not tokens or tokens[-1].kind != "end":
        match = _TOKEN.match(text, at)
        if match is None:
            start = at + len(text[at:]) - len(text[at:].lstrip())
            raise InputError(f"{KEY}, column {start + 1}: {_mistake(text[start])}")
        kind = str(match.lastgroup)
        tokens.append(Token(kind, match[kind], match.start(kind) + 1))
        at = match.end()
    return tokens


def without_values(text: str) -> str:
    """The expression without its values, which may name people: ``class == ?``."""
    shown = {"number": "?", "text": "?"}
    return " ".join(shown.get(one.kind, one.text) for one in tokens_of(text)).strip()


def _mistake(character: str) -> str:
    if character in "'\"`":
        return "this quote is not closed"
    if character == "=":
        return "write == to compare"
    if character in "&|!~":
        return "write and, or, not"
    return "this character does not belong here"
