"""``recbole-e2urec recommend``: what a model in use recommends, for the terminal.

A recommender's prompts are made of rows of its data. Somebody who asks now has no row there, and
somebody new has none at all, so each gets rows of their own, beside nobody else's.

A user is answered by what the data says about them now, but for forgotten rows. Of a user who was
forgotten nothing is known, as of anybody whom the data never had: they may give a history.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.data.prompt_table import PromptTable, prompt_texts
from recbole_e2urec.data.rows import RowTable
from recbole_e2urec.deployment.model_folder import ModelFolder
from recbole_e2urec.deployment.served_model import ServedModel, open_folder
from recbole_e2urec.errors import InputError, one_line
from recbole_e2urec.utils.html import json_line, shortened
from recbole_e2urec.utils.io import read_lines


class QueryUser(NamedTuple):
    """Somebody who asks.

    Attributes:
        items: inner ids of the items of the history, oldest first, [m].
        ratings: of these, as published, NaN where there is none, [m].
        features: what is known besides; empty for strangers.
        seen: inner ids of items not to be recommended.
        user: token in the data; empty for strangers.
    """

    items: NDArray[np.int64]
    ratings: NDArray[np.float64]
    features: Mapping[str, str]
    seen: NDArray[np.int64]
    user: str = ""


class QueryTable(NamedTuple):
    """The table of some visitors.

    Attributes:
        rows: the table; visitor ``i`` is user ``i + 1`` of it.
        history: of each row of the table, [n, k].
        asking: the row of each visitor's question.
        features: by user of the table.
        tokens: the same.
    """

    rows: RowTable
    history: NDArray[np.int64]
    asking: NDArray[np.int64]
    features: list[Mapping[str, str]]
    tokens: list[str]


def query_table(visitors: Sequence[QueryUser], length: int, highest: float | None) -> QueryTable:
    """Put visitors into a table.

    Args:
        visitors: who asks.
        length: most entries that a history shows, the newest ones.
        highest: the highest rating of the data, which prompts may show; None: it has no ratings.
    """
    shown = [visitor.items[max(0, len(visitor.items) - length) :] for visitor in visitors]
    counts = np.array([len(items) for items in shown], dtype=np.int64)
    # Row 0 is nobody's and holds the highest rating; then each visitor's history and question.
    asking = np.cumsum(counts + 1)
    rated = [v.ratings[len(v.ratings) - n :] for v, n in zip(visitors, counts, strict=True)]
    user = np.repeat(np.arange(len(visitors) + 1), np.concatenate([[1], counts + 1]))
    item, rating = np.zeros(len(user), np.int64), np.full(len(user), np.nan)
    history = np.full((len(user), length), -1, dtype=np.int64)
    for row, items, ratings in zip(asking, shown, rated, strict=True):
        own = np.arange(row - len(items), row)
        item[own], rating[own] = items, ratings
        history[row, length - len(own) :] = own
    rating[0] = np.nan if highest is None else highest
    rows = RowTable(user, item, np.zeros(len(user)), None if highest is None else rating)
    features = [{}, *(visitor.features for visitor in visitors)]
    return QueryTable(
        rows, history, asking, features, ["", *(visitor.user for visitor in visitors)]
    )


ASKED_AT_ONCE = 2**17  # pairs of a visitor and an item, at most
Entry = str | tuple[str, float]  # an item, or an item and its rating


class Recommendation(NamedTuple):
    """An item and how sure the model is that it is liked."""

    item: str
    title: str
    score: float


class Recommender:
    """Answers by the model in a folder; it does not change when the folder does."""

    def __init__(self, run: ServedModel) -> None:
        self._run = run
        rows = run.dataset.rows
        kept = np.setdiff1d(np.arange(len(rows)), run.forgotten)
        order = kept[np.lexsort((kept, rows.time[kept], rows.user[kept]))]
        self._rows, self._user = order, rows.user[order]  # by user and time
        self._highest = None if rows.rating is None else float(np.nanmax(rows.rating))
        self._tokens = {inner: token for token, inner in run.dataset.ids.items.items()}
        self._items = np.array(sorted(self._tokens), dtype=np.int64)

    def recommend(self, user: str, k: int = 10, seen: bool = False) -> list[Recommendation]:
        """The k best items of a user, best first; fewer where there are fewer.

        Args:
            user: as the data names the user.
            k: how many items.
            seen: recommend items of the user's own rows as well.

        Raises:
            InputError: nothing is known about the user, or k is below 1.
        """
        return self.recommend_many([user], k, seen)[0]

    def recommend_many(
        self, users: Sequence[str], k: int = 10, seen: bool = False
    ) -> list[list[Recommendation]]:
        """The same for each of several users, who are asked for together.

        Args:
            users: as the data names them.
            k: how many items for each.
            seen: recommend items of their own rows as well.

        Raises:
            InputError: as :meth:`recommend`; says which of the users it is by number.
        """
        visitors = [self._known(user, place, len(users)) for place, user in enumerate(users, 1)]
        return self._best(visitors, k, seen)

    def recommend_new(
        self, histories: Sequence[Sequence[Entry]], k: int = 10, seen: bool = False
    ) -> list[list[Recommendation]]:
        """The same for people whom the data does not have, by their histories.

        Args:
            histories: of each of them items, or pairs of an item and a rating, oldest first.
            k: how many items for each.
            seen: recommend items of the histories as well.

        Raises:
            InputError: an item that the data does not have, or a rating that is no number.
        """
        return self._best([self._stranger(history) for history in histories], k, seen)

    def _known(self, user: str, place: int, count: int) -> QueryUser:
        run = self._run
        inner = run.dataset.ids.users.get(user)
        if inner is None or inner in run.gone:
            which = "this user" if count == 1 else f"user {place} of {count}"
            raise InputError(f"nothing is known about {which}; give a history of items instead")
        low, high = np.searchsorted(self._user, [inner, inner + 1])
        own, rows = self._rows[low:high], run.dataset.rows
        nothing = np.full(len(own), np.nan)
        ratings = nothing if rows.rating is None else rows.rating[own]
        known = run.model.wording.users
        features = known[inner] if known else {}
        return QueryUser(rows.item[own], ratings, features, rows.item[own], user)

    def _stranger(self, history: Sequence[Entry]) -> QueryUser:
        items, ratings = np.zeros(len(history), np.int64), np.full(len(history), np.nan)
        for place, entry in enumerate(history):
            item, rating = (entry, None) if isinstance(entry, str) else entry
            inner = self._run.dataset.ids.items.get(str(item))
            if inner is None:
                raise InputError(f"history, entry {place + 1}: {item!r} is no item of the data")
            items[place] = inner
            if rating is not None:
                ratings[place] = _number(rating, place)
        return QueryUser(items, ratings, {}, items)

    def _best(
        self, visitors: Sequence[QueryUser], k: int, seen: bool
    ) -> list[list[Recommendation]]:
        if k < 1:
            raise InputError(f"topk is {k}; give 1 or more")
        size = max(1, ASKED_AT_ONCE // max(1, len(self._items)))
        parts = [visitors[at : at + size] for at in range(0, len(visitors), size)]
        return [best for part in parts for best in self._best_of(part, k, seen)]

    def _best_of(
        self, visitors: Sequence[QueryUser], k: int, seen: bool
    ) -> list[list[Recommendation]]:
        """Ask about all items of all these visitors at once."""
        table, asking = self._table(visitors)
        offered = [
            self._items if seen else np.setdiff1d(self._items, visitor.seen) for visitor in visitors
        ]
        counts = [len(items) for items in offered]
        with self._run.model.using_prompts(table):
            said = self._run.model.answer(np.repeat(asking, counts), np.concatenate(offered))
        scores = np.split(said.cpu().numpy(), np.cumsum(counts)[:-1])
        return [self._top(own, of, k) for own, of in zip(offered, scores, strict=True)]

    def _table(self, visitors: Sequence[QueryUser]) -> tuple[PromptTable, NDArray[np.int64]]:
        model = self._run.model
        made = query_table(visitors, model.prompt_options.history_length, self._highest)
        wording = model.wording._replace(users=made.features, user_tokens=made.tokens)
        return model.prompts(made.rows, made.history, prompt_texts(wording, made.rows)), made.asking

    def _top(
        self, items: NDArray[np.int64], scores: NDArray[np.float32], k: int
    ) -> list[Recommendation]:
        best = np.argsort(-scores, kind="stable")[:k]
        titles = self._run.model.wording.titles
        return [
            Recommendation(self._tokens[item], titles[item], float(score))
            for item, score in zip(items[best].tolist(), scores[best].tolist(), strict=True)
        ]


def load_recommender(folder: str | Path, **settings: Any) -> Recommender:
    """Load the model in a folder that ``recbole-e2urec export`` made.

    Args:
        folder: which.
        settings: where the data is now (``data_path``), and how to compute (``use_gpu``,
            ``gpu_id``, ``score_batch_size``, ``tokens_at_once``).

    Raises:
        InputError: no such folder, it is damaged, or its data set changed.
    """
    return Recommender(open_folder(ModelFolder(folder), settings))


def _number(rating: Any, place: int) -> float:
    try:
        value = float(rating)
    except (TypeError, ValueError):
        value = float("nan")
    if not np.isfinite(value):
        raise InputError(f"history, entry {place + 1}: {rating!r} is no rating; give a number")
    return value


_EXAMPLE = """'["50", ["181", 4]]'"""


@option_class()
class RecommendOptions:
    """Who asks, and how many items are recommended."""

    checkpoint: str = option("The folder that export made.", default="", text=True)
    user: str | None = option("The user, as the data names the user.", default=None, text=True)
    users_file: str | None = option("Or a file with one user per line.", default=None, text=True)
    history: str | None = option(
        'Or what somebody new likes, with or without ratings: ["50", ["181", 4]], or a file of '
        "that.",
        default=None,
        text=True,
    )
    topk: int = option("How many items.", default=10)
    seen: bool = option("Recommend items of the user's own rows as well.", default=False)
    output: Literal["text", "json"] = option(
        "Text for people (text), or one JSON object per line (json).", default="text"
    )

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
