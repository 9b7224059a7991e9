"""Book-Crossing (Ziegler): three ``;`` files with quoted cells; ratings 1 to 10, 0 = not rated."""

from pathlib import Path

from recbole_e2urec.data.convert.common import (
    LATIN,
    AtomicFiles,
    Catalogue,
    Findings,
    find,
    identifier,
    interactions,
    number,
    quoted_cells,
    title,
)

PUBLISHED = {"Book-Ratings": 1_149_780, "Users": 278_858, "Books": 271_379}
HIGHEST = 10
_BOOK = ("ISBN", "Book-Title", "Book-Author", "Year-Of-Publication", "Publisher")
_USER = ("User-ID", "Location", "Age")


def convert(folder: Path, files: AtomicFiles) -> Findings:
    """Write ``.item``, ``.user`` and ``.inter``; the data has no times.

    Raises:
        InputError: a file is missing, or a row is not as published.
    """
    findings = Findings()
    items = _books(folder, files, findings)
    users = _users(folder, files, findings)
    path, rows = _file(folder, "Book-Ratings"), 0
    header = ("User-ID", "ISBN", "Book-Rating")
    with interactions(files, users, items, timed=False) as inter_file:
        for place, (user, item, rating, *_) in quoted_cells(path, header, LATIN):
            inter_file.add(
                identifier(user, place, "User-ID"),
                identifier(item, place, "ISBN"),
                number(rating, place, "Book-Rating", HIGHEST),
            )
            rows += 1
        findings.count(path, rows, PUBLISHED["Book-Ratings"])
        findings.lines += inter_file.notes()
    return findings


def _file(folder: Path, name: str) -> Path:
    return find(folder, [f"BX-{name}.csv", f"{name}.csv"], f"BX-{name}.csv")


def _books(folder: Path, files: AtomicFiles, findings: Findings) -> set[str]:
    path = _file(folder, "Books")
    names = ("book_title:token_seq", "book_author:token_seq", "publication_year:token")
    books = Catalogue(files, "item", ("item_id:token", *names, "publisher:token_seq"))
    for place, (item, name, author, year, publisher, *_) in quoted_cells(path, _BOOK, LATIN):
        features = (name, author, "" if year == "0" else year, publisher)
        books.add(identifier(item, place, "ISBN"), *map(title, features))
    return books.report(findings, path, PUBLISHED["Books"])


def _users(folder: Path, files: AtomicFiles, findings: Findings) -> set[str]:
    path = _file(folder, "Users")
    users = Catalogue(files, "user", ("user_id:token", "location:token_seq", "age:float"))
    for place, (user, location, age, *_) in quoted_cells(path, _USER, LATIN):
        is_known = age.strip() not in ("", "NULL")
        years = f"{number(age, place, 'Age'):g}" if is_known else ""
        users.add(identifier(user, place, "User-ID"), title(location), years)
    return users.report(findings, path, PUBLISHED["Users"])
