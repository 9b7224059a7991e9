"""``python -m recbole_e2urec.data.convert NAME RAW_DIR``: published files to atomic files."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from recbole_e2urec.config.yaml import read_switch
from recbole_e2urec.data.convert import amazon, book_crossing, goodreads, movielens
from recbole_e2urec.data.convert.common import AtomicFiles, Findings, atomic_files
from recbole_e2urec.errors import InputError, one_line

PROGRAM = "python -m recbole_e2urec.data.convert"
CONVERTERS: dict[str, Callable[[Path, AtomicFiles], Findings]] = {
    "ml-1m": movielens.convert,
    "goodreads": goodreads.convert,
    "amazon": amazon.convert,
    "book-crossing": book_crossing.convert,
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {PROGRAM} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Convert a data set, and say what was read; exit code 2 for bad input."""
    try:
        typed = sys.argv[1:] if argv is None else argv
        # with a value always, or the data set's name after it would be taken for one
        given = _parser().parse_args(["--strict=True" if a == "--strict" else a for a in typed])
        strict = read_switch(given.strict, "strict")
        run(given.name, given.folder, given.output, strict)
    except InputError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


def run(name: str, folder: Path, output: Path, strict: bool = False) -> None:
    """Convert and report.

    Args:
        name: of the data set, a key of ``CONVERTERS``.
        folder: of the published files.
        output: RecBole's ``data_path``; the files go into a folder of the data set's name in it.
        strict: whether a count that is not the published one is an error.

    Raises:
        InputError: as the converter says; then no file is left, and none is replaced.
    """
    with atomic_files(output / name, name) as files:
        findings = CONVERTERS[name](folder, files)
        if strict:
            findings.check()
        written = files.finish()
    for warning in findings.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for line in findings.lines:
        print(line)
    print(f"written: {', '.join(map(str, written))}")
    print(f"to run: recbole-e2urec --dataset={name} --data_path={output}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=PROGRAM, description=__doc__, allow_abbrev=False)
    parser.add_argument("name", metavar="NAME", choices=CONVERTERS, help=", ".join(CONVERTERS))
    parser.add_argument("folder", metavar="RAW_DIR", type=Path, help="folder of published files")
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=Path,
        default=Path("dataset"),
        help="where DIR/NAME/NAME.inter and its kin go; RecBole's data_path (default: dataset)",
    )
    parser.add_argument(
        "--strict",
        default=False,
        help="refuse files whose rows are not as many as published; alone it means True",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
