"""Files in the formats that four data sets are published in, with invented content."""

import gzip
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

USERS, ITEMS = range(1, 13), range(1, 11)
PAIRS = [(user, item) for user in USERS for item in ITEMS if (user + item) % 4]  # 90
ODD_TITLE = 'Tea &amp; "Quotes"; a|b, c'  # as Amazon and Book-Crossing would publish it
CLEAN_TITLE = 'Tea & "Quotes"; a|b, c'


def rating_of(user: int, item: int, most: int = 5) -> int:
    """An invented rating from 1 to ``most``."""
    return 1 + (user * 3 + item) % most


def write_lines(path: Path, lines: Iterable[str], encoding: str = "utf-8") -> Path:
    """Write lines, into a gzip file where the name says so."""
    data = "".join(f"{line}\n" for line in lines).encode(encoding)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_ml_1m(folder: Path) -> Path:
    """MovieLens 1M: the last item is never rated."""
    titles = [f"Café No. {item}, The (19{80 + item})" for item in ITEMS]
    movies = [f"{item}::{title}::Drama|Sci-Fi" for item, title in zip(ITEMS, titles, strict=True)]
    write_lines(folder / "movies.dat", [*movies, "99::Unseen (1999)::Horror"], "latin-1")
    people = [f"{user}::{'FM'[user % 2]}::25::{user}::1234{user % 10}" for user in USERS]
    write_lines(folder / "users.dat", people, "latin-1")
    rows = [f"{u}::{i}::{rating_of(u, i)}::{978_300_000 + 1000 * u + i}" for u, i in PAIRS]
    write_lines(folder / "ratings.dat", rows, "latin-1")
    return folder


def write_goodreads(folder: Path) -> Path:
    """Goodreads, genre poetry: user 1 has not rated what is on the shelf."""
    shelves = [
        {
            "user_id": f"u{user}",
            "book_id": str(item),
            "review_id": "r",
            "is_read": True,
            "rating": 0 if user == 1 else rating_of(user, item),
            "date_added": f"Fri Nov {item:02d} 15:54:{user:02d} -0800 2017",
            "read_at": "",
        }
        for user, item in PAIRS
    ]
    books = [{"book_id": str(item), "title": f"Verse {item}", "isbn": ""} for item in ITEMS]
    write_json(folder / "goodreads_interactions_poetry.json.gz", shelves)
    write_json(folder / "goodreads_books_poetry.json.gz", books)
    return folder


def write_goodreads_csv(folder: Path) -> Path:
    """The same shelves as one CSV file without dates; numbers stand for users and books."""
    rows = [f"{u - 1},{i + 5},1,{0 if u == 1 else rating_of(u, i)},0" for u, i in PAIRS]
    header = "user_id,book_id,is_read,rating,is_reviewed"
    write_lines(folder / "goodreads_interactions.csv", [header, *rows])
    people = [f"{user - 1},u{user}" for user in USERS]
    write_lines(folder / "user_id_map.csv", ["user_id_csv,user_id", *people])
    books = [f"{item + 5},{item}" for item in ITEMS]
    write_lines(folder / "book_id_map.csv", ["book_id_csv,book_id", *books])
    titles = [{"book_id": str(item), "title": f"Verse {item}", "isbn": ""} for item in ITEMS]
    write_json(folder / "goodreads_books.json.gz", titles)
    return folder


def write_amazon(folder: Path) -> Path:
    """Amazon Reviews 2023, category Gift_Cards: item 2 has an odd title, item 3 has none."""
    reviews = [
        {
            "rating": float(rating_of(user, item)),
            "title": "invented",
            "asin": f"A{item}",
            "parent_asin": f"B{item}",
            "user_id": f"AE{user}",
            "timestamp": 1_588_687_728_923 + 86_400_000 * item,
        }
        for user, item in PAIRS
    ]
    titles = {2: ODD_TITLE, 3: None}
    meta = [
        {
            "main_category": None,
            "title": titles.get(item, f"Card {item}"),
            "parent_asin": f"B{item}",
        }
        for item in ITEMS
    ]
    write_json(folder / "Gift_Cards.jsonl.gz", reviews)
    write_json(folder / "meta_Gift_Cards.jsonl", meta)
    return folder


def write_book_crossing(folder: Path) -> Path:
    """Book-Crossing: user 1 rated nothing, book 2 has an odd title, ages may be NULL."""
    rows = [(u, f"044{i}X", 0 if u == 1 else rating_of(u, i, 10)) for u, i in PAIRS]
    titles = {2: ODD_TITLE.replace('"', '\\"')}
    books = [
        (
            f"044{i}X",
            titles.get(i, f"Livre é {i}"),
            "A. Uthor",
            1990 + i,
            "P &amp; Q",
            "s",
            "m",
            "l",
        )
        for i in ITEMS
    ]
    people = [(user, 'york, \\"old\\", uk', None if user % 2 else 30 + user) for user in USERS]
    write_quoted(folder / "BX-Book-Ratings.csv", ("User-ID", "ISBN", "Book-Rating"), rows)
    names = ("ISBN", "Book-Title", "Book-Author", "Year-Of-Publication", "Publisher")
    images = ("Image-URL-S", "Image-URL-M", "Image-URL-L")
    write_quoted(folder / "BX-Books.csv", (*names, *images), books)
    write_quoted(folder / "BX-Users.csv", ("User-ID", "Location", "Age"), people)
    return folder


def write_json(path: Path, values: Iterable[Any]) -> Path:
    """Write one JSON object a line."""
    return write_lines(path, map(json.dumps, values))


def write_quoted(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    """Write quoted cells; nothing is escaped here, and None is an unquoted NULL."""
    quoted = [["NULL" if cell is None else f'"{cell}"' for cell in row] for row in [header, *rows]]
    return write_lines(path, map(";".join, quoted), "latin-1")


WRITERS = {
    "ml-1m": write_ml_1m,
    "goodreads": write_goodreads,
    "amazon": write_amazon,
    "book-crossing": write_book_crossing,
}
