"""Rows and their prompts as people read them."""

from typing import Any, NamedTuple

import numpy as np

from recbole_e2urec.config import Config
from recbole_e2urec.data.prompts import rating_text
from recbole_e2urec.data.tokens import PromptTable


class ShownPrompt(NamedTuple):
    """One row and its prompt.

    Attributes:
        fields: the row by RecBole's names of the fields.
        title: of the item in question.
        part: ``retain``, ``forget`` or ``control``.
        history: earlier rows that the prompt shows, oldest first: fields, and ``title``.
        cut: how many more it would show if ``max_prompt_tokens`` allowed it.
        user_is_cut: whether the words about the user were cut as well.
        tokens: length of the prompt, special tokens included.
        text: the prompt before it became tokens.
    """

    fields: dict[str, str]
    title: str
    part: str
    history: list[dict[str, str]]
    cut: int
    user_is_cut: bool
    tokens: int
    text: str

    @property
    def length(self) -> str:
        """How long it is, and what was cut."""
        lost = [f"the {self.cut} oldest earlier rows"] if self.cut else []
        lost += ["the words about the user"] if self.user_is_cut else []
        return f"{self.tokens} tokens; cut: {' and '.join(lost) or 'nothing'}"


class RowNames:
    """Rows of a data set as people read them."""

    def __init__(self, config: Config, dataset: Any, titles: list[str]) -> None:
        self._config, self._dataset, self.titles = config, dataset, titles
        self._users, self._items = (
            {inner: token for token, inner in ids.items()}
            for ids in (dataset.ids.users, dataset.ids.items)
        )

    def fields(self, row: int) -> dict[str, str]:
        """Values by RecBole's names of the fields; what the data lacks is left out."""
        rows, name = self._dataset.rows, self._config
        values = {
            name["USER_ID_FIELD"]: self._users[int(rows.user[row])],
            name["ITEM_ID_FIELD"]: self._items[int(rows.item[row])],
            name["RATING_FIELD"]: rows.rating,
            name["LABEL_FIELD"]: rows.label,
            name["TIME_FIELD"]: rows.time if rows.has_time else None,
        }
        return {
            field: value if isinstance(value, str) else str(rating_text(value[row]))
            for field, value in values.items()
            if value is not None
        }

    def item(self, inner: int) -> str:
        """Token of an item."""
        return self._items[inner]

    def title(self, row: int) -> str:
        """Title of the row's item."""
        return self.titles[int(self._dataset.rows.item[row])]

    def seen(self, row: int) -> dict[str, str]:
        """The row as a part of somebody's history."""
        fields = self.fields(row)
        fields.pop(self._config["USER_ID_FIELD"])
        return {"title": self.title(row), **fields}


def shown_prompt(row: int, part: str, table: PromptTable, names: RowNames) -> ShownPrompt:
    """The prompt of a row in a table of prompts; ``part`` is the row's."""
    seen = table.seen(row)
    return ShownPrompt(
        names.fields(row),
        names.title(row),
        part,
        [names.seen(earlier) for earlier in seen.shown.tolist()],
        len(seen.cut),
        seen.user_is_cut,
        int(table.lengths(np.array([row]))[0]),
        table.text(row),
    )
