"""``recbole-e2urec verify``: what a certificate says, against the folder and the data."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.deployment.certificate import (
    FORMAT,
    certificate_of,
    name_of,
    seal_of,
    state_after,
)
from recbole_e2urec.deployment.certificate_page import certificate_page
from recbole_e2urec.deployment.evidence import (
    RequestDelta,
    counts_of,
    delta_of,
    evaluation_rows_of,
    measured,
)
from recbole_e2urec.deployment.model_folder import (
    CERTIFICATES,
    GENERATIONS,
    TENSORS,
    Broken,
    Generation,
    ModelFolder,
    has_link,
    hash_of_file,
    read_json,
)
from recbole_e2urec.deployment.served_model import ServedModel, open_folder, until
from recbole_e2urec.errors import InputError, one_line
from recbole_e2urec.report.results import versions

OK, FAILED, UNKNOWN = "ok", "FAILED", "cannot be checked"
SHOWN = 3  # places that differ, in a line


class Check(NamedTuple):
    """What was looked at, and what came of it."""

    outcome: str
    what: str
    why: str = ""

    @property
    def line(self) -> str:
        """The same for a person."""
        told = f"{self.what} ({self.why})" if self.why else self.what
        return f"{self.outcome:<{len(UNKNOWN)}}  {told}"


def same(what: str, found: Any, wanted: Any, tolerance: float = 0.0) -> Check:
    """Compare JSON values; where they differ, the check names the places."""
    places = list(differing(found, wanted, tolerance))
    if not places:
        return Check(OK, what)
    more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    return Check(FAILED, what, f"different: {', '.join(places[:SHOWN])}{more}")


def differing(found: Any, wanted: Any, tolerance: float = 0.0, place: str = "") -> Iterator[str]:
    """Places in which JSON values differ, numbers by more than the tolerance."""
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        for key in sorted({*found, *wanted}):
            at = f"{place}.{key}" if place else str(key)
            if key not in found or key not in wanted:
                yield at
            else:
                yield from differing(found[key], wanted[key], tolerance, at)
    elif _both(found, wanted, list):
        if len(found) != len(wanted):
            yield place or "all of it"
            return
        for number, pair in enumerate(zip(found, wanted, strict=True)):
            yield from differing(*pair, tolerance, f"{place}[{number}]")
    elif not _alike(found, wanted, tolerance):
        yield place or "all of it"


def _alike(found: Any, wanted: Any, tolerance: float) -> bool:
    if _both(found, wanted, int | float) and bool not in (type(found), type(wanted)):
        return bool(abs(found - wanted) <= tolerance)
    return type(found) is type(wanted) and bool(found == wanted)


def _both(found: Any, wanted: Any, kind: Any) -> bool:
    return isinstance(found, kind) and isinstance(wanted, kind)


_FILE = re.compile(r"\w[\w.-]*")
_GENERATION = re.compile(r"[0-9]{6}")
_KINDS: dict[str, Any] = {
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


def read_certificate(path: Path) -> dict[str, Any]:
    """Read a certificate; its hashes are not looked at.

    Raises:
        InputError: it is none, or it names a path that leads elsewhere.
    """
    if path.suffix == ".html":
        raise InputError(f"{path} is the page for people; name the .json file beside it")
    try:
        whole = read_json(path)
        seal_of(whole)
    except (Broken, ValueError, RecursionError) as error:
        raise InputError(f"{path} is no certificate: {one_line(error)}") from error
    for name, kind in _KINDS.items():
        value = _at(whole, name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InputError(f"{path} is no certificate: {name} is missing or of another kind")
    if whole["format"] != FORMAT:
        raise InputError(f"{path}: format {whole['format']} is not known, {FORMAT} is")
    _refuse_paths(path, whole)
    return whole


def folder_of(path: Path) -> Path:
    """The model folder that a certificate lies in.

    Raises:
        InputError: it lies elsewhere.
    """
    place = path.absolute().parent
    if place.name != CERTIFICATES:
        raise InputError(f"{path} lies in no model folder; write --checkpoint=DIR")
    return place.parent


def is_purge(purged: Mapping[str, Any]) -> bool:
    """Whether this is what a purge tells: ``removed``, ``kept`` and ``unknown``."""
    removed, kept, unknown = (purged.get(key) for key in ("removed", "kept", "unknown"))
    return (
        isinstance(removed, dict)
        and all(_has(one, int, "files", "bytes") for one in removed.values())
        and isinstance(kept, list)
        and all(_has(one, str, "name", "sha256", "why") for one in kept)
        and isinstance(unknown, list)
        and all(isinstance(one, str) for one in unknown)
    )


def _has(value: Any, kind: type, *keys: str) -> bool:
    return isinstance(value, dict) and all(type(value.get(key)) is kind for key in keys)


def climbs(name: str) -> bool:
    """Whether a name leads out of the folder that it is in, on this system or another."""
    if not name or "\0" in name:
        return True
    kinds = PurePosixPath(name), PureWindowsPath(name)
    return any(one.anchor or ".." in one.parts for one in kinds)


def _at(whole: Mapping[str, Any], name: str) -> Any:
    value: Any = whole
    for part in name.split("."):
        value = value.get(part, ...) if isinstance(value, Mapping) else ...
    return value


def _refuse_paths(path: Path, whole: Mapping[str, Any]) -> None:
    sides = [whole["before"], whole["after"]]
    fits = all(_GENERATION.fullmatch(side["generation"]) for side in sides)
    fits = fits and all(_FILE.fullmatch(name) for side in sides for name in side["files"])
    purged = whole["purged"]
    if purged is not None and not is_purge(purged):
        raise InputError(f"{path} is no certificate: purged is nothing that a purge writes")
    if not fits or any(climbs(one["name"]) for one in (purged or {}).get("kept", [])):
        raise InputError(f"{path} names a file that could lead out of its folder; do not trust it")


TOLERANCE = 1e-4
RELEARNED = 1e-2  # training of some steps adds up what machines round otherwise
_GROUPS = {
    "test utility": ("test",),
    "losses of forgotten, held-out and control users' rows": ("forget", "heldout", "control"),
    "membership inference": ("mia", "mia_same_users"),
}


def change_by(run: ServedModel, number: int) -> RequestDelta:
    """What a request of the model's changed."""
    return delta_of(run, until(run.number, number - 1), until(run.number, number))


def recomputed(run: ServedModel, whole: Mapping[str, Any]) -> Iterator[Check]:
    """Check counts, and what of the measures can be computed again.

    Args:
        run: the present model on its data.
        whole: the certificate of one of its requests, made of the ledger.
    """
    number, requests = whole["request"]["number"], run.record["requests"]
    change = change_by(run, number)
    yield same("counts of what was asked for", counts_of(run, change), whole["asked"])
    yield Check(UNKNOWN, "measures before", "that model is gone, as it should be")
    if whole["retrain"] is not None:
        yield Check(UNKNOWN, "distance to Retrain", "Retrain was not kept")
    last = len(requests)
    if number == last:
        yield from _measures(run, number, whole["measures"]["after"], whole["drift"]["kl"])
        return
    now = ""
    if len(change.forget):
        then = whole["measures"]["after"]["forget"]["loss"]
        loss = run.loss(change.forget, change.before)
        now = f"; the loss of its forgotten rows is {loss:.4f} now and was {then:.4f} then"
    yield Check(UNKNOWN, "measures after", f"{last - number} later requests changed the model{now}")
    entry = requests[-1]
    told = f" of the present model, as after request {last}"
    yield from _measures(run, last, entry["evidence"]["measures"]["after"], entry["drift"], told)


def _measures(
    run: ServedModel, number: int, told: Mapping[str, Any], drift: float | None, of: str = " after"
) -> Iterator[Check]:
    change = change_by(run, number)
    found = measured(run, change, evaluation_rows_of(run, change), change.after).measures
    for title, names in _GROUPS.items():
        ours, theirs = ({name: one[name] for name in names} for one in (found, told))
        yield same(f"{title}{of}, within {TOLERANCE:g}", ours, theirs, TOLERANCE)
    ours, theirs = found["relearning"], told["relearning"]
    yield same(f"relearning{of}, within {RELEARNED:g}", ours, theirs, RELEARNED)
    yield same(f"drift{of}, within {TOLERANCE:g}", run.drift(), drift, TOLERANCE)


_LEFT = "the rest: who was named, the measures, what model.json says of the request"


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


class Verdict(NamedTuple):
    """Lines of checks, and whether one failed."""

    text: str
    failed: bool


def verify(
    options: VerifyOptions, settings: Mapping[str, Any], config_files: Sequence[str] = ()
) -> Verdict:
    """Check a certificate; nothing is written.

    Args:
        options: which.
        settings: as text: where the data is now, and how to compute.
        config_files: yaml files with such settings.

    Raises:
        InputError: it is no certificate, or of another folder.
    """
    path = Path(options.certificate)
    whole = read_certificate(path)
    folder = ModelFolder(options.checkpoint or folder_of(path))
    present = folder.pointer()
    checks = [
        same("the certificate is as it was written", seal_of(whole), whole["sha256"]),
        *_folder(path, whole, folder, (settings, config_files)),
    ]
    if folder.pointer() != present:
        raise InputError(f"{folder.path} took another request meanwhile; try again")
    failed = sum(check.outcome == FAILED for check in checks)
    lines = [check.line for check in checks]
    lines.append(f"{failed} of {len(checks)} checks failed" if failed else "nothing failed")
    return Verdict("\n".join(lines), failed > 0)


def _folder(
    path: Path, whole: Mapping[str, Any], folder: ModelFolder, opening: tuple[Any, Any]
) -> Iterator[Check]:
    try:
        found = folder.read(whole=False)
    except InputError as error:
        yield Check(FAILED, "model.json", str(error))
        yield Check(UNKNOWN, _LEFT, "the folder is damaged")
        return
    _refuse_another(path, whole, found.record, folder)
    yield Check(OK, f"model.json of generation {found.name}")
    files = [_file(folder, found, f"{kind}.safetensors") for kind in TENSORS]
    yield from files
    yield from _chain(whole, found, folder)
    if any(check.outcome == FAILED for check in files):
        yield Check(UNKNOWN, _LEFT, "the folder is damaged")
        return
    try:
        run = open_folder(folder, opening[0], None, opening[1])
    except InputError as error:
        yield Check(UNKNOWN, _LEFT, str(error))
        return
    number = whole["request"]["number"]
    made = certificate_of(run.named, run.record, run.state, number, whole["purged"]).whole
    yield from _told(path, whole, made)
    yield from recomputed(run, made)
    yield from _purged(whole, folder)


def _refuse_another(
    path: Path, whole: Mapping[str, Any], record: Mapping[str, Any], folder: ModelFolder
) -> None:
    number, requests = whole["request"]["number"], record["requests"]
    if not 1 <= number <= len(requests) or (
        requests[number - 1]["digest"] != whole["request"]["digest"]
    ):
        raise InputError(f"{path}: {folder.path} has carried out no such request; name its folder")


def _file(folder: ModelFolder, found: Generation, name: str) -> Check:
    """Whether a file of the model is the one that model.json names."""
    place = f"{GENERATIONS}/{found.name}/{name}"
    if has_link(folder.path, place):
        return Check(FAILED, name, "it is a link")
    try:
        digest = hash_of_file(folder.path / place)
    except OSError as error:
        return Check(FAILED, name, error.strerror or "it cannot be read")
    return same(f"{name} is what model.json says", digest, found.record["files"].get(name))


def _chain(whole: Mapping[str, Any], found: Generation, folder: ModelFolder) -> Iterator[Check]:
    """From the certificate to the present generation."""
    number, requests = whole["request"]["number"], found.record["requests"]
    for place in range(number, len(requests) + 1):
        try:
            before = requests[place - 1]["evidence"]["before"]
            after = state_after(found.record, found.state, place)
            file = folder.path / name_of(requests[place - 1], place)
        except (KeyError, TypeError, InputError) as error:
            yield Check(FAILED, f"request {place} in model.json", f"it has no {error}")
            return
        next_ = "the present one" if place == len(requests) else f"what request {place + 1} had"
        told = whole
        if place > number:
            if not file.is_file():
                yield Check(UNKNOWN, f"certificate of request {place}", "it is not there")
                continue
            try:
                told = read_certificate(file)
            except InputError as error:
                yield Check(FAILED, f"certificate of request {place}", str(error))
                continue
        title = f"request {place} began with the model that its certificate names"
        yield same(title, told["before"], before)
        yield same(f"request {place} left {next_}", told["after"], after)


def _told(path: Path, whole: Mapping[str, Any], made: Mapping[str, Any]) -> Iterator[Check]:
    """What the certificate and its page say, against what is made of the ledger."""
    names = {kind: len(made["identifiers"][kind]) for kind in ("users", "items", "rows")}
    told = ", ".join(f"{count:,} {kind}" for kind, count in names.items())
    yield same(f"salted hashes: {told}", whole["identifiers"], made["identifiers"])
    worded = ("in_words", "identifiers", "sha256", "purged")
    theirs, ours = ({k: v for k, v in one.items() if k not in worded} for one in (whole, made))
    yield same("all else that it says stands in model.json", theirs, ours)
    version = whole["versions"].get("recbole_e2urec")
    if version != versions()["recbole_e2urec"]:
        yield Check(UNKNOWN, "its words, and the page", f"they are of version {version}")
        return
    yield same("its words follow from its numbers", whole.get("in_words"), made["in_words"])
    page = path.with_suffix(".html")
    if not page.is_file():
        yield Check(UNKNOWN, "the page", f"there is no {page.name} beside it")
        return
    wanted = certificate_page({**made, "sha256": whole["sha256"]})
    yield same("the page says the same", page.read_text("utf-8", "replace"), wanted)


def _purged(whole: Mapping[str, Any], folder: ModelFolder) -> Iterator[Check]:
    purged = whole["purged"]
    if purged is None:
        return
    yield Check(UNKNOWN, "what was removed", "it is not there to be looked at")
    for one in purged.get("kept", []):
        file = folder.path / one["name"]
        if has_link(folder.path, one["name"]) or not file.is_file():
            yield Check(UNKNOWN, f"kept: {one['name']}", "it is not in the folder")
        else:
            yield same(f"kept: {one['name']}", hash_of_file(file), one.get("sha256"))
