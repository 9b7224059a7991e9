"""Item titles and user and item features as published, read from RecBole's atomic files.

RecBole's reader treats `None`, `NA` and `nan` as missing, collapses double spaces and fails at a
title that begins with a quote. This file reads without pandas: a cell is exactly the text between
two separators.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from recbole_e2urec.data.rows import IdMap
from recbole_e2urec.errors import InputError, nearest
from recbole_e2urec.utils.io import read_lines

# What software writes for a missing value. Lower-case "none" is an occupation in ml-100k.
MISSING = frozenset({"nan", "NaN", "None", "null", "NULL", "<NA>"})


def read_catalogue(
    path: Path | str,
    id_field: str,
    title_field: str,
    separator: str = "\t",
    encoding: str = "utf-8",
) -> dict[str, str]:
    """Read the title of each item token from a `.item` file, exactly as published.

    Items with a blank title are left out. A repeated token keeps its first title.

    Raises:
        InputError: the file cannot be read, a column is missing, or a line has the wrong number of
            cells.
    """
    catalogue: dict[str, str] = {}
    for token, title in _cells(path, [id_field, title_field], separator, encoding):
        if title.strip():
            catalogue.setdefault(token, title)
    return catalogue


def read_features(
    path: Path | str,
    id_field: str,
    fields: Sequence[str],
    separator: str = "\t",
    encoding: str = "utf-8",
) -> dict[str, dict[str, str]]:
    """Read the named features of each token from a `.user` or `.item` file, in `fields` order.

    A feature is absent where the cell is blank or holds what software writes for a missing value
    (`nan`, `None`, `NULL`). A repeated token keeps its first line.

    Raises:
        InputError: as in :func:`read_catalogue`.
    """
    features: dict[str, dict[str, str]] = {}
    for token, *values in _cells(path, [id_field, *fields], separator, encoding):
        present = {
            field: value
            for field, value in zip(fields, values, strict=True)
            if value.strip() and value not in MISSING
        }
        features.setdefault(token, present)
    return features


def item_titles(ids: IdMap, catalogue: Mapping[str, str]) -> list[str]:
    """Title by inner item id: `item <token>` if it has none, empty if the id is no item."""
    return [token and catalogue.get(token, f"item {token}") for token in item_tokens(ids)]


def item_tokens(ids: IdMap) -> list[str]:
    """Token by inner item id; empty for ids that are no item."""
    return _tokens(ids.items)


def user_tokens(ids: IdMap) -> list[str]:
    """Token by inner user id; empty for ids that are no user."""
    return _tokens(ids.users)


def user_features(ids: IdMap, features: Mapping[str, dict[str, str]]) -> list[dict[str, str]]:
    """Features by inner user id; empty for users without features and for ids that are no user."""
    return _by_inner_id(ids.users, features)


def item_features(ids: IdMap, features: Mapping[str, dict[str, str]]) -> list[dict[str, str]]:
    """Features by inner item id, as :func:`user_features`."""
    return _by_inner_id(ids.items, features)


def _tokens(inner_ids: Mapping[str, int]) -> list[str]:
    tokens = [""] * (max(inner_ids.values(), default=-1) + 1)
    for token, inner_id in inner_ids.items():
        tokens[inner_id] = token
    return tokens


def _by_inner_id(
    inner_ids: Mapping[str, int], features: Mapping[str, dict[str, str]]
) -> list[dict[str, str]]:
    by_id: list[dict[str, str]] = [{} for _ in range(max(inner_ids.values(), default=-1) + 1)]
    for token, inner_id in inner_ids.items():
        by_id[inner_id] = features.get(token, {})
    return by_id


def _cells(
    path: Path | str, fields: Sequence[str], separator: str, encoding: str
) -> Iterator[list[str]]:
    """Yield the cells of the named columns, line by line."""
    lines = read_lines(path, encoding)
    if not lines:
        raise InputError(f"{path} is empty; its first line names the columns as name:type")
    header = [cell.rsplit(":", 1)[0] for cell in lines[0].split(separator)]
    columns = [_column_index(field, header, path) for field in fields]
    for number, line in enumerate(lines[1:], start=2):
        cells = line.split(separator)
        if not line.strip("\r"):
            continue
        if len(cells) != len(header):
            raise InputError(
                f"{path}, line {number}: {len(cells)} cells where the header has {len(header)}; "
                f"correct the line or the field separator (now {separator!r})"
            )
        yield [cells[column] for column in columns]


def _column_index(field: str, header: Sequence[str], path: Path | str) -> int:
    if field not in header:
        raise InputError(f"{path} has no column {field!r}; {nearest(field, header)}")
    return header.index(field)
