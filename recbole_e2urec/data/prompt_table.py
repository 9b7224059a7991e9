"""Every prompt of a dataset from tokenised segments, and batches of prompts of similar length."""

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from recbole_e2urec.data.rows import RowTable
from recbole_e2urec.data.templates import PromptTemplate
from recbole_e2urec.errors import InputError


def length_grouped_batches(
    lengths: NDArray[np.int64], batch_size: int, generator: np.random.Generator | None
) -> list[NDArray[np.int64]]:
    """Index arrays of at most `batch_size` that cover every index once, similar lengths together.

    With a generator: rows are shuffled into pools of up to 50 batches, sorted by length inside a
    pool, and the batches come in random order; the same generator state gives the same batches.
    With None: all sorted by length, nothing random.

    Raises:
        InputError: batch_size below 1.
    """
    if batch_size < 1:
        raise InputError(f"batch size {batch_size}; give 1 or more")
    lengths = np.asarray(lengths)
    count = len(lengths)
    shuffled = np.arange(count) if generator is None else generator.permutation(count)
    # At least about four pools, or the batches of every epoch would hold the same rows.
    batches_in_pool = count if generator is None else min(50, max(1, count // (4 * batch_size)))
    pool = np.arange(count) // max(1, batches_in_pool * batch_size)
    grouped = shuffled[np.lexsort((lengths[shuffled], pool))]
    batches = [grouped[at : at + batch_size] for at in range(0, count, batch_size)]
    if generator is None:
        return batches
    return [batches[place] for place in generator.permutation(len(batches))]


def pieces(lengths: NDArray[np.int64], tokens: int) -> Iterator[NDArray[np.int64]]:
    """Cut a batch into pieces of at most so many tokens, padding included.

    Args:
        lengths: of the prompts.
        tokens: most in a piece; a longer prompt makes a piece of its own.

    Yields:
        Indices in their order: all of them where they fit, else similar lengths together.
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


EMPTY, LEAD_IN, INSTRUCTION, FIRST = 0, 1, 2, 3  # places of the segments that every table has
ENTRIES = slice(2, -2)  # of the segments of a prompt
CHUNK = 65536  # rows whose segments `lengths` looks at together: bounds its memory


class TokenBatch(NamedTuple):
    """Prompts padded on the right; t is the longest of the batch."""

    input_ids: Tensor  # int64 [b, t]
    attention_mask: Tensor  # int64 [b, t], 1 = token, 0 = padding

    def pieces(self, tokens: int) -> Iterator[tuple[Tensor, "TokenBatch"]]:
        """Cut into parts of at most so many tokens, see :func:`pieces`: places, and prompts."""
        lengths = self.attention_mask.sum(dim=1)
        for part in map(torch.from_numpy, pieces(lengths.numpy(), tokens)):
            if len(part) == len(lengths):
                yield part, self
            else:
                width = int(lengths[part].max())
                yield part, TokenBatch(*(tensor[part, :width] for tensor in self))

    def to(self, device: torch.device) -> "TokenBatch":
        """The same on a device; a GPU fetches it from pinned memory while it computes."""
        if device.type == "cuda":
            return TokenBatch(*(part.pin_memory().to(device, non_blocking=True) for part in self))
        return TokenBatch(*(part.to(device) for part in self))


class SharedPrompts(NamedTuple):
    """Prompts about several items each, cut before the question: p beginnings, b questions."""

    beginnings: NDArray[np.int64]  # [p, k + 3], segments; see PromptTable.beginnings
    questions: NDArray[np.int64]  # [b], segments
    of: NDArray[np.int64]  # [b], the beginning of each question


class Seen(NamedTuple):
    """What a prompt shows of a row's history, and what was cut for its length."""

    shown: NDArray[np.int64]  # row ids, oldest first
    cut: NDArray[np.int64]  # row ids, oldest first
    user_is_cut: bool  # whether the words about the user were


@dataclass(frozen=True)
class TokenLimits:
    """What a language model asks of a prompt."""

    max_tokens: int  # longest prompt, prefix and suffix included
    pad_id: int
    prefix_ids: Sequence[int] = ()  # before the prompt, such as a bos token
    suffix_ids: Sequence[int] = ()  # after it, such as an eos token


class PromptTable:
    """The prompts of a dataset, built batch by batch without touching a string.

    A prompt that is too long loses its oldest history entries, each as a whole, then the user's
    features, never instruction and question. The lead-in of a history goes with its last entry.

    Args:
        rows: all rows of the dataset, n of them.
        history: [n, k] row ids, oldest first, -1 = absent (see `history_rows`).
        texts: the rendered segments.
        encode: tokenises texts without special tokens.
        limits: length and special tokens.

    Raises:
        InputError: a question does not fit into `max_tokens`.
    """

    def __init__(
        self,
        rows: RowTable,
        history: NDArray[np.int64],
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
        first_entry = FIRST + self._users
        self._entry_of_row = first_entry + texts.entry_of_row
        self._first_question = first_entry + len(texts.entries)
        self._prefix = np.asarray(limits.prefix_ids, dtype=np.int64)
        self._suffix = np.asarray(limits.suffix_ids, dtype=np.int64)
        self._room = limits.max_tokens - len(self._prefix) - len(self._suffix)
        self._check_questions()

    def with_history(self, history: NDArray[np.int64]) -> "PromptTable":  # [n, k]
        """The same prompts with other histories; the tokens are shared."""
        other = copy.copy(self)
        other._history = history
        return other

    def fingerprint(self) -> str:
        """Hash of all that decides the tokens of the prompts: segments, histories, limits."""
        parts = [
            self._store.tokens,
            self._store.starts,
            self._store.lengths,
            self._entry_of_row,
            self._history,
        ]
        digest = hashlib.sha256(repr(self._limits).encode())
        for part in parts:
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    def lengths(
        self, rows: NDArray[np.int64], items: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64]:  # [b], [b] -> [b]
        """Tokens of each prompt, special tokens included; arguments as in :meth:`batch`."""
        special = len(self._prefix) + len(self._suffix)
        parts = [
            self._store.lengths[self._plan(rows[at : at + CHUNK], _part(items, at))].sum(axis=1)
            for at in range(0, len(rows), CHUNK)
        ]
        return np.concatenate([np.zeros(0, dtype=np.int64), *parts]) + special * (len(rows) > 0)

    def named(self, users: NDArray[np.int64]) -> NDArray[np.bool_]:  # [n] -> [n]
        """Whether prompts name a user, by inner id: by the token in the data, as nobody else."""
        if not self._name_users:
            return np.zeros(len(users), dtype=bool)
        segments = slice(FIRST, FIRST + self._users)
        _, text, shared_by = np.unique(
            self._store.starts[segments], return_inverse=True, return_counts=True
        )
        alone = (shared_by[text] == 1) & (self._store.lengths[segments] > 0)
        return alone[users]

    def tokens(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:  # [b] -> [m]
        """Token ids that these prompts show, sorted; special tokens around prompts are left out."""
        segments = np.zeros(0, dtype=np.int64)
        for at in range(0, len(rows), CHUNK):
            segments = np.union1d(segments, self._plan(rows[at : at + CHUNK], None))
        return np.unique(self._store.gather(segments)).astype(np.int64)

    def shows(
        self, rows: NDArray[np.int64], tokens: NDArray[np.int64]
    ) -> NDArray[np.bool_]:  # [b], [m] -> [b]
        """Whether each prompt shows one of these tokens, special tokens left out."""
        store = self._store
        before = np.concatenate([[0], np.cumsum(np.isin(store.tokens, tokens))])
        has = before[store.starts + store.lengths] > before[store.starts]
        parts = [
            has[self._plan(rows[at : at + CHUNK], None)].any(axis=1)
            for at in range(0, len(rows), CHUNK)
        ]
        return np.concatenate([np.zeros(0, dtype=bool), *parts])

    def batch(
        self, rows: NDArray[np.int64], items: NDArray[np.int64] | None = None
    ) -> TokenBatch:  # [b], [b] -> [b, t]
        """Padded prompts of the given rows; an empty batch is [0, 0].

        Args:
            rows: [b] row ids: whose history, at what time.
            items: [b] inner item ids to ask about instead of the rows' own (ranking candidates);
                history entries of the candidate itself are left out.
        """
        return self._padded(self._plan(rows, items), self._prefix, self._suffix)

    def shared(
        self, rows: NDArray[np.int64], items: NDArray[np.int64]
    ) -> SharedPrompts | None:  # [b], [b]
        """The same prompts, with what several have in common before the question told once.

        None where a prompt has nothing there.
        """
        plan = self._plan(rows, items)
        beginnings, of = np.unique(plan[:, :-1], axis=0, return_inverse=True)
        tokens = self._store.lengths[beginnings].sum(axis=1) + len(self._prefix)
        if tokens.min(initial=1) == 0:
            return None
        return SharedPrompts(beginnings, plan[:, -1], of.reshape(-1))

    def beginnings(self, segments: NDArray[np.int64]) -> TokenBatch:  # [p, k + 3] -> [p, t]
        """Padded beginnings of prompts, special tokens before them included."""
        return self._padded(segments, self._prefix, self._suffix[:0])

    def endings(self, segments: NDArray[np.int64]) -> TokenBatch:  # [b] -> [b, s]
        """Padded questions, special tokens after them included."""
        return self._padded(segments[:, None], self._prefix[:0], self._suffix)

    def _padded(
        self, plan: NDArray[np.int64], prefix: NDArray[np.int64], suffix: NDArray[np.int64]
    ) -> TokenBatch:  # [b, m], [f], [l] -> [b, t]
        """Tokens of these segments between special tokens."""
        before, after = len(prefix), len(suffix)
        ends = self._store.lengths[plan].sum(axis=1) + before
        width = int(ends.max(initial=-after)) + after
        place = np.arange(width)
        ids = np.full((len(plan), width), self._limits.pad_id, dtype=np.int64)
        ids[:, :before] = prefix
        ids[(place >= before) & (place < ends[:, None])] = self._store.gather(plan.ravel())
        if after:
            np.put_along_axis(ids, ends[:, None] + np.arange(after), suffix[None, :], axis=1)
        mask = (place < (ends + after)[:, None]).astype(np.int64)
        return TokenBatch(torch.from_numpy(ids), torch.from_numpy(mask))

    def joined(
        self, rows: NDArray[np.int64], other: "PromptTable", other_rows: NDArray[np.int64]
    ) -> TokenBatch:  # [a], [b] -> [a + b, t]
        """Prompts of this table, then prompts of another one, in one batch."""
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
        """The prompt of one row as text, cut as in :meth:`batch`, without special tokens."""
        items = None if item is None else np.array([item])
        plan = self._plan(np.array([row]), items)[0]
        return "".join(self._store.texts[segment] for segment in plan)

    def seen(self, row: int) -> Seen:
        """The history in the prompt of one row."""
        plan, history = self._plan(np.array([row]), None)[0], self._history[row]
        used = (history >= 0) & (self._rows.item[history] != self._rows.item[row])
        shown = plan[ENTRIES] != EMPTY
        told = self._store.lengths[FIRST + self._rows.user[row]] > 0
        return Seen(history[shown], history[used & ~shown], bool(told and plan[0] == EMPTY))

    def _plan(
        self, rows: NDArray[np.int64], items: NDArray[np.int64] | None
    ) -> NDArray[np.int64]:  # [b] -> [b, k + 4]
        """Segments of each prompt: user, lead-in, entries, instruction, question."""
        rows = np.asarray(rows, dtype=np.int64)
        target = self._rows.item[rows] if items is None else np.asarray(items, dtype=np.int64)
        history = self._history[rows]
        used = (history >= 0) & (self._rows.item[history] != target[:, None])
        plan = np.empty((len(rows), history.shape[1] + 4), dtype=np.int64)
        plan[:, 0] = FIRST + self._rows.user[rows]
        plan[:, 1] = LEAD_IN
        plan[:, ENTRIES] = np.where(used, self._entry_of_row[history], EMPTY)
        plan[:, -2] = INSTRUCTION
        plan[:, -1] = self._first_question + target
        self._cut(plan)
        return plan

    def _cut(self, plan: NDArray[np.int64]) -> None:
        """Blank what does not fit: the user if only the question does, then old entries."""
        lengths = self._store.lengths[plan]
        room = self._room - lengths[:, -2:].sum(axis=1)
        plan[lengths[:, 0] > room, 0] = EMPTY
        room = room - self._store.lengths[plan[:, 0]] - lengths[:, 1]
        newest_first = np.cumsum(lengths[:, ENTRIES][:, ::-1], axis=1)
        entries = plan[:, ENTRIES]
        entries[newest_first[:, ::-1] > room[:, None]] = EMPTY
        plan[(entries == EMPTY).all(axis=1), 1] = EMPTY

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


def _part(items: NDArray[np.int64] | None, at: int) -> NDArray[np.int64] | None:
    return None if items is None else items[at : at + CHUNK]
