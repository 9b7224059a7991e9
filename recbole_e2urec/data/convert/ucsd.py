"""Data sets of McAuley's group at UCSD: Goodreads (UCSD Book Graph) and Amazon Reviews 2023.

Both are published with one JSON object a line. All shelves of Goodreads are also published as one
CSV file, which has no dates.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path

from recbole_e2urec.data.convert.common import (
    AtomicFiles,
    Catalogue,
    Findings,
    Interactions,
    Place,
    cells,
    find,
    identifier,
    interactions,
    number,
    records,
    title,
)
from recbole_e2urec.errors import InputError

STARS = 5
# Rows of goodreads_books_<genre>.json.gz and goodreads_interactions_<genre>.json.gz, by genre.
BOOKS_AND_SHELVES = {
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
SHELVES_IN_CSV = 228_648_342
_BOOKS, _SHELVES = "goodreads_books", "goodreads_interactions"
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# Number of reviews by category as its owners state it, rounded; they state none for meta files.
REVIEWS = {
    "All_Beauty": "701.5K", "Amazon_Fashion": "2.5M", "Appliances": "2.1M",
    "Arts_Crafts_and_Sewing": "9.0M", "Automotive": "20.0M", "Baby_Products": "6.0M",
    "Beauty_and_Personal_Care": "23.9M", "Books": "29.5M", "CDs_and_Vinyl": "4.8M",
    "Cell_Phones_and_Accessories": "20.8M", "Clothing_Shoes_and_Jewelry": "66.0M",
    "Digital_Music": "130.4K", "Electronics": "43.9M", "Gift_Cards": "152.4K",
    "Grocery_and_Gourmet_Food": "14.3M", "Handmade_Products": "664.2K",
    "Health_and_Household": "25.6M", "Health_and_Personal_Care": "494.1K",
    "Home_and_Kitchen": "67.4M", "Industrial_and_Scientific": "5.2M", "Kindle_Store": "25.6M",
    "Magazine_Subscriptions": "71.5K", "Movies_and_TV": "17.3M", "Musical_Instruments": "3.0M",
    "Office_Products": "12.8M", "Patio_Lawn_and_Garden": "16.5M", "Pet_Supplies": "16.8M",
    "Software": "4.9M", "Sports_and_Outdoors": "19.6M", "Subscription_Boxes": "16.2K",
    "Tools_and_Home_Improvement": "27.0M", "Toys_and_Games": "16.3M", "Video_Games": "4.6M",
    "Unknown": "63.8M",
}  # fmt: skip


def convert_goodreads(folder: Path, files: AtomicFiles) -> Findings:
    """Write ``.inter``, and ``.item`` if there is a file of books.

    Times come from ``date_added``; an interaction without it is left out. The CSV file has none:
    ``.inter`` then has no times, and its rows are in the order of the file.

    Raises:
        InputError: there is no file of interactions, or a line is not as published.
    """
    findings = Findings()
    path = find(folder, [f"{_SHELVES}*.json", f"{_SHELVES}.csv"], f"{_SHELVES}*.json or .csv")
    has_books = any(folder.glob(f"{_BOOKS}*.json*"))
    items = _books(folder, files, findings) if has_books else None
    timed = ".csv" not in path.suffixes
    with interactions(files, items=items, timed=timed) as inter_file:
        add = _add_shelves if timed else _add_csv_shelves
        add(path, inter_file, findings)
        findings.lines += inter_file.notes()
    if items is None:
        findings.lines.append(f"no {_BOOKS}*.json.gz: items have no titles, so set --title_field=~")
    return findings


def _add_shelves(path: Path, inter_file: Interactions, findings: Findings) -> None:
    rows = undated = 0
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
    if undated:
        findings.lines.append(f"{undated:,} rows have no date_added and are left out")


def _add_csv_shelves(path: Path, inter_file: Interactions, findings: Findings) -> None:
    """Add the rows of the CSV file, whose numbers for users and books other files translate."""
    users, books = (_translation(path.parent, kind, findings) for kind in ("user", "book"))
    rows = _csv(path, ("user_id", "book_id", "is_read", "rating", "is_reviewed"))
    count = 0
    for place, (user, book, _, rating, _) in rows:
        inter_file.add(
            _translated(user, users, place, "user_id"),
            _translated(book, books, place, "book_id"),
            number(rating, place, "rating", STARS),
        )
        count += 1
    findings.count(path, count, SHELVES_IN_CSV)
    findings.lines.append(
        f"{path.name} has no dates: runs split at random, and a history is what stands above a row"
    )


def _translation(folder: Path, kind: str, findings: Findings) -> dict[str, str] | None:
    """Read published identifiers by number; None: there is no such file.

    Raises:
        InputError: there are books, but no file that says which number is which book.
    """
    name = f"{kind}_id_map.csv"
    if not any(folder.glob(f"{name}*")):
        if kind == "book" and any(folder.glob(f"{_BOOKS}*.json*")):
            raise InputError(f"{folder} has no {name}, without which books have no titles")
        findings.lines.append(f"no {name}: the numbers of {_SHELVES}.csv name the {kind}s")
        return None
    rows = _csv(find(folder, [name], name), (f"{kind}_id_csv", f"{kind}_id"))
    return {number: published for _, (number, published) in rows}


def _csv(path: Path, header: tuple[str, ...]) -> Iterator[tuple[Place, list[str]]]:
    """Yield the rows of a CSV file that quotes nothing.

    Raises:
        InputError: the header differs, or a row does not have as many cells.
    """
    rows = cells(path, ",", len(header), "utf-8")
    place, first = next(rows)
    if tuple(first) != header:
        raise place.bad(f"the header must be {','.join(header)}; download it again")
    return rows


def _translated(text: str, known: Mapping[str, str] | None, place: Place, name: str) -> str:
    number = identifier(text, place, name)
    if known is None:
        return number
    if number not in known:
        raise place.bad(f"{name} {number} is not in the map of identifiers; download it again")
    return known[number]


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
    return BOOKS_AND_SHELVES.get(genre, (None, None))


def convert_amazon(folder: Path, files: AtomicFiles) -> Findings:
    """Write ``.item`` and ``.inter``; an item is a ``parent_asin``, and times are in seconds.

    Raises:
        InputError: a file is missing, or a line is not as published.
    """
    findings = Findings()
    meta = find(folder, ["meta_*.jsonl"], "meta_<Category>.jsonl")
    category = meta.name.split(".")[0].removeprefix("meta_")
    path, rows = _reviews(folder, category), 0
    items = _items(meta, files, findings)
    with interactions(files, items=items) as inter_file:
        for place, record in records(path, ("user_id", "parent_asin", "rating", "timestamp")):
            milliseconds = int(number(record["timestamp"], place, "timestamp"))
            inter_file.add(
                identifier(record["user_id"], place, "user_id"),
                identifier(record["parent_asin"], place, "parent_asin"),
                number(record["rating"], place, "rating", STARS),
                f"{milliseconds // 1000}.{milliseconds % 1000:03d}",
            )
            rows += 1
        findings.count(path, rows, REVIEWS.get(category))
        findings.lines += inter_file.notes()
    return findings


def _reviews(folder: Path, category: str) -> Path:
    path = find(folder, [f"{category}.jsonl"], f"{category}.jsonl")
    others = {other.name.split(".")[0] for other in folder.glob("*.jsonl*")}
    if others - {category, f"meta_{category}"}:
        raise InputError(f"{folder} has files of several categories; keep one category's two files")
    return path


def _items(path: Path, files: AtomicFiles, findings: Findings) -> set[str]:
    columns = ("item_id:token", "title:token_seq", "main_category:token")
    items = Catalogue(files, "item", columns)
    for place, record in records(path, ("parent_asin", "title")):
        item = identifier(record["parent_asin"], place, "parent_asin")
        items.add(item, title(record["title"]), title(record.get("main_category")))
    return items.report(findings, path, None)
