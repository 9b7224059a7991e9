"""Prompts as the user's turn of a chat, for models that were tuned on chats."""

from transformers import PreTrainedTokenizerBase

from recbole_e2urec.errors import InputError
from recbole_e2urec.llm.codec import PromptCodec

MARK = "PROMPT"  # stands for the prompt while the turn around it is read off


class ChatCodec(PromptCodec):
    """A prompt becomes the user's turn of the tokenizer's own chat template.

    What the template puts before and after the prompt is tokenised once, special tokens included,
    and surrounds the prompt's tokens. The assistant's turn is open at the end, so the answer word
    is the token that begins it there ("Yes" after a line break, " Yes" where the template puts a
    space). Models that can think before they answer are told not to.
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
        # Each part of a prompt begins with what separates it, a space or the tokenizer's mark.
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
        """What the template puts between the open turn and its text: a space, or nothing."""
        told, open_turn = self._turn(MARK, answer), self._turn(MARK)
        return " " if told.startswith(f"{open_turn} ") else ""

    def _turn(self, *texts: str) -> str:
        """A chat of these turns as text, the user's first; open for the assistant's next."""
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
