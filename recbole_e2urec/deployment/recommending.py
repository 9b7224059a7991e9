"""Recommendations of a model in use: ``load_recommender(folder).recommend(user, k)``.

A user is answered by what the data says about them now, but for forgotten rows. Of a user who was
forgotten nothing is known, as of anybody whom the data never had: they may give a history.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec.data.segments import prompt_texts
from recbole_e2urec.data.tokens import PromptTable
from recbole_e2urec.data.visitors import Visitor, visit
from recbole_e2urec.deployment.deployed import Deployed, open_folder
from recbole_e2urec.deployment.folder import ModelFolder
from recbole_e2urec.errors import InputError

ASKED_AT_ONCE = 2**17  # pairs of a visitor and an item, at most
Entry = str | tuple[str, float]  # an item, or an item and its rating


class Recommendation(NamedTuple):
    """An item and how sure the model is that it is liked."""

    item: str
    title: str
    score: float


class Recommender:
    """Answers by the model in a folder; it does not change when the folder does."""

    def __init__(self, run: Deployed) -> None:
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

    def _known(self, user: str, place: int, count: int) -> Visitor:
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
        return Visitor(rows.item[own], ratings, features, rows.item[own], user)

    def _stranger(self, history: Sequence[Entry]) -> Visitor:
        items, ratings = np.zeros(len(history), np.int64), np.full(len(history), np.nan)
        for place, entry in enumerate(history):
            item, rating = (entry, None) if isinstance(entry, str) else entry
            inner = self._run.dataset.ids.items.get(str(item))
            if inner is None:
                raise InputError(f"history, entry {place + 1}: {item!r} is no item of the data")
            items[place] = inner
            if rating is not None:
                ratings[place] = _number(rating, place)
        return Visitor(items, ratings, {}, items)

    def _best(self, visitors: Sequence[Visitor], k: int, seen: bool) -> list[list[Recommendation]]:
        if k < 1:
            raise InputError(f"topk is {k}; give 1 or more")
        size = max(1, ASKED_AT_ONCE // max(1, len(self._items)))
        parts = [visitors[at : at + size] for at in range(0, len(visitors), size)]
        return [best for part in parts for best in self._best_of(part, k, seen)]

    def _best_of(
        self, visitors: Sequence[Visitor], k: int, seen: bool
    ) -> list[list[Recommendation]]:
        """Ask about all items of all these visitors at once."""
        table, asking = self._table(visitors)
        offered = [
            self._items if seen else np.setdiff1d(self._items, visitor.seen) for visitor in visitors
        ]
        counts = [len(items) for items in offered]
        with self._run.model.reading(table):
            said = self._run.model.answer(np.repeat(asking, counts), np.concatenate(offered))
        scores = np.split(said.cpu().numpy(), np.cumsum(counts)[:-1])
        return [self._top(own, of, k) for own, of in zip(offered, scores, strict=True)]

    def _table(self, visitors: Sequence[Visitor]) -> tuple[PromptTable, NDArray[np.int64]]:
        model = self._run.model
        made = visit(visitors, model.prompt_options.history_length, self._highest)
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
