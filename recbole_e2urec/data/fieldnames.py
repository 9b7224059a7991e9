"""The names that the parts of a prompt template may use: ours, and RecBole's and the data's own."""

from collections.abc import Mapping
from dataclasses import dataclass

from recbole_e2urec.errors import InputError

# Ours, by part; the attributes of PromptTemplate say what each name holds.
NAMES = {
    "entry": "title, item, rating, rating_max",
    "question": "title, item",
    "instruction": "rated",
    "tail": "rated",
    "user": "features, user",
    "history": "rated",
}


@dataclass(frozen=True)
class FieldNames:
    """What RecBole and the data call what a template shows; templates may use these names as well.

    Raises:
        InputError: a column bears a name that templates have for something else.
    """

    item_id: str = "item_id"  # the item's token: entry and question
    title: str | None = None  # its title: entry and question
    rating: str = "rating"  # as text, or none: entry
    items: tuple[str, ...] = ()  # further columns of the item: entry and question
    users: tuple[str, ...] = ()  # columns of the user: user
    user_id: str = "user_id"  # the user's token: user

    def __post_init__(self) -> None:
        """Refuse a name that would mean two things."""
        of_users = set(NAMES["user"].split(", "))
        taken = {name for names in NAMES.values() for name in names.split(", ")} - of_users
        clashes = {
            "item_fields": taken.intersection(self.items),
            "user_fields": of_users.intersection(self.users) - {self.user_id},
        }
        for key, names in clashes.items():
            for name in names:
                raise InputError(f"{key}: templates have a {name!r} of their own; leave it out")

    def of_item(self, title: str, item: str, known: Mapping[str, str]) -> dict[str, str]:
        """Values by name; an unknown one is empty."""
        columns = {name: known.get(name, "") for name in self.items}
        return {self.item_id: item, **({self.title: title} if self.title else {}), **columns}
