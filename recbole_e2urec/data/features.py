"""Item titles and user and item features as published, read from RecBole's atomic files.

RecBole's reader treats `None`, `NA` and `nan` as missing, collapses double spaces and fails at a
title that begins with a quote. This file reads without pandas: a cell is exactly the text between
two separators.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_e2urec.data.rows import IdMap
from recbole_e2urec.data.templates import NAMES
from recbole_e2urec.data.validation import read_header
from recbole_e2urec.errors import InputError, nearest
from recbole_e2urec.utils.io import read_lines

# What software writes for a missing value. Lower-case "none" is an occupation in ml-100k.
MISSING = frozenset({"nan", "NaN", "None", "null", "NULL", "<NA>"})

NO_TITLE = "none"  # value of title_field: items are named by their ids
USUAL_SHARE = 0.9  # of items with titles, and of users with features
MIN_SHARE = 0.1  # of the items or users that their file must know
MANY_VALUES = 300  # a user column with more different values names a user rather than a group
_ITEMS = "item|product|movie|film|book|song|track|game|app|business|place|venue|recipe|course|news"
# Columns that hold titles, the best first.
_TITLES = ("title", r"\w+[_ ]title", rf"({_ITEMS})title", "name", rf"({_ITEMS})[_ ]?name")
# Parts of the names of columns that identify a user, or say where or when somebody is.
# fmt: off
_NOT_READABLE = frozenset((
    "id", "ids", "uid", "uuid", "guid", "hash", "token", "key", "zip", "zipcode", "postcode",
    "postal", "plz", "name", "nickname", "username", "login", "email", "mail", "phone",
    "telephone", "tel", "mobile", "address", "street", "ip", "url", "lat", "latitude", "lon",
    "lng", "longitude", "time", "timestamp", "date", "datetime", "created", "updated", "birthday",
    "birthdate", "dob",
))
# fmt: on


def reading(config: Any) -> dict[str, str]:
    """Return the separator and the encoding of a run's atomic files."""
    return {"separator": config["field_separator"], "encoding": config["encoding"] or "utf-8"}


def find_title_field(names: Iterable[str]) -> str | None:
    """Return the column that holds titles, by its name; None: there is none.

    ``title`` wins over ``movie_title`` and the like, and these win over ``name``.
    """
    for pattern in _TITLES:
        for name in names:
            if re.fullmatch(pattern, name.lower()):
                return name
    return None


def find_user_fields(
    path: Path, id_field: str, separator: str = "\t", encoding: str = "utf-8"
) -> tuple[str, ...]:
    """Return the columns of a `.user` file that say something about users, in file order.

    Ids, names, addresses, zip codes and times are left out, and so are columns with more than 300
    different values: they tell one user from all others.
    """
    names = [name for name in read_header(path, separator, encoding) if _is_readable(name)]
    names = [name for name in names if name != id_field]
    columns = zip(*_cells(path, [id_field, *names], separator, encoding), strict=True)
    values = [set(column) for column in columns][1:]
    return tuple(
        name for name, known in zip(names, values, strict=False) if len(known) <= MANY_VALUES
    )


def _is_readable(name: str) -> bool:
    if name in NAMES["user"].split(", "):  # templates have these names already
        return False
    words = re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())
    return _NOT_READABLE.isdisjoint(words)


def share_known(
    tokens: Iterable[str], known: Mapping[str, Any], path: Path, what: str, shows_ids: bool
) -> float:
    """Return the share of items or users that their file knows.

    Args:
        tokens: ids of the `.inter` file.
        known: what the other file holds, by id.
        path: the other file.
        what: ``items have titles``, or the like, and how to do without; for the message.
        shows_ids: whether the message may quote ids.

    Raises:
        InputError: the share is below MIN_SHARE, so the ids are probably not written alike.
    """
    tokens = [*tokens]
    missing = [token for token in tokens if token not in known]
    share = 1 - len(missing) / max(1, len(tokens))
    if share >= MIN_SHARE:
        return share
    counted, _, without = what.partition("; ")
    raise InputError(
        f"{path}: {len(tokens) - len(missing)} of {len(tokens)} {counted}; "
        f"{_examples(missing, known, path) if shows_ids else 'ids'} must be written alike in "
        f"{path.with_suffix('.inter').name} and {path.name}, without further zeros or spaces; "
        f"or {without}"
    )


def _examples(missing: Sequence[str], known: Mapping[str, Any], path: Path) -> str:
    """Quote an id of each file, the same one where it is only written in another way."""
    if not known:
        return f"{path.name} names none; ids"
    bare = {_bare(token): token for token in known}
    pairs = ((token, bare[_bare(token)]) for token in missing if _bare(token) in bare)
    ours, theirs = next(pairs, (missing[0], next(iter(known))))
    return f"{path.with_suffix('.inter').name} has {ours!r}, {path.name} {theirs!r}; ids"


def _bare(token: str) -> str:
    """Return an id without what software adds to numbers: spaces, leading zeros, a fraction."""
    return re.sub(r"\.0*$", "", token.strip().lower()).lstrip("0")


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
