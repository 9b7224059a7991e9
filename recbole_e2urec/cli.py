"""The command line: ``recbole-e2urec --model=E2URec --dataset=ml-100k --key=value``.

The first argument may name a command, such as ``forget`` or ``verify``; without one, the arguments
describe a run. Heavy packages are imported only when a run or a command starts, so ``--help`` and
typing errors are answered at once. Every error that a user can cause is printed as one line on
stderr, with exit code 2.
"""

import argparse
import os
import re
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar

from recbole_e2urec import __version__
from recbole_e2urec.config.yaml import (
    Documented,
    documented,
    parse_value,
    properties_folder,
    read_switch,
)
from recbole_e2urec.errors import DISK_ERRORS, InputError
from recbole_e2urec.experiment.launch import NO_RESULT, compares, layers_of
from recbole_e2urec.registry import DEFAULT_MODELS
from recbole_e2urec.utils import distributed

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from recbole_e2urec.config.config import RunSettings

T = TypeVar("T")

PROGRAM = "recbole-e2urec"
FOLLOWING = ("finalize", "purge")  # steps after a run
NAMING = ("model", "model_list", "protocol")  # settings that say which models run
_USAGE = "[--model=NAME] [--dataset=NAME] [--config_files='A B'] [--key=value ...]"
_SETTING = re.compile(r"--([A-Za-z_]\w*)=(.*)", re.DOTALL)


class CommandResult(NamedTuple):
    """The text to print, and the exit code."""

    text: str
    code: int = 0


class Command(NamedTuple):
    """A command, whose own arguments are declared in ``properties/command``.

    Attributes:
        name: the name that the user types.
        about: what the command does.
        run: runs the command. Takes the model's name, the settings of a run and the command's own
            arguments, whose text is as typed. Returns what to print.
        positional: the argument that is written without its name; None: all have names.
        on_folder: whether the command works on a folder that holds the settings of its run. Its own
            arguments may then also stand in config files.
        dry: whether the command has a dry run.
    """

    name: str
    about: str
    run: Callable[["str | None", "RunSettings", Mapping[str, Any]], "str | CommandResult"]
    positional: str | None = None
    on_folder: bool = False
    dry: bool = False

    @property
    def arguments(self) -> dict[str, Documented]:
        """The command's own arguments, besides those of a run."""
        return {argument.key: argument for argument in _documented(f"command/{self.name}")}

    def add_arguments(self, parser: "ArgumentParser") -> None:
        """Add the command's own arguments to a parser; a switch needs no value."""
        for key, argument in self.arguments.items():
            default = "" if argument.default in ("~", "''", "False") else f" [{argument.default}]"
            meaning = f"{argument.meaning}{default}".replace("%", "%%")
            if key == self.positional:
                parser.add_argument(key, nargs="?", metavar=key.upper(), help=meaning)
                continue
            switch: dict[str, Any] = (
                {"nargs": "?", "const": "True"} if argument.kind == "bool" else {}
            )
            parser.add_argument(f"--{key}", metavar="VALUE", help=meaning, **switch)


def _check(model: str | None, settings: "RunSettings", arguments: Mapping[str, Any]) -> str:
    from recbole_e2urec.experiment.preview import CheckOptions, check

    overrides = _with_defaults(model, dict(settings.overrides or {}), settings.config_files)
    settings = settings.overridden(overrides)
    return check(_options(CheckOptions, arguments), model, settings)


def _hyper(model: str | None, settings: "RunSettings", arguments: Mapping[str, Any]) -> str:
    from recbole_e2urec.experiment.search import SearchOptions, described, search

    return described(search(_options(SearchOptions, arguments), model, settings))


def _case(model: str | None, settings: "RunSettings", arguments: Mapping[str, Any]) -> str:
    from recbole_e2urec.experiment.inspect_user import CaseOptions, inspect_user

    case = inspect_user(_options(CaseOptions, arguments), model, settings)
    return f"{case.text}\npage: {case.page}"


def _export(model: str | None, settings: "RunSettings", arguments: Mapping[str, Any]) -> str:
    from recbole_e2urec.deployment.export import ExportOptions, export

    return export(_options(ExportOptions, arguments), model, settings)


def _forget(model: str | None, settings: "RunSettings", arguments: Mapping[str, Any]) -> str:
    from recbole_e2urec.deployment.forget import QueueOptions, forget

    _refuse_names(None, settings)
    options = _options(QueueOptions, arguments)
    return forget(options, model, settings.overrides or {}, settings.config_files)


def _correct(model: str | None, settings: "RunSettings", arguments: Mapping[str, Any]) -> str:
    from recbole_e2urec.deployment.correct import CorrectOptions, correct

    _refuse_names(None, settings)
    options = _options(CorrectOptions, arguments)
    return correct(options, model, settings.overrides or {}, settings.config_files)


def _erase(model: str | None, settings: "RunSettings", arguments: Mapping[str, Any]) -> str:
    from recbole_e2urec.deployment.erase import EraseOptions, erase

    _refuse_names(model, settings)
    options = _options(EraseOptions, arguments)
    return erase(options, settings.overrides or {}, settings.config_files)


def _init(model: str | None, settings: "RunSettings", arguments: Mapping[str, Any]) -> str:
    from recbole_e2urec.data.convert.csv_files import InitOptions, init

    for key in ("model", "dataset", *(settings.overrides or {})):
        if {"model": model, "dataset": settings.dataset}.get(key, key) is not None:
            raise InputError(f"init: --{key} means nothing here; drop it")
    return init(_options(InitOptions, arguments))


def _purge(model: str | None, settings: "RunSettings", arguments: Mapping[str, Any]) -> str:
    from recbole_e2urec.deployment.purge import PurgeOptions, purge_by

    options = _options(PurgeOptions, arguments)
    if model or options.checkpoint:
        _refuse_names(model, settings)
    for key in settings.overrides or {}:
        raise InputError(f"purge: --{key} means nothing here; drop it")
    return purge_by(options, settings.dataset)


def _recommend(model: str | None, settings: "RunSettings", arguments: Mapping[str, Any]) -> str:
    from recbole_e2urec.deployment.recommend import RecommendOptions, recommend

    _refuse_names(model, settings)
    options = _options(RecommendOptions, arguments)
    return recommend(options, settings.overrides or {}, settings.config_files)


def _verify(
    model: str | None, settings: "RunSettings", arguments: Mapping[str, Any]
) -> CommandResult:
    from recbole_e2urec.deployment.verify import VerifyOptions, verify

    _refuse_names(model, settings)
    report = verify(
        _options(VerifyOptions, arguments), settings.overrides or {}, settings.config_files
    )
    return CommandResult(report.text, int(report.failed))


def _refuse_names(model: str | None, settings: "RunSettings") -> None:
    """Refuse a model or data set, because the model folder determines both.

    Raises:
        InputError: a model or a data set is named.
    """
    for key, value in (("model", model), ("dataset", settings.dataset)):
        if value is not None:
            raise InputError(f"--{key}={value}: the folder of --checkpoint has its own; drop it")


def _options(kind: type[T], arguments: Mapping[str, Any]) -> T:
    """Create a command's options; an argument that was not given keeps its default."""
    from recbole_e2urec.config.schema import build_options, options_of

    values: dict[str, Any] = {}
    for _, key, _, info, text in options_of(kind):
        if key not in arguments and not info.is_required():
            values[key] = info.default
        elif key in arguments:
            as_typed = text or not isinstance(arguments[key], str)
            values[key] = arguments[key] if as_typed else parse_value(arguments[key], key)
    return build_options(kind, values)


_COMMANDS = (
    Command(
        "init",
        "Make a data set from your own CSV files; their columns are guessed, and said.",
        _init,
    ),
    Command(
        "check",
        "Say what a run would read, show a prompt, and estimate time and memory; nothing is "
        "trained.",
        _check,
    ),
    Command(
        "hyper",
        "Search hyper-parameters by RecBole's HyperTuning, on validation rows.",
        _hyper,
    ),
    Command(
        "case",
        "Show what Original, Retrain and unlearned models answer one user; nothing is trained.",
        _case,
    ),
    Command(
        "export",
        "Make a folder of a finished run's model, to answer with and to forget in; nothing is "
        "trained.",
        _export,
    ),
    Command(
        "forget",
        "Carry out a request on the model in a folder; what was forgotten before stays forgotten.",
        _forget,
        on_folder=True,
        dry=True,
    ),
    Command(
        "correct",
        "Carry out corrections on the model in a folder: rows with another rating, label or user.",
        _correct,
        on_folder=True,
        dry=True,
    ),
    Command(
        "erase",
        "Remove from the data files what the model in a folder has forgotten.",
        _erase,
        on_folder=True,
        dry=True,
    ),
    Command(
        "purge",
        "Remove what runs left and what holds the data: models on the way, pages, pickles, logs.",
        _purge,
        on_folder=True,
        dry=True,
    ),
    Command("recommend", "Recommend items by the model in a folder.", _recommend, on_folder=True),
    Command(
        "verify",
        "Check a certificate of forgetting against the model folder and the data; a line a check.",
        _verify,
        positional="certificate",
        on_folder=True,
    ),
)
COMMANDS = {command.name: command for command in _COMMANDS}


class Arguments(NamedTuple):
    """The parsed arguments.

    Attributes:
        model, dataset: names, if they are given.
        config_files: names of files, in order.
        settings: settings of the run by key, as text.
        command: a key of ``COMMANDS``; None: a run.
        command_arguments: the command's own arguments.
    """

    model: str | None
    dataset: str | None
    config_files: list[str]
    settings: dict[str, str]
    command: str | None = None
    command_arguments: Mapping[str, Any] = MappingProxyType({})


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the arguments say, and print the report.

    Args:
        argv: arguments without the program's name; None: those of this process.

    Returns:
        The exit code: 0; 1 if a check failed; 2 for bad input; 130 when interrupted.
    """
    distributed.print_utf8()
    if argv is None:  # this process is the program
        distributed.collect_rarely()
    try:
        arguments = parse(sys.argv[1:] if argv is None else argv)
        return _run(arguments)
    except InputError as error:
        return _refuse(str(error), quietly=distributed.main_process_only(error))
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        return _refuse(f"cannot write {error.filename or 'a file'}: {error.strerror}")
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted; the same command goes on", file=sys.stderr)
        return 130


def parse(argv: Sequence[str]) -> Arguments:
    """Parse the arguments; ``--help`` and ``--version`` print, and exit with code 0.

    Raises:
        InputError: an argument is neither known nor of the form ``--key=value``, or a key is given
            twice with different values.
    """
    name = argv[0] if argv and argv[0] in COMMANDS else None
    command = COMMANDS[name] if name else None
    known, rest = _parser(name).parse_known_args(argv[1:] if name else argv)
    for key in ("model", "dataset"):
        if getattr(known, key) == "":
            raise InputError(f"--{key} is empty; write --{key}=name")
    settings: dict[str, str] = {}
    for position, argument in enumerate(rest):
        if argument in ("--dry_run", "--purge"):
            argument += "=True"
        match = _SETTING.fullmatch(argument)
        if match is None:
            raise InputError(_how_to_type(argument, rest[position + 1 : position + 2]))
        key, value = match.groups()
        if settings.setdefault(key, value) != value:
            raise InputError(f"--{key} is given twice, with different values; keep one")
    files = [file for entry in known.config_files for file in _split_files(entry)]
    values = {key: getattr(known, key) for key in (command.arguments if command else ())}
    typed = {key: value for key, value in values.items() if value is not None}
    return Arguments(known.model, known.dataset, files, settings, name, typed)


def _run(arguments: Arguments) -> int:
    """Run one model, compare several, or run a command; print the result, return the exit code."""
    if arguments.command:
        return _command(arguments, COMMANDS[arguments.command])
    follows = _says(arguments, FOLLOWING)
    if not follows:
        settings = _with_defaults(arguments.model, arguments.settings, arguments.config_files)
        arguments = arguments._replace(settings=settings)
    settings_of_run: dict[str, Any] = {
        "dataset": arguments.dataset,
        "config_file_list": arguments.config_files,
        "overrides": arguments.settings,
    }
    if follows:
        from recbole_e2urec.quick_start import run_and_finalize
        from recbole_e2urec.report.report import print_report

        text = run_and_finalize(arguments.model, **settings_of_run, show=print_report)["post_run"]
        print(text, end="\n" if text else "")
        return 0
    from recbole_e2urec.quick_start import run_recbole_e2urec

    if compares(_layers(arguments)):
        from recbole_e2urec.report.report import print_comparison as show
    else:
        from recbole_e2urec.report.report import print_report as show

    results = run_recbole_e2urec(model=arguments.model, **settings_of_run)
    if not distributed.is_main_process() or results == NO_RESULT:  # the main process prints them
        return 0
    if "prompts" in results:  # show_prompts was given: nothing was trained
        print(f"{results['text']}\npage: {results['page']}")
    else:
        show(results)
    return 2 if results.get("refused") else 0


def _command(arguments: Arguments, command: Command) -> int:
    """Run a command, print its result, and return the exit code."""
    from recbole_e2urec.config.config import RunSettings

    merged = {key: value for layer in _layers(arguments) for key, value in layer.items()}
    _refuse_ignored(arguments, command, merged)
    files, settings = tuple(arguments.config_files), arguments.settings
    command_arguments = arguments.command_arguments
    if command.on_folder:
        in_files = {key: merged.pop(key) for key in command.arguments if key in merged}
        files, settings, command_arguments = (), merged, {**in_files, **command_arguments}
    result = command.run(
        arguments.model, RunSettings(arguments.dataset, files, None, settings), command_arguments
    )
    result = CommandResult(result) if isinstance(result, str) else result
    print(result.text)
    return result.code


def _refuse_ignored(arguments: Arguments, command: Command, merged: Mapping[str, Any]) -> None:
    """Refuse switches of a run that the command would ignore.

    Raises:
        InputError: a dry run of a command that has none, or a step that follows a run.
    """
    if not command.dry and read_switch(merged.get("dry_run", False), "dry_run"):
        raise InputError(f"dry_run: {arguments.command} has no dry run; drop it")
    for key in FOLLOWING:
        is_set = key in arguments.settings or merged.get(key) not in (None, False)
        if is_set and key not in command.arguments:
            raise InputError(f"--{key} follows a run on a request; drop it")


def _layers(arguments: Arguments) -> list[Mapping[str, Any]]:
    """Return the settings of each file and of the command line; later ones win."""
    return layers_of(arguments.config_files, None, arguments.settings)


def _says(arguments: Arguments, keys: Sequence[str]) -> bool:
    """Return whether the settings contain one of the keys."""
    return any(key in layer for layer in _layers(arguments) for key in keys)


def _with_defaults(
    model: str | None, settings: dict[str, Any], files: Sequence[str]
) -> dict[str, Any]:
    """Add what the command line chooses where no setting does: models, and processes for rows."""
    given = {key for layer in layers_of(files, None, settings) for key in layer}
    if model is None and given.isdisjoint(NAMING):
        settings = {**settings, "model_list": DEFAULT_MODELS}
    if "nproc_rows" not in given and compares(layers_of(files, None, settings)):
        settings = {**settings, "nproc_rows": "auto"}
    return settings


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {PROGRAM} --help")


def _parser(name: str | None) -> argparse.ArgumentParser:
    """Create the parser of a run (``name`` is None) or of a command."""
    command = COMMANDS[name] if name else None
    first = f" {command.positional.upper()}" if command and command.positional else ""
    about = (
        "Train a recommender, make it forget a part of its data, and measure how well that worked. "
        "Any model of RecBole runs on the same data and splits. "
        f"Other commands: {', '.join(f'{PROGRAM} {other} --help' for other in COMMANDS)}."
    )
    parser = _Parser(
        prog=f"{PROGRAM} {name}" if name else PROGRAM,
        usage=f"%(prog)s{first} {_USAGE}",
        description=textwrap.fill(command.about if command else about, 95),
        epilog=_main_keys(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--model", "-m", metavar="NAME", help="E2URec, LLMRec, or one of RecBole's")
    parser.add_argument("--dataset", "-d", metavar="NAME", help="folder of atomic files")
    parser.add_argument(
        "--config_files",
        nargs="+",
        default=[],
        metavar="FILE",
        help="yaml files with settings; later files win, the command line wins over all",
    )
    parser.add_argument("--version", action="version", version=f"recbole_e2urec {__version__}")
    if command:
        command.add_arguments(parser)
    return parser


def _main_keys() -> str:
    """List every documented key of overall.yaml with its type, default and meaning."""
    lines = ["main keys (defaults may differ by model; every key of RecBole works as well):"]
    for option in _documented("overall"):
        lines.append(f"  --{option.key}={option.default or '...'}  ({option.kind})")
        lines += textwrap.wrap(
            option.meaning, 90, initial_indent=" " * 8, subsequent_indent=" " * 8
        )
    return "\n".join(lines)


def _documented(file: str) -> list[Documented]:
    return documented((properties_folder() / f"{file}.yaml").read_text(encoding="utf-8"))


def _split_files(entry: str) -> list[str]:
    """Split at spaces, as RecBole does, unless the whole text names an existing file."""
    return [entry] if os.path.exists(entry) else entry.split()


def _how_to_type(argument: str, following: Sequence[str]) -> str:
    from recbole_e2urec.config.keys import REMOVED_KEYS

    key = argument.lstrip("-")
    if key in REMOVED_KEYS:
        return f"{key} is gone; {REMOVED_KEYS[key]}"
    if key in COMMANDS:
        return f"unexpected argument {argument!r}; a command comes first: {PROGRAM} {key}"
    if argument.startswith("--") and key and "=" not in key:
        value = following[0] if following and not following[0].startswith("-") else "value"
        return f"{argument} has no value; write --{key}={value}, with an equals sign"
    return f"unexpected argument {argument!r}; settings are written --key=value"


def _refuse(message: str, quietly: bool = False) -> int:
    if quietly:
        return 2
    from recbole_e2urec.utils.html import printable

    message = printable(message)  # a message may quote the data
    print(f"{PROGRAM}: error: {' '.join(message.split())}", file=sys.stderr)
    return 2
