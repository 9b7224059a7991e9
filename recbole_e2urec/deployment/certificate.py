"""The certificate of a request: what was done to the model, in numbers and words, without names.

It is made of the ledger in ``model.json`` and of the folder's hashes alone, so that it can be made
again, the same, as long as the folder is there.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import TemplateError

from recbole_e2urec.deployment.certificate_page import certificate_page
from recbole_e2urec.deployment.certificate_words import words_of
from recbole_e2urec.deployment.model_folder import CERTIFICATES, ModelFolder
from recbole_e2urec.deployment.served_model import Numbered, until
from recbole_e2urec.errors import InputError, one_line
from recbole_e2urec.utils.io import flush_folder, write_json, write_text

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


FORMAT = 1
_DIGEST = re.compile(r"[0-9a-f]{16}")


class Certificate(NamedTuple):
    """A certificate as JSON, and its page."""

    whole: dict[str, Any]
    page: str


def certify(
    named: Numbered, folder: ModelFolder, number: int, purged: Mapping[str, Any] | None = None
) -> Path:
    """Write the certificate of a request that the folder's model has carried out.

    Args:
        named: who was named by which request.
        folder: where it is; call this inside ``alone()``.
        number: of the request, from 1.
        purged: what was deleted: ``removed`` (``files`` and ``bytes`` by kind), ``kept`` (``name``,
            ``sha256`` and ``why`` each) and ``unknown`` (names); None: nothing was.

    Returns:
        The JSON file; the page stands beside it.

    Raises:
        InputError: the ledger is damaged, or the disk is full.
    """
    found = folder.read(whole=False)
    made = certificate_of(named, found.record, found.state, number, purged)
    path = folder.path / name_of(found.record["requests"][number - 1], number)
    write_text(path.with_suffix(".html"), made.page)
    write_json(path, made.whole)
    for each in (path.parent, folder.path):
        flush_folder(each)
    return path


def has_certificate(folder: ModelFolder, entry: Mapping[str, Any], number: int) -> bool:
    """Whether a request of the ledger has its certificate and the page."""
    path = folder.path / name_of(entry, number)
    return path.is_file() and path.with_suffix(".html").is_file()


def certify_again(
    named: Callable[[], Numbered], folder: ModelFolder, entry: Mapping[str, Any], number: int
) -> list[str]:
    """Write the certificate that somebody who was killed owed, and say so; if it is there, nothing.

    Args:
        named: gives who was named by which request.
        folder: call this inside its ``alone()``.
        entry: of the ledger.
        number: of the request, from 1.
    """
    if has_certificate(folder, entry, number):
        return []
    return [f"its certificate was missing: {certify(named(), folder, number)}"]


def name_of(entry: Mapping[str, Any], number: int) -> str:
    """The file of a request's certificate, from the folder of the model.

    Raises:
        InputError: the ledger has something else in the place of the request's hash.
    """
    digest = str(entry["digest"])
    if not _DIGEST.fullmatch(digest):
        raise InputError(f"request {number} in model.json has no hash; the folder is damaged")
    return f"{CERTIFICATES}/{number:06d}-{digest[:12]}.json"


def certificate_of(
    named: Numbered,
    record: Mapping[str, Any],
    state: Mapping[str, Any],
    number: int,
    purged: Mapping[str, Any] | None = None,
) -> Certificate:
    """The certificate of a request.

    Args:
        named: who was named by which request.
        record: what ``model.json`` says.
        state: files and hashes of the present generation.
        number: of the request, from 1.
        purged: see :func:`certify`.

    Raises:
        InputError: the ledger is damaged.
    """
    try:
        whole = _made(named, record, state_after(record, state, number), number)
        whole["purged"] = None if purged is None else dict(purged)
        whole["in_words"] = words_of(whole)
        whole["sha256"] = seal_of(whole)
        return Certificate(whole, certificate_page(whole))
    except (KeyError, TypeError, ValueError, AttributeError, TemplateError) as error:
        raise InputError(
            f"request {number} in model.json is no entry of this version ({one_line(error)})"
        ) from error


def state_after(
    record: Mapping[str, Any], state: Mapping[str, Any], number: int
) -> Mapping[str, Any]:
    """Files and hashes of the model after a request: the next one began with them."""
    requests = record["requests"]
    if number == len(requests):
        return state
    after: Mapping[str, Any] = requests[number]["evidence"]["before"]
    return after


def seal_of(whole: Mapping[str, Any]) -> str:
    """SHA-256 of a certificate without its own hash: what it says, however it is laid out."""
    rest = {key: value for key, value in whole.items() if key != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _made(
    named: Numbered, record: Mapping[str, Any], after: Mapping[str, Any], number: int
) -> dict[str, Any]:
    entry = record["requests"][number - 1]
    evidence = entry["evidence"]
    salt, hashes = evidence["salt"], hashes_of(named, number, evidence["salt"])
    return {
        "format": FORMAT,
        "request": {
            "id": entry["request_id"],
            "digest": entry["digest"],
            "number": number,
            "date": entry["date"],
        },
        "data": {"dataset": record["dataset"], **record["fingerprint"]},
        "asked": evidence["asked"],
        "identifiers": {"how": HOW, "salt": salt, **hashes},
        "method": evidence["method"],
        "model": {"made_by": record["model"], "seed": record["seed"]},
        "before": evidence["before"],
        "after": dict(after),
        "measures": evidence["measures"],
        "retrain": evidence["retrain"],
        "drift": {"kl": entry["drift"], "rows": entry["drift_rows"]},
        "cost": evidence["cost"],
        "versions": evidence["versions"],
    }
