"""A filter over features: the rows that fit an expression."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec.data.request.fields import Fields
from recbole_e2urec.data.request.grammar import Comparison, Node, Not, parse
from recbole_e2urec.data.request.moments import check_seconds, moment
from recbole_e2urec.data.request.values import Column, number_of
from recbole_e2urec.data.request.words import KEY, Value
from recbole_e2urec.errors import InputError

Mask = NDArray[np.bool_]
ColumnOf = Callable[[str, int], Column]
_ORDER: dict[str, Callable[[Any, Any], Any]] = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


class Filtered(NamedTuple):
    """Rows that fit, and what is odd about the expression."""

    chosen: Mask  # [n]
    warnings: list[str]


def filter_rows(text: str, fields: Fields) -> Filtered:
    """Find the rows that fit an expression; see :mod:`recbole_e2urec.data.request.grammar`.

    A field of several tokens fits where any of them does, so that ``!=`` fits where none is equal.
    A missing value is equal to nothing and neither above nor below anything.

    Raises:
        InputError: an expression that does not parse, a field that is not there, or a value that
            cannot be compared with it; names the place.
    """
    warnings: list[str] = []
    known: dict[str, Column] = {}

    def column(name: str, place: int) -> Column:
        if name not in known:
            known[name] = fields.column(name, place)
        return known[name]

    return Filtered(_fits(parse(text), column, warnings), warnings)


def _fits(node: Node, column_of: ColumnOf, warnings: list[str]) -> Mask:  # -> [n]
    if isinstance(node, Not):
        return ~_fits(node.part, column_of, warnings)
    if isinstance(node, Comparison):
        column = column_of(node.field, node.column)
        fitting = _holds(node, column)
        found = np.zeros(column.owners, dtype=bool)
        found[column.owner[fitting]] = True
        found = found[column.spread]
        if not found.any():
            warnings.append(f"{KEY}, column {node.column}: no value of {node.field!r} fits")
        return ~found if node.operator == "!=" else found
    parts = [_fits(part, column_of, warnings) for part in node.parts]
    return np.logical_and.reduce(parts) if node.needs_all else np.logical_or.reduce(parts)


def _holds(node: Comparison, column: Column) -> Mask:  # -> [m]
    """Which values fit; those of ``!=`` are the equal ones."""
    where = f"{KEY}, column {node.column}"
    if node.operator == "has" and not column.is_sequence:
        raise InputError(f"{where}: {node.field!r} holds one value; write == or in (...)")
    if column.kind == "token":
        return _tokens_hold(where, node, column)
    found = np.zeros(len(column.values), dtype=bool)
    for value in node.values:
        first, last = _interval(where, node.field, value, column)
        if node.operator in _ORDER:
            edge = first if node.operator in ("<", ">=") else last
            found |= _ORDER[node.operator](column.values, edge)
        else:
            found |= (column.values >= first) & (column.values <= last)
    return found


def _tokens_hold(where: str, node: Comparison, column: Column) -> Mask:  # -> [m]
    """Tokens are equal as text; where a number is above or below, they are read as numbers."""
    if node.operator in _ORDER:
        (value,) = node.values
        if value.number is None:
            raise InputError(
                f"{where}: {node.field!r} holds tokens; give a number after {node.operator}"
            )
        numbers = np.array([number_of(one) for one in column.values], dtype=np.float64)
        return np.asarray(_ORDER[node.operator](numbers, value.number))
    for value in node.values:
        if value.number is not None and not value.text.lstrip("-").isdigit():
            raise InputError(f"{where}: {node.field!r} holds tokens; put the number in quotes")
    wanted = {value.text for value in node.values}
    return np.fromiter((one in wanted for one in column.values), bool, len(column.values))


def _interval(where: str, field: str, value: Value, column: Column) -> tuple[float, float]:
    """First and last number that a value stands for: a date is a whole day."""
    if value.number is not None:
        return value.number, value.number
    if column.kind != "time":
        raise InputError(f"{where}: {field!r} holds numbers; compare it with a number")
    try:
        found = moment(value.text)
    except InputError as error:
        raise InputError(f"{where}: this is {error}") from error
    if found.is_iso:
        check_seconds(float(column.values.max(initial=0)), where)
    return found.first, found.last
