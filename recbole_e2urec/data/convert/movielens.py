"""MovieLens 1M (GroupLens): ratings, users and movies, with ``::`` between cells."""

import re
from pathlib import Path

from recbole_e2urec.data.convert.common import (
    LATIN,
    AtomicFiles,
    Catalogue,
    Findings,
    cells,
    find,
    identifier,
    interactions,
    number,
    title,
)

PUBLISHED = {"ratings.dat": 1_000_209, "users.dat": 6_040, "movies.dat": 3_883}
STARS = 5
# Meaning of the codes, from the data set's README; prompts need words.
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

    The year in brackets moves from the title to its own column, as in RecBole's ml-100k.

    Raises:
        InputError: a file is missing or a line is not as published.
    """
    findings = Findings()
    items = _movies(folder, files, findings)
    users = _users(folder, files, findings)
    path, rows = find(folder, ["ratings.dat"], "ratings.dat"), 0
    with interactions(files, users, items) as inter_file:
        for place, (user, item, rating, time) in cells(path, "::", 4, LATIN):
            number(time, place, "the timestamp")
            inter_file.add(
                identifier(user, place, "the user"),
                identifier(item, place, "the movie"),
                number(rating, place, "the rating", STARS),
                time.strip(),
            )
            rows += 1
        findings.count(path, rows, PUBLISHED["ratings.dat"])
        findings.lines += inter_file.notes()
    return findings


def _movies(folder: Path, files: AtomicFiles, findings: Findings) -> set[str]:
    path = find(folder, ["movies.dat"], "movies.dat")
    columns = ("movie_title:token_seq", "release_year:token", "genre:token_seq")
    movies = Catalogue(files, "item", ("item_id:token", *columns))
    for place, (item, name, genres) in cells(path, "::", 3, LATIN):
        match = _TITLE_AND_YEAR.fullmatch(name)
        text, year = match.groups() if match else (name, "")
        movies.add(
            identifier(item, place, "the movie"), title(text), year, genres.replace("|", " ")
        )
    return movies.report(findings, path, PUBLISHED["movies.dat"])


def _users(folder: Path, files: AtomicFiles, findings: Findings) -> set[str]:
    path = find(folder, ["users.dat"], "users.dat")
    columns = ("age:token", "gender:token", "occupation:token", "zip_code:token")
    users = Catalogue(files, "user", ("user_id:token", *columns))
    jobs = {str(code): name for code, name in enumerate(OCCUPATIONS)}
    for place, (user, gender, age, job, zip_code) in cells(path, "::", 5, LATIN):
        if age not in AGES or job not in jobs:
            raise place.bad(
                f"age {age!r} or occupation {job!r} is no code of the data set's README"
            )
        users.add(identifier(user, place, "the user"), AGES[age], gender, jobs[job], zip_code)
    return users.report(findings, path, PUBLISHED["users.dat"])
