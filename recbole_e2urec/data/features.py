"""Titles and user features as published, read from RecBole's atomic files without pandas.

RecBole's reader takes `None`, `NA` and `nan` for missing, collapses double spaces and stops at a
title that begins with a quote. Here a cell is what stands between two separators, nothing else.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from recbole_e2urec.data.rows import IdMap
from recbole_e2urec.errors import InputError, nearest
from recbole_e2urec.utils.io import read_lines

# What software writes for a missing value. Lower-case "none" is a word of ml-100k's occupations.
MISSING = frozenset({"nan", "NaN", "None", "null", "NULL", "<NA>"})


def read_catalogue(
    path: Path | str,
    id_field: str,
    title_field: str,
    separator: str = "\t",
    encoding: str = "utf-8",
) -> dict[str, str]:
    """Title of each item token in a `.item` file, exactly as published.

    An item with a blank title is left out. A token that comes twice keeps its first title.

    Raises:
        InputError: unreadable file, no such column, or a line with another number of cells.
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
    """Named features of each token in a `.user` or `.item` file, in the order of `fields`.

    A blank cell or one that software writes for a missing value (`nan`, `None`, `NULL`) is absent.
    A token that comes twice keeps its first line.

    Raises:
        InputError: as in :func:`read_catalogue`.
    """
    features: dict[str, dict[str, str]] = {}
    for token, *values in _cells(path, [id_field, *fields], separator, encoding):
        known = {
            field: value
            for field, value in zip(fields, values, strict=True)
            if value.strip() and value not in MISSING
        }
        features.setdefault(token, known)
    return features


def item_titles(ids: IdMap, catalogue: Mapping[str, str]) -> list[str]:
    """Title by inner item id; `item <token>` without one; empty for ids that are no item."""
    return [token and catalogue.get(token, f"item {token}") for token in item_tokens(ids)]


def item_tokens(ids: IdMap) -> list[str]:
    """Token by inner item id; empty for ids that are no item."""
    return _tokens(ids.items)


def user_tokens(ids: IdMap) -> list[str]:
    """Token by inner user id; empty for ids that are no user."""
    return _tokens(ids.users)


def user_features(ids: IdMap, features: Mapping[str, dict[str, str]]) -> list[dict[str, str]]:
    """Features by inner user id; empty for users without any and for ids that are no user."""
    return _by_id(ids.users, features)


def item_features(ids: IdMap, features: Mapping[str, dict[str, str]]) -> list[dict[str, str]]:
    """Features by inner item id, as :func:`user_features`."""
    return _by_id(ids.items, features)


def _tokens(inner: Mapping[str, int]) -> list[str]:
    tokens = [""] * (max(inner.values(), default=-1) + 1)
    for token, place in inner.items():
        tokens[place] = token
    return tokens


def _by_id(
    inner: Mapping[str, int], features: Mapping[str, dict[str, str]]
) -> list[dict[str, str]]:
    by_id: list[dict[str, str]] = [{} for _ in range(max(inner.values(), default=-1) + 1)]
    for token, place in inner.items():
        by_id[place] = features.get(token, {})
    return by_id


def _cells(
    path: Path | str, fields: Sequence[str], separator: str, encoding: str
) -> Iterator[list[str]]:
    """Cells of the named columns, line by line."""
    lines = read_lines(path, encoding)
    if not lines:
        raise InputError(f"{path} is empty; its first line names the columns as name:type")
    header = [cell.rsplit(":", 1)[0] for cell in lines[0].split(separator)]
    places = [_place(field, header, path) for field in fields]
    for number, line in enumerate(lines[1:], start=2):
        cells = line.split(separator)
        if not line.strip("\r"):
            continue
        if len(cells) != len(header):
            raise InputError(
                f"{path}, line {number}: {len(cells)} cells where the header has {len(header)}; "
                f"correct the line or the field separator (now {separator!r})"
            )
        yield [cells[place] for place in places]


def _place(field: str, header: Sequence[str], path: Path | str) -> int:
    if field not in header:
        raise InputError(f"{path} has no column {field!r}; {nearest(field, header)}")
    return header.index(field)
