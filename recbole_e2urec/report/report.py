"""Results for a person, made from the rows of ``results.jsonl`` and from nothing else.

``python -m recbole_e2urec.report saved/results.jsonl --format=markdown`` prints the comparisons
that a file holds, as text, markdown, csv or latex, or makes one HTML page of them, with pictures.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from texttable import Texttable

from recbole_e2urec.errors import InputError
from recbole_e2urec.report.comparisons import Comparison, comparisons
from recbole_e2urec.report.plots import page
from recbole_e2urec.report.results import load_rows
from recbole_e2urec.report.tables import (
    COST,
    FORGETTING,
    PRIOR,
    READING,
    UNLEARNING,
    WITHIN,
    TextTable,
    inserted,
    row_by_row,
    seeds_of,
    tables_of,
    value_of,
)
from recbole_e2urec.utils.io import write_text

WIDE = 4  # models that fit beside each other in a terminal
FORMATS = ("text", "markdown", "csv", "latex", "html")
COMMENT = {"csv": "#", "latex": "%"}  # what a line begins with that is none of the table
NOISE = (
    f"{WITHIN} may be noise: two Retrains of different seeds are as far apart, or zero lies in the "
    "gap's user-bootstrap interval under every seed"
)


def print_report(results: Mapping[str, Any]) -> None:
    """Print the table of a run, and where its results are; of a dry run, what it found."""
    if "preview" in results:
        print("\n".join(results["lines"]))
        return
    rows, single = row_by_row(results["rows"])
    measured = _measured(rows)
    asked = f", request {rows[0]['request_id']}" if "request_id" in rows[0] else ""
    print(f"\n{rows[0]['dataset']}, seed {rows[0]['seed']}{asked}")
    lines = _plain(rows)
    if measured:
        lines = inserted(UNLEARNING, single.columns, "to_retrain.l2")
        lines = (*lines, *_prior(rows), *_gpu(rows), *_found(rows), *_ranking(rows))
    print(table(rows, lines))
    _print_end(results, single.notes)


def print_comparison(results: Mapping[str, Any]) -> None:
    """Print a line a model: means over seeds, with their standard deviations.

    A few models of one request and one seed are printed as a run is, with a column each.
    """
    rows = results.get("rows", [])
    alike = {(row["seed"], row.get("request_digest")) for row in rows}
    if "preview" in results or (len(alike) == 1 and len(rows) <= WIDE and _measured(rows)):
        print_report(results)
        return
    for one in comparisons(results["rows"], Path(results["results_file"]).parent):
        print(f"\n{_drawn(one, 'text')}")
    _print_end(results)


def _print_end(results: Mapping[str, Any], notes: Sequence[str] = ()) -> None:
    """Print on how many rows models were measured, if they were, and where the results are."""
    if results["groups"]:
        sizes = (f"{count} {name} rows" for name, count in results["groups"].items())
        print("measured on", ", ".join(sizes))
        print("\n".join([READING, *notes]))
    print(f"results: {results['results_file']}")


def _drawn(one: Comparison, kind: str) -> str:
    """One comparison in a format, with the words that it needs; csv and latex have comments."""
    tables = tables_of(one.rows)
    drawn = "\n\n".join(table.drawn(kind) for table in tables)
    notes = _notes(one.rows, tables)
    if kind in COMMENT:
        title, *notes = (f"{COMMENT[kind]} {line}" for line in (one.title, *notes))
        return "\n".join([title, drawn, *notes])
    return "\n".join([one.title, "", drawn, "", *notes])


def _notes(rows: Sequence[Mapping[str, Any]], tables: Sequence[TextTable]) -> list[str]:
    """What a reader of the tables must know."""
    notes = []
    if len({row["seed"] for row in rows}) > 1:
        notes.append("mean ± standard deviation over seeds")
    whole = seeds_of(rows, "Retrain")
    for model in dict.fromkeys(row["model"] for row in rows if "to_retrain" in row):
        own = sorted(seeds_of(rows, model))
        if len(own) < len(whole):
            notes.append(f"{model}: of seed{'s' * (len(own) > 1)} {', '.join(map(str, own))} alone")
    if any(table.marked for table in tables):
        notes.append(NOISE)
    return [*notes, *row_by_row(rows)[1].notes]


def table(rows: Sequence[Mapping[str, Any]], lines: Sequence[tuple[str, str, int]]) -> str:
    """Draw a table with a column a model and a line a measure; a missing value is a dash."""
    text = Texttable(max_width=0)
    text.set_deco(Texttable.HEADER)
    text.set_cols_dtype(["t"] * (len(rows) + 1))
    text.set_cols_align(["l"] + ["r"] * len(rows))
    text.header(["", *(row["model"] for row in rows)])
    for title, path, decimals in lines:
        text.add_row([title, *(_cell(row, path, decimals) for row in rows)])
    return str(text.draw())


def _gpu(rows: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, str, int], ...]:
    used = any("peak_gpu_memory_mb" in row.get("cost", {}) for row in rows)
    return (("peak GPU memory, MB", "cost.peak_gpu_memory_mb", 0),) if used else ()


def _prior(rows: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, str, int], ...]:
    return PRIOR if any("prior_seconds" in row.get("cost", {}) for row in rows) else ()


def _found(rows: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, str, int], ...]:
    names = dict.fromkeys(name for row in rows for name in row.get("found", {}))
    return tuple((f"{name}, found", f"found.{name}", 2) for name in names)


def _ranking(rows: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, str, int], ...]:
    names = rows[0].get("ranking", {})
    return tuple((f"test {name}", f"ranking.{name}", 4) for name in names)


def _plain(rows: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, str, int], ...]:
    tested = tuple((f"test {name}", f"test.{name}", 4) for name in rows[0]["test"])
    forgets = any("forget" in row for row in rows)
    return (*tested, *_ranking(rows), *(FORGETTING if forgets else ()), *COST)


def _cell(row: Mapping[str, Any], path: str, decimals: int) -> str:
    value = value_of(row, path)
    return "-" if value is None else f"{value:,.{decimals}f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Print or write the comparisons of a results file; exit code 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m recbole_e2urec.report", description=__doc__)
    parser.add_argument("file", type=Path, help="results.jsonl of a run")
    parser.add_argument("--format", choices=FORMATS, default="text")
    parser.add_argument("--output", type=Path, help="file to write; without it, the terminal")
    given = parser.parse_args(argv)
    try:
        rows = load_rows(given.file)
        if not rows:
            raise InputError(f"{given.file} has no results; run something first")
        written = _written(comparisons(rows, given.file.parent), given.format)
        if given.output is not None:
            write_text(given.output, written)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if given.output is None:
        print(written, end="")
    return 0


def _written(groups: Sequence[Comparison], kind: str) -> str:
    """All comparisons of a file in a format."""
    if kind == "html":
        tables = [tables_of(one.rows) for one in groups]
        words = [
            [*_notes(one.rows, cells), *([READING] if _measured(one.rows) else [])]
            for one, cells in zip(groups, tables, strict=True)
        ]
        return page(groups, tables, words)
    return "\n".join(f"{_drawn(one, kind)}\n" for one in groups)


def _measured(rows: Sequence[Mapping[str, Any]]) -> bool:
    return any("to_retrain" in row for row in rows)
