"""The fields that a filter may name, with their values as published.

RecBole scales numbers and replaces tokens by inner ids; a filter means what the data files say. So
features of users and items are read from their atomic files again, whatever ``load_col`` loads;
of the interactions, those columns are there that are loaded.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec.data.nearest import nearest
from recbole_e2urec.data.request.values import Column, column_of
from recbole_e2urec.data.request.words import KEY
from recbole_e2urec.data.textfile import read_lines
from recbole_e2urec.errors import InputError


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
        self.numbers = {config[key]: found for key, found in numbers.items() if found is not None}
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
            "token", [[tokens[one] for one in cell] for cell in values], alone, alone, len(alone)
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
        found = [kind for kind, (types, _) in tables.items() if name in types]
        if not found:
            close = nearest(name, self.known())
            others = "" if close.startswith("known") else f"; known: {', '.join(self.known())}"
            raise InputError(f"{KEY}, column {place}: no field {name!r}; {close}{others}")
        if len(found) > 1:
            raise InputError(
                f"{KEY}, column {place}: {name!r} is a field of users and of items; rename one"
            )
        kind = found[0]
        types, path = tables[kind]
        own = self.names[f"{kind.upper()}_ID"]
        spread, known = self._owners(kind)
        owners, cells = self._cells(path, list(types), own, name, known)
        owner = np.array(owners, dtype=np.int64)
        sequence = self.sequence if types[name].endswith("_seq") else None
        values = [cell.split(sequence) if sequence else [cell] for cell in cells]
        if sequence:  # a text with a separator in it can only mean the whole cell
            for parts, cell in zip(values, cells, strict=True):
                parts += [cell] if len(parts) > 1 else []
        return column_of(types[name], values, owner, spread, _count(known))

    def _cells(
        self, path: Path, header: list[str], own: str, name: str, known: dict[str, int]
    ) -> tuple[list[int], list[str]]:
        """Inner id and cell of every user or item of the data; the first line of each counts."""
        if own not in header:
            raise InputError(f"{path} has no column {own!r}; {nearest(own, header)}")
        at, wanted = header.index(own), header.index(name)
        found: dict[int, str] = {}
        for number, line in enumerate(read_lines(path, self.encoding)[1:], start=2):
            cells = line.split(self.separator)
            if line and len(cells) != len(header):
                raise InputError(
                    f"{path}, line {number}: {len(cells)} cells where the header has {len(header)}"
                )
            if line and cells[at] in known:
                found.setdefault(known[cells[at]], cells[wanted])
        return list(found), list(found.values())


def further_columns(frame: Any, config: Any) -> dict[str, NDArray[Any]]:
    """Columns that the row table does not keep, where there is a filter.

    Args:
        frame: the interactions, their tokens inner ids by now, their numbers not yet scaled.
        config: settings.
    """
    if not config["forget_where"]:
        return {}
    kept = {config[f"{kind}_FIELD"] for kind in ("USER_ID", "ITEM_ID", "RATING", "TIME", "LABEL")}
    return {name: frame[name].to_numpy(copy=True) for name in frame if name not in kept}


def _count(known: dict[str, int]) -> int:
    """Inner ids, padding among them; some of the users or items may have no rows."""
    return max(known.values(), default=0) + 1
