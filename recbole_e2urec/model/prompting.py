"""Builds the prompts of a loaded dataset: template, titles, features and histories."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.data.features import (
    NO_TITLE,
    item_features,
    item_titles,
    item_tokens,
    read_catalogue,
    read_features,
    reading,
    user_features,
    user_tokens,
)
from recbole_e2urec.data.history import (
    IS_TEST,
    SHOWN,
    SHOWN_TO_TEST,
    Histories,
    history_rows,
)
from recbole_e2urec.data.prompt_table import PromptTexts, Wording, prompt_texts
from recbole_e2urec.data.rows import RowTable, Splits, without
from recbole_e2urec.data.templates import FieldNames, PromptTemplate


@option_class()
class PromptOptions:
    """What a prompt shows."""

    history_length: int = option(
        "Most earlier interactions of the user that a prompt shows.", ge=0, default=10
    )
    title_field: str | None = option(
        "Column of the .item file with the title; auto = title, name or the like, none = items are "
        "named by their id.",
        default=None,
    )
    user_fields: tuple[str, ...] = option(
        "Columns of the .user file that the prompt may mention; auto = all but ids, names, zip "
        "codes, times and the like, [] = none.",
        default=(),
    )
    item_fields: tuple[str, ...] = option(
        "Further columns of the .item file that the prompt may mention, by name, as in {{ class "
        "}}.",
        default=(),
    )

    @property
    def title_column(self) -> str | None:
        """The column with the title; None: items are named by their id."""
        return None if self.title_field == NO_TITLE else self.title_field


def read_template(config: Any, options: PromptOptions) -> PromptTemplate:
    """Read the template that ``prompt`` names; it may refer to fields by their RecBole names.

    Raises:
        InputError: see :meth:`PromptTemplate.named`; or a field has a name that templates reserve.
    """
    names = FieldNames(
        config["ITEM_ID_FIELD"],
        options.title_column,
        config["RATING_FIELD"],
        options.item_fields,
        options.user_fields,
        config["USER_ID_FIELD"],
    )
    return PromptTemplate.named(str(config["prompt"]), names)


def titles_of(config: Any, dataset: Any, options: PromptOptions) -> list[str]:
    """Read the titles, by inner item id, as prompts show them (see :func:`item_titles`).

    Raises:
        InputError: the file or the column with the titles is missing.
    """
    catalogue: dict[str, str] = {}
    if options.title_column:
        path = Path(config["data_path"]) / f"{dataset.dataset_name}.item"
        catalogue = read_catalogue(
            path, config["ITEM_ID_FIELD"], options.title_column, **reading(config)
        )
    return item_titles(dataset.ids, catalogue)


def wording_of(config: Any, dataset: Any, options: PromptOptions) -> Wording:
    """Read everything of which prompts are made: template, titles, features and tokens.

    Raises:
        InputError: a file or a column that the prompt needs is missing.
    """
    template = read_template(config, options)
    folder, read = Path(config["data_path"]), reading(config)
    item_file, user_file = (folder / f"{dataset.dataset_name}.{kind}" for kind in ("item", "user"))
    ids = dataset.ids
    items: Sequence[Mapping[str, str]] = ()
    users: Sequence[Mapping[str, str]] = ()
    item_id, user_id = config["ITEM_ID_FIELD"], config["USER_ID_FIELD"]
    if options.item_fields:
        items = item_features(ids, read_features(item_file, item_id, options.item_fields, **read))
    if options.user_fields:
        features = read_features(user_file, user_id, options.user_fields, **read)
        users = user_features(ids, features) if features else ()
    titles = titles_of(config, dataset, options)
    return Wording(template, titles, item_tokens(ids), users, items, user_tokens(ids))


def make_texts(dataset: Any, wording: Wording) -> tuple[PromptTexts, list[str]]:
    """Render the segments of a dataset's prompts, and collect the texts for a word tokenizer.

    The vocabulary of a word tokenizer is made from the item catalogue, as the template shows it,
    the template's own words and, if the template shows them, the tokens of all users. It contains
    nothing else about users, and nothing that depends on a request.

    Returns:
        The prompt texts, and the texts for the vocabulary.
    """
    template, titles, tokens, _, items, of_users = wording
    catalogue = template.catalogue_texts(titles, tokens, items)
    words = [*catalogue, *template.user_texts(of_users), *template.literal_texts()]
    return prompt_texts(wording, dataset.rows), words


def shown_histories(
    rows: RowTable, parts: Splits, hidden: NDArray[np.int64], length: int
) -> Any:  # -> [n, k]
    """Find the rows that the prompt of each row shows as its history.

    Histories of training and validation rows consist of training rows. Those of test rows also
    contain validation rows. All rows of a history are strictly earlier in time (see
    :func:`history_rows`). Rows that belong to no part of the split (see
    :func:`recbole_e2urec.data.rows.target_rows`) may appear in any history.

    Args:
        rows: all rows of the dataset.
        parts: the split, including users who take part in neither training nor evaluation.
        hidden: ids of rows that no history shows, such as forgotten rows of users who stay.
        length: most rows in a history.

    Returns:
        Row ids by row id, [n, k]; -1 = absent. If rows have an index by user, :class:`Histories`.
    """
    if rows.index is not None:
        marks = np.full(len(rows), SHOWN | SHOWN_TO_TEST, dtype=np.uint8)
        marks[parts.valid] = SHOWN_TO_TEST
        marks[hidden] = 0
        marks[parts.test] = IS_TEST
        return Histories((rows.user, rows.item, rows.time), rows.index, marks, length)
    allowed = np.ones(len(rows), dtype=bool)
    allowed[parts.valid] = allowed[parts.test] = allowed[hidden] = False
    shown = history_rows(rows.user, rows.item, rows.time, allowed, length)
    allowed[without(parts.valid, hidden)] = True
    with_valid = history_rows(rows.user, rows.item, rows.time, allowed, length)
    shown[parts.test] = with_valid[parts.test]
    return shown


def hiding_more(
    history: NDArray[np.int64], rows: RowTable, parts: Splits, hidden: NDArray[np.int64],
    newly: NDArray[np.int64],
) -> NDArray[np.int64]:  # fmt: skip
    """Find the histories of :func:`shown_histories` anew for the users of newly hidden rows.

    Args:
        history: histories before these rows were hidden, [n, k]; they stay as they are.
        rows: see :func:`shown_histories`.
        parts: see :func:`shown_histories`.
        hidden: ids of all rows that no history shows, the newly hidden ones included.
        newly: ids of the rows that ``history`` may still show.
    """
    theirs = np.flatnonzero(np.isin(rows.user, np.unique(rows.user[newly])))
    place = np.full(len(rows), -1)
    place[theirs] = np.arange(len(theirs))

    def among(ids: NDArray[np.int64]) -> NDArray[np.int64]:
        return place[ids][place[ids] >= 0]

    table = RowTable(rows.user[theirs], rows.item[theirs], rows.time[theirs])
    shown = shown_histories(table, Splits(*map(among, parts)), among(hidden), history.shape[1])
    changed = history.copy()
    changed[theirs] = np.where(shown >= 0, theirs[shown], -1)
    return changed
