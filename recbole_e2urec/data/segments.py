"""The distinct texts that the prompts of a dataset are made of, and their packed tokens."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec.data.prompts import PromptTemplate
from recbole_e2urec.data.rows import RowTable

Encode = Callable[[list[str]], list[list[int]]]


class Wording(NamedTuple):
    """What prompts of a data set are made of.

    Attributes:
        template: their wording.
        titles: by inner item id, see `item_titles`; blank for ids that are no item.
        tokens: in the data, by inner item id, see `item_tokens`.
        users: features by inner user id, see `user_features`; empty where prompts mention none.
        items: features by inner item id, see `item_features`; the same.
        user_tokens: in the data, by inner user id, see `user_tokens`; empty where there are none.
    """

    template: PromptTemplate
    titles: Sequence[str]
    tokens: Sequence[str]
    users: Sequence[Mapping[str, str]] = ()
    items: Sequence[Mapping[str, str]] = ()
    user_tokens: Sequence[str] = ()


@dataclass(frozen=True)
class PromptTexts:
    """Every segment that a dataset can need, each rendered once."""

    users: list[str]  # by inner user id
    lead_in: str  # before a history
    instruction: str  # before a question
    entries: list[str]  # one for each distinct (item, rating) of the rows
    entry_of_row: NDArray[np.int64]  # [n] index into `entries` of each row as a history entry
    questions: list[str]  # by inner item id
    name_users: bool = False  # whether texts about users show their tokens


def prompt_texts(wording: Wording, rows: RowTable) -> PromptTexts:
    """Render the segments of all rows and of every item as a candidate.

    Args:
        wording: what they are made of.
        rows: all rows of the dataset.
    """
    template, titles, tokens, *_ = wording
    known = wording.items or [{}] * len(titles)
    rated = rows.rating is not None
    ratings = np.zeros(len(rows.item)) if rows.rating is None else rows.rating
    values, code = np.unique(ratings, return_inverse=True)
    pairs, entry_of_row = np.unique(rows.item * max(len(values), 1) + code, return_inverse=True)
    highest = float(np.nanmax(values)) if rated and not np.isnan(values).all() else None
    entries = [
        template.render_entry(
            titles[item], values[code] if rated else None, highest, tokens[item], known[item]
        )
        for item, code in zip(*np.divmod(pairs, max(len(values), 1)), strict=True)
    ]
    users = _user_texts(wording)
    users += [""] * (int(rows.user.max(initial=-1)) + 1 - len(users))
    questions = [
        template.render_question(title, rated, token, own) if title else ""
        for title, token, own in zip(titles, tokens, known, strict=True)
    ]
    return PromptTexts(
        users,
        template.render_history(rated),
        template.render_instruction(rated),
        entries,
        entry_of_row.astype(np.int64),
        questions,
        template.names_users,
    )


def _user_texts(wording: Wording) -> list[str]:
    """By inner user id, as far as anything is known."""
    count = max(len(wording.users), len(wording.user_tokens))
    features, tokens = wording.users or [{}] * count, wording.user_tokens or [""] * count
    return [
        wording.template.render_user(known, token)
        for known, token in zip(features, tokens, strict=True)
    ]


@dataclass(frozen=True)
class SegmentStore:
    """Tokens of many texts in one flat array; equal texts share theirs."""

    texts: list[str]  # [m]
    tokens: NDArray[np.int32]  # [total]
    starts: NDArray[np.int64]  # [m] where each text begins in `tokens`
    lengths: NDArray[np.int64]  # [m] tokens in each text

    @classmethod
    def from_texts(cls, texts: list[str], encode: Encode) -> "SegmentStore":
        """Tokenise each distinct text once, all in one call; a blank text has no tokens."""
        distinct = {text: place for place, text in enumerate(dict.fromkeys(filter(None, texts)))}
        encoded = [*encode(list(distinct)), []] if distinct else [[]]
        lengths = np.array([len(ids) for ids in encoded], dtype=np.int64)
        ends = np.cumsum(lengths)
        tokens = np.fromiter(
            (token for ids in encoded for token in ids), dtype=np.int32, count=int(ends[-1])
        )
        # The empty text is the last of `encoded`, which -1 finds as well.
        place = np.array([distinct.get(text, -1) for text in texts], dtype=np.int64)
        return cls(texts, tokens, (ends - lengths)[place], lengths[place])

    def gather(self, segments: NDArray[np.int64]) -> NDArray[np.int32]:  # [s] -> [tokens]
        """Tokens of the given texts, one after the other."""
        lengths = self.lengths[segments]
        before = np.cumsum(lengths) - lengths
        shift = np.repeat(self.starts[segments] - before, lengths)
        return self.tokens[shift + np.arange(len(shift))]
