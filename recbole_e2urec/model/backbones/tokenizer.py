"""Encodes prompts as token ids, with the tokens that a tokenizer or a chat template adds."""

import re
from collections.abc import Sequence
from typing import ClassVar

from transformers import PreTrainedTokenizerBase

from recbole_e2urec.errors import InputError

PROBE = "a"  # short, and in the vocabulary of every tokenizer
MARK = "PROMPT"  # placeholder of the prompt when the chat template is split around it


class PromptCodec:
    """Encodes prompt parts and the two answers, adapting to the tokenizer.

    A prompt is tokenised part by part, and the ids of the parts are joined. Tokenizers that mark
    the start of a word by a space (byte-level BPE: GPT-2, Llama 3, Qwen) would join the last and
    the first word of two parts. For them, every part and the answer are encoded with one leading
    space (" Yes"). Tokenizers that mark the start of a word themselves (SentencePiece: T5, Llama 2;
    the word tokenizer of embedded backbones) get the text as it is ("Yes"). A short test text shows
    which kind a tokenizer is.

    If a title contains the name of a special token ("</s>"), the name is encoded as text.

    Attributes:
        pad_id: id of the padding; the end token if the tokenizer has no padding token.
        prefix_ids: ids that the tokenizer puts before a text (Llama: the begin token).
        suffix_ids: ids that it puts after a text (T5: the end token).
        answer_ids: the ids of (no, yes).
        ends_open: whether the suffix leaves the text open for an answer instead of ending it.
    """

    ends_open: ClassVar[bool] = False

    def __init__(self, tokenizer: PreTrainedTokenizerBase, answers: tuple[str, str]) -> None:
        self.tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder.values()
        special = {*tokenizer.all_special_tokens, *(str(token) for token in added if token.special)}
        longest_first = sorted(special, key=lambda name: (-len(name), name))
        self._special = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self.separator = self._find_separator()
        self.prefix_ids, self.suffix_ids = self._find_surroundings()
        candidates = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
        self.pad_id: int = next(token for token in candidates if token is not None)
        no, yes = (self._answer_id(answer) for answer in answers)
        if no == yes:
            raise InputError(
                f"answer_no {answers[0]!r} and answer_yes {answers[1]!r} are the same token; "
                "name two different words"
            )
        self.answer_ids: tuple[int, int] = (no, yes)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode each text by itself, without the special tokens around a prompt.

        Spaces at both ends of a text are dropped; the codec adds the separator that it needs.
        """
        return self._ids([self.separator + self._as_text(text.strip(" ")) for text in texts])

    def text(self, ids: Sequence[int]) -> str:
        """Decode ids to text, with special tokens by their names."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))

    def one_text(self, texts: Sequence[str], ids: list[int]) -> tuple[str, bool] | None:
        """Find a text that the tokenizer alone encodes as a whole prompt is encoded by parts.

        Args:
            texts: the parts of a prompt.
            ids: the ids of the prompt, with the tokens around it.

        Returns:
            The text, and whether the tokenizer is to add its special tokens; None: there is none.
        """
        parts = [self.separator + text.strip(" ") for text in texts] if self.separator else texts
        for text, special in (("".join(parts), True), (self.text(ids), False)):
            if self._ids([text], special)[0] == ids:
                return text, special
        return None

    def _as_text(self, text: str) -> str:
        """Spell out the names of special tokens: tokenizers find them in the middle of a text."""
        return self._special.sub(lambda name: " ".join(name[0]), text)

    def _ids(self, texts: list[str], special: bool = False) -> list[list[int]]:
        if not texts:
            return []
        encoded = self.tokenizer(texts, add_special_tokens=special, verbose=False)
        return [list(ids) for ids in encoded["input_ids"]]

    def _find_separator(self) -> str:
        """Return a space if the tokenizer encodes words differently at the start of a text."""
        alone, pair = self._ids([PROBE, f"{PROBE} {PROBE}"])
        return "" if pair[len(alone) :] == alone else " "

    def _find_surroundings(self) -> tuple[list[int], list[int]]:
        bare, full = self._ids([PROBE])[0], self._ids([PROBE], special=True)[0]
        for start in range(len(full) - len(bare) + 1):
            if full[start : start + len(bare)] == bare:
                return full[:start], full[start + len(bare) :]
        return [], []

    def _answer_id(self, answer: str) -> int:
        """Id of an answer word after the prompt or, if that is not one token, at a text's start."""
        forms = self._ids([self.separator + answer, answer])
        for ids in forms:
            if len(ids) == 1 and ids[0] != self.tokenizer.unk_token_id:
                return ids[0]
        tokens = self.tokenizer.convert_ids_to_tokens(forms[0])
        raise InputError(
            f"the answer word {answer!r} is not one token of the backbone but {len(tokens)}: "
            f"{tokens}; name answer_yes and answer_no words that its tokenizer keeps whole"
        )


class ChatCodec(PromptCodec):
    """Puts the prompt into the user's turn of the tokenizer's own chat template.

    The text of the template before and after the prompt is tokenised once, special tokens included,
    and surrounds the prompt's tokens. The prompt ends with the open turn of the assistant, so the
    answer word is the first token of that turn ("Yes" after a line break, " Yes" if the template
    adds a space). Thinking before the answer is switched off.
    """

    ends_open = True

    def __init__(self, tokenizer: PreTrainedTokenizerBase, answers: tuple[str, str]) -> None:
        if not tokenizer.chat_template:
            raise InputError(
                "backbone_chat: the tokenizer of this backbone has no chat template; leave it out"
            )
        super().__init__(tokenizer, answers)

    def _find_surroundings(self) -> tuple[list[int], list[int]]:
        parts = self._turn(MARK).split(MARK)
        if len(parts) != 2:
            raise InputError(
                f"backbone_chat: the chat template shows a prompt {len(parts) - 1} times, not once"
            )
        # Each part of a prompt begins with its own separator: a space or the tokenizer's mark.
        self._after = parts[1] if self.separator else parts[1].lstrip(" ")
        prefix, suffix = self._ids([parts[0].rstrip(" "), self._after])
        return prefix, suffix

    def _answer_id(self, answer: str) -> int:
        """Id of the answer where the assistant's turn begins."""
        text = self._after + self._space(answer) + answer
        whole, known = self._ids([text])[0], self.suffix_ids
        if whole[: len(known)] == known and len(whole) == len(known) + 1:
            return whole[-1]
        return super()._answer_id(answer)

    def _space(self, answer: str) -> str:
        """Separator between the open turn and the assistant's text: a space or nothing."""
        turn, open_turn = self._turn(MARK, answer), self._turn(MARK)
        return " " if turn.startswith(f"{open_turn} ") else ""

    def _turn(self, *texts: str) -> str:
        """Render a chat of these turns, the user's first.

        After a single turn, the assistant's turn is open.
        """
        roles = ("user", "assistant")
        chat = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
        return str(
            self.tokenizer.apply_chat_template(
                chat,
                tokenize=False,
                add_generation_prompt=len(chat) == 1,
                enable_thinking=False,
            )
        )
