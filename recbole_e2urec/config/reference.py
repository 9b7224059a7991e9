"""Copies the meaning of options from option classes to yaml files and docs/reference/options.md.

``python -m recbole_e2urec.config.reference`` lists the outdated files; ``--write`` updates them.
Keys without an option class, such as RecBole's own, keep the comment in their yaml file.
"""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from recbole_e2urec import registry
from recbole_e2urec.config.schema import Option, options_of
from recbole_e2urec.config.yaml import DOCUMENTED, Documented, documented, properties_folder

_COLUMN = 32  # of comments in yaml files
_COMMAND = "# Written by python -m recbole_e2urec.config.reference --write.\n"
_HEAD = """# Options

Written by `python -m recbole_e2urec.config.reference --write`; do not edit it by hand. Give an
option on the command line, as in `--forget_ratio=0.1`, or in a config file, as in
`forget_ratio: 0.1`. `~` stands for nothing. Every key of RecBole works as well.
"""


def options_in(file: str) -> dict[str, Option]:
    """Return the options that a yaml file of properties documents, by key."""
    classes = registry.option_classes(file)
    return {option.key: option for kind in classes for option in options_of(kind)}


def yaml_files() -> list[str]:
    """Return the names of the yaml files that document options, as in ``model/E2URec``."""
    return [*registry.OPTIONS, *(f"model/{name}" for name in registry.METHODS)]


def commented(file: str) -> str:
    """Return the text of a yaml file with up-to-date comments."""
    options = options_in(file)
    if file.startswith("command/"):
        return _COMMAND + "".join(
            _line(f"{key}: {_default(option)}", "", option) for key, option in options.items()
        )
    lines = _path(file).read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(_recommented(line, options) for line in lines)


def _recommented(line: str, options: dict[str, Option]) -> str:
    key = line.partition(":")[0]
    if key not in options:
        return line
    value = line.partition(" #")[0].rstrip()
    match = DOCUMENTED.match(line)
    return _line(value, match[4] or "" if match else "", options[key])


def _line(value: str, source: str, option: Option) -> str:
    kind, _, meaning = option.comment.partition(") ")
    text = ") ".join(filter(None, (kind, f"{source} {meaning}".strip())))
    return f"{value:<{_COLUMN - 2}}  # {text}\n"


def _default(option: Option) -> str:
    default = "" if option.info.is_required() else option.info.default
    return "~" if default is None else default if default else repr(default)


def reference() -> str:
    """Return the page of all options, from the comments of the yaml files."""
    parts = [_HEAD]
    for title, file in (("Every run", "overall"), ("The language model", "model/LLMRec")):
        parts.append(f"## {title}\n")
        for section, keys in _sections(commented(file)):
            parts += [f"### {section}\n"] if section else []
            parts.append(_table(map(_row, keys)))
    parts += ["## Embedded backbones\n", "The defaults are tiny-t5's.\n"]
    parts.append(_table(map(_row, documented(commented("backbone/tiny-t5")))))
    parts += ["## Methods\n", "A method takes the options whose defaults name it.\n"]
    parts += [_table(_of_methods()), "## Commands\n"]
    for file in registry.OPTIONS:
        folder, _, name = file.partition("/")
        if folder == "command":
            parts += [f"### {name}\n", _table(map(_row, documented(commented(file))))]
    return "\n".join(parts)


def _sections(text: str) -> Iterator[tuple[str, list[Documented]]]:
    """Split a yaml file into sections, each titled by a comment after an empty line."""
    for number, part in enumerate(text.split("\n\n")):
        title = part.partition("\n")[0].removeprefix("# ") if number else ""
        if keys := documented(part):
            yield title, keys


def _of_methods() -> Iterator[tuple[str, ...]]:
    """Return a row for each option and meaning, with its methods grouped by default."""
    rows: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    for name in registry.METHODS:
        if _path(f"model/{name}").is_file():
            for entry in documented(commented(f"model/{name}")):
                key = (entry.key, entry.kind, entry.meaning)
                rows.setdefault(key, {}).setdefault(entry.default, []).append(name)
    for (option, kind, meaning), defaults in sorted(rows.items()):
        values = "; ".join(f"`{value}` ({', '.join(names)})" for value, names in defaults.items())
        yield f"`{option}`", kind, values, meaning


def _row(entry: Documented) -> tuple[str, ...]:
    return (
        f"`{entry.key}`",
        entry.kind,
        f"`{entry.default}`" if entry.default else "",
        entry.meaning,
    )


def _table(rows: Iterable[tuple[str, ...]]) -> str:
    lines = [("Option", "Type", "Default", "Meaning"), ("---",) * 4, *rows]
    escaped = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def _path(file: str) -> Path:
    return properties_folder() / f"{file}.yaml"


def files() -> dict[Path, str]:
    """Return every file that repeats the meaning of options, with its up-to-date text.

    The page is among them in a checkout; a wheel has no docs.
    """
    page = properties_folder().parent / "docs" / "reference" / "options.md"
    texts = {_path(file): commented(file) for file in yaml_files() if options_in(file)}
    return {**texts, page: reference()} if page.parent.is_dir() else texts


def main(write: bool) -> int:
    """List outdated files, and with ``write`` update them; return 1 if any stay outdated."""
    outdated = {
        path: text
        for path, text in files().items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    }
    for path, text in outdated.items():
        print(path)
        if write:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return int(bool(outdated) and not write)


if __name__ == "__main__":
    sys.exit(main("--write" in sys.argv[1:]))
