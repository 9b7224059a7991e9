"""MovieLens 1M (GroupLens): ratings, users and movies, with ``::`` between cells."""

import re
from pathlib import Path

from recbole_e2urec.data.convert.counts import Findings
from recbole_e2urec.data.convert.interactions import interactions
from recbole_e2urec.data.convert.raw import LATIN, cells, find, identifier, number
from recbole_e2urec.data.convert.writing import AtomicFiles, title

PUBLISHED = {"ratings.dat": 1_000_209, "users.dat": 6_040, "movies.dat": 3_883}
STARS = 5
# What the codes stand for, as the data set's README says; a prompt needs words.
AGES = {
    "1": "under 18", "18": "18-24", "25": "25-34", "35": "35-44", "45": "45-49", "50": "50-55",
    "56": "56+",
}  # fmt: skip
OCCUPATIONS = (
    "other", "academic/educator", "artist", "clerical/admin", "college/grad student",
    "customer service", "doctor/health care", "executive/managerial", "farmer", "homemaker",
    "K-12 student", "lawyer", "programmer", "retired", "sales/marketing", "scientist",
    "self-employed", "technician/engineer", "tradesman/craftsman", "unemployed", "writer",
)  # fmt: skip
_TITLE_AND_YEAR = re.compile(r"(.*?)\s*\((\d{4})\)\s*")


def convert(folder: Path, files: AtomicFiles) -> Findings:
    """Write ``.item``, ``.user`` and ``.inter``.

    Titles lose the year in brackets, which gets a column of its own, as in RecBole's ml-100k.

    Raises:
        InputError: a file is missing or a line is not as published.
    """
    findings = Findings()
    items = _movies(folder, files, findings)
    users = _users(folder, files, findings)
    path, rows = find(folder, ["ratings.dat"], "ratings.dat"), 0
    with interactions(files, users, items) as written:
        for place, (user, item, rating, time) in cells(path, "::", 4, LATIN):
            number(time, place, "the timestamp")
            written.add(
                identifier(user, place, "the user"),
                identifier(item, place, "the movie"),
                number(rating, place, "the rating", STARS),
                time.strip(),
            )
            rows += 1
        findings.count(path, rows, PUBLISHED["ratings.dat"])
        findings.lines += written.notes()
    return findings


def _movies(folder: Path, files: AtomicFiles, findings: Findings) -> set[str]:
    path, known = find(folder, ["movies.dat"], "movies.dat"), set()
    table = files.table(
        "item",
        ("item_id:token", "movie_title:token_seq", "release_year:token", "genre:token_seq"),
    )
    rows = 0
    for place, (item, name, genres) in cells(path, "::", 3, LATIN):
        split = _TITLE_AND_YEAR.fullmatch(name)
        text, year = split.groups() if split else (name, "")
        known.add(identifier(item, place, "the movie"))
        table.write(item, title(text), year, genres.replace("|", " "))
        rows += 1
    findings.count(path, rows, PUBLISHED["movies.dat"])
    return known


def _users(folder: Path, files: AtomicFiles, findings: Findings) -> set[str]:
    path, known = find(folder, ["users.dat"], "users.dat"), set()
    table = files.table(
        "user",
        ("user_id:token", "age:token", "gender:token", "occupation:token", "zip_code:token"),
    )
    rows = 0
    names = {str(code): name for code, name in enumerate(OCCUPATIONS)}
    for place, (user, gender, age, job, zip_code) in cells(path, "::", 5, LATIN):
        if age not in AGES or job not in names:
            raise place.bad(
                f"age {age!r} or occupation {job!r} is no code of the data set's README"
            )
        known.add(identifier(user, place, "the user"))
        table.write(user, AGES[age], gender, names[job], zip_code)
        rows += 1
    findings.count(path, rows, PUBLISHED["users.dat"])
    return known
