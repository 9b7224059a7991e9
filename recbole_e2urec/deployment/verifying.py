"""``recbole-e2urec verify``: what a certificate says, against the folder and the data."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from recbole_e2urec.deployment.certificate import certificate_of, name_of, seal_of, state_after
from recbole_e2urec.deployment.certificatepage import certificate_page
from recbole_e2urec.deployment.checks import FAILED, OK, UNKNOWN, Check, same
from recbole_e2urec.deployment.deployed import open_folder
from recbole_e2urec.deployment.filed import folder_of, read_certificate
from recbole_e2urec.deployment.folder import GENERATIONS, TENSORS, Generation, ModelFolder
from recbole_e2urec.deployment.recomputing import recomputed
from recbole_e2urec.deployment.sealed import has_link, hash_of_file
from recbole_e2urec.errors import InputError
from recbole_e2urec.results import versions

_LEFT = "the rest: who was named, the measures, what model.json says of the request"


@dataclass(frozen=True)
class VerifyOptions:
    """Which certificate.

    Attributes:
        certificate: the JSON file.
        checkpoint: the model folder; None: the one that the file lies in.
    """

    certificate: str = field(default="", metadata={"text": True})
    checkpoint: str | None = field(default=None, metadata={"text": True})

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
