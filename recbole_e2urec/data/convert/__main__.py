"""``python -m recbole_e2urec.data.convert NAME RAW_DIR``: published files to atomic files."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from recbole_e2urec.config.yaml import read_switch
from recbole_e2urec.data.convert import book_crossing, movielens, ucsd
from recbole_e2urec.data.convert.common import AtomicFiles, Findings, atomic_files
from recbole_e2urec.errors import InputError, one_line
from recbole_e2urec.utils.distributed import print_utf8

PROGRAM = "python -m recbole_e2urec.data.convert"
CONVERTERS: dict[str, Callable[[Path, AtomicFiles], Findings]] = {
    "ml-1m": movielens.convert,
    "goodreads": ucsd.convert_goodreads,
    "amazon": ucsd.convert_amazon,
    "book-crossing": book_crossing.convert,
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {PROGRAM} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Convert a data set and print what was read; exit code 2 for bad input."""
    print_utf8()
    try:
        words = sys.argv[1:] if argv is None else argv
        # A bare --strict gets a value, or the data set's name after it would be read as its value.
        words = ["--strict=True" if word == "--strict" else word for word in words]
        arguments = _parser().parse_args(words)
        strict = read_switch(arguments.strict, "strict")
        run(arguments.name, arguments.folder, arguments.output, strict)
    except InputError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


def run(name: str, folder: Path, output: Path, strict: bool = False) -> None:
    """Convert a data set and print a report.

    Args:
        name: name of the data set, a key of ``CONVERTERS``.
        folder: folder with the published files.
        output: RecBole's ``data_path``; the files go into its subfolder ``name``.
        strict: whether a row count that differs from the published one is an error.

    Raises:
        InputError: as the converter says. In this case no file is left, and none is replaced.
    """
    with atomic_files(output / name, name) as files:
        findings = CONVERTERS[name](folder, files)
        if strict:
            findings.check()
        paths = files.finish()
    for warning in findings.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for line in findings.lines:
        print(line)
    print(f"written: {', '.join(map(str, paths))}")
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
