"""The language of ``forget_where``: text to a tree of comparisons, by a parser of its own.

Python's ``ast`` would refuse ml-100k's ``class``, a keyword, and can crash on deep nesting; the
whole language is small::

    any   = all { "or" all }
    all   = not { "and" not }
    not   = "not" not | "(" any ")" | comparison
    comparison = operand { operator operand }     between a field and values
    operator   = "==" | "!=" | "<" | "<=" | ">" | ">=" | "in" | "not" "in"
    operand    = field | number | 'text' | "text" | "(" value { "," value } ")"

A field that is no word, or one of and, or, not, in, stands in backquotes. Nothing is evaluated as
code. Errors name places and fields, never the values that were typed.
"""

from collections.abc import Callable
from typing import NamedTuple

from recbole_e2urec.data.request.words import KEY, Token, Value, tokens_of
from recbole_e2urec.errors import InputError

DEEPEST = 50  # brackets and nots within each other
_ORDERS = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_OPERATORS = {"==", "!=", *_ORDERS, "in", "not in"}


class Comparison(NamedTuple):
    """A field against values: one of them, but for ``in``."""

    field: str
    operator: str  # ==, !=, <, <=, >, >=
    values: tuple[Value, ...]
    column: int  # where it begins, from 1


class Not(NamedTuple):
    """What does not fit."""

    part: "Node"


class Joined(NamedTuple):
    """What fits all of the parts, or any."""

    parts: tuple["Node", ...]
    needs_all: bool


Node = Comparison | Not | Joined


class _Operand(NamedTuple):
    field: str | None
    values: tuple[Value, ...]
    is_list: bool
    column: int


def parse(text: str) -> Node:
    """Read an expression.

    Raises:
        InputError: one line that says where it goes wrong.
    """
    return _Parser(tokens_of(text)).whole()


class _Parser:
    """Recursive descent; each method reads one rule of the grammar."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens, self.at, self.depth = tokens, 0, 0

    @property
    def now(self) -> Token:
        return self.tokens[self.at]

    def whole(self) -> Node:
        if self.now.kind == "end":
            raise InputError(f"{KEY} is empty; write a comparison such as class == 'Horror'")
        found = self.any()
        if self.now.kind != "end":
            raise self.now.wrong("and, or, or the end")
        return found

    def any(self) -> Node:
        return self.joined("or", self.all, needs_all=False)

    def all(self) -> Node:
        return self.joined("and", self.negated, needs_all=True)

    def joined(self, word: str, part: Callable[[], Node], needs_all: bool) -> Node:
        parts = [part()]
        while self.took(word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else Joined(tuple(parts), needs_all)

    def negated(self) -> Node:
        self.depth += 1
        if self.depth > DEEPEST:
            raise InputError(f"{KEY}, column {self.now.column}: nested over {DEEPEST} deep")
        try:
            if self.took("not"):
                return Not(self.negated())
            if self.now.text == "(" and not self.opens_values():
                self.at += 1
                found = self.any()
                self.need(")")
                return found
            return self.comparison()
        finally:
            self.depth -= 1

    def opens_values(self) -> bool:
        """Whether the bracket here opens a list of values rather than an expression."""
        kinds = [token.kind for token in self.tokens[self.at + 1 : self.at + 3]]
        closes = self.tokens[min(self.at + 2, len(self.tokens) - 1)].text
        return kinds[0] in ("number", "text") and closes in (",", ")")

    def comparison(self) -> Node:
        left = self.operand()
        parts = []
        while (operator := self.operator()) is not None:
            right = self.operand()
            parts.append(_compared(left, operator, right))
            left = right
        if not parts:
            raise self.now.wrong("a comparison: ==, !=, <, <=, >, >=, in or not in")
        return parts[0] if len(parts) == 1 else Joined(tuple(parts), needs_all=True)

    def operator(self) -> str | None:
        text = self.now.text if self.now.kind in ("sign", "word") else ""
        if text == "not" and self.tokens[self.at + 1].text == "in":
            self.at += 2
            return "not in"
        if text in _OPERATORS:
            self.at += 1
            return text
        return None

    def operand(self) -> _Operand:
        token = self.now
        if token.is_field:
            self.at += 1
            return _Operand(token.text.strip("`"), (), False, token.column)
        if token.text in ("(", "[") and token.kind == "sign":
            self.at += 1
            values = [self.value()]
            closing = ")" if token.text == "(" else "]"
            while self.took(","):
                if self.now.text != closing:
                    values.append(self.value())
            self.need(closing)
            return _Operand(None, tuple(values), True, token.column)
        return _Operand(None, (self.value(),), False, token.column)

    def value(self) -> Value:
        found = self.now.value()
        self.at += 1
        return found

    def took(self, text: str) -> bool:
        found = self.now.text == text and self.now.kind in ("word", "sign")
        self.at += found
        return found

    def need(self, text: str) -> None:
        if not self.took(text):
            raise self.now.wrong(repr(text))


def _compared(left: _Operand, operator: str, right: _Operand) -> Node:
    """One comparison with the field on its left, or a list of values for ``in``."""
    where = f"{KEY}, column {left.column}"
    if (left.field is None) == (right.field is None):
        raise InputError(f"{where}: compare a field with values, not two fields or two values")
    if operator in ("in", "not in"):
        found: Node = _membership(where, left, right)
        return Not(found) if operator == "not in" else found
    if left.is_list or right.is_list:
        raise InputError(f"{where}: a list of values goes with in or not in")
    if left.field is None:
        return Comparison(
            str(right.field), _ORDERS.get(operator, operator), left.values, left.column
        )
    return Comparison(left.field, operator, right.values, left.column)


def _membership(where: str, left: _Operand, right: _Operand) -> Comparison:
    """``field in (values)``, or ``value in field`` for fields of several tokens."""
    if left.field is None and not left.is_list:
        return Comparison(str(right.field), "has", left.values, left.column)
    if left.field is not None and right.is_list:
        return Comparison(left.field, "==", right.values, left.column)
    raise InputError(f"{where}: write field in ('a', 'b'), or 'a' in field")
