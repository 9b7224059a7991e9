"""Who and what a request named, as salted hashes: whoever knows a name can look for it."""

import hashlib
import hmac
from collections.abc import Mapping

import numpy as np

from recbole_e2urec.deployment.forgotten import Numbered, until

HOW = (
    "HMAC-SHA-256, keyed with the salt (its bytes, written in hex), of UTF-8 texts joined by NUL: "
    "'user' and the user; 'item' and the item; 'row', the user and the item"
)


def salted(salt: str, *words: str) -> str:
    """HMAC-SHA-256 of words joined by NUL, in hex, keyed with the salt (hex digits)."""
    return hmac.new(bytes.fromhex(salt), "\0".join(words).encode(), hashlib.sha256).hexdigest()


def hashes_of(named: Numbered, number: int, salt: str) -> dict[str, list[str]]:
    """What a request left nothing of: users, items, and rows that are of neither.

    The hashes are sorted: their order tells nothing.

    Args:
        named: who was named by which request.
        number: of the request, from 1.
        salt: hex digits.
    """
    table, rows = named.dataset.rows, np.flatnonzero(named.number == number)
    stays = np.ones(len(table), dtype=bool)
    stays[until(named.number, number)] = False
    users = np.setdiff1d(table.user[rows], table.user[stays])
    rows = rows[~np.isin(table.user[rows], users)]
    items = np.setdiff1d(table.item[rows], table.item[stays])
    rows = rows[~np.isin(table.item[rows], items)]
    user, item = _tokens(named.dataset.ids.users), _tokens(named.dataset.ids.items)
    pairs = {(int(table.user[row]), int(table.item[row])) for row in rows}
    return {
        "users": sorted(salted(salt, "user", user[one]) for one in users.tolist()),
        "items": sorted(salted(salt, "item", item[one]) for one in items.tolist()),
        "rows": sorted(salted(salt, "row", user[u], item[i]) for u, i in pairs),
    }


def _tokens(ids: Mapping[str, int]) -> dict[int, str]:
    return {inner: token for token, inner in ids.items()}
