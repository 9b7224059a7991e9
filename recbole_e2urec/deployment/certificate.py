"""The certificate of a request: what was done to the model, in numbers and words, without names.

It is made from the ledger in ``model.json`` and from the folder's hashes alone. As long as the
folder exists, the same certificate can be made again.
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
from numpy.typing import NDArray

from recbole_e2urec.deployment.certificate_page import certificate_page
from recbole_e2urec.deployment.certificate_words import words_of
from recbole_e2urec.deployment.model_folder import CERTIFICATES, ModelFolder
from recbole_e2urec.deployment.served_model import RequestNumbers, forgotten_until
from recbole_e2urec.errors import InputError, one_line
from recbole_e2urec.experiment.run import Rows
from recbole_e2urec.utils.io import flush_folder, write_json, write_text

CERTIFICATE_FORMAT = 1
TRAININGS = "trainings"  # in model.json: when the model was trained anew
# Part of every certificate; verify compares it word by word.
HASH_METHOD = (
    "HMAC-SHA-256, keyed with the salt (its bytes, written in hex), of UTF-8 texts joined by NUL: "
    "'user' and the user; 'item' and the item; 'row', the user and the item"
)
Mask = NDArray[np.bool_]
_DIGEST = re.compile(r"[0-9a-f]{16}")


class Certificate(NamedTuple):
    """A certificate as JSON, and its page."""

    content: dict[str, Any]
    page: str


def certify(
    numbers: RequestNumbers,
    folder: ModelFolder,
    number: int,
    purged: Mapping[str, Any] | None = None,
) -> Path:
    """Write the certificate of a request that the folder's model has carried out.

    Args:
        numbers: which request named which row.
        folder: the model's folder; call this inside ``locked()``.
        number: number of the request, from 1.
        purged: what was deleted: ``removed`` (``files`` and ``bytes`` by kind), ``kept`` (``name``,
            ``sha256`` and ``why`` each) and ``unknown`` (names); None: nothing was purged.

    Returns:
        The path of the JSON file. The page is beside it.

    Raises:
        InputError: the ledger is damaged, or the disk is full.
    """
    generation = folder.read(with_tensors=False)
    record = generation.record
    certificate = certificate_of(numbers, record, generation.state, number, purged)
    path = folder.path / name_of(record["requests"][number - 1], number)
    write_text(path.with_suffix(".html"), certificate.page)
    write_json(path, certificate.content)
    for changed in (path.parent, folder.path):
        flush_folder(changed)
    return path


def certify_if_missing(
    numbers: Callable[[], RequestNumbers],
    folder: ModelFolder,
    entry: Mapping[str, Any],
    number: int,
) -> list[str]:
    """Write the certificate of a request if a killed process left it out.

    Args:
        numbers: returns which request named which row; it is called only if it is needed.
        folder: the model's folder; call this inside its ``locked()``.
        entry: the ledger's entry of the request.
        number: number of the request, from 1.

    Returns:
        What was written, for people; empty if the certificate exists.
    """
    if has_certificate(folder, entry, number):
        return []
    return [f"its certificate was missing: {certify(numbers(), folder, number)}"]


def has_certificate(folder: ModelFolder, entry: Mapping[str, Any], number: int) -> bool:
    """Return whether a request of the ledger has its certificate and the page."""
    path = folder.path / name_of(entry, number)
    return path.is_file() and path.with_suffix(".html").is_file()


def name_of(entry: Mapping[str, Any], number: int) -> str:
    """Return the path of a request's certificate, relative to the model folder.

    Raises:
        InputError: the ledger has no valid hash of the request.
    """
    digest = str(entry["digest"])
    if not _DIGEST.fullmatch(digest):
        raise InputError(f"request {number} in model.json has no hash; the folder is damaged")
    return f"{CERTIFICATES}/{number:06d}-{digest[:12]}.json"


def certificate_of(
    numbers: RequestNumbers,
    record: Mapping[str, Any],
    state: Mapping[str, Any],
    number: int,
    purged: Mapping[str, Any] | None = None,
) -> Certificate:
    """Make the certificate of a request.

    Args:
        numbers: which request named which row.
        record: the content of ``model.json``.
        state: name and hashes of the current generation.
        number: number of the request, from 1.
        purged: see :func:`certify`.

    Raises:
        InputError: the ledger is damaged.
    """
    try:
        content = _content(numbers, record, state_after(record, state, number), number)
        content["purged"] = None if purged is None else dict(purged)
        content["in_words"] = words_of(content)
        content["sha256"] = seal_of(content)
        return Certificate(content, certificate_page(content))
    except (KeyError, TypeError, ValueError, AttributeError, TemplateError) as error:
        raise InputError(
            f"request {number} in model.json is no entry of this version ({one_line(error)})"
        ) from error


def state_after(
    record: Mapping[str, Any], state: Mapping[str, Any], number: int
) -> Mapping[str, Any]:
    """Return name and hashes of the model after a request.

    The next request began with it, unless the model was trained anew in between.
    """
    requests, training = record["requests"], training_after(record, number)
    if training is not None:
        left: Mapping[str, Any] = training["before"]
        return left
    if number == len(requests):
        return state
    after: Mapping[str, Any] = requests[number]["evidence"]["before"]
    return after


def training_after(record: Mapping[str, Any], number: int) -> Mapping[str, Any] | None:
    """Return what the ledger notes of a new training between a request and the next one."""
    for training in record.get(TRAININGS, []):
        if training["after"] == number:
            return dict(training)
    return None


def seal_of(certificate: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a certificate without its own hash, however the file is formatted."""
    rest = {key: value for key, value in certificate.items() if key != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _content(
    numbers: RequestNumbers, record: Mapping[str, Any], after: Mapping[str, Any], number: int
) -> dict[str, Any]:
    entry = record["requests"][number - 1]
    evidence = entry["evidence"]
    erased, salt = entry.get("erased"), evidence["salt"]
    hashes = hashes_of(numbers, number, salt) if erased is None else erased["identifiers"]
    content = {
        "format": CERTIFICATE_FORMAT,
        "request": {
            "id": entry["request_id"],
            "digest": entry["digest"],
            "number": number,
            "date": entry["date"],
        },
        "data": {"dataset": record["dataset"], **(erased or record)["fingerprint"]},
        "asked": evidence["asked"],
        "identifiers": {"how": HASH_METHOD, "salt": salt, **hashes},
        "method": evidence["method"],
        "model": {"made_by": record["model"], "seed": record["seed"]},
        "before": evidence["before"],
        "after": dict(after),
        "measures": evidence["measures"],
        **({"attacks": evidence["attacks"]} if "attacks" in evidence else {}),
        "retrain": evidence["retrain"],
        "drift": {"kl": entry["drift"], "rows": entry["drift_rows"]},
        "cost": evidence["cost"],
        "versions": evidence["versions"],
    }
    if "kind" in entry:  # a request that forgets rows has none
        content["kind"] = entry["kind"]
    if erased is not None:
        content["erased"] = {key: erased[key] for key in ("date", "requests", "files", "items")}
    return content


def hashes_of(numbers: RequestNumbers, number: int, salt: str) -> dict[str, list[str]]:
    """Return salted hashes of what a request removed as a whole.

    These are users, items, and single rows of users and items that stay. Of a correction, they are
    the rows as they were and as they are. The hashes are sorted, so that their order reveals
    nothing.

    Args:
        numbers: which request named which row.
        number: number of the request, from 1.
        salt: hex digits.
    """
    table, (rows, stays) = numbers.rows_after(number), _rows_of(numbers, number)
    users = np.setdiff1d(table.user[rows], table.user[stays])
    rows = rows[~np.isin(table.user[rows], users)]
    items = np.setdiff1d(table.item[rows], table.item[stays])
    rows = rows[~np.isin(table.item[rows], items)]
    user_tokens = _tokens(numbers.dataset.ids.users)
    item_tokens = _tokens(numbers.dataset.ids.items)
    pairs = {(int(table.user[row]), int(table.item[row])) for row in rows}
    corrected = numbers.corrections.of(number).rows
    for state in (numbers.rows_after(number - 1), table) if len(corrected) else ():
        pairs |= {*zip(state.user[corrected].tolist(), state.item[corrected].tolist(), strict=True)}
    return {
        "users": sorted(salted(salt, "user", user_tokens[user]) for user in users.tolist()),
        "items": sorted(salted(salt, "item", item_tokens[item]) for item in items.tolist()),
        "rows": sorted(
            salted(salt, "row", user_tokens[user], item_tokens[item]) for user, item in pairs
        ),
    }


def lost_items(numbers: RequestNumbers, number: int, salt: str) -> list[str]:
    """Return sorted salted hashes of items of which a request, or one before, left no row.

    Unlike :func:`hashes_of`, it also names those that only users had who left as a whole.
    """
    items, (rows, stays) = numbers.dataset.rows.item, _rows_of(numbers, number)
    tokens = _tokens(numbers.dataset.ids.items)
    lost = np.setdiff1d(items[rows], items[stays]).tolist()
    return sorted(salted(salt, "item", tokens[item]) for item in lost)


def _rows_of(numbers: RequestNumbers, number: int) -> tuple[Rows, Mask]:
    """Return the rows that a request removed, and which of all rows were left after it."""
    stays = np.ones(len(numbers.number), dtype=bool)
    stays[forgotten_until(numbers.number, number)] = False
    return np.flatnonzero(numbers.number == number), stays


def salted(salt: str, *words: str) -> str:
    """Return the HMAC-SHA-256 of words joined by NUL, in hex, keyed with the salt (hex digits)."""
    return hmac.new(bytes.fromhex(salt), "\0".join(words).encode(), hashlib.sha256).hexdigest()


def _tokens(ids: Mapping[str, int]) -> dict[int, str]:
    return {inner: token for token, inner in ids.items()}
