"""A filter over features: the rows that fit an expression.

The whole language is small. Python's ``ast`` would not shorten it: it forgets brackets, so that
``(age) < 3`` must be refused beforehand; it places many errors where the expression begins, not at
the word in the way; ml-100k's ``class`` is a keyword to it::

    any   = all { "or" all }
    all   = not { "and" not }
    not   = "not" not | "(" any ")" | comparison
    comparison = operand { operator operand }     between a field and values
    operator   = "==" | "!=" | "<" | "<=" | ">" | ">=" | "in" | "not" "in"
    operand    = field | number | 'text' | "text" | "(" value { "," value } ")"

A field that is no word, or one of and, or, not, in, stands in backquotes. Nothing is evaluated as
code. Errors name places and fields, never the values that were typed.

RecBole scales numbers and replaces tokens by inner ids; a filter means what the data files say. So
features of users and items are read from their atomic files again, whatever ``load_col`` loads;
of the interactions, those columns are there that are loaded.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec.config.expression import KEY, Token, Value, tokens_of
from recbole_e2urec.data.request.file import check_seconds, moment
from recbole_e2urec.errors import InputError, nearest
from recbole_e2urec.utils.io import read_lines
from recbole_e2urec.utils.recbole_compat import MISSING_NUMBERS

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
        node = self.any()
        if self.now.kind != "end":
            raise self.now.wrong("and, or, or the end")
        return node

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
                node = self.any()
                self.need(")")
                return node
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
        value = self.now.value()
        self.at += 1
        return value

    def took(self, text: str) -> bool:
        fits = self.now.text == text and self.now.kind in ("word", "sign")
        self.at += fits
        return fits

    def need(self, text: str) -> None:
        if not self.took(text):
            raise self.now.wrong(repr(text))


def _compared(left: _Operand, operator: str, right: _Operand) -> Node:
    """One comparison with the field on its left, or a list of values for ``in``."""
    where = f"{KEY}, column {left.column}"
    if (left.field is None) == (right.field is None):
        raise InputError(f"{where}: compare a field with values, not two fields or two values")
    if operator in ("in", "not in"):
        members: Node = _membership(where, left, right)
        return Not(members) if operator == "not in" else members
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


class Column(NamedTuple):
    """Values of a field; a row, user or item may have several, or none.

    Attributes:
        kind: ``token``, ``float`` or ``time``.
        values: [m] numbers, NaN where one is missing, or tokens, '' where one is missing.
        owner: [m] whose value each is, below ``owners``.
        owners: how many rows, users or items there are.
        spread: [n] whose value each row of the data has.
        is_sequence: whether there may be several.
        unreadable: how many values are neither missing nor numbers, although the type is float.
    """

    kind: str
    values: Any
    owner: NDArray[np.int64]
    owners: int
    spread: NDArray[np.int64]
    is_sequence: bool = False
    unreadable: int = 0


def column_of(
    kind: str,
    values: list[list[Any]],
    owner: NDArray[np.int64],
    spread: NDArray[np.int64],
    owners: int,
) -> Column:
    """Values by owner as one flat column."""
    counts = [len(cell) for cell in values]
    flat: list[Any] = [value for cell in values for value in cell]
    is_float = kind.startswith("float")
    numbers = np.array([number_of(value) for value in flat] if is_float else [], np.float64)
    several = kind.endswith("_seq") or max(counts, default=0) > 1
    return Column(
        "float" if is_float else "token",
        numbers if is_float else flat,
        np.repeat(owner, counts),
        owners,
        spread,
        several,
        count_unreadable(flat, numbers),
    )


def count_unreadable(cells: list[Any], numbers: NDArray[np.float64]) -> int:
    """Count the cells that are no numbers but do not say that the number is missing."""
    unread = np.flatnonzero(np.isnan(numbers)).tolist()
    return sum(str(cells[place]).strip() not in MISSING_NUMBERS for place in unread)


def number_of(value: Any) -> float:
    """The number that a cell holds, NaN for none."""
    try:
        return float(value)
    except ValueError:
        return float("nan")


class Fields:
    """All fields of a loaded data set (see the module).

    Args:
        dataset: with its settings.
    """

    def __init__(self, dataset: Any) -> None:
        self.rows, self.ids = dataset.rows, dataset.ids
        config = dataset.config
        self.names = {kind: config[f"{kind}_FIELD"] for kind in ("USER_ID", "ITEM_ID")}
        self.times = config["TIME_FIELD"]
        self.separator, self.sequence = config["field_separator"], config["seq_separator"]
        self.encoding = config["encoding"] or "utf-8"
        self.folder, self.stem = Path(config["data_path"]), dataset.dataset_name
        numbers = {"RATING_FIELD": dataset.rows.rating, "LABEL_FIELD": dataset.rows.label}
        self.numbers = {
            config[key]: column for key, column in numbers.items() if column is not None
        }
        if dataset.rows.has_time:
            self.numbers[self.times] = dataset.rows.time
        self.further: dict[str, NDArray[Any]] = dataset.further
        self.published: dict[str, Any] = dataset.field2id_token

    def column(self, name: str, place: int) -> Column:
        """Values of the field.

        Raises:
            InputError: there is no such field, or a table cannot be read.
        """
        alone = np.arange(len(self.rows))
        if name in self.numbers:
            kind = "time" if name == self.times else "float"
            values = self.numbers[name].astype(np.float64)
            return Column(kind, values, alone, len(alone), alone)
        if name in self.further:
            return self._further(name, alone)
        for kind, key in (("user", "USER_ID"), ("item", "ITEM_ID")):
            spread, known = self._owners(kind)
            if name == self.names[key]:
                inner = np.array(list(known.values()), dtype=np.int64)
                return Column("token", list(known), inner, _count(known), spread)
        return self._feature(name, place)

    def known(self) -> list[str]:
        """Names of all fields."""
        tables = [self._user[0], self._item[0]]
        listed = {name for table in tables for name in table}
        return sorted({*listed, *self.names.values(), *self.numbers, *self.further})

    @cached_property
    def _user(self) -> tuple[dict[str, str], Path]:
        return self._header("user")

    @cached_property
    def _item(self) -> tuple[dict[str, str], Path]:
        return self._header("item")

    def _further(self, name: str, alone: NDArray[np.int64]) -> Column:
        """A column of the interactions: numbers as RecBole read them, or tokens by inner id."""
        values = [np.atleast_1d(cell).tolist() for cell in self.further[name]]
        if name not in self.published:
            return column_of("float", values, alone, alone, len(alone))
        tokens = ["", *map(str, self.published[name][1:])]  # 0 = missing
        return column_of(
            "token",
            [[tokens[number] for number in cell] for cell in values],
            alone,
            alone,
            len(alone),
        )

    def _owners(self, kind: str) -> tuple[NDArray[np.int64], dict[str, int]]:
        return (
            (self.rows.user, self.ids.users) if kind == "user" else (self.rows.item, self.ids.items)
        )

    def _header(self, kind: str) -> tuple[dict[str, str], Path]:
        """Type of each column of a table, and where the table is; no columns without one."""
        path = self.folder / f"{self.stem}.{kind}"
        lines = read_lines(path, self.encoding) if path.is_file() else []
        cells = [cell.rsplit(":", 1) for cell in lines[0].split(self.separator)] if lines else []
        return {cell[0]: cell[-1] for cell in cells}, path

    def _feature(self, name: str, place: int) -> Column:
        """A column of the table of users or items."""
        tables = {"user": self._user, "item": self._item}
        kinds = [kind for kind, (types, _) in tables.items() if name in types]
        if not kinds:
            close = nearest(name, self.known())
            others = "" if close.startswith("known") else f"; known: {', '.join(self.known())}"
            raise InputError(f"{KEY}, column {place}: no field {name!r}; {close}{others}")
        if len(kinds) > 1:
            raise InputError(
                f"{KEY}, column {place}: {name!r} is a field of users and of items; rename one"
            )
        kind = kinds[0]
        types, path = tables[kind]
        id_field = self.names[f"{kind.upper()}_ID"]
        spread, known = self._owners(kind)
        owners, cells = self._cells(path, list(types), id_field, name, known)
        owner = np.array(owners, dtype=np.int64)
        sequence = self.sequence if types[name].endswith("_seq") else None
        values = [cell.split(sequence) if sequence else [cell] for cell in cells]
        if sequence:  # a text with a separator in it can only mean the whole cell
            for parts, cell in zip(values, cells, strict=True):
                parts += [cell] if len(parts) > 1 else []
        return column_of(types[name], values, owner, spread, _count(known))

    def _cells(
        self, path: Path, header: list[str], id_field: str, name: str, known: dict[str, int]
    ) -> tuple[list[int], list[str]]:
        """Inner id and cell of every user or item of the data; the first line of each counts."""
        if id_field not in header:
            raise InputError(f"{path} has no column {id_field!r}; {nearest(id_field, header)}")
        at, wanted = header.index(id_field), header.index(name)
        cell_of: dict[int, str] = {}
        for number, line in enumerate(read_lines(path, self.encoding)[1:], start=2):
            cells = line.split(self.separator)
            if line and len(cells) != len(header):
                raise InputError(
                    f"{path}, line {number}: {len(cells)} cells where the header has {len(header)}"
                )
            if line and cells[at] in known:
                cell_of.setdefault(known[cells[at]], cells[wanted])
        return list(cell_of), list(cell_of.values())


def further_columns(
    frame: Any, config: Any, missing: Mapping[str, NDArray[np.bool_]]
) -> dict[str, NDArray[Any]]:
    """Columns that the row table does not keep, where there is a filter.

    Args:
        frame: the interactions, their tokens inner ids by now, their numbers not yet scaled.
        config: settings.
        missing: which numbers are missing, by column; RecBole has replaced them by the mean.
    """
    if not config["forget_where"]:
        return {}
    in_row_table = {
        config[f"{kind}_FIELD"] for kind in ("USER_ID", "ITEM_ID", "RATING", "TIME", "LABEL")
    }
    names = [name for name in frame if name not in in_row_table]
    columns = {name: frame[name].to_numpy(copy=True) for name in names}
    for name in columns.keys() & missing.keys():
        columns[name][missing[name]] = np.nan
    return columns


def _count(known: dict[str, int]) -> int:
    """Inner ids, padding among them; some of the users or items may have no rows."""
    return max(known.values(), default=0) + 1


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
    """Find the rows that fit an expression; see :mod:`recbole_e2urec.data.request.filter`.

    A field of several tokens fits where any of them does, so that ``!=`` fits where none is equal.
    A missing value is equal to nothing and neither above nor below anything. So is a value that
    is no number where numbers are compared; there is a warning about it.

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
        fitting = _holds(node, column, warnings)
        mask = np.zeros(column.owners, dtype=bool)
        mask[column.owner[fitting]] = True
        mask = mask[column.spread]
        if not mask.any():
            warnings.append(f"{KEY}, column {node.column}: no value of {node.field!r} fits")
        return ~mask if node.operator == "!=" else mask
    parts = [_fits(part, column_of, warnings) for part in node.parts]
    return np.logical_and.reduce(parts) if node.needs_all else np.logical_or.reduce(parts)


def _holds(node: Comparison, column: Column, warnings: list[str]) -> Mask:  # -> [m]
    """Which values fit; those of ``!=`` are the equal ones."""
    where = f"{KEY}, column {node.column}"
    if node.operator == "has" and not column.is_sequence:
        raise InputError(f"{where}: {node.field!r} holds one value; write == or in (...)")
    if column.kind == "token":
        return _tokens_hold(where, node, column, warnings)
    warnings += _unreadable(where, node, column.unreadable)
    mask = np.zeros(len(column.values), dtype=bool)
    for value in node.values:
        first, last = _interval(where, node.field, value, column)
        if node.operator in _ORDER:
            edge = first if node.operator in ("<", ">=") else last
            mask |= _ORDER[node.operator](column.values, edge)
        else:
            mask |= (column.values >= first) & (column.values <= last)
    return mask


def _unreadable(where: str, node: Comparison, count: int) -> list[str]:
    if not count:
        return []
    return [
        f"{where}: {count} values of {node.field!r} are no numbers and count as missing; they are "
        "equal to nothing, and neither above nor below"
    ]


def _tokens_hold(
    where: str, node: Comparison, column: Column, warnings: list[str]
) -> Mask:  # -> [m]
    """Tokens are equal as text; where a number is above or below, they are read as numbers."""
    if node.operator in _ORDER:
        (value,) = node.values
        if value.number is None:
            raise InputError(
                f"{where}: {node.field!r} holds tokens; give a number after {node.operator}"
            )
        numbers = np.array([number_of(token) for token in column.values], dtype=np.float64)
        warnings += _unreadable(where, node, count_unreadable(list(column.values), numbers))
        return np.asarray(_ORDER[node.operator](numbers, value.number))
    for value in node.values:
        if value.number is not None and not value.text.lstrip("-").isdigit():
            raise InputError(f"{where}: {node.field!r} holds tokens; put the number in quotes")
    wanted = {value.text for value in node.values}
    return np.fromiter((token in wanted for token in column.values), bool, len(column.values))


def _interval(where: str, field: str, value: Value, column: Column) -> tuple[float, float]:
    """First and last number that a value stands for: a date is a whole day."""
    if value.number is not None:
        return value.number, value.number
    if column.kind != "time":
        raise InputError(f"{where}: {field!r} holds numbers; compare it with a number")
    try:
        instant = moment(value.text)
    except InputError as error:
        raise InputError(f"{where}: this is {error}") from error
    if instant.is_iso:
        check_seconds(float(column.values.max(initial=0)), where)
    return instant.first, instant.last
