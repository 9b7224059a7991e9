"""Templates: an interaction becomes a list of short texts, the segments of its prompt.

`[user] [history lead-in] [entry] * k [instruction] [question + tail]`: a segment whose data is
missing is left out. Every segment but the last ends in white space, so that the prompt is their
plain join.
Titles and features are values, never templates: jinja text inside a title stays text. Templates
are rendered in jinja's sandbox, which keeps them away from the interpreter, and without what draws
at random.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import repeat
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jinja2
import numpy as np
from jinja2 import meta, nodes
from jinja2.sandbox import SandboxedEnvironment

from recbole_e2urec.config.yaml import properties, properties_folder, read_yaml
from recbole_e2urec.errors import InputError, nearest, one_line

# Ours, by part; the attributes of PromptTemplate say what each name holds.
NAMES = {
    "entry": "title, item, rating, rating_max",
    "question": "title, item",
    "instruction": "rated",
    "tail": "rated",
    "user": "features, user",
    "history": "rated",
}


@dataclass(frozen=True)
class FieldNames:
    """What RecBole and the data call what a template shows; templates may use these names as well.

    Raises:
        InputError: a column bears a name that templates have for something else.
    """

    item_id: str = "item_id"  # the item's token: entry and question
    title: str | None = None  # its title: entry and question
    rating: str = "rating"  # as text, or none: entry
    items: tuple[str, ...] = ()  # further columns of the item: entry and question
    users: tuple[str, ...] = ()  # columns of the user: user
    user_id: str = "user_id"  # the user's token: user

    def __post_init__(self) -> None:
        """Refuse a name that would mean two things."""
        of_users = set(NAMES["user"].split(", "))
        taken = {name for names in NAMES.values() for name in names.split(", ")} - of_users
        clashes = {
            "item_fields": taken.intersection(self.items),
            "user_fields": of_users.intersection(self.users) - {self.user_id},
        }
        for key, names in clashes.items():
            for name in names:
                raise InputError(f"{key}: templates have a {name!r} of their own; leave it out")

    def of_item(self, title: str, item: str, known: Mapping[str, str]) -> dict[str, str]:
        """Values by name; an unknown one is empty."""
        columns = {name: known.get(name, "") for name in self.items}
        return {self.item_id: item, **({self.title: title} if self.title else {}), **columns}


_ENVIRONMENT = SandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
del _ENVIRONMENT.globals["lipsum"], _ENVIRONMENT.filters["random"]


@dataclass(frozen=True)
class PromptTemplate:
    """The wording of a prompt, as jinja templates; compiled and tried when created.

    Raises:
        InputError: a part does not compile, uses an unknown name, or the question no item.
    """

    entry: str  # one rated item: title, item, rating (text, or none), rating_max (text, or none)
    question: str  # about the target: title, item (its token in the data)
    instruction: str = ""  # before the question: rated (has the data ratings?)
    tail: str = ""  # after the question: rated
    user: str = ""  # features (mapping of name to text), user (the user's token in the data)
    history: str = ""  # lead-in of the history: rated
    names: FieldNames = field(default_factory=FieldNames)

    def __post_init__(self) -> None:
        """Compile every part and render those that need no data."""
        for part in NAMES:
            _render(part, getattr(self, part), None)
        for rating in (5.0, None):
            self.render_entry("title", rating, 5.0)
            self.render_history(rated=rating is not None)
            self.render_instruction(rated=rating is not None)
        if self.render_question("one", item="1") == self.render_question("two", item="2"):
            raise InputError("prompt template: question does not name the item; add {{ title }}")

    @classmethod
    def named(cls, name: str, names: FieldNames | None = None) -> "PromptTemplate":
        """Read the template ``properties/prompt/<name>.yaml``, or the yaml file of this name.

        Args:
            name: as of ``--prompt``.
            names: those of the data.

        Raises:
            InputError: neither is there (names the nearest), or as in :meth:`from_mapping`.
        """
        parts = properties("prompt", name)
        if parts:
            return cls.from_mapping(parts, f"prompt {name}", names)
        if Path(name).suffix in (".yaml", ".yml"):
            return cls.from_mapping(read_yaml(Path(name)), name, names)
        known = [path.stem for path in (properties_folder() / "prompt").glob("*.yaml")]
        raise InputError(f"unknown prompt {name!r}; {nearest(name, known)}, or a .yaml file")

    @classmethod
    def from_mapping(
        cls,
        values: Mapping[str, Any],
        source: str = "prompt template",
        names: FieldNames | None = None,
    ) -> "PromptTemplate":
        """Create from the parts of a file; `source` names it in errors. An empty part may be None.

        Raises:
            InputError: unknown part (names the nearest), missing entry or question, or not a text.
        """
        for name, value in values.items():
            if name not in NAMES:
                raise InputError(f"{source}: unknown part {name!r}; {nearest(str(name), NAMES)}")
            if not isinstance(value, str | None):
                raise InputError(f"{source}: {name} is {value!r}; write a text in quotes")
        for name in ("entry", "question"):
            if not values.get(name):
                raise InputError(f"{source}: no {name}; a template needs entry and question")
        parts = {name: value or "" for name, value in values.items()}
        return cls(**parts, names=names or FieldNames())

    @property
    def shows_user(self) -> bool:
        """Whether the part about the user has the user's token, whatever the features are."""
        return not _variables(self.user).isdisjoint(("user", self.names.user_id))

    @property
    def names_users(self) -> bool:
        """Whether prompts show the user's token: by themselves, or as one of the features."""
        is_feature = self.names.user_id in self.names.users
        return self.shows_user or (is_feature and "features" in _variables(self.user))

    def render_user(self, features: Mapping[str, str], user: str = "") -> str:
        """Text about the user; empty when nothing is known that it shows.

        Args:
            features: by name.
            user: token in the data; empty for people whom the data does not have.
        """
        if not features and not (user and self.shows_user):
            return ""
        columns = {name: features.get(name, "") for name in self.names.users}
        columns[self.names.user_id] = user
        return _ended(_render("user", self.user, {"features": features, "user": user}, columns))

    def render_history(self, rated: bool = True) -> str:
        """Lead-in of a history; `rated`: has the data ratings."""
        return _ended(_render("history", self.history, {"rated": rated}))

    def render_entry(
        self,
        title: str,
        rating: float | None,
        rating_max: float | None = None,
        item: str = "",
        known: Mapping[str, str] = MappingProxyType({}),
    ) -> str:
        """Text of one history entry; without a rating (None or NaN) it has no rating words."""
        values = {
            "title": title,
            "item": item,
            "rating": rating_text(rating),
            "rating_max": rating_text(rating_max),
        }
        columns = {self.names.rating: values["rating"], **self.names.of_item(title, item, known)}
        return _ended(_render("entry", self.entry, values, columns))

    def render_instruction(self, rated: bool = True) -> str:
        """Instruction before the question; `rated`: has the data ratings."""
        return _ended(_render("instruction", self.instruction, {"rated": rated}))

    def render_question(
        self,
        title: str,
        rated: bool = True,
        item: str = "",
        known: Mapping[str, str] = MappingProxyType({}),
    ) -> str:
        """Question about the target and the tail; `rated`: has the data ratings."""
        columns = self.names.of_item(title, item, known)
        values = {"title": title, "item": item}
        question = _ended(_render("question", self.question, values, columns))
        return (question + _render("tail", self.tail, {"rated": rated})).rstrip()

    def catalogue_texts(
        self,
        titles: Sequence[str],
        tokens: Sequence[str],
        items: Sequence[Mapping[str, str]] = (),
    ) -> list[str]:
        """How the template writes each item, without a rating; arguments as in `prompt_texts`."""
        texts: list[str] = []
        for title, token, known in zip(
            titles, tokens, items or repeat({}, len(titles)), strict=True
        ):
            if title:
                texts.append(self.render_entry(title, None, item=token, known=known))
                texts.append(self.render_question(title, item=token, known=known))
        return texts

    def user_texts(self, tokens: Sequence[str]) -> list[str]:
        """How the template writes the user's token, without any features; none if it does not."""
        if not self.shows_user:
            return []
        nothing = dict.fromkeys(self.names.users, "")
        return [self.render_user(nothing, token) for token in tokens if token]

    def literal_texts(self) -> list[str]:
        """The template's own words in every branch: what a word-level tokenizer must know."""
        found: list[str] = []
        for part in NAMES:
            tree = _ENVIRONMENT.parse(getattr(self, part))
            found += [node.data for node in tree.find_all(nodes.TemplateData)]
            found += [str(node.value) for node in tree.find_all(nodes.Const)]
        return [text.strip() for text in found if text.strip()]


def rating_text(rating: float | None) -> str | None:
    """A rating as people write it: 4 for 4.0, 3.5 for 3.5; None for None and NaN."""
    if rating is None or np.isnan(rating):
        return None
    return np.format_float_positional(round(float(rating), 4) + 0.0, trim="-")


@lru_cache(maxsize=256)
def _compiled(source: str) -> jinja2.Template:
    return _ENVIRONMENT.from_string(source)


@lru_cache(maxsize=256)
def _variables(source: str) -> set[str]:
    """Names that a template looks up."""
    return meta.find_undeclared_variables(_ENVIRONMENT.parse(source))


def _render(
    part: str,
    source: str,
    values: Mapping[str, Any] | None,
    columns: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """Fill one part of the template; None for `values` compiles only.

    A name that is in both, and means the same, is taken from `values`.
    """
    try:
        template = _compiled(source)
        return "" if values is None else template.render({**columns, **values})
    except Exception as error:  # a template of the user's own can raise anything
        reason = one_line(error) or type(error).__name__
        usable = ", ".join(dict.fromkeys([*NAMES[part].split(", "), *columns]))
        raise InputError(f"prompt template, {part}: {reason}; it may use: {usable}") from error


def _ended(text: str) -> str:
    """End a non-empty text in white space, so that it never sticks to the next one."""
    if not text.strip():
        return ""
    return text if text[-1].isspace() else text + "\n"
