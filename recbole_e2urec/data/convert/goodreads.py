"""Goodreads (UCSD Book Graph): shelves and books, one JSON object a line."""

from datetime import datetime, timedelta, timezone
from pathlib import Path

from recbole_e2urec.data.convert.common import (
    AtomicFiles,
    Catalogue,
    Findings,
    Place,
    find,
    identifier,
    interactions,
    number,
    records,
    title,
)

# Rows of goodreads_books_<genre>.json.gz and goodreads_interactions_<genre>.json.gz, by genre.
PUBLISHED = {
    "children": (124_082, 10_059_349),
    "comics_graphic": (89_411, 7_347_630),
    "fantasy_paranormal": (258_585, 55_397_550),
    "history_biography": (302_935, 31_479_229),
    "mystery_thriller_crime": (219_235, 24_799_896),
    "poetry": (36_514, 2_734_350),
    "romance": (335_449, 42_792_856),
    "young_adult": (93_398, 34_919_254),
    "": (2_360_655, None),  # all genres
}
STARS = 5
_BOOKS, _SHELVES = "goodreads_books", "goodreads_interactions"
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def convert(folder: Path, files: AtomicFiles) -> Findings:
    """Write ``.inter``, and ``.item`` if there is a file of books.

    Times come from ``date_added``; an interaction without it is left out.

    Raises:
        InputError: there is no file of interactions, or a line is not as published.
    """
    findings = Findings()
    path = find(folder, [f"{_SHELVES}*.json"], f"{_SHELVES}*.json")
    has_books = any(folder.glob(f"{_BOOKS}*.json*"))
    items = _books(folder, files, findings) if has_books else None
    rows = undated = 0
    with interactions(files, items=items) as inter_file:
        for place, record in records(path, ("user_id", "book_id", "rating", "date_added")):
            rows += 1
            if not record["date_added"]:
                undated += 1
                continue
            inter_file.add(
                identifier(record["user_id"], place, "user_id"),
                identifier(record["book_id"], place, "book_id"),
                number(record["rating"], place, "rating", STARS),
                str(seconds(record["date_added"], place)),
            )
        findings.count(path, rows, _published(path, _SHELVES)[1])
        findings.lines += inter_file.notes()
    if undated:
        findings.lines.append(f"{undated:,} rows have no date_added and are left out")
    if items is None:
        findings.lines.append(f"no {_BOOKS}*.json.gz: items have no titles, so set --title_field=~")
    return findings


def seconds(date: object, place: Place) -> int:
    """Convert a date such as ``Fri Nov 10 15:54:00 -0800 2017`` to seconds since 1970.

    Raises:
        InputError: the date has another form.
    """
    try:
        _, month, day, clock, zone, year = str(date).split()
        hour, minute, second = map(int, clock.split(":"))
        offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[3:5]))
        time_zone = timezone(-offset if zone[0] == "-" else offset)
        month_number = _MONTHS.index(month) + 1
        moment = datetime(int(year), month_number, int(day), hour, minute, second, tzinfo=time_zone)
    except ValueError as error:
        example = "Fri Nov 10 15:54:00 -0800 2017"
        raise place.bad(f"date_added is {date!r}; a date such as {example!r} is needed") from error
    return round(moment.timestamp())


def _books(folder: Path, files: AtomicFiles, findings: Findings) -> set[str]:
    path = find(folder, [f"{_BOOKS}*.json"], f"{_BOOKS}*.json")
    books = Catalogue(files, "item", ("item_id:token", "title:token_seq"))
    for place, record in records(path, ("book_id", "title")):
        books.add(identifier(record["book_id"], place, "book_id"), title(record["title"]))
    return books.report(findings, path, _published(path, _BOOKS)[0])


def _published(path: Path, prefix: str) -> tuple[int | None, int | None]:
    genre = path.name.split(".")[0].removeprefix(prefix).removeprefix("_")
    return PUBLISHED.get(genre, (None, None))
