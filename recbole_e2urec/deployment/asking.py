"""``recbole-e2urec recommend``: what a model in use recommends, for the terminal."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from recbole_e2urec.data.textfile import read_lines
from recbole_e2urec.deployment.deployed import open_folder
from recbole_e2urec.deployment.folder import ModelFolder
from recbole_e2urec.deployment.recommending import Entry, Recommendation, Recommender
from recbole_e2urec.errors import InputError, one_line
from recbole_e2urec.sheet import json_line, shortened

_EXAMPLE = """'["50", ["181", 4]]'"""


@dataclass(frozen=True)
class RecommendOptions:
    """Who asks, and how many items are recommended.

    Attributes:
        checkpoint: the model folder.
        user: as the data names the user.
        users_file: a file with a user a line, instead of one user.
        history: instead of a user: items as JSON, ``["50", ["181", 4]]``, with or without a rating,
            or a file with such a text.
        topk: how many items.
        seen: recommend items of the user's own rows as well.
        output: text for people, or a JSON object a line.
    """

    checkpoint: str = field(default="", metadata={"text": True})
    user: str | None = field(default=None, metadata={"text": True})
    users_file: str | None = field(default=None, metadata={"text": True})
    history: str | None = field(default=None, metadata={"text": True})
    topk: int = 10
    seen: bool = False
    output: Literal["text", "json"] = "text"

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        if not self.checkpoint:
            raise InputError("recommend: which model? write --checkpoint=DIR")
        if sum(one is not None for one in (self.user, self.users_file, self.history)) != 1:
            raise InputError("recommend: to whom? write --user, --users_file or --history")


def recommend(
    options: RecommendOptions, settings: Mapping[str, Any], config_files: Sequence[str] = ()
) -> str:
    """Recommend items to the user, the users or the stranger that the options name.

    Args:
        options: who asks.
        settings: see :func:`load_recommender`.
        config_files: yaml files with such settings.

    Raises:
        InputError: the folder or the data do not do, or the user, a file or an item is unknown.
    """
    asked = None if options.history is None else _history(options.history)
    users = [options.user] if options.user is not None else []
    if options.users_file is not None:
        users = [line for line in read_lines(Path(options.users_file), "utf-8") if line]
    folder = ModelFolder(options.checkpoint)
    recommender = Recommender(open_folder(folder, settings, None, config_files))
    if asked is not None:
        found = recommender.recommend_new([asked], options.topk, options.seen)
    else:
        found = recommender.recommend_many(users, options.topk, options.seen)
    names: list[str | None] = [*users] if asked is None else [None]
    write = _json if options.output == "json" else _text
    if options.users_file is None:
        names = [None]
    return "\n".join(write(one, name) for one, name in zip(found, names, strict=True))


def _history(given: str) -> list[Entry]:
    """Items with or without ratings, from JSON or from a file of it."""
    text = given
    if not given.lstrip().startswith("["):
        text = "\n".join(read_lines(Path(given), "utf-8"))
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"history: no JSON ({one_line(error)}); write {_EXAMPLE}") from error
    if not isinstance(value, list):
        raise InputError(f"history: no list; write {_EXAMPLE}")
    return [_entry(one, place) for place, one in enumerate(value, 1)]


def _entry(value: Any, place: int) -> Entry:
    if isinstance(value, str):
        return value
    fits = isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)
    if not fits or isinstance(value[1], bool) or not isinstance(value[1], int | float):
        raise InputError(f"history, entry {place}: no item with a rating; write {_EXAMPLE}")
    return value[0], value[1]


def _text(items: list[Recommendation], user: str | None) -> str:
    lines = [] if user is None else [f"user {shortened(user)}"]
    names = [shortened(one.item) for one in items]
    width = max(map(len, names), default=0)
    for place, (name, one) in enumerate(zip(names, items, strict=True), 1):
        lines.append(f"{place:>3}  {one.score:.4f}  {name:<{width}}  {shortened(one.title)}")
    return "\n".join(lines)


def _json(items: list[Recommendation], user: str | None) -> str:
    named = {} if user is None else {"user": user}
    return json_line({**named, "items": [one._asdict() for one in items]})
