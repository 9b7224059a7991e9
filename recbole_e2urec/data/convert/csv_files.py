"""``recbole-e2urec init``: atomic files from your own CSV files; their columns are guessed.

Ratings may have further columns, which are left out; those of items and users are kept.
"""

import csv
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.data.convert.common import AtomicFiles, atomic_files, title
from recbole_e2urec.data.features import MISSING
from recbole_e2urec.errors import InputError, nearest, one_line

SEPARATORS = ",;\t|"
# Names that a column of each kind often has, likeliest first; only letters and digits count.
NAMES: dict[str, tuple[str, ...]] = {
    "user": (
        "userid", "user", "uid", "username", "customerid", "customer", "reviewerid", "reviewer",
        "memberid", "member", "accountid", "account", "visitorid",
    ),
    "item": (
        "itemid", "item", "iid", "movieid", "movie", "filmid", "film", "bookid", "isbn", "book",
        "productid", "product", "parentasin", "asin", "articleid", "sku", "songid", "trackid",
        "gameid", "businessid", "recipeid", "id",
    ),
    "rating": (
        "rating", "ratings", "stars", "star", "score", "overall", "bookrating", "userrating",
        "reviewscore", "value", "label", "liked", "like",
    ),
    "time": (
        "timestamp", "time", "datetime", "date", "ts", "unixtime", "unixreviewtime", "createdat",
        "ratedat", "reviewtime", "reviewdate", "dateadded",
    ),
    "title": (
        "title", "name", "movietitle", "moviename", "filmtitle", "booktitle", "itemtitle",
        "itemname", "producttitle", "productname", "songtitle", "trackname",
    ),
}  # fmt: skip
NUMBERS = ("rating", "time")
DATES = (
    "ISO8601", "%Y/%m/%d", "%Y/%m/%d %H:%M", "%Y/%m/%d %H:%M:%S", "%d.%m.%Y", "%d.%m.%Y %H:%M",
    "%d.%m.%Y %H:%M:%S", *(f"{day}{time}" for day in ("%m/%d/%Y", "%d/%m/%Y", "%m-%d-%Y",
    "%d-%m-%Y") for time in ("", " %H:%M", " %H:%M:%S", " %I:%M %p")),
)  # fmt: skip
_UNITS = ((1e17, 1e9, "nanoseconds"), (1e14, 1e6, "microseconds"), (1e11, 1e3, "milliseconds"))
_DAY_NUMBER = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")
_EPOCH = pd.Timestamp("1970-01-01", tz="UTC")


@option_class()
class InitOptions:
    """Your CSV files, and what their columns are."""

    ratings: str = option(
        "A CSV file with a rating a row; the separator may also be ; | or a tab.",
        key="from", text=True, default="",
    )  # fmt: skip
    items: str | None = option("A CSV file of the items, for titles.", text=True, default=None)
    users: str | None = option(
        "A CSV file of the users, such as their age.", text=True, default=None
    )
    output: str = option(
        "The folder to make, as in dataset/shop; its last part names the data set.",
        text=True, default="",
    )  # fmt: skip
    user: str | None = option("The users' column; ~ = guessed.", text=True, default=None)
    item: str | None = option("The items' column; ~ = guessed.", text=True, default=None)
    rating: str | None = option(
        "The column of ratings, or of 1 = liked and 0 = not; ~ = guessed.", text=True, default=None
    )
    time: str | None = option(
        "The column of times: dates, or numbers since 1970; ~ = guessed.", text=True, default=None
    )
    title: str | None = option("The column of titles; ~ = guessed.", text=True, default=None)
    encoding: str = option("Encoding of the CSV files.", text=True, default="utf-8")


class Csv(NamedTuple):
    """A CSV file whose cells are text; the index of ``table`` is the row in the file, from 1."""

    path: Path
    table: pd.DataFrame

    def column(self, kind: str, named: str | None, others: Iterable[str] = ()) -> str | None:
        """Find the column of a kind, a key of ``NAMES``, that is named or has a usual name.

        Raises:
            InputError: the file does not have the named column.
        """
        columns = list(self.table.columns)
        if named is not None:
            if named not in columns:
                raise InputError(f"{self.path}: no column {named!r}; {nearest(named, columns)}")
            return named
        free = {_letters(column): column for column in reversed(columns) if column not in others}
        return next((free[name] for name in NAMES[kind] if name in free), None)

    def needed(self, kind: str, named: str | None, others: Iterable[str] = ()) -> str:
        """Find a column as :meth:`column` does.

        Raises:
            InputError: there is none.
        """
        found = self.column(kind, named, others)
        if found is None:
            raise InputError(
                f"{self.path}: no column looks like the {kind}; its columns are "
                f"{', '.join(self.table.columns)}; write --{kind}=NAME"
            )
        return found

    def without_empty(self, columns: Mapping[str, str], lines: list[str]) -> "Csv":
        """Leave out rows where a cell of these columns is empty, and say how many."""
        table = self.table
        for kind, column in columns.items():
            empty = table[column].isin(("", "NA", *MISSING) if kind in NUMBERS else ("",))
            if empty.any():
                lines.append(f"{self.path}: {empty.sum():,} rows without {kind} are left out")
            table = table[~empty]
        if len(table) == 0:
            raise InputError(f"{self.path}: no row has all of {', '.join(columns.values())}")
        return Csv(self.path, table)


def init(options: InitOptions) -> str:
    """Make the atomic files of a data set.

    Returns:
        What was read, guessed and written, for people.

    Raises:
        InputError: a file cannot be read, a column cannot be found, a cell is not what its column
            holds, or the data set exists. Nothing is written then.
    """
    _require(options)
    folder = Path(options.output)
    name = folder.name
    lines: list[str] = []
    ratings = read_csv(Path(options.ratings), options.encoding)
    interactions, titles = _interactions(ratings, options, lines)
    tables = {"inter": interactions}
    if options.items is not None:
        items = read_csv(Path(options.items), options.encoding)
        tables["item"] = _described(items, "item", options, interactions, lines)
    elif titles is not None:
        tables["item"] = titles
    if options.users is not None:
        users = read_csv(Path(options.users), options.encoding)
        tables["user"] = _described(users, "user", options, interactions, lines)
    with atomic_files(folder, name) as files:
        for suffix in ("item", "user", "inter"):
            if suffix in tables:
                _write(files, suffix, tables[suffix])
        paths = files.finish()
    place = "" if folder.parent == Path("dataset") else f" --data_path={folder.parent}"
    users_, items_ = (interactions.iloc[:, column].nunique() for column in (0, 1))
    lines.append(f"{len(interactions):,} rows of {users_:,} users and {items_:,} items")
    lines.append(f"written: {', '.join(map(str, paths))}")
    lines.append(f"next: recbole-e2urec check --dataset={name}{place}")
    return "\n".join(lines)


def _require(options: InitOptions) -> None:
    for key, value, example in (
        ("from", options.ratings, "ratings.csv"),
        ("output", options.output, "dataset/shop"),
    ):
        if not value:
            raise InputError(f"init: --{key} is missing; write it as in --{key}={example}")
    folder = Path(options.output)
    if not re.fullmatch(r"[\w][\w.+-]*", folder.name):
        raise InputError(
            f"--output={options.output}: its last part names the data set, so it needs letters, "
            "digits, . _ + or -, as in dataset/shop"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.glob(f"{folder.name}.*"))):
        raise InputError(f"{folder} exists; remove it, or name another --output")


def read_csv(path: Path, encoding: str) -> Csv:
    """Read a CSV file; the separator is what its first line has most of.

    Raises:
        InputError: the file cannot be read, a row has more cells than the header, or a column has
            no name or the name of another one.
    """
    with_mark = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
    (first,) = _cells(path, with_mark, sep="\x1f", nrows=1, quoting=csv.QUOTE_NONE)[0]
    table = _cells(path, with_mark, sep=max(SEPARATORS, key=str(first).count))
    table.index += 1
    table = table.fillna("").apply(lambda column: column.str.strip())
    table = table[(table != "").any(axis=1)]
    if len(table) < 2:
        raise InputError(f"{path}: no rows below the header")
    header = [_clean(cell) for cell in table.iloc[0]]
    for place, name in enumerate(header):
        if name in header[:place]:
            raise InputError(f"{path}, row 1: two columns are called {name!r}; rename one")
        if name == "" and (table.iloc[1:, place] != "").any():
            header[place] = f"column_{place + 1}"  # pandas' index has no name
    return Csv(path, table.iloc[1:].set_axis(header, axis=1))


def _cells(path: Path, encoding: str, **reading: Any) -> pd.DataFrame:
    """Read all rows as text, the header among them."""
    try:
        return pd.read_csv(
            path, header=None, dtype=str, encoding=encoding, keep_default_na=False,
            skip_blank_lines=False, low_memory=False, **reading,
        )  # fmt: skip
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not {encoding} text; save it as UTF-8, or try --encoding=latin-1"
        ) from error
    except LookupError as error:
        raise InputError(f"encoding: {encoding!r} is unknown; try utf-8 or latin-1") from error
    except pd.errors.EmptyDataError as error:
        raise InputError(f"{path} is empty; its first row names the columns") from error
    except pd.errors.ParserError as error:
        reason = one_line(error).removeprefix("Error tokenizing data. C error: ")
        reason = reason.replace("fields in line", "cells as in row 1 in line")
        raise InputError(f"{path}: {reason}; correct the file") from error
    except (EOFError, zlib.error) as error:
        raise InputError(f"{path}: damaged or cut off; {one_line(error)}") from error
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror or error}; check the path"
        ) from error


def _letters(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())


def _clean(name: str) -> str:
    """Return a column's name that RecBole can read: it ends names at a colon."""
    return re.sub(r"[\s:]+", "_", name.strip())


def _interactions(
    ratings: Csv, options: InitOptions, lines: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Return the table of interactions, and one of titles if the ratings have them."""
    user = ratings.needed("user", options.user)
    item = ratings.needed("item", options.item, [user])
    rating = ratings.needed("rating", options.rating, [user, item])
    time = ratings.column("time", options.time, [user, item, rating])
    columns = {"user": user, "item": item, "rating": rating}
    columns |= {"time": time} if time else {}
    named = None if options.items else options.title
    found = None if options.items else ratings.column("title", named, columns.values())
    if found:
        columns["title"] = found
    lines.append(_columns_line(ratings, columns))
    if time is None:
        lines.append(
            f"{ratings.path}: no column of times: the split is random, and earlier items of a "
            "user are those above in the file"
        )
    needed = {kind: column for kind, column in columns.items() if kind != "title"}
    full = ratings.without_empty(needed, lines)
    table = pd.DataFrame({
        "user_id:token": _identifiers(full.table[user]),
        "item_id:token": _identifiers(full.table[item]),
    })  # fmt: skip
    values = _numbers(full, rating)
    is_label = values.isin((0, 1)).all()
    if is_label:
        lines.append(f"{rating}: 1 = liked, 0 = not")
    table["label:float" if is_label else "rating:float"] = values
    if time is not None:
        table["timestamp:float"] = _seconds(full, time, lines)
        table = table.sort_values("timestamp:float", kind="stable")
    pairs = table[["user_id:token", "item_id:token"]]
    repeated = pairs.duplicated(keep="last")
    if repeated.any():
        last = "in the file" if time is None else "in time"
        lines.append(f"{repeated.sum():,} rows repeat a user and an item; the last {last} counts")
    titles = None
    if found:
        titles = pd.DataFrame(
            {"item_id:token": table["item_id:token"], "title:token_seq": full.table[found]}
        ).loc[lambda one: one["title:token_seq"] != ""]
        titles = titles.drop_duplicates("item_id:token")
    return table[~repeated].sort_index(), titles


def _columns_line(file: Csv, columns: Mapping[str, str]) -> str:
    told = ", ".join(f"{kind} = {column}" for kind, column in columns.items())
    more = [name for name in file.table.columns if name not in columns.values()]
    left = f"; left out: {', '.join(more)}" if more else ""
    return f"{file.path}: {len(file.table):,} rows; {told}{left}"


def _described(
    file: Csv, kind: str, options: InitOptions, interactions: pd.DataFrame, lines: list[str]
) -> pd.DataFrame:
    """Return the table of items or users: the identifier, the title, and all other columns."""
    given = getattr(options, kind)
    own = file.column(kind, given if given in file.table.columns else None)
    identifier = own or file.needed("item" if kind == "item" else "user", given)
    columns = {kind: identifier}
    names = {identifier: f"{kind}_id:token"}
    if kind == "item":
        columns["title"] = file.needed("title", options.title, [identifier])
        names[columns["title"]] = "title:token_seq"
    taken = {name.partition(":")[0] for name in names.values()}
    others = [name for name in file.table.columns if name and name not in names]
    names |= {name: f"{name}:token" for name in others if name not in taken}
    told = ", ".join(f"{part} = {column}" for part, column in columns.items())
    lines.append(f"{file.path}: {len(file.table):,} rows; {told}")
    full = file.without_empty({kind: identifier}, lines)
    table = full.table[list(names)].set_axis(list(names.values()), axis=1)
    key = f"{kind}_id:token"
    table = table.assign(**{key: _identifiers(table[key])}).drop_duplicates(key)
    known = interactions[key].isin(table[key])
    if not known.any():
        raise InputError(
            f"{file.path}: no {kind} of {options.ratings} is in column {identifier!r}; name the "
            f"column with the same identifiers by --{kind}=NAME"
        )
    missing = interactions[key][~known].nunique()
    if missing:
        lines.append(f"{file.path}: {missing:,} {kind}s that have ratings have no row here")
    return table


def _identifiers(column: "pd.Series[str]") -> "pd.Series[str]":
    """Return identifiers as text; 12.0, which software writes for 12, becomes 12."""
    whole = column.str.fullmatch(r"\d+\.0").all()
    return column.str.removesuffix(".0") if whole else column


def _numbers(file: Csv, column: str) -> "pd.Series[float]":
    cells = file.table[column]
    values = pd.to_numeric(cells, errors="coerce").astype(float)
    bad = cells.index[~np.isfinite(values)]
    if len(bad):
        row = bad[0]
        raise InputError(f"{file.path}, row {row}, column {column}: {cells[row]!r} is not a number")
    return values


def _seconds(file: Csv, column: str, lines: list[str]) -> "pd.Series[float]":
    """Return times in seconds since 1970, and say how they were read."""
    cells = file.table[column]
    if cells.str.fullmatch(_DAY_NUMBER).all():
        lines.append(f"{column}: days, as in {cells.iloc[0]}")
        return _since_1970(pd.to_datetime(cells, format="%Y%m%d", utc=True))
    numbers = pd.to_numeric(cells, errors="coerce")
    if numbers.notna().mean() > 0.5:
        values = _numbers(file, column)
        for least, divisor, unit in _UNITS:
            if values.median() > least:
                lines.append(f"{column}: {unit} since 1970")
                return values / divisor
        lines.append(f"{column}: seconds, {values.min():.15g} to {values.max():.15g}")
        return values
    return _since_1970(_dates(file, column, lines))


def _since_1970(times: Any) -> "pd.Series[float]":
    return (times - _EPOCH) / pd.Timedelta(seconds=1)


def _dates(file: Csv, column: str, lines: list[str]) -> Any:
    """Read dates that all have one form; one that could be two dates is refused."""
    cells = file.table[column]

    def parsed(form: str, some: "pd.Series[str]") -> Any:
        return pd.to_datetime(some, format=form, utc=True, errors="coerce")

    usual = [form for form in DATES if parsed(form, cells.iloc[:100]).notna().all()]
    read = {form: parsed(form, cells) for form in usual or DATES}
    complete = [form for form in read if read[form].notna().all()]
    if len(complete) > 1 and any((read[form] != read[complete[0]]).any() for form in complete):
        raise InputError(
            f"{file.path}, column {column}: {cells.iloc[0]!r} may have the day or the month first; "
            "write dates as in 2024-12-31"
        )
    if not complete:
        form = max(read, key=lambda form: int(read[form].notna().sum()))
        row = read[form].isna().idxmax()
        raise InputError(
            f"{file.path}, row {row}, column {column}: {cells[row]!r} is no date like the others; "
            "write dates as in 2024-12-31 or 2024-12-31T23:59:00"
        )
    first = read[complete[0]].min()
    lines.append(f"{column}: dates, read as UTC if they say no zone; the first is {first:%Y-%m-%d}")
    return read[complete[0]]


def _write(files: AtomicFiles, suffix: str, table: pd.DataFrame) -> None:
    target = files.table(suffix, list(table.columns))
    texts = [_texts(name, table[name]) for name in map(str, table.columns)]
    for row in zip(*texts, strict=True):
        target.write(*row)


def _texts(name: str, column: "pd.Series[Any]") -> list[str]:
    if name.endswith(":float"):
        return [np.format_float_positional(value, trim="-") for value in column]
    return [title(text) for text in column] if name.endswith(":token_seq") else list(column)
