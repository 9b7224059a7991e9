"""Prompts of a dataset, built from tokenised segments, and batches of prompts of similar length.

:func:`prompt_texts` renders each segment of a prompt once. :class:`SegmentStore` tokenises the
distinct segments, and :class:`PromptTable` assembles token batches from them without touching a
string.
"""

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from recbole_e2urec.data.history import Histories, identity_of
from recbole_e2urec.data.rows import RowTable
from recbole_e2urec.data.templates import PromptTemplate
from recbole_e2urec.errors import InputError


def length_grouped_batches(
    lengths: NDArray[np.int64], batch_size: int, generator: np.random.Generator | None
) -> list[NDArray[np.int64]]:
    """Split indices into batches of similar length; each index is in exactly one batch.

    With a generator, indices are shuffled into pools of up to 50 batches and sorted by length
    within a pool, and the batches come in random order. The same generator state gives the same
    batches.

    Args:
        lengths: length of each prompt.
        batch_size: most indices in a batch.
        generator: source of randomness; None = all indices sorted by length, nothing random.

    Returns:
        The indices of each batch.

    Raises:
        InputError: batch_size is below 1.
    """
    if batch_size < 1:
        raise InputError(f"batch size {batch_size}; give 1 or more")
    lengths = np.asarray(lengths)
    count = len(lengths)
    shuffled = np.arange(count) if generator is None else generator.permutation(count)
    # Use at least about four pools, or the batches of every epoch would hold the same rows.
    batches_in_pool = count if generator is None else min(50, max(1, count // (4 * batch_size)))
    pool = np.arange(count) // max(1, batches_in_pool * batch_size)
    grouped = shuffled[np.lexsort((lengths[shuffled], pool))]
    batches = [grouped[start : start + batch_size] for start in range(0, count, batch_size)]
    if generator is None:
        return batches
    return [batches[index] for index in generator.permutation(len(batches))]


def pieces(lengths: NDArray[np.int64], tokens: int) -> Iterator[NDArray[np.int64]]:
    """Split a batch into pieces of at most ``tokens`` tokens, padding included.

    Args:
        lengths: length of each prompt.
        tokens: most tokens in a piece; a longer prompt forms a piece of its own.

    Yields:
        The indices of each piece, ascending. All indices if they fit into one piece; otherwise
        prompts of similar length are together.
    """
    count = len(lengths)
    if count * lengths.max(initial=0) <= tokens:
        yield np.arange(count)
        return
    order, start = np.argsort(lengths, kind="stable"), 0
    for end in range(1, count + 1):
        if end == count or (end + 1 - start) * lengths[order[end]] > tokens:
            yield np.sort(order[start:end])
            start = end


class Wording(NamedTuple):
    """What the prompts of a data set are made of.

    Attributes:
        template: the prompt template.
        titles: title by inner item id, see `item_titles`; blank for ids that are no item.
        tokens: the data's token by inner item id, see `item_tokens`.
        users: features by inner user id, see `user_features`; empty if prompts mention none.
        items: features by inner item id, see `item_features`; empty if prompts mention none.
        user_tokens: the data's token by inner user id, see `user_tokens`; empty if there are none.
    """

    template: PromptTemplate
    titles: Sequence[str]
    tokens: Sequence[str]
    users: Sequence[Mapping[str, str]] = ()
    items: Sequence[Mapping[str, str]] = ()
    user_tokens: Sequence[str] = ()


@dataclass(frozen=True)
class PromptTexts:
    """Every segment that a dataset's prompts can need, each rendered once."""

    users: list[str]  # text about the user, by inner user id
    lead_in: str  # text before a history
    instruction: str  # text before a question
    entries: list[str]  # one history entry for each distinct (item, rating) of the rows
    entry_of_row: NDArray[np.integer[Any]]  # [n] index into `entries` of each row's history entry
    questions: list[str]  # question about the item, by inner item id
    name_users: bool = False  # whether texts about users show their tokens


def prompt_texts(wording: Wording, rows: RowTable) -> PromptTexts:
    """Render the segments of all rows, and the question about every item.

    Args:
        wording: the template, and the titles, tokens and features to fill in.
        rows: all rows of the dataset.
    """
    template, titles, tokens, *_ = wording
    item_features = wording.items or [{}] * len(titles)
    rated = rows.rating is not None
    values, pairs, entry_of_row = rows.entries()
    highest = rows.highest_rating
    entries = [
        template.render_entry(
            titles[item],
            values[code] if rated else None,
            highest,
            tokens[item],
            item_features[item],
        )
        for item, code in zip(*np.divmod(pairs, max(len(values), 1)), strict=True)
    ]
    users = _user_texts(wording)
    users += [""] * (int(rows.user.max(initial=-1)) + 1 - len(users))
    questions = [
        template.render_question(title, rated, token, features) if title else ""
        for title, token, features in zip(titles, tokens, item_features, strict=True)
    ]
    return PromptTexts(
        users,
        template.render_history(rated),
        template.render_instruction(rated),
        entries,
        entry_of_row,
        questions,
        template.names_users,
    )


def _user_texts(wording: Wording) -> list[str]:
    """Render the text about each user, by inner user id; empty where nothing is known."""
    count = max(len(wording.users), len(wording.user_tokens))
    all_features, tokens = wording.users or [{}] * count, wording.user_tokens or [""] * count
    return [
        wording.template.render_user(features, token)
        for features, token in zip(all_features, tokens, strict=True)
    ]


Encode = Callable[[list[str]], list[list[int]]]  # tokenises texts, without special tokens


@dataclass(frozen=True)
class SegmentStore:
    """Tokens of many texts in one flat array; equal texts share their tokens."""

    texts: list[str]  # [m]
    tokens: NDArray[np.int32]  # [total]
    starts: NDArray[np.int64]  # [m] where each text begins in `tokens`
    lengths: NDArray[np.int64]  # [m] number of tokens of each text

    @classmethod
    def from_texts(cls, texts: list[str], encode: Encode) -> "SegmentStore":
        """Tokenise each distinct text once, all in one call; a blank text has no tokens."""
        distinct = {text: index for index, text in enumerate(dict.fromkeys(filter(None, texts)))}
        encoded = [*encode(list(distinct)), []] if distinct else [[]]
        lengths = np.array([len(ids) for ids in encoded], dtype=np.int64)
        ends = np.cumsum(lengths)
        tokens = np.fromiter(
            (token for ids in encoded for token in ids), dtype=np.int32, count=int(ends[-1])
        )
        # The empty text is the last of `encoded`, so -1 points to it.
        index = np.array([distinct.get(text, -1) for text in texts], dtype=np.int64)
        return cls(texts, tokens, (ends - lengths)[index], lengths[index])

    def gather(self, segments: NDArray[np.int64]) -> NDArray[np.int32]:  # [s] -> [tokens]
        """Return the tokens of the given texts, one after the other."""
        lengths = self.lengths[segments]
        before = np.cumsum(lengths) - lengths
        shift = np.repeat(self.starts[segments] - before, lengths)
        return self.tokens[shift + np.arange(len(shift))]


class TokenBatch(NamedTuple):
    """Prompts padded on the right; t is the length of the longest prompt in the batch."""

    input_ids: Tensor  # int64 [b, t]
    attention_mask: Tensor  # int64 [b, t], 1 = token, 0 = padding

    def pieces(self, tokens: int) -> Iterator[tuple[Tensor, "TokenBatch"]]:
        """Split into pieces of at most ``tokens`` tokens, as :func:`pieces` does.

        Yields:
            The indices of a piece's prompts in this batch, and the prompts.
        """
        lengths = self.attention_mask.sum(dim=1)
        for part in map(torch.from_numpy, pieces(lengths.numpy(), tokens)):
            if len(part) == len(lengths):
                yield part, self
            else:
                width = int(lengths[part].max())
                yield part, TokenBatch(*(tensor[part, :width] for tensor in self))

    def to(self, device: torch.device) -> "TokenBatch":
        """Move the batch to a device; a GPU copies it from pinned memory while it computes."""
        if device.type == "cuda":
            return TokenBatch(*(part.pin_memory().to(device, non_blocking=True) for part in self))
        return TokenBatch(*(part.to(device) for part in self))


class SharedPrompts(NamedTuple):
    """b prompts split before the question into p distinct beginnings and b questions."""

    beginnings: NDArray[np.int64]  # [p, k + 3] segments, see PromptTable.beginnings
    questions: NDArray[np.int64]  # [b] segments
    of: NDArray[np.int64]  # [b] index of each question's beginning


class ShownHistory(NamedTuple):
    """The part of a row's history that its prompt shows, and the part cut to fit the length."""

    shown: NDArray[np.int64]  # row ids, oldest first
    cut: NDArray[np.int64]  # row ids, oldest first
    user_is_cut: bool  # whether the text about the user was cut too


@dataclass(frozen=True)
class TokenLimits:
    """A language model's limits on a prompt."""

    max_tokens: int  # longest prompt, prefix and suffix included
    pad_id: int
    prefix_ids: Sequence[int] = ()  # special tokens before the prompt, such as a bos token
    suffix_ids: Sequence[int] = ()  # special tokens after the prompt, such as an eos token


# Indices of the segments that every table has; the users' segments begin at FIRST_USER.
EMPTY, LEAD_IN, INSTRUCTION, FIRST_USER = 0, 1, 2, 3
ENTRIES = slice(2, -2)  # where a prompt's segments have the history entries
FEW = 8192  # rows that are looked at in turn until no token is left to look for
CHUNK = 65536  # rows processed together where only segments are looked at; bounds the memory


class PromptTable:
    """The prompts of a dataset, built batch by batch without touching a string.

    A prompt that is too long first loses its oldest history entries, each as a whole, and then the
    text about the user. It never loses the instruction and the question. The lead-in of the history
    is dropped together with the last entry.

    Args:
        rows: all n rows of the dataset.
        history: [n, k] row ids, oldest first, -1 = absent (see `history_rows`), or what stands for
            such an array.
        texts: the rendered segments.
        encode: tokenises texts without special tokens.
        limits: prompt length and special tokens.

    Raises:
        InputError: a question does not fit into `max_tokens`.
    """

    def __init__(
        self,
        rows: RowTable,
        history: NDArray[np.int64] | Histories,
        texts: PromptTexts,
        encode: Encode,
        limits: TokenLimits,
    ) -> None:
        segments = [
            "",
            texts.lead_in,
            texts.instruction,
            *texts.users,
            *texts.entries,
            *texts.questions,
        ]
        self._store = SegmentStore.from_texts(segments, encode)
        self._rows, self._history, self._limits = rows, history, limits
        self._users, self._name_users = len(texts.users), texts.name_users
        first_entry = FIRST_USER + self._users
        self._first_entry, self._entry_of_row = first_entry, texts.entry_of_row
        self._first_question = first_entry + len(texts.entries)
        self._prefix = np.asarray(limits.prefix_ids, dtype=np.int64)
        self._suffix = np.asarray(limits.suffix_ids, dtype=np.int64)
        self._room = limits.max_tokens - len(self._prefix) - len(self._suffix)
        self._check_questions()

    def with_history(self, history: NDArray[np.int64] | Histories) -> "PromptTable":  # [n, k]
        """Return the same prompts with other histories; both tables share the tokens."""
        other = copy.copy(self)
        other._history = history
        return other

    def fingerprint(self) -> str:
        """Hash everything that decides the prompts' tokens: segments, histories and limits."""
        digest = hashlib.sha256(repr(self._limits).encode())
        for array in (self._store.tokens, self._store.starts, self._store.lengths):
            digest.update(np.ascontiguousarray(array).tobytes())
        for start in range(0, len(self._entry_of_row), CHUNK):
            entries = self._entry_of_row[start : start + CHUNK].astype(np.int64)
            digest.update((self._first_entry + entries).tobytes())
        for piece in identity_of(self._history):
            digest.update(piece)
        return digest.hexdigest()

    @property
    def token_ids(self) -> NDArray[np.int64]:  # [m]
        """The sorted token ids in all texts, without special tokens around prompts."""
        return np.unique(self._store.tokens).astype(np.int64)

    def lengths(
        self, rows: NDArray[np.int64], items: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64]:  # [b], [b] -> [b]
        """Count the tokens of each prompt with special tokens; arguments as in :meth:`batch`."""
        special = len(self._prefix) + len(self._suffix)
        parts = [
            self._store.lengths[
                self._segments(rows[start : start + CHUNK], _chunk(items, start))
            ].sum(axis=1)
            for start in range(0, len(rows), CHUNK)
        ]
        return np.concatenate([np.zeros(0, dtype=np.int64), *parts]) + special * (len(rows) > 0)

    def named(self, users: NDArray[np.int64]) -> NDArray[np.bool_]:  # [n] -> [n]
        """Tell which users, by inner id, prompts name by a text that no other user has."""
        if not self._name_users:
            return np.zeros(len(users), dtype=bool)
        segments = slice(FIRST_USER, FIRST_USER + self._users)
        _, text, shared_by = np.unique(
            self._store.starts[segments], return_inverse=True, return_counts=True
        )
        is_unique = (shared_by[text] == 1) & (self._store.lengths[segments] > 0)
        return is_unique[users]

    def own_tokens(self, users: NDArray[np.int64]) -> NDArray[np.int64]:  # [n] -> [m]
        """Return the sorted token ids that only the texts about these users show, by inner id."""
        is_theirs = np.zeros(len(self._store.starts), dtype=bool)  # by segment
        is_theirs[FIRST_USER + users] = True
        theirs, others = (
            self._store.gather(np.flatnonzero(mask)) for mask in (is_theirs, ~is_theirs)
        )
        return np.setdiff1d(theirs, others).astype(np.int64)

    def tokens(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:  # [b] -> [m]
        """Return the sorted token ids in these prompts, without special tokens around prompts."""
        shown = np.zeros(len(self._store.starts), dtype=bool)  # by segment
        for start in range(0, len(rows), CHUNK):
            shown[self._segments(rows[start : start + CHUNK], None)] = True
        return np.unique(self._store.gather(np.flatnonzero(shown))).astype(np.int64)

    def unshown(
        self, rows: NDArray[np.int64], tokens: NDArray[np.int64]
    ) -> NDArray[np.int64]:  # [b], [m] -> [<= m]
        """Return those of the sorted tokens that none of these prompts shows."""
        for start in range(0, len(rows), FEW):
            if len(tokens) == 0:
                break
            shown = self.tokens(rows[start : start + FEW])
            tokens = np.setdiff1d(tokens, shown, assume_unique=True)
        return tokens

    def shows(
        self, rows: NDArray[np.int64], tokens: NDArray[np.int64]
    ) -> NDArray[np.bool_]:  # [b], [m] -> [b]
        """Tell which prompts show one of these tokens; special tokens do not count."""
        store = self._store
        hits_before = np.concatenate([[0], np.cumsum(np.isin(store.tokens, tokens))])
        has_hit = hits_before[store.starts + store.lengths] > hits_before[store.starts]
        parts = [
            has_hit[self._segments(rows[start : start + CHUNK], None)].any(axis=1)
            for start in range(0, len(rows), CHUNK)
        ]
        return np.concatenate([np.zeros(0, dtype=bool), *parts])

    def batch(
        self, rows: NDArray[np.int64], items: NDArray[np.int64] | None = None
    ) -> TokenBatch:  # [b], [b] -> [b, t]
        """Return the padded prompts of the given rows; an empty batch is [0, 0].

        Args:
            rows: [b] row ids; a row decides the user and the history.
            items: [b] inner item ids to ask about instead of the rows' own items (ranking
                candidates); history entries of the candidate itself are left out.
        """
        return self._padded(self._segments(rows, items), self._prefix, self._suffix)

    def shared(
        self, rows: NDArray[np.int64], items: NDArray[np.int64]
    ) -> SharedPrompts | None:  # [b], [b]
        """Return the same prompts with equal beginnings (all before the question) stored once.

        Arguments are as in :meth:`batch`.

        Returns:
            The prompts; None if a prompt has no token before its question.
        """
        segments = self._segments(rows, items)
        beginnings, of = np.unique(segments[:, :-1], axis=0, return_inverse=True)
        tokens = self._store.lengths[beginnings].sum(axis=1) + len(self._prefix)
        if tokens.min(initial=1) == 0:
            return None
        return SharedPrompts(beginnings, segments[:, -1], of.reshape(-1))

    def beginnings(self, segments: NDArray[np.int64]) -> TokenBatch:  # [p, k + 3] -> [p, t]
        """Return padded beginnings of prompts, including the special tokens before them."""
        return self._padded(segments, self._prefix, self._suffix[:0])

    def endings(self, segments: NDArray[np.int64]) -> TokenBatch:  # [b] -> [b, s]
        """Return padded questions, including the special tokens after them."""
        return self._padded(segments[:, None], self._prefix[:0], self._suffix)

    def _padded(
        self, segments: NDArray[np.int64], prefix: NDArray[np.int64], suffix: NDArray[np.int64]
    ) -> TokenBatch:  # [b, m], [f], [l] -> [b, t]
        """Put the tokens of these segments between special tokens and pad them on the right."""
        before, after = len(prefix), len(suffix)
        ends = self._store.lengths[segments].sum(axis=1) + before
        width = int(ends.max(initial=-after)) + after
        position = np.arange(width)
        ids = np.full((len(segments), width), self._limits.pad_id, dtype=np.int64)
        ids[:, :before] = prefix
        is_text = (position >= before) & (position < ends[:, None])
        ids[is_text] = self._store.gather(segments.ravel())
        if after:
            np.put_along_axis(ids, ends[:, None] + np.arange(after), suffix[None, :], axis=1)
        mask = (position < (ends + after)[:, None]).astype(np.int64)
        return TokenBatch(torch.from_numpy(ids), torch.from_numpy(mask))

    def joined(
        self, rows: NDArray[np.int64], other: "PromptTable", other_rows: NDArray[np.int64]
    ) -> TokenBatch:  # [a], [b] -> [a + b, t]
        """Return prompts of this table, then prompts of another one, in one batch."""
        first, second = self.batch(rows), other.batch(other_rows)
        width = max(first.input_ids.shape[1], second.input_ids.shape[1])
        fills = (self._limits.pad_id, 0)
        return TokenBatch(
            *(
                torch.cat([F.pad(part, (0, width - part.shape[1]), value=fill) for part in pair])
                for pair, fill in zip(zip(first, second, strict=True), fills, strict=True)
            )
        )

    def text(self, row: int, item: int | None = None) -> str:
        """Return the prompt of one row as text, cut as in :meth:`batch`, without special tokens."""
        items = None if item is None else np.array([item])
        segments = self._segments(np.array([row]), items)[0]
        return "".join(self._store.texts[segment] for segment in segments)

    def seen(self, row: int) -> ShownHistory:
        """Return the history that the prompt of one row shows, and what was cut."""
        segments, history = self._segments(np.array([row]), None)[0], self._history[row]
        is_used = (history >= 0) & (self._rows.item[history] != self._rows.item[row])
        is_shown = segments[ENTRIES] != EMPTY
        has_user_text = self._store.lengths[FIRST_USER + self._rows.user[row]] > 0
        user_is_cut = bool(has_user_text and segments[0] == EMPTY)
        return ShownHistory(history[is_shown], history[is_used & ~is_shown], user_is_cut)

    def _segments(
        self, rows: NDArray[np.int64], items: NDArray[np.int64] | None
    ) -> NDArray[np.int64]:  # [b] -> [b, k + 4]
        """Return the segments of each prompt: user, lead-in, entries, instruction, question."""
        rows = np.asarray(rows, dtype=np.int64)
        target = self._rows.item[rows] if items is None else np.asarray(items, dtype=np.int64)
        history = self._history[rows]
        is_used = (history >= 0) & (self._rows.item[history] != target[:, None])
        segments = np.empty((len(rows), history.shape[1] + 4), dtype=np.int64)
        segments[:, 0] = FIRST_USER + self._rows.user[rows]
        segments[:, 1] = LEAD_IN
        entries = self._first_entry + self._entry_of_row[history].astype(np.int64)
        segments[:, ENTRIES] = np.where(is_used, entries, EMPTY)
        segments[:, -2] = INSTRUCTION
        segments[:, -1] = self._first_question + target
        self._cut(segments)
        return segments

    def _cut(self, segments: NDArray[np.int64]) -> None:
        """Blank what does not fit, in place.

        The text about the user goes if it does not fit beside instruction and question; the oldest
        entries go if they do not fit into the rest.
        """
        lengths = self._store.lengths[segments]
        room = self._room - lengths[:, -2:].sum(axis=1)
        segments[lengths[:, 0] > room, 0] = EMPTY
        room = room - self._store.lengths[segments[:, 0]] - lengths[:, 1]
        newest_first = np.cumsum(lengths[:, ENTRIES][:, ::-1], axis=1)
        entries = segments[:, ENTRIES]
        entries[newest_first[:, ::-1] > room[:, None]] = EMPTY
        segments[(entries == EMPTY).all(axis=1), 1] = EMPTY

    def _check_questions(self) -> None:
        lengths = self._store.lengths[self._first_question :] + self._store.lengths[INSTRUCTION]
        if lengths.max(initial=0) <= self._room:
            return
        longest = int(lengths.argmax())
        text = self._store.texts[self._first_question + longest]
        raise InputError(
            f"instruction and question of item {longest} have {lengths[longest]} tokens, "
            f"{self._room} fit: {text[:60]!r}...; shorten its title or raise "
            f"max_prompt_tokens (now {self._limits.max_tokens})"
        )


def _chunk(items: NDArray[np.int64] | None, start: int) -> NDArray[np.int64] | None:
    return None if items is None else items[start : start + CHUNK]
