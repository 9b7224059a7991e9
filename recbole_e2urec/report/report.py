"""Prints and writes results for people, from the rows of ``results.jsonl`` alone.

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
from recbole_e2urec.report.results import load_results
from recbole_e2urec.report.tables import (
    COST,
    FORGETTING,
    PRIOR,
    READING,
    UNLEARNING,
    WITHIN,
    Columns,
    TextTable,
    caution_of,
    insert_columns,
    number,
    row_by_row,
    seeds_of,
    tables_of,
    value_of,
    without_shares,
)
from recbole_e2urec.utils.distributed import print_utf8
from recbole_e2urec.utils.io import write_text

WIDE = 4  # most models that fit next to each other in a terminal
FORMATS = ("text", "markdown", "csv", "latex", "html")
COMMENT = {"csv": "#", "latex": "%"}  # prefix of lines that are not part of the table
NOISE = (
    f"{WITHIN} may be noise: two Retrains of different seeds are as far apart, or zero lies in the "
    "gap's user-bootstrap interval under every seed"
)


def print_report(results: Mapping[str, Any]) -> None:
    """Print the table of a run and the path of its results; for a dry run, print its findings."""
    if "preview" in results:
        print("\n".join(results["lines"]))
        return
    caution = caution_of(results["rows"])
    rows, row_measure = row_by_row(results["rows"])
    if caution:
        rows = without_shares(rows)
        print(f"\n{caution}", end="")
    request = f", request {rows[0]['request_id']}" if "request_id" in rows[0] else ""
    print(f"\n{rows[0]['dataset']}, seed {rows[0]['seed']}{request}")
    measures = _classic_measures(rows)
    if _is_unlearning(rows):
        measures = insert_columns(UNLEARNING, row_measure.columns, "to_retrain.l2")
        measures = (*measures, *_prior(rows), *_gpu(rows), *_searched(rows), *_ranking(rows))
    print(table(rows, measures))
    _print_end(results, row_measure.notes)


def print_comparison(results: Mapping[str, Any]) -> None:
    """Print a line for each model: means over seeds with their standard deviations.

    A few models of one request and one seed are printed in the way of a run, with a column each.
    """
    rows = results.get("rows", [])
    runs = {(row["seed"], row.get("request_digest")) for row in rows}
    if "preview" in results or (len(runs) == 1 and len(rows) <= WIDE and _is_unlearning(rows)):
        print_report(results)
        return
    for comparison in comparisons(results["rows"], Path(results["results_file"]).parent):
        print(f"\n{_comparison_text(comparison, 'text')}")
    _print_end(results)


def table(rows: Sequence[Mapping[str, Any]], measures: Columns) -> str:
    """Draw a table with a column for each row of results and a line for each measure.

    A missing value is a dash.
    """
    text = Texttable(max_width=0)
    text.set_deco(Texttable.HEADER)
    text.set_cols_dtype(["t"] * (len(rows) + 1))
    text.set_cols_align(["l"] + ["r"] * len(rows))
    text.header(["", *(row["model"] for row in rows)])
    for title, path, decimals in measures:
        text.add_row([title, *(_cell(row, path, decimals) for row in rows)])
    return str(text.draw())


def main(argv: Sequence[str] | None = None) -> int:
    """Print or write the comparisons of a results file; exit code 2 for bad input."""
    print_utf8()
    parser = argparse.ArgumentParser(prog="python -m recbole_e2urec.report", description=__doc__)
    parser.add_argument("file", type=Path, help="results.jsonl of a run")
    parser.add_argument("--format", choices=FORMATS, default="text")
    parser.add_argument("--output", type=Path, help="file to write; without it, the terminal")
    arguments = parser.parse_args(argv)
    try:
        rows = load_results(arguments.file)
        if not rows:
            raise InputError(f"{arguments.file} has no results; run something first")
        text = _report_text(comparisons(rows, arguments.file.parent), arguments.format)
        if arguments.output is not None:
            write_text(arguments.output, text)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if arguments.output is None:
        print(text, end="")
    return 0


def _print_end(results: Mapping[str, Any], notes: Sequence[str] = ()) -> None:
    """Print the number of rows that models were measured on, if any, and the results' path."""
    if results["groups"]:
        sizes = (f"{count} {name} rows" for name, count in results["groups"].items())
        print("measured on", ", ".join(sizes))
        print("\n".join([READING, *notes]))
    for row in results.get("refused", ()):
        print(f"no row of {row['model']}, seed {row['seed']}: {row['refused']}")
    print(f"results: {results['results_file']}")


def _report_text(groups: Sequence[Comparison], kind: str) -> str:
    """Write all comparisons of a file in a format."""
    if kind == "html":
        tables = [tables_of(group.rows) for group in groups]
        notes = [
            [*_notes(group.rows, group_tables), *([READING] if _is_unlearning(group.rows) else [])]
            for group, group_tables in zip(groups, tables, strict=True)
        ]
        return page(groups, tables, notes, [caution_of(group.rows) for group in groups])
    return "\n".join(f"{_comparison_text(group, kind)}\n" for group in groups)


def _comparison_text(comparison: Comparison, kind: str) -> str:
    """Write one comparison with its notes in a format; in csv and latex, notes are comments."""
    tables = tables_of(comparison.rows)
    text = "\n\n".join(table.render(kind) for table in tables)
    notes = _notes(comparison.rows, tables)
    caution = caution_of(comparison.rows)
    first = [*([caution] if caution else []), comparison.title]
    if kind in COMMENT:
        first, notes = ([f"{COMMENT[kind]} {line}" for line in lines] for lines in (first, notes))
        return "\n".join([*first, text, *notes])
    return "\n".join(["\n\n".join(first), "", text, "", *notes])


def _notes(rows: Sequence[Mapping[str, Any]], tables: Sequence[TextTable]) -> list[str]:
    """Return the notes that a reader of the tables needs."""
    notes = []
    if len({row["seed"] for row in rows}) > 1:
        notes.append("mean ± standard deviation over seeds")
    all_seeds = seeds_of(rows, "Retrain")
    for model in dict.fromkeys(row["model"] for row in rows if "to_retrain" in row):
        seeds = sorted(seeds_of(rows, model))
        if len(seeds) < len(all_seeds):
            plural = "s" * (len(seeds) > 1)
            notes.append(f"{model}: of seed{plural} {', '.join(map(str, seeds))} alone")
    if any(table.has_noise_mark for table in tables):
        notes.append(NOISE)
    return [*notes, *row_by_row(rows)[1].notes]


def _classic_measures(rows: Sequence[Mapping[str, Any]]) -> Columns:
    test = tuple((f"test {name}", f"test.{name}", 4) for name in rows[0]["test"])
    forgets = any("forget" in row for row in rows)
    return (*test, *_ranking(rows), *(FORGETTING if forgets else ()), *COST)


def _prior(rows: Sequence[Mapping[str, Any]]) -> Columns:
    return PRIOR if any("prior_seconds" in row.get("cost", {}) for row in rows) else ()


def _gpu(rows: Sequence[Mapping[str, Any]]) -> Columns:
    has_gpu = any("peak_gpu_memory_mb" in row.get("cost", {}) for row in rows)
    return (("peak GPU memory, MB", "cost.peak_gpu_memory_mb", 0),) if has_gpu else ()


def _searched(rows: Sequence[Mapping[str, Any]]) -> Columns:
    names = dict.fromkeys(name for row in rows for name in row.get("found", {}))
    return tuple((f"{name}, found", f"found.{name}", 2) for name in names)


def _ranking(rows: Sequence[Mapping[str, Any]]) -> Columns:
    names = rows[0].get("ranking", {})
    return tuple((f"test {name}", f"ranking.{name}", 4) for name in names)


def _cell(row: Mapping[str, Any], path: str, decimals: int) -> str:
    return number(value_of(row, path), decimals)


def _is_unlearning(rows: Sequence[Mapping[str, Any]]) -> bool:
    return any("to_retrain" in row for row in rows)
