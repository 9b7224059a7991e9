"""Tokens of a ``forget_where`` expression: fields, values and signs, each with its column."""

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
    """A token of the expression."""

    kind: str  # number, text, field, word, sign or end
    text: str
    column: int  # where it begins, from 1

    @property
    def is_field(self) -> bool:
        """Whether it names a field."""
        return self.kind == "field" or (self.kind == "word" and self.text not in WORDS)

    @property
    def shown(self) -> str:
        """The token in a message, which must not repeat values or unknown words."""
        if self.kind == "sign" or self.text in WORDS:
            return repr(self.text)
        shown = {"number": "a number", "text": "a text", "end": "the end"}
        return shown.get(self.kind, "a word")

    def value(self) -> Value:
        """Return the value of the token.

        Raises:
            InputError: the token is no value, or its number is not finite.
        """
        if self.kind == "text":
            return Value(re.sub(r"\\(.)", r"\1", self.text[1:-1], flags=re.DOTALL), None)
        if self.kind != "number":
            raise self.wrong("a field, a number or a quoted text")
        if not math.isfinite(float(self.text)):
            raise InputError(f"{KEY}, column {self.column}: this number is too large")
        return Value(self.text, float(self.text))

    def wrong(self, wanted: str) -> InputError:
        """Create the error for a token in the wrong place."""
        return InputError(f"{KEY}, column {self.column}: {wanted} is needed, not {self.shown}")


def tokens_of(text: str) -> list[Token]:
    """Split an expression into tokens, of which the last marks the end.

    Raises:
        InputError: the text is too long, or has a character that cannot start a token.
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
    """Return the expression without its values, which may name people: ``class == ?``."""
    shown = {"number": "?", "text": "?"}
    return " ".join(shown.get(token.kind, token.text) for token in tokens_of(text)).strip()


def _mistake(character: str) -> str:
    if character in "'\"`":
        return "this quote is not closed"
    if character == "=":
        return "write == to compare"
    if character in "&|!~":
        return "write and, or, not"
    return "this character does not belong here"
