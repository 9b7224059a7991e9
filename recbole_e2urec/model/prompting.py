"""From a loaded dataset to its prompt table: template, titles, user features, histories."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.data.features import (
    item_features,
    item_titles,
    item_tokens,
    read_catalogue,
    read_features,
    user_features,
    user_tokens,
)
from recbole_e2urec.data.history import history_rows
from recbole_e2urec.data.prompt_table import PromptTexts, Wording, prompt_texts
from recbole_e2urec.data.rows import RowTable, Splits
from recbole_e2urec.data.templates import FieldNames, PromptTemplate


@option_class()
class PromptOptions:
    """What a prompt shows."""

    history_length: int = option(
        "Most earlier interactions of the user that a prompt shows.", ge=0, default=10
    )
    title_field: str | None = option(
        "Column of the .item file with the title; ~ = items are named by their token.", default=None
    )
    user_fields: tuple[str, ...] = option(
        "Columns of the .user file that the prompt may mention.", default=()
    )
    item_fields: tuple[str, ...] = option(
        "Further columns of the .item file that the prompt may mention, by name, as in {{ class "
        "}}.",
        default=(),
    )


def read_template(config: Any, options: PromptOptions) -> PromptTemplate:
    """Read the template that ``prompt`` names; it may use RecBole's names of the fields.

    Raises:
        InputError: as :meth:`PromptTemplate.named`, or a field has a name that templates have.
    """
    names = FieldNames(
        config["ITEM_ID_FIELD"],
        options.title_field,
        config["RATING_FIELD"],
        options.item_fields,
        options.user_fields,
        config["USER_ID_FIELD"],
    )
    return PromptTemplate.named(str(config["prompt"]), names)


def titles_of(config: Any, dataset: Any, options: PromptOptions) -> list[str]:
    """Title by inner item id, as prompts show it (see :func:`item_titles`).

    Raises:
        InputError: the file or the column of titles is missing.
    """
    catalogue: dict[str, str] = {}
    if options.title_field:
        path = Path(config["data_path"]) / f"{dataset.dataset_name}.item"
        catalogue = read_catalogue(
            path, config["ITEM_ID_FIELD"], options.title_field, **_reading(config)
        )
    return item_titles(dataset.ids, catalogue)


def _reading(config: Any) -> dict[str, str]:
    """How atomic files are read."""
    return {"separator": config["field_separator"], "encoding": config["encoding"] or "utf-8"}


def wording_of(config: Any, dataset: Any, options: PromptOptions) -> Wording:
    """Read what prompts are made of.

    Raises:
        InputError: a file or a column that the prompt needs is missing.
    """
    template = read_template(config, options)
    folder, read = Path(config["data_path"]), _reading(config)
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
    """Render the segments of a dataset, and give the texts that a word tokenizer learns from.

    The latter are the item catalogue, as the template shows it, the template's own words, and the
    tokens of all users of the data if the template shows those: nothing else about users, and
    nothing that depends on a request.
    """
    template, titles, tokens, _, items, of_users = wording
    catalogue = template.catalogue_texts(titles, tokens, items)
    words = [*catalogue, *template.user_texts(of_users), *template.literal_texts()]
    return prompt_texts(wording, dataset.rows), words


def shown_histories(
    rows: RowTable, parts: Splits, hidden: NDArray[np.int64], length: int
) -> NDArray[np.int64]:  # -> [n, k]
    """Row ids that the prompt of each row shows, whatever the split.

    Training and validation rows see training rows only, test rows see validation rows as well,
    and all of them only what is strictly earlier in time (see :func:`history_rows`). Rows of no
    part (see :func:`recbole_e2urec.data.rows.target_rows`) are seen by all.

    Args:
        rows: all rows of the dataset.
        parts: the split, users that take part in nothing included.
        hidden: rows of any part that no history shows, such as forgotten rows of users who stay.
        length: most rows shown.
    """
    allowed = np.ones(len(rows), dtype=bool)
    allowed[parts.valid] = allowed[parts.test] = allowed[hidden] = False
    shown = history_rows(rows.user, rows.item, rows.time, allowed, length)
    allowed[np.setdiff1d(parts.valid, hidden)] = True
    with_valid = history_rows(rows.user, rows.item, rows.time, allowed, length)
    shown[parts.test] = with_valid[parts.test]
    return shown
