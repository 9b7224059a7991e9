"""The ``.inter`` file, and what is noticed while it is written."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from recbole_e2urec.data.convert.duplicates import PairCounter
from recbole_e2urec.data.convert.writing import AtomicFiles, Table

HEADER = ("user_id:token", "item_id:token", "rating:float", "timestamp:float")


class Interactions:
    """Writes interactions and counts rows that users of the data should know about.

    Made by :func:`interactions`.
    """

    def __init__(
        self,
        table: Table,
        pairs: PairCounter,
        users: Collection[str] | None,
        items: Collection[str] | None,
    ) -> None:
        self._table, self._pairs, self._users, self._items = table, pairs, users, items
        self._rows = self._no_user = self._no_item = 0
        self.unrated = 0  # rows with rating 0, which these data sets use for "not rated"

    def add(self, user: str, item: str, rating: float, time: str | None = None) -> None:
        """Write a row; ``time`` is in seconds, or None in data without times."""
        written = (user, item, f"{rating:g}")
        self._table.write(*written, *(() if time is None else (time,)))
        self._pairs.add(user, item)
        self._rows += 1
        self.unrated += rating == 0
        self._no_user += self._users is not None and user not in self._users
        self._no_item += self._items is not None and item not in self._items

    def notes(self) -> list[str]:
        """What was noticed, a line each."""
        counted = {
            "rows repeat the user and item of an earlier row; all are written, rm_dup_inter "
            "decides which a run keeps": self._pairs.repeated(),
            "rows have rating 0, which means not rated; val_interval leaves them out": self.unrated,
            "rows name a user without a row in the .user file": self._no_user,
            "rows name an item without a row in the .item file; prompts call it by its id": (
                self._no_item
            ),
        }
        written = f"{self._rows:,} interactions"
        return [written, *(f"{count:,} {text}" for text, count in counted.items() if count)]


@contextmanager
def interactions(
    files: AtomicFiles,
    users: Collection[str] | None = None,
    items: Collection[str] | None = None,
    timed: bool = True,
) -> Iterator[Interactions]:
    """Begin the ``.inter`` file.

    Args:
        files: where it belongs.
        users: ids that the ``.user`` file has; None where the data set has none.
        items: ids that the ``.item`` file has; None where it has none.
        timed: whether rows have times.
    """
    table = files.table("inter", HEADER if timed else HEADER[:3])
    with PairCounter(files.folder) as pairs:
        yield Interactions(table, pairs, users, items)
