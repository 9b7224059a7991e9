"""Templates, which turn an interaction into the segments (short texts) of its prompt.

A prompt is `[user] [history lead-in] [entry] * k [instruction] [question + tail]`. A segment whose
data is missing is left out. Every segment but the last ends in white space, so joining the segments
gives the prompt.

Titles and features are values, never templates: jinja syntax inside a title stays text. Templates
are rendered in jinja's sandbox, which keeps them away from the interpreter, and without jinja's
random functions.
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

# Names that each part of a template may use; the attributes of PromptTemplate say what they hold.
NAMES = {
    "entry": "title, item, rating, rating_max",
    "question": "title, item",
    "instruction": "rated",
    "tail": "rated",
    "user": "features, user",
    "history": "rated",
}

_ENVIRONMENT = SandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
del _ENVIRONMENT.globals["lipsum"], _ENVIRONMENT.filters["random"]


@dataclass(frozen=True)
class FieldNames:
    """The data's column names for what templates show; templates may use these names as well.

    Each comment names the parts of a template that may use the column.

    Raises:
        InputError: a column has the name of a template variable with another meaning.
    """

    item_id: str = "item_id"  # the item's token: entry and question
    title: str | None = None  # the item's title: entry and question
    rating: str = "rating"  # the rating as text, or none: entry
    items: tuple[str, ...] = ()  # further item columns: entry and question
    users: tuple[str, ...] = ()  # user columns: user
    user_id: str = "user_id"  # the user's token: user

    def __post_init__(self) -> None:
        """Refuse a name that would have two meanings."""
        user_names = set(NAMES["user"].split(", "))
        item_names = {name for names in NAMES.values() for name in names.split(", ")} - user_names
        clashes = {
            "item_fields": item_names.intersection(self.items),
            "user_fields": user_names.intersection(self.users) - {self.user_id},
        }
        for key, names in clashes.items():
            for name in names:
                raise InputError(f"{key}: templates have a {name!r} of their own; leave it out")

    def item_values(self, title: str, item: str, features: Mapping[str, str]) -> dict[str, str]:
        """Return the values of an item by column name; a missing feature is empty."""
        columns = {name: features.get(name, "") for name in self.items}
        return {self.item_id: item, **({self.title: title} if self.title else {}), **columns}


@dataclass(frozen=True)
class PromptTemplate:
    """The wording of a prompt as jinja templates, which are compiled and tried out when created.

    Each comment lists the variables that a part may use.

    Raises:
        InputError: a part does not compile or uses an unknown name, or the question does not name
            the item.
    """

    entry: str  # one rated item: title, item, rating (text or none), rating_max (text or none)
    question: str  # about the target: title, item (its token in the data)
    instruction: str = ""  # before the question: rated (whether the data has ratings)
    tail: str = ""  # after the question: rated
    user: str = ""  # about the user: features (name to text), user (the user's token in the data)
    history: str = ""  # lead-in of the history: rated
    names: FieldNames = field(default_factory=FieldNames)

    def __post_init__(self) -> None:
        """Compile every part, and render entry, history, instruction and question as a trial."""
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
            name: the value of ``--prompt``.
            names: column names of the data.

        Raises:
            InputError: neither file exists (the message suggests the nearest name), or as in
                :meth:`from_mapping`.
        """
        parts = properties("prompt", name)
        if parts:
            return cls.from_mapping(parts, f"prompt {name}", names)
        if Path(name).suffix in (".yaml", ".yml"):
            return cls.from_mapping(read_yaml(Path(name)), name, names)
        prompts = [path.stem for path in (properties_folder() / "prompt").glob("*.yaml")]
        raise InputError(f"unknown prompt {name!r}; {nearest(name, prompts)}, or a .yaml file")

    @classmethod
    def from_mapping(
        cls,
        values: Mapping[str, Any],
        source: str = "prompt template",
        names: FieldNames | None = None,
    ) -> "PromptTemplate":
        """Create a template from the parts in a file.

        Args:
            values: text by part; an empty part may be None.
            source: what error messages call the file.
            names: column names of the data.

        Raises:
            InputError: a part is unknown (the message suggests the nearest) or no text, or entry or
                question is missing.
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
        """Whether the part about the user shows the user's token, whatever the features are."""
        return not _variables(self.user).isdisjoint(("user", self.names.user_id))

    @property
    def names_users(self) -> bool:
        """Whether prompts show the user's token, either directly or as one of the features."""
        is_feature = self.names.user_id in self.names.users
        return self.shows_user or (is_feature and "features" in _variables(self.user))

    def render_user(self, features: Mapping[str, str], user: str = "") -> str:
        """Render the text about the user; it is empty if nothing that it shows is known.

        Args:
            features: the user's features by name.
            user: the user's token; empty for a person who is not in the data.
        """
        if not features and not (user and self.shows_user):
            return ""
        columns = {name: features.get(name, "") for name in self.names.users}
        columns[self.names.user_id] = user
        values = {"features": features, "user": user}
        return _end_in_space(_render("user", self.user, values, columns))

    def render_history(self, rated: bool = True) -> str:
        """Render the lead-in of a history; `rated` says whether the data has ratings."""
        return _end_in_space(_render("history", self.history, {"rated": rated}))

    def render_entry(
        self,
        title: str,
        rating: float | None,
        rating_max: float | None = None,
        item: str = "",
        features: Mapping[str, str] = MappingProxyType({}),
    ) -> str:
        """Render one history entry.

        Args:
            title: the item's title.
            rating: the rating; None or NaN = no rating, which the template gets as none.
            rating_max: the highest rating in the data, if any.
            item: the item's token in the data.
            features: the item's features by name.
        """
        values = {
            "title": title,
            "item": item,
            "rating": rating_text(rating),
            "rating_max": rating_text(rating_max),
        }
        item_values = self.names.item_values(title, item, features)
        columns = {self.names.rating: values["rating"], **item_values}
        return _end_in_space(_render("entry", self.entry, values, columns))

    def render_instruction(self, rated: bool = True) -> str:
        """Render the instruction before the question; `rated`: whether the data has ratings."""
        return _end_in_space(_render("instruction", self.instruction, {"rated": rated}))

    def render_question(
        self,
        title: str,
        rated: bool = True,
        item: str = "",
        features: Mapping[str, str] = MappingProxyType({}),
    ) -> str:
        """Render the question about the target, and the tail.

        Args:
            title: the item's title.
            rated: whether the data has ratings.
            item: the item's token in the data.
            features: the item's features by name.
        """
        columns = self.names.item_values(title, item, features)
        values = {"title": title, "item": item}
        question = _end_in_space(_render("question", self.question, values, columns))
        return (question + _render("tail", self.tail, {"rated": rated})).rstrip()

    def catalogue_texts(
        self,
        titles: Sequence[str],
        tokens: Sequence[str],
        items: Sequence[Mapping[str, str]] = (),
    ) -> list[str]:
        """Render each item as an entry without a rating, and as a question.

        Args:
            titles: title by inner item id; an item with an empty title is skipped.
            tokens: token by inner item id.
            items: features by inner item id; empty if there are none.
        """
        texts: list[str] = []
        for title, token, features in zip(
            titles, tokens, items or repeat({}, len(titles)), strict=True
        ):
            if title:
                texts.append(self.render_entry(title, None, item=token, features=features))
                texts.append(self.render_question(title, item=token, features=features))
        return texts

    def user_texts(self, tokens: Sequence[str]) -> list[str]:
        """Render each user's token without features; the list is empty if no token is shown."""
        if not self.shows_user:
            return []
        no_features = dict.fromkeys(self.names.users, "")
        return [self.render_user(no_features, token) for token in tokens if token]

    def literal_texts(self) -> list[str]:
        """Return the template's literal texts in every branch, for a word-level tokenizer."""
        literals: list[str] = []
        for part in NAMES:
            tree = _ENVIRONMENT.parse(getattr(self, part))
            literals += [node.data for node in tree.find_all(nodes.TemplateData)]
            literals += [str(node.value) for node in tree.find_all(nodes.Const)]
        return [text.strip() for text in literals if text.strip()]


def rating_text(rating: float | None) -> str | None:
    """Write a rating as people do: 4 for 4.0, 3.5 for 3.5; None for None and NaN."""
    if rating is None or np.isnan(rating):
        return None
    return np.format_float_positional(round(float(rating), 4) + 0.0, trim="-")


@lru_cache(maxsize=256)
def _compiled(source: str) -> jinja2.Template:
    return _ENVIRONMENT.from_string(source)


@lru_cache(maxsize=256)
def _variables(source: str) -> set[str]:
    """Return the names that a template looks up."""
    return meta.find_undeclared_variables(_ENVIRONMENT.parse(source))


def _render(
    part: str,
    source: str,
    values: Mapping[str, Any] | None,
    columns: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """Render one part of a template.

    Args:
        part: name of the part, for error messages.
        source: the jinja text.
        values: value of each template variable; None = compile only.
        columns: value of each data column. A name in both mappings, which means the same in both,
            is taken from `values`.

    Raises:
        InputError: the text does not compile or cannot be rendered.
    """
    try:
        template = _compiled(source)
        if values is None:
            return ""
        # As template.render does, which merges the globals by a slower way for each text.
        known = {**_ENVIRONMENT.globals, **columns, **values}
        return "".join(template.root_render_func(template.new_context(known, shared=True)))
    except Exception as error:  # a user's template can raise anything
        reason = one_line(error) or type(error).__name__
        allowed = ", ".join(dict.fromkeys([*NAMES[part].split(", "), *columns]))
        raise InputError(f"prompt template, {part}: {reason}; it may use: {allowed}") from error


def _end_in_space(text: str) -> str:
    """End a non-empty text in white space, so that it does not run into the next one."""
    if not text.strip():
        return ""
    return text if text[-1].isspace() else text + "\n"
