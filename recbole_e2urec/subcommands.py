"""Commands besides the run itself, such as ``recbole-e2urec hyper``.

Nothing heavy is imported before one of them runs.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from recbole_e2urec.errors import InputError
from recbole_e2urec.yamlfiles import typed

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from recbole_e2urec.jobs import Given

T = TypeVar("T")


class Told(NamedTuple):
    """What is to be printed, and the exit code."""

    text: str
    code: int = 0


class Command(NamedTuple):
    """A command.

    Attributes:
        about: what it does.
        arguments: its own, beside those of a run, with their meanings.
        run: what it does with the model's name, the settings of a run and its own arguments, of
            which text is read as typed; gives what is to be printed.
        positional: the argument that is written without its name; None: all have names.
        switches: arguments that may stand without a value, which means True.
        on_folder: whether it is about a folder that has the settings of its run; its own
            arguments may then stand in config files.
        dry: whether it has a dry run.
    """

    about: str
    arguments: dict[str, str]
    run: Callable[["str | None", "Given", Mapping[str, Any]], "str | Told"]
    positional: str | None = None
    switches: tuple[str, ...] = ()
    on_folder: bool = False
    dry: bool = False

    def add_arguments(self, parser: "ArgumentParser") -> None:
        """Have a parser know the command's own arguments."""
        for key, meaning in self.arguments.items():
            if key == self.positional:
                parser.add_argument(key, nargs="?", metavar=key.upper(), help=meaning)
                continue
            alone: dict[str, Any] = {"nargs": "?", "const": "True"} if key in self.switches else {}
            parser.add_argument(f"--{key}", metavar="VALUE", help=meaning, **alone)


def _hyper(model: str | None, given: "Given", own: Mapping[str, Any]) -> str:
    from recbole_e2urec.hyper import SearchOptions, search
    from recbole_e2urec.trials import told

    return told(search(_options(SearchOptions, own), model, given))


def _case(model: str | None, given: "Given", own: Mapping[str, Any]) -> str:
    from recbole_e2urec.case import CaseOptions, study

    found = study(_options(CaseOptions, own), model, given)
    return f"{found.text}\npage: {found.page}"


def _export(model: str | None, given: "Given", own: Mapping[str, Any]) -> str:
    from recbole_e2urec.deployment.exporting import ExportOptions, export

    return export(_options(ExportOptions, own), model, given)


def _forget(model: str | None, given: "Given", own: Mapping[str, Any]) -> str:
    from recbole_e2urec.deployment.queue import QueueOptions, forget

    _refuse_names(None, given)
    options = _options(QueueOptions, own)
    return forget(options, model, given.overrides or {}, given.config_files)


def _purge(model: str | None, given: "Given", own: Mapping[str, Any]) -> str:
    from recbole_e2urec.deployment.purging import PurgeOptions, purge_by

    _refuse_names(model, given)
    for key in given.overrides or {}:
        raise InputError(f"purge: --{key} means nothing here; drop it")
    return purge_by(_options(PurgeOptions, own))


def _recommend(model: str | None, given: "Given", own: Mapping[str, Any]) -> str:
    from recbole_e2urec.deployment.asking import RecommendOptions, recommend

    _refuse_names(model, given)
    options = _options(RecommendOptions, own)
    return recommend(options, given.overrides or {}, given.config_files)


def _verify(model: str | None, given: "Given", own: Mapping[str, Any]) -> Told:
    from recbole_e2urec.deployment.verifying import VerifyOptions, verify

    _refuse_names(model, given)
    found = verify(_options(VerifyOptions, own), given.overrides or {}, given.config_files)
    return Told(found.text, int(found.failed))


def _refuse_names(model: str | None, given: "Given") -> None:
    """Refuse names of what a model folder has in it.

    Raises:
        InputError: a model or a data set is named.
    """
    for key, value in (("model", model), ("dataset", given.dataset)):
        if value is not None:
            raise InputError(f"--{key}={value}: the folder of --checkpoint has its own; drop it")


def _options(kind: type[T], own: Mapping[str, Any]) -> T:
    """Fill a command's options; what was not given keeps its default."""
    from recbole_e2urec.options import build_options

    defaults = {field.name: field.default for field in fields(kind)}  # type: ignore[arg-type]
    as_text = {field.name for field in fields(kind) if field.metadata.get("text")}  # type: ignore[arg-type]
    values: dict[str, Any] = {
        key: typed(value, key) if isinstance(value, str) and key not in as_text else value
        for key, value in own.items()
    }
    return build_options(kind, {**defaults, **values})


COMMANDS = {
    "hyper": Command(
        "Search hyper-parameters by RecBole's HyperTuning, on validation rows.",
        {
            "params_file": "what is searched: lines such as 'learning_rate choice [0.01,0.005]'",
            "algo": "exhaustive, random or bayes; exhaustive unless told otherwise",
            "max_evals": "most trials; 100, or the whole grid",
            "early_stop": "trials without a better one that end it; 10, for a grid never",
            "output_file": "where every trial goes; hyper.json in checkpoint_dir",
        },
        _hyper,
    ),
    "case": Command(
        "Show what Original, Retrain and unlearned models answer one user; nothing is trained.",
        {
            "user": "the user, as the data names it",
            "topk": "how many items each model recommends; 10",
            "rows": "how many rows of each part are asked about; 3",
            "output_file": "where the page goes; case.html in checkpoint_dir",
        },
        _case,
    ),
    "export": Command(
        "Make a folder of a finished run's model, to answer with and to forget in; nothing is "
        "trained.",
        {"output": "the folder: a new one, or an empty one"},
        _export,
    ),
    "forget": Command(
        "Carry out a request on the model in a folder; what was forgotten before stays forgotten.",
        {
            "checkpoint": "the folder that export made",
            "request": "the request, a file as of --forget_file; or give --forget_where=FILTER",
            "drift_budget": "drift, in nats, above which retraining is due; 0.009",
            "with_retrain": "measure against a Retrain, which is trained for it: as dear as the "
            "model's own training",
            "noise_floor": "train one more, under the next seed: how far two Retrains are apart",
            "purge": "afterwards, remove all else that holds the forgotten data; "
            "docs/how-to/purge.md",
            "checkpoint_dir": "of the run that made the model, to purge; what the folder says",
        },
        _forget,
        switches=("with_retrain", "noise_floor", "purge"),
        on_folder=True,
        dry=True,
    ),
    "purge": Command(
        "Remove what runs left and what holds the data: models on the way, pages, pickles, logs.",
        {
            "checkpoint_dir": "of the runs; their logs are looked for beside it",
            "checkpoint": "or a model folder, which says where its run wrote",
            "dry_run": "say what would be removed; remove nothing",
        },
        _purge,
        switches=("dry_run",),
        on_folder=True,
        dry=True,
    ),
    "recommend": Command(
        "Recommend items by the model in a folder.",
        {
            "checkpoint": "the folder that export made",
            "user": "the user, as the data names the user",
            "users_file": "or a file with a user a line",
            "history": """or what somebody new likes: '["50", ["181", 4]]', or a file of that""",
            "topk": "how many items; 10",
            "seen": "items of the user's own rows as well",
            "output": "text or json, an object a line; text",
        },
        _recommend,
        switches=("seen",),
        on_folder=True,
    ),
    "verify": Command(
        "Check a certificate of forgetting against the model folder and the data; a line a check.",
        {
            "certificate": "the JSON file that forget wrote",
            "checkpoint": "the model folder; the one that the certificate lies in",
        },
        _verify,
        positional="certificate",
        on_folder=True,
    ),
}
