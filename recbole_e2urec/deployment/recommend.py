"""``recbole-e2urec recommend``: what a served model recommends, from Python and in the terminal.

From Python, a loaded recommender also carries out requests, and goes on answering meanwhile.

A recommender's prompts are made from rows of its data. A user who asks now has no row for the
question, and a new user has no rows at all. Each user therefore gets rows in a table of their own.

Answers use what the data says about a user, except for forgotten rows. A fully forgotten user is
treated like one whom the data never had: nothing is known, but a history may be given.
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.config.yaml import read_switch
from recbole_e2urec.data.prompt_table import PromptTable, prompt_texts
from recbole_e2urec.data.rows import RowTable, without
from recbole_e2urec.deployment.export import refuse_used
from recbole_e2urec.deployment.forget import (
    QueueOptions,
    carry_out,
    check_method,
    default_method,
)
from recbole_e2urec.deployment.hub import NO_LICENSE, Format, facts_of, publish
from recbole_e2urec.deployment.model_folder import ModelFolder
from recbole_e2urec.deployment.served_model import REQUEST_SETTINGS, ServedModel, open_folder
from recbole_e2urec.errors import InputError, one_line
from recbole_e2urec.utils.html import json_line, shortened
from recbole_e2urec.utils.io import read_lines

MEASURED = {"with_retrain", "noise_floor"}  # what else forget can measure
ASKED_AT_ONCE = 2**17  # pairs of a user and an item, at most
_EXAMPLE = """'["50", ["181", 4]]'"""
Entry = str | tuple[str, float]  # an item, or an item and its rating


class Recommendation(NamedTuple):
    """An item, and the probability that the user likes it."""

    item: str
    title: str
    score: float


class QueryUser(NamedTuple):
    """A user who asks for recommendations.

    Attributes:
        items: inner ids of the items of the history, oldest first, [m].
        ratings: their ratings as published, NaN where there is none, [m].
        features: what else is known about the user; empty for new users.
        seen: inner ids of items not to be recommended.
        user: token in the data; empty for new users.
    """

    items: NDArray[np.int64]
    ratings: NDArray[np.float64]
    features: Mapping[str, str]
    seen: NDArray[np.int64]
    user: str = ""


class QueryTable(NamedTuple):
    """A table of the users who ask.

    Attributes:
        rows: the table; user ``i`` of the query is user ``i + 1`` of the table.
        history: history of each row of the table, [n, k].
        asking: for each user of the query, the row of the question.
        features: features by user of the table.
        tokens: tokens by user of the table.
    """

    rows: RowTable
    history: NDArray[np.int64]
    asking: NDArray[np.int64]
    features: list[Mapping[str, str]]
    tokens: list[str]


def query_table(users: Sequence[QueryUser], length: int, highest: float | None) -> QueryTable:
    """Put the users who ask into a table.

    Args:
        users: who asks.
        length: how many entries a history shows at most; these are the newest.
        highest: highest rating of the data, which prompts may show; None: the data has no ratings.
    """
    shown = [user.items[max(0, len(user.items) - length) :] for user in users]
    counts = np.array([len(items) for items in shown], dtype=np.int64)
    # Row 0 is nobody's and holds the highest rating; then each user's history and question.
    asking = np.cumsum(counts + 1)
    shown_ratings = [
        user.ratings[len(user.ratings) - count :] for user, count in zip(users, counts, strict=True)
    ]
    user_column = np.repeat(np.arange(len(users) + 1), np.concatenate([[1], counts + 1]))
    item, rating = np.zeros(len(user_column), np.int64), np.full(len(user_column), np.nan)
    history = np.full((len(user_column), length), -1, dtype=np.int64)
    for question, items, ratings in zip(asking, shown, shown_ratings, strict=True):
        rows_before = np.arange(question - len(items), question)
        item[rows_before], rating[rows_before] = items, ratings
        history[question, length - len(rows_before) :] = rows_before
    rating[0] = np.nan if highest is None else highest
    times = np.zeros(len(user_column))
    rows = RowTable(user_column, item, times, None if highest is None else rating)
    features = [{}, *(user.features for user in users)]
    return QueryTable(rows, history, asking, features, ["", *(user.user for user in users)])


class Snapshot:
    """Recommends by one state of a model; one thread at a time."""

    def __init__(self, run: ServedModel) -> None:
        self._run, self._lock = run, Lock()
        rows = run.dataset.rows
        live = without(np.arange(len(rows)), run.forgotten)
        order = live[np.lexsort((live, rows.time[live], rows.user[live]))]
        self._rows, self._user = order, rows.user[order]  # by user and time
        self._highest = rows.highest_rating
        self._tokens = {inner: token for token, inner in run.dataset.ids.items.items()}
        self._items = np.array(sorted(self._tokens), dtype=np.int64)

    def recommend_many(
        self, users: Sequence[str], k: int, seen: bool
    ) -> list[list[Recommendation]]:
        """See :meth:`Recommender.recommend_many`."""
        known = [self._known(user, place, len(users)) for place, user in enumerate(users, 1)]
        return self._best(known, k, seen)

    def recommend_new(
        self, histories: Sequence[Sequence[Entry]], k: int, seen: bool
    ) -> list[list[Recommendation]]:
        """See :meth:`Recommender.recommend_new`."""
        return self._best([self._new_user(history) for history in histories], k, seen)

    def save_pretrained(self, folder: Path, kind: Format, license_name: str) -> str:
        """See :meth:`Recommender.save_pretrained`."""
        with self._lock:
            return publish(self._run, facts_of(self._run), folder, kind, license_name)

    def _known(self, user: str, place: int, count: int) -> QueryUser:
        run = self._run
        inner = run.dataset.ids.users.get(user)
        if inner is None or inner in run.gone:
            which = "this user" if count == 1 else f"user {place} of {count}"
            raise InputError(
                f"nothing is known about {which}, and that is all to be passed on: the user was "
                "never in the data, or was forgotten by request; give a history of items instead"
            )
        low, high = np.searchsorted(self._user, [inner, inner + 1])
        user_rows, rows = self._rows[low:high], run.dataset.rows
        no_ratings = np.full(len(user_rows), np.nan)
        ratings = no_ratings if rows.rating is None else rows.rating[user_rows]
        features_of = run.model.wording.users
        features = features_of[inner] if features_of else {}
        items = rows.item[user_rows]
        return QueryUser(items, ratings, features, items, user)

    def _new_user(self, history: Sequence[Entry]) -> QueryUser:
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

    def _best(self, users: Sequence[QueryUser], k: int, seen: bool) -> list[list[Recommendation]]:
        if k < 1:
            raise InputError(f"topk is {k}; give 1 or more")
        size = max(1, ASKED_AT_ONCE // max(1, len(self._items)))
        batches = [users[start : start + size] for start in range(0, len(users), size)]
        return [best for batch in batches for best in self._best_of_batch(batch, k, seen)]

    def _best_of_batch(
        self, users: Sequence[QueryUser], k: int, seen: bool
    ) -> list[list[Recommendation]]:
        """Ask about all items of all these users at once."""
        table, asking = self._table(users)
        offered = [self._items if seen else np.setdiff1d(self._items, user.seen) for user in users]
        counts = [len(items) for items in offered]
        with self._lock, self._run.model.using_prompts(table):
            answers = self._run.model.answer(np.repeat(asking, counts), np.concatenate(offered))
        scores = np.split(answers.cpu().numpy(), np.cumsum(counts)[:-1])
        return [self._top(*pair, k) for pair in zip(offered, scores, strict=True)]

    def _table(self, users: Sequence[QueryUser]) -> tuple[PromptTable, NDArray[np.int64]]:
        model = self._run.model
        query = query_table(users, model.prompt_options.history_length, self._highest)
        wording = model.wording._replace(users=query.features, user_tokens=query.tokens)
        texts = prompt_texts(wording, query.rows)
        return model.prompts(query.rows, query.history, texts), query.asking

    def _top(
        self, items: NDArray[np.int64], scores: NDArray[np.float32], k: int
    ) -> list[Recommendation]:
        best = np.argsort(-scores, kind="stable")[:k]
        titles = self._run.model.wording.titles
        return [
            Recommendation(self._tokens[item], titles[item], float(score))
            for item, score in zip(items[best].tolist(), scores[best].tolist(), strict=True)
        ]


class ForgetReport(NamedTuple):
    """What came of a request.

    Attributes:
        text: a report for people, which names no user and no item.
        seconds: from the call until the model that has forgotten answered; None: the request had
            been carried out before.
    """

    text: str
    seconds: float | None


class Recommender:
    """Recommends by the model in a folder, and forgets in it.

    Threads may share it. While one of them forgets, the others are answered by the old model, and
    then by the new one. If another process changes the folder, the answers stay those of the model
    that was loaded, until the next :meth:`forget`.

    Args:
        folder: the model's folder.
        settings: see :func:`load_recommender`.
    """

    def __init__(self, folder: ModelFolder, settings: Mapping[str, Any]) -> None:
        self._folder, self._settings = folder, settings
        self._forgetting = Lock()
        self._next: ServedModel | None = None  # forgets next; another model than the one in use
        self._next_key: Any = None
        self._next_config: Any = None  # without a request
        run = open_folder(folder, settings)
        self._answering, self._state = Snapshot(run), run.state

    def recommend(self, user: str, k: int = 10, seen: bool = False) -> list[Recommendation]:
        """Return the k best items for a user, best first; fewer if there are fewer.

        Args:
            user: the user's token in the data.
            k: how many items.
            seen: also recommend items of the user's own rows.

        Raises:
            InputError: nothing is known about the user, or k is below 1.
        """
        return self.recommend_many([user], k, seen)[0]

    def recommend_many(
        self, users: Sequence[str], k: int = 10, seen: bool = False
    ) -> list[list[Recommendation]]:
        """Return the k best items for each of several users, who are asked about together.

        Args:
            users: tokens of the users in the data.
            k: how many items for each.
            seen: also recommend items of their own rows.

        Raises:
            InputError: as for :meth:`recommend`; it says by number which user is meant.
        """
        return self._answering.recommend_many(users, k, seen)

    def recommend_new(
        self, histories: Sequence[Sequence[Entry]], k: int = 10, seen: bool = False
    ) -> list[list[Recommendation]]:
        """Return the k best items for users whom the data does not have, by their histories.

        Args:
            histories: for each user items, or pairs of an item and a rating, oldest first.
            k: how many items for each.
            seen: also recommend items of the histories.

        Raises:
            InputError: an item is not in the data, a rating is no number, or k is below 1.
        """
        return self._answering.recommend_new(histories, k, seen)

    def save_pretrained(
        self, folder: str | Path, format: Format = "merged", license: str = NO_LICENSE
    ) -> str:
        """Write the model for plain transformers or plain peft, with a model card.

        Args:
            folder: a new folder, or an empty one.
            format: a whole model (merged), or the adapter of a model under ``tuning: lora`` (peft).
            license: the model's licence, as hubs call it.

        Returns:
            What was written, for people.

        Raises:
            InputError: the folder is not empty or cannot be written, or the model is no adapter.
        """
        target = ModelFolder(folder)
        refuse_used(target, "folder")
        return self._answering.save_pretrained(target.path, format, license)

    def forget(
        self,
        request: str | Path | None = None,
        where: str | None = None,
        method: str | None = None,
        **settings: Any,
    ) -> ForgetReport:
        """Carry out a request, as ``recbole-e2urec forget`` does, and certify it.

        The model that has forgotten answers as soon as it is in place; then it is measured. The
        first call opens a second model beside the one in use.

        Args:
            request: a file of users, items or rows.
            where: or a filter, as in ``user_id == '42'``.
            method: the method; None: the one that made the model, or NegatedE2URec.
            settings: options of the method and of the request, ``with_retrain`` and
                ``noise_floor``.

        Raises:
            InputError: the folder, the request or the method cannot be used.
        """
        started = time.perf_counter()
        if (request is None) == (where is None):
            raise InputError("forget: what? give a request, a file, or where, a filter")
        if read_switch(settings.pop("dry_run", False), "dry_run"):
            raise InputError("dry_run: use the command, recbole-e2urec forget --dry_run")
        asked = {key: settings.pop(key) for key in REQUEST_SETTINGS & settings.keys()}
        asked.update(forget_file=request, forget_where=where)
        measured = {key: settings.pop(key) for key in MEASURED & settings.keys()}
        options = QueueOptions(str(self._folder.path), **measured)
        in_place: list[float] = []

        def serve(run: ServedModel) -> ServedModel:
            self._answer_by(run)
            in_place.append(time.perf_counter() - started)
            self._next = run.reopened(self._folder)
            return self._next

        with self._forgetting, self._folder.locked(unmeasured=True):
            self._folder.tidy()
            run = self._opened(method or default_method(self._folder), settings)
            run.config = self._next_config.with_settings(asked)
            try:
                _, lines = carry_out(run, self._folder, options, serve)
                if not in_place and run.state["files"] != self._state["files"]:
                    self._answer_by(run)  # another process forgot
                    self._next = run.reopened(self._folder)
            except BaseException:
                self._next = None  # it may have been changed half-way
                raise
            self._folder.remove_work()
        return ForgetReport("\n".join(lines), in_place[0] if in_place else None)

    def _opened(self, method: str, settings: Mapping[str, Any]) -> ServedModel:
        """Return the model that forgets next, in the folder's present state."""
        key = method, dict(settings)
        if self._next is None or key != self._next_key or self._is_stale(self._next):
            check_method(method)
            self._next = open_folder(self._folder, {**self._settings, **settings}, method)
            self._next_key, self._next_config = key, self._next.config
        return self._next

    def _is_stale(self, run: ServedModel) -> bool:
        pointer = self._folder.pointer()
        return (run.state["generation"], run.state["model_json"]) != tuple(pointer)

    def _answer_by(self, run: ServedModel) -> None:
        """Answer by this model from now on, which nobody changes any more."""
        self._answering, self._state = Snapshot(run), run.state


def load_recommender(folder: str | Path, **settings: Any) -> Recommender:
    """Load the model in a folder that ``recbole-e2urec export`` made.

    Args:
        folder: the folder.
        settings: where the data is now (``data_path``), and how to compute (``use_gpu``,
            ``gpu_id``, ``score_batch_size``, ``tokens_at_once``).

    Raises:
        InputError: there is no such folder, it is damaged, or its data set changed.
    """
    return Recommender(ModelFolder(folder), settings)


def _number(rating: Any, place: int) -> float:
    try:
        value = float(rating)
    except (TypeError, ValueError):
        value = float("nan")
    if not np.isfinite(value):
        raise InputError(f"history, entry {place + 1}: {rating!r} is no rating; give a number")
    return value


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
        if sum(choice is not None for choice in (self.user, self.users_file, self.history)) != 1:
            raise InputError("recommend: to whom? write --user, --users_file or --history")


def recommend(
    options: RecommendOptions, settings: Mapping[str, Any], config_files: Sequence[str] = ()
) -> str:
    """Recommend items to the users whom the options name, or to a new user with a history.

    Args:
        options: who asks, and for what.
        settings: see :func:`load_recommender`.
        config_files: yaml files with such settings.

    Returns:
        The recommendations as text or JSON, as the options say.

    Raises:
        InputError: the folder or the data cannot be used, or a user, a file or an item is unknown.
    """
    history = None if options.history is None else _read_history(options.history)
    users = [options.user] if options.user is not None else []
    if options.users_file is not None:
        users = [line for line in read_lines(Path(options.users_file), "utf-8") if line]
    folder = ModelFolder(options.checkpoint)
    recommender = Snapshot(open_folder(folder, settings, None, config_files))
    if history is not None:
        recommended = recommender.recommend_new([history], options.topk, options.seen)
    else:
        recommended = recommender.recommend_many(users, options.topk, options.seen)
    names: list[str | None] = [*users] if history is None else [None]
    render = _json if options.output == "json" else _text
    if options.users_file is None:
        names = [None]
    return "\n".join(render(items, name) for items, name in zip(recommended, names, strict=True))


def _read_history(source: str) -> list[Entry]:
    """Read items with or without ratings, from JSON or from a file that holds it."""
    text = source
    if not source.lstrip().startswith("["):
        text = "\n".join(read_lines(Path(source), "utf-8"))
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"history: no JSON ({one_line(error)}); write {_EXAMPLE}") from error
    if not isinstance(value, list):
        raise InputError(f"history: no list; write {_EXAMPLE}")
    return [_entry(item, place) for place, item in enumerate(value, 1)]


def _entry(value: Any, place: int) -> Entry:
    if isinstance(value, str):
        return value
    fits = isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)
    if not fits or isinstance(value[1], bool) or not isinstance(value[1], int | float):
        raise InputError(f"history, entry {place}: no item with a rating; write {_EXAMPLE}")
    return value[0], value[1]


def _text(items: list[Recommendation], user: str | None) -> str:
    lines = [] if user is None else [f"user {shortened(user)}"]
    names = [shortened(item.item) for item in items]
    width = max(map(len, names), default=0)
    for place, (name, item) in enumerate(zip(names, items, strict=True), 1):
        lines.append(f"{place:>3}  {item.score:.4f}  {name:<{width}}  {shortened(item.title)}")
    return "\n".join(lines)


def _json(items: list[Recommendation], user: str | None) -> str:
    named = {} if user is None else {"user": user}
    return json_line({**named, "items": [item._asdict() for item in items]})
