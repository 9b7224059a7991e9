"""Settings as text: yaml files, values of the command line, and the folder of our own yaml files.

All use one grammar, the core of YAML 1.2. ``True`` and ``False`` are booleans, ``~``, ``null`` and
``None`` are nothing, and ``1e-3`` is a number. Answer words, identifiers and file names, such as
``Yes``, ``No``, ``007``, ``12:30`` and ``2014-2018``, are text. Nothing is evaluated as code.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from recbole_e2urec.errors import InputError

_SCALARS = {
    "bool": (r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    "null": (r"^(?:~|null|Null|NULL|None)$", "~nN"),
    "int": (r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    "float": (
        r"^[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"
        r"|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$",
        "-+0123456789.",
    ),
}


# Errors of loading: PyYAML's own, a tag that its value does not fit (``!!int x``), open brackets.
WRONG = (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError)


# The parser in C is more than ten times as quick; a PyYAML that was built without it has none.
_SafeLoader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class SettingsLoader(_SafeLoader):  # type: ignore[valid-type, misc]
    """PyYAML's safe loader with the scalars of YAML 1.2; an empty value is None."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 - PyYAML's own attribute

    def construct_float(self, node: yaml.ScalarNode) -> float:
        """Read a float; PyYAML's own rule also takes base 60."""
        text = str(self.construct_scalar(node)).lower()
        return float(text.replace(".inf", "inf").replace(".nan", "nan"))


for _name, (_pattern, _first) in _SCALARS.items():
    SettingsLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_name}", re.compile(_pattern), list(_first)
    )
SettingsLoader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^$"), [""])
SettingsLoader.add_constructor("tag:yaml.org,2002:float", SettingsLoader.construct_float)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a yaml file of settings; an empty file is an empty dict.

    Raises:
        InputError: the file is missing, does not parse (names the line) or is not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InputError(f"cannot read the config file {path}: {reason}") from error
    try:
        values = yaml.load(text, Loader=SettingsLoader)
    except WRONG as error:
        raise InputError(f"{path}{_place(error)}: not valid yaml: {_problem(error)}") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InputError(f"{path}: a config file holds lines such as 'epochs: 10'")
    return values


def parse_value(text: str, key: str = "value") -> Any:
    """Parse the text of ``--key=text``.

    Text in brackets, braces or quotes is yaml, as in ``{rating: 4}`` and ``['AUC', 'LogLoss']``.
    Other text is one scalar: a number, a boolean, nothing (``~``), or the text as typed.

    Raises:
        InputError: a mapping lacks the space that yaml needs after a colon.
    """
    if text[:1] in ("[", "{", "'", '"'):
        try:
            value = yaml.load(text, Loader=SettingsLoader)
        except WRONG:
            return text  # text such as the interval [5,inf), which is not yaml
        if _has_glued_key(value):
            raise InputError(f"--{key}={text}: write a space after each colon, as in {{a: 1}}")
        return value
    loader = SettingsLoader("")
    try:
        tag = loader.resolve(yaml.ScalarNode, text, (True, False))
        if not text or not str(tag).startswith("tag:yaml.org,2002:"):
            return text
        return loader.construct_object(yaml.ScalarNode(tag, text))
    finally:
        loader.dispose()


def read_switch(value: Any, key: str) -> bool:
    """Read a boolean, or text such as ``True``, ``true``, ``TRUE`` or ``false``.

    Every switch is read here, whether it comes from the command line, a file or Python.

    Raises:
        InputError: the value is not a boolean; the message names the key.
    """
    switch = parse_value(value, key) if isinstance(value, str) else value
    if not isinstance(switch, bool):
        raise InputError(f"{key}: {value!r} does not do; True or False is needed")
    return switch


def properties_folder() -> Path:
    """Find our yaml files: inside the package in a wheel, beside it in a checkout.

    Raises:
        FileNotFoundError: neither exists, because the installation is broken.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "properties", package.parent / "properties"):
        if (folder / "overall.yaml").is_file():
            return folder
    raise FileNotFoundError(f"no properties folder in or beside {package}; install it again")


def properties(kind: str, name: str) -> dict[str, Any]:
    """Read ``properties/<kind>/<name>.yaml``; empty if there is no such file.

    A ``/`` in a name, as in a hub id, is written ``--`` in the file's name.
    """
    path = properties_folder() / kind / f"{name.replace('/', '--')}.yaml"
    return read_yaml(path) if path.is_file() else {}


class Documented(NamedTuple):
    """A key of one of our yaml files, as its comment documents it."""

    key: str
    default: str  # as written; empty if it follows on separate lines
    kind: str  # type and valid values, as in ``float, above 0``
    source: str  # a published value, as in ``[0.2]``; empty if there is none
    meaning: str


# A key at the start of a line, whose comment begins with a type.
DOCUMENTED = re.compile(r"^(\w+):(.*?)# \((\w.*?)\) (\[.*?\])? ?(.*)$", re.MULTILINE)


def documented(text: str) -> list[Documented]:
    """Return the documented keys of the text of a yaml file."""
    return [Documented(*(part.strip() for part in parts)) for parts in DOCUMENTED.findall(text)]


def _has_glued_key(value: Any) -> bool:
    return isinstance(value, dict) and any(
        isinstance(key, str) and ":" in key and entry is None for key, entry in value.items()
    )


def _place(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f", line {mark.line + 1}" if mark else ""


def _problem(error: Exception) -> str:
    return str(getattr(error, "problem", None) or error).splitlines()[0]
