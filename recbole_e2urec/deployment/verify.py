"""``recbole-e2urec verify``: check a certificate against its model folder and the data.

A check passes, fails, or cannot be carried out. What the ledger and the data still yield is
computed again and compared place by place. Nothing is written.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.deployment.certificate import (
    CERTIFICATE_FORMAT,
    certificate_of,
    name_of,
    salted,
    seal_of,
    state_after,
    training_after,
)
from recbole_e2urec.deployment.certificate_page import certificate_page
from recbole_e2urec.deployment.certificate_words import things
from recbole_e2urec.deployment.evidence import (
    counts_of,
    evaluation_rows_of,
    measure,
    state_of,
)
from recbole_e2urec.deployment.model_folder import (
    CERTIFICATES,
    GENERATIONS,
    Generation,
    ModelFolder,
    UnusableFile,
    has_link,
    hash_of_file,
    read_json,
)
from recbole_e2urec.deployment.served_model import ServedModel, open_folder
from recbole_e2urec.errors import InputError, one_line
from recbole_e2urec.report.results import versions

OK, FAILED, UNKNOWN = "ok", "FAILED", "cannot be checked"
MAX_SHOWN = 3  # places that differ, in a line
TOLERANCE = 1e-4
# Differences in rounding add up over training steps, and move weights to the next multiple.
ROUGH_TOLERANCE = 1e-2
UTILITY = "test utility"
_MEASURES = {
    UTILITY: ("test",),
    "losses of forgotten, held-out and control users' rows": ("forget", "heldout", "control"),
    "membership inference": ("mia", "mia_same_users"),
    "loss of corrected answers": ("learned",),
}
_REST = "the rest: who was named, the measures, what model.json says of the request"
_FILE_NAME = re.compile(r"\w[\w.-]*")
_GENERATION_NAME = re.compile(r"[0-9]{6}")
_TYPES: dict[str, Any] = {
    "format": int,
    "request.id": str,
    "request.digest": str,
    "request.number": int,
    "before.generation": str,
    "before.files": dict,
    "after.generation": str,
    "after.files": dict,
    "identifiers": dict,
    "measures.before": dict,
    "measures.after": dict,
    "versions": dict,
    "purged": (dict, type(None)),
    "sha256": str,
}


@option_class()
class VerifyOptions:
    """Which certificate."""

    certificate: str = option("The JSON file that forget wrote.", default="", text=True)
    checkpoint: str | None = option(
        "The model folder; ~ = the one that the certificate lies in.", default=None, text=True
    )

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        if not self.certificate:
            raise InputError("verify: which one? write recbole-e2urec verify CERTIFICATE.json")


class Check(NamedTuple):
    """What was checked, and the outcome."""

    outcome: str
    what: str
    why: str = ""

    @property
    def line(self) -> str:
        """The check as a line of text."""
        text = f"{self.what} ({self.why})" if self.why else self.what
        return f"{self.outcome:<{len(UNKNOWN)}}  {text}"


class Verdict(NamedTuple):
    """The lines of all checks, and whether any check failed."""

    text: str
    failed: bool


def verify(
    options: VerifyOptions, settings: Mapping[str, Any], config_files: Sequence[str] = ()
) -> Verdict:
    """Check a certificate; nothing is written.

    Args:
        options: the certificate, and its folder.
        settings: as text: where the data is now, and how to compute.
        config_files: yaml files with such settings.

    Raises:
        InputError: the file is no certificate, or belongs to another folder.
    """
    path = Path(options.certificate)
    certificate = read_certificate(path)
    folder = ModelFolder(options.checkpoint or folder_of(path))
    present = folder.pointer()
    checks = [
        same("the certificate is as it was written", seal_of(certificate), certificate["sha256"]),
        *_check_folder(path, certificate, folder, (settings, config_files)),
    ]
    if folder.pointer() != present:
        raise InputError(f"{folder.path} took another request meanwhile; try again")
    failed = sum(check.outcome == FAILED for check in checks)
    lines = [check.line for check in checks]
    lines.append(
        f"{failed} of {things(len(checks), 'check')} failed" if failed else "nothing failed"
    )
    return Verdict("\n".join(lines), failed > 0)


def _check_folder(
    path: Path,
    certificate: Mapping[str, Any],
    folder: ModelFolder,
    opening: tuple[Mapping[str, Any], Sequence[str]],
) -> Iterator[Check]:
    """Check the certificate against its folder; ``opening`` is settings and config files."""
    try:
        generation = folder.read(with_tensors=False)
    except InputError as error:
        yield Check(FAILED, "model.json", str(error))
        yield Check(UNKNOWN, _REST, "the folder is damaged")
        return
    _refuse_other_folder(path, certificate, generation.record, folder)
    yield Check(OK, f"model.json of generation {generation.name}")
    files = [_check_file(folder, generation, f"{kind}.safetensors") for kind in generation.kinds]
    yield from files
    yield from _check_chain(certificate, generation, folder)
    if any(check.outcome == FAILED for check in files):
        yield Check(UNKNOWN, _REST, "the folder is damaged")
        return
    settings, config_files = opening
    try:
        run = open_folder(folder, settings, None, config_files)
    except InputError as error:
        yield Check(UNKNOWN, _REST, str(error))
        return
    number = certificate["request"]["number"]
    numbers, purged = run.request_numbers, certificate["purged"]
    expected = certificate_of(numbers, run.record, run.state, number, purged).content
    yield from _check_content(path, certificate, expected)
    yield from check_measures(run, expected)
    yield from _check_kept_files(certificate, folder)


def _refuse_other_folder(
    path: Path, certificate: Mapping[str, Any], record: Mapping[str, Any], folder: ModelFolder
) -> None:
    number, requests = certificate["request"]["number"], record["requests"]
    if not 1 <= number <= len(requests) or (
        requests[number - 1]["digest"] != certificate["request"]["digest"]
    ):
        raise InputError(f"{path}: {folder.path} has carried out no such request; name its folder")


def _check_file(folder: ModelFolder, generation: Generation, name: str) -> Check:
    """Check that a file of the model is the one that model.json describes."""
    place = f"{GENERATIONS}/{generation.name}/{name}"
    if has_link(folder.path, place):
        return Check(FAILED, name, "it is a link")
    try:
        digest = hash_of_file(folder.path / place)
    except OSError as error:
        return Check(FAILED, name, error.strerror or "it cannot be read")
    return same(f"{name} is what model.json says", digest, generation.record["files"].get(name))


def _check_chain(
    certificate: Mapping[str, Any], generation: Generation, folder: ModelFolder
) -> Iterator[Check]:
    """Check that certificates lead without a gap from this one to the current generation."""
    record, requests = generation.record, generation.record["requests"]
    first = certificate["request"]["number"]
    for number in range(first, len(requests) + 1):
        try:
            before = requests[number - 1]["evidence"]["before"]
            after = state_after(record, generation.state, number)
            file = folder.path / name_of(requests[number - 1], number)
        except (KeyError, TypeError, InputError) as error:
            yield Check(FAILED, f"request {number} in model.json", f"it has no {error}")
            return
        is_replaced = training_after(record, number) is not None
        next_ = "the present one" if number == len(requests) else f"what request {number + 1} had"
        next_ = "what a new training replaced" if is_replaced else next_
        linked = certificate
        if number > first:
            if not file.is_file():
                yield Check(UNKNOWN, f"certificate of request {number}", "it is not there")
                continue
            try:
                linked = read_certificate(file)
            except InputError as error:
                yield Check(FAILED, f"certificate of request {number}", str(error))
                continue
        title = f"request {number} began with the model that its certificate names"
        yield same(title, linked["before"], before)
        yield same(f"request {number} left {next_}", linked["after"], after)


def _check_content(
    path: Path, certificate: Mapping[str, Any], expected: Mapping[str, Any]
) -> Iterator[Check]:
    """Compare the certificate and its page with what the ledger yields."""
    counts = {kind: len(expected["identifiers"][kind]) for kind in ("users", "items", "rows")}
    text = ", ".join(things(count, kind.removesuffix("s")) for kind, count in counts.items())
    yield same(f"salted hashes: {text}", certificate["identifiers"], expected["identifiers"])
    checked_elsewhere = ("in_words", "identifiers", "sha256", "purged")
    theirs, ours = (
        {key: value for key, value in content.items() if key not in checked_elsewhere}
        for content in (certificate, expected)
    )
    yield same("all else that it says stands in model.json", theirs, ours)
    version = certificate["versions"].get("recbole_e2urec")
    if version != versions()["recbole_e2urec"]:
        yield Check(UNKNOWN, "its words, and the page", f"they are of version {version}")
        return
    title = "its words follow from its numbers"
    yield same(title, certificate.get("in_words"), expected["in_words"])
    page = path.with_suffix(".html")
    if not page.is_file():
        yield Check(UNKNOWN, "the page", f"there is no {page.name} beside it")
        return
    expected_page = certificate_page({**expected, "sha256": certificate["sha256"]})
    yield same("the page says the same", page.read_text("utf-8", "replace"), expected_page)


def check_measures(run: ServedModel, certificate: Mapping[str, Any]) -> Iterator[Check]:
    """Check the counts, and those measures that can be computed again.

    Args:
        run: the served model, opened on its data.
        certificate: the certificate of one of its requests, made from the ledger.
    """
    number, requests = certificate["request"]["number"], run.record["requests"]
    is_erased, last, now = "erased" in certificate, len(requests), ""
    with state_of(run, number) as delta:
        counts = counts_of(run, delta)
        if number < last and len(delta.forget):
            loss, then = run.loss(delta.forget, delta.before), certificate["measures"]["after"]
            now = f"; the loss of its forgotten rows is {loss:.4f} now and was "
            now += f"{then['forget']['loss']:.4f} then"
    if is_erased:
        yield _check_erased(run, certificate)
        why = "the data have the right values" if "kind" in certificate else "its rows are erased"
        yield Check(UNKNOWN, "what was asked for, and its losses", why)
    else:
        yield same("counts of what was asked for", counts, certificate["asked"])
    yield Check(UNKNOWN, "measures before", "that model is gone, as it should be")
    if certificate.get("attacks") is not None:
        yield Check(UNKNOWN, "attacks with both models", "the model before is gone")
    if certificate["retrain"] is not None:
        yield Check(UNKNOWN, "distance to Retrain", "Retrain was not kept")
    measures_after, drift = certificate["measures"]["after"], certificate["drift"]["kl"]
    if training_after(run.record, last) is not None:
        yield Check(UNKNOWN, "measures after", "the model was trained anew since")
        return
    if number == last:
        yield from _measure_again(run, number, measures_after, drift)
        return
    later = things(last - number, "later request")
    yield Check(UNKNOWN, "measures after", f"{later} changed the model{now}")
    if run.unmeasured is not None:
        yield Check(UNKNOWN, "measures of the present model", f"request {last} is not measured yet")
        return
    entry = requests[-1]
    of_which = f" of the present model, as after request {last}"
    last_measures = entry["evidence"]["measures"]["after"]
    yield from _measure_again(run, last, last_measures, entry["drift"], of_which)


def _check_erased(run: ServedModel, certificate: Mapping[str, Any]) -> Check:
    """Check that the data have no user and no item of whom nothing was to be left."""
    ids, named, left = run.dataset.ids, certificate["identifiers"], 0
    items = certificate["erased"]["items"]
    for word, tokens, hashes in (("user", ids.users, named["users"]), ("item", ids.items, items)):
        erased = set(hashes)
        left += sum(salted(named["salt"], word, token) in erased for token in tokens if erased)
    why = f"{left:,} of them are there" if left else ""
    return Check(FAILED if left else OK, "erased users and items are not in the data", why)


def _measure_again(
    run: ServedModel,
    number: int,
    stated: Mapping[str, Any],
    drift: float | None,
    of_which: str = " after",
) -> Iterator[Check]:
    with state_of(run, number) as delta:
        measures = measure(run, delta, evaluation_rows_of(run, delta), delta.after).measures
    is_erased = "erased" in run.record["requests"][number - 1]
    for title, names in _MEASURES.items():
        if (is_erased and title != UTILITY) or measures.keys().isdisjoint(names):
            continue
        ours, theirs = ({name: part.get(name) for name in names} for part in (measures, stated))
        yield same(f"{title}{of_which}, within {TOLERANCE:g}", ours, theirs, TOLERANCE)
    if not is_erased:
        for name in ("relearning", "rounding"):
            if name in stated:  # certificates of 0.9.0 and before have no rounding
                title = f"{name}{of_which}, within {ROUGH_TOLERANCE:g}"
                yield same(title, measures[name], stated[name], ROUGH_TOLERANCE)
    yield same(f"drift{of_which}, within {TOLERANCE:g}", run.drift(), drift, TOLERANCE)


def _check_kept_files(certificate: Mapping[str, Any], folder: ModelFolder) -> Iterator[Check]:
    purged = certificate["purged"]
    if purged is None:
        return
    yield Check(UNKNOWN, "what was removed", "it is not there to be looked at")
    for kept in purged.get("kept", []):
        name = kept["name"]
        file = folder.path / name
        if has_link(folder.path, name) or not file.is_file():
            yield Check(UNKNOWN, f"kept: {name}", "it is not in the folder")
        else:
            yield same(f"kept: {name}", hash_of_file(file), kept.get("sha256"))


def same(what: str, actual: Any, expected: Any, tolerance: float = 0.0) -> Check:
    """Compare JSON values; if they differ, the check names the places."""
    places = list(differing(actual, expected, tolerance))
    if not places:
        return Check(OK, what)
    more = f" and {len(places) - MAX_SHOWN} more" if len(places) > MAX_SHOWN else ""
    return Check(FAILED, what, f"different: {', '.join(places[:MAX_SHOWN])}{more}")


def differing(actual: Any, expected: Any, tolerance: float = 0.0, place: str = "") -> Iterator[str]:
    """Yield the places in which JSON values differ.

    Args:
        actual: a JSON value.
        expected: the value to compare it to.
        tolerance: how far two numbers may be apart and still be the same.
        place: where in the whole document the values are.
    """
    if isinstance(actual, Mapping) and isinstance(expected, Mapping):
        for key in sorted({*actual, *expected}):
            inner = f"{place}.{key}" if place else str(key)
            if key not in actual or key not in expected:
                yield inner
            else:
                yield from differing(actual[key], expected[key], tolerance, inner)
    elif isinstance(actual, list) and isinstance(expected, list):
        if len(actual) != len(expected):
            yield place or "all of it"
            return
        for number, pair in enumerate(zip(actual, expected, strict=True)):
            yield from differing(*pair, tolerance, f"{place}[{number}]")
    elif not _equal(actual, expected, tolerance):
        yield place or "all of it"


def _equal(actual: Any, expected: Any, tolerance: float) -> bool:
    if _is_number(actual) and _is_number(expected):
        return bool(abs(actual - expected) <= tolerance)
    return type(actual) is type(expected) and bool(actual == expected)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and type(value) is not bool


def read_certificate(path: Path) -> dict[str, Any]:
    """Read a certificate; its hashes are not checked.

    Raises:
        InputError: the file is no certificate, or it names a path outside its folder.
    """
    if path.suffix == ".html":
        raise InputError(f"{path} is the page for people; name the .json file beside it")
    try:
        certificate = read_json(path)
        seal_of(certificate)
    except (UnusableFile, ValueError, RecursionError) as error:
        raise InputError(f"{path} is no certificate: {one_line(error)}") from error
    for name, expected_type in _TYPES.items():
        value = _value_at(certificate, name)
        if not isinstance(value, expected_type) or isinstance(value, bool):
            raise InputError(f"{path} is no certificate: {name} is missing or of another kind")
    version = certificate["format"]
    if version != CERTIFICATE_FORMAT:
        raise InputError(f"{path}: format {version} is not known, {CERTIFICATE_FORMAT} is")
    _refuse_paths(path, certificate)
    return certificate


def folder_of(path: Path) -> Path:
    """Return the model folder that holds a certificate.

    Raises:
        InputError: the certificate is in no model folder.
    """
    place = path.absolute().parent
    if place.name != CERTIFICATES:
        raise InputError(f"{path} lies in no model folder; write --checkpoint=DIR")
    return place.parent


def is_purge(purged: Mapping[str, Any]) -> bool:
    """Return whether this is the report of a purge: ``removed``, ``kept`` and ``unknown``."""
    removed, kept, unknown = (purged.get(key) for key in ("removed", "kept", "unknown"))
    return (
        isinstance(removed, dict)
        and all(_has_fields(counts, int, "files", "bytes") for counts in removed.values())
        and isinstance(kept, list)
        and all(_has_fields(file, str, "name", "sha256", "why") for file in kept)
        and isinstance(unknown, list)
        and all(isinstance(name, str) for name in unknown)
    )


def climbs(name: str) -> bool:
    """Return whether a name leads out of its folder, on this system or another."""
    if not name or "\0" in name:
        return True
    paths = PurePosixPath(name), PureWindowsPath(name)
    return any(path.anchor or ".." in path.parts for path in paths)


def _has_fields(value: Any, kind: type, *keys: str) -> bool:
    return isinstance(value, dict) and all(type(value.get(key)) is kind for key in keys)


def _value_at(certificate: Mapping[str, Any], name: str) -> Any:
    value: Any = certificate
    for part in name.split("."):
        value = value.get(part, ...) if isinstance(value, Mapping) else ...
    return value


def _refuse_paths(path: Path, certificate: Mapping[str, Any]) -> None:
    states = [certificate["before"], certificate["after"]]
    fits = all(_GENERATION_NAME.fullmatch(state["generation"]) for state in states)
    fits = fits and all(_FILE_NAME.fullmatch(name) for state in states for name in state["files"])
    purged = certificate["purged"]
    if purged is not None and not is_purge(purged):
        raise InputError(f"{path} is no certificate: purged is nothing that a purge writes")
    if not fits or any(climbs(file["name"]) for file in (purged or {}).get("kept", [])):
        raise InputError(f"{path} names a file that could lead out of its folder; do not trust it")
