"""A dry run: what a request would forget; nothing is trained and nothing is written."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbole_e2urec.config.config import Config
from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.data.request.filter import Fields
from recbole_e2urec.data.request.sampling import request_digest
from recbole_e2urec.data.request.selection import (
    UNKNOWN,
    ForgetOptions,
    Selection,
    select,
    skip_unknown,
    split_of,
)
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.run import Parts, parts_of


@option_class()
class PreviewOptions:
    """When a dry run advises against unlearning."""

    retrain_share: float = option(
        "A dry run says that Retrain is cheaper for requests of more than this share of the "
        "training rows.",
        gt=0,
        le=1,
        default=0.25,
    )


class Touched(NamedTuple):
    """Users or items that a request touches."""

    some: int  # with a row to forget
    whole: int  # of them, those that keep no training row


class Preview(NamedTuple):
    """What a request asks for; no user and no item is named."""

    request_id: str
    digest: str
    dataset: str
    forget: int  # training rows
    train: int  # training rows in all
    users: Touched
    items: Touched
    elsewhere: dict[str, int]  # rows asked for that no model learns from, by part
    warnings: list[str]

    def lines(self) -> list[str]:
        """The same for a person."""
        content = "" if self.request_id == self.digest else f" (content {self.digest})"
        share = self.forget / self.train
        lines = [
            f"request {self.request_id}{content} on {self.dataset}",
            f"would forget {self.forget:,} of {self.train:,} training rows ({share:.2%})",
            f"  of {self.users.some:,} users, {self.users.whole:,} of them wholly",
            f"  of {self.items.some:,} items, {self.items.whole:,} of them wholly",
        ]
        lines += [
            f"asked for as well, but not trained on: {count:,} {part} rows"
            for part, count in self.elsewhere.items()
            if count
        ]
        lines += [f"warning: {warning}" for warning in self.warnings]
        return [*lines, "dry run: nothing was trained, nothing was written"]


def preview(config: Config) -> Preview:
    """Say what the request of a run would forget.

    Raises:
        InputError: a request that cannot be read. One that a run would refuse for what it names is
            previewed, with a warning.
    """
    config.options(PreviewOptions)  # refuses bad settings before data are loaded
    config.options(ForgetOptions)
    dataset = load_dataset(config)
    return preview_of(config, dataset, parts_of(config, dataset))


def preview_of(config: Config, dataset: Any, parts: Parts) -> Preview:
    """The same for data that are loaded, of whose training rows some may be gone already.

    Raises:
        InputError: as :func:`preview`.
    """
    advice = config.options(PreviewOptions)
    options = config.options(ForgetOptions)
    train = parts.splits.train
    selection = select(skip_unknown(options), train, dataset.rows, dataset.ids, Fields(dataset))
    digest = request_digest(dataset.dataset_name, dataset.rows, dataset.ids, selection.chosen)
    chosen = selection.chosen[train]
    forget, retain = train[chosen], train[~chosen]
    warnings = [*selection.warnings, *_refusals(selection, train, options)]
    if len(forget) > advice.retrain_share * len(train):
        warnings.append(
            f"{len(forget) / len(train):.0%} of the training rows is more than retrain_share "
            f"({advice.retrain_share:.0%}): Retrain is exact and probably as cheap"
        )
    return Preview(
        selection.request_id or digest,
        digest,
        dataset.dataset_name,
        len(forget),
        len(train),
        touched(dataset.rows.user, forget, retain),
        touched(dataset.rows.item, forget, retain),
        _elsewhere(selection, parts),
        warnings,
    )


def touched(of: NDArray[np.int64], forget: NDArray[np.int64], retain: NDArray[np.int64]) -> Touched:
    """Count users or items, which ``of`` gives by row id."""
    some = np.unique(of[forget])
    return Touched(len(some), int((~np.isin(some, of[retain])).sum()))


def _elsewhere(selection: Selection, parts: Parts) -> dict[str, int]:
    """Rows that are asked for outside of training."""
    named = {
        "validation": parts.splits.valid,
        "test": parts.splits.test,
        "control users'": np.concatenate(parts.whole),
    }
    counted = {part: int(selection.chosen[rows].sum()) for part, rows in named.items()}
    in_parts = int(selection.chosen[np.concatenate(parts.splits)].sum())
    counted["control users'"] -= in_parts
    counted["history-only"] = int(selection.chosen.sum()) - counted["control users'"] - in_parts
    return counted


def _refusals(selection: Selection, train: NDArray[np.int64], options: ForgetOptions) -> list[str]:
    """Why a run would refuse the request."""
    refusals = []
    if options.unknown == "refuse" and any(UNKNOWN in warning for warning in selection.warnings):
        refusals.append("a run refuses lines that name nobody known, unless forget_unknown is skip")
    try:
        split_of(selection, train)
    except InputError as error:
        refusals.append(f"a run refuses this: {error}")
    return refusals


def run_preview(config: Config) -> dict[str, Any]:
    """A dry run's results: ``preview``, the facts, and ``lines``, the same for a person."""
    result = preview(config)
    facts = {**result._asdict(), "users": result.users._asdict(), "items": result.items._asdict()}
    return {"preview": facts, "lines": result.lines()}
