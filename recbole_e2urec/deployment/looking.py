"""What lies in the folders of a run: what a purge would remove, what it keeps, what it leaves."""

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from recbole_e2urec.deployment.kinds import KEPT, MODEL, PASSED_OVER, REMOVED, Kind
from recbole_e2urec.deployment.places import Places
from recbole_e2urec.errors import InputError

_ALL = (*REMOVED, *KEPT, *PASSED_OVER)


class Entry(NamedTuple):
    """A file of a kind.

    Attributes:
        kind: of the table.
        path: where it is.
        name: how it is told: from the model folder, or the name of its place and the way from it.
        size: in bytes.
    """

    kind: Kind
    path: Path
    name: str
    size: int


class Found(NamedTuple):
    """What lies in the folders; ``folders`` are those of known kinds, the deepest first."""

    removed: list[Entry]
    kept: list[Entry]
    unknown: list[str]
    folders: list[Path]


def look(places: Places | None, model: Path | None) -> Found:
    """Look through the folders of a run and of a model; those that are not there have nothing.

    No link is followed, no folder opened in which nothing known can lie.

    Raises:
        InputError: a folder that cannot be read.
    """
    by_place = {} if places is None else dict(places._asdict())
    if model is not None:
        by_place[MODEL] = model.resolve()
    found = Found([], [], [], [])
    for root in dict.fromkeys(by_place.values()):
        names = [name for name, path in by_place.items() if path == root]
        kinds = [kind for kind in _ALL if kind.place in names]
        others = {path for path in by_place.values() if path != root}
        _Look(root, names[0], kinds, others, found).through()
    return found


class _Look:
    """Goes through one folder, and adds to what was found."""

    def __init__(
        self, root: Path, place: str, kinds: list[Kind], others: set[Path], found: Found
    ) -> None:
        self.root, self.place, self.kinds = root, place, kinds
        self.others, self.found = others, found

    def through(self) -> None:
        """Sort what is there into the lists of what was found."""
        try:
            if self.root.exists():
                self._folder(())
        except OSError as error:
            raise InputError(
                f"cannot read {error.filename or self.root}: {error.strerror}; mend that, and give "
                "the same command again"
            ) from error

    def _folder(self, above: tuple[str, ...]) -> None:
        for entry in sorted(os.scandir(self.root.joinpath(*above)), key=lambda one: one.name):
            parts = (*above, entry.name)
            if self.root.joinpath(*parts) in self.others:  # looked through by itself
                continue
            if not entry.is_dir(follow_symlinks=False):
                self._file(parts, entry.stat(follow_symlinks=False))
            elif any(kind.leads_to(parts) for kind in self.kinds) and self._is_ours(parts):
                self._folder(parts)
                self.found.folders.append(self.root.joinpath(*parts))
            else:
                self._leave(parts, "/")

    def _is_ours(self, parts: tuple[str, ...]) -> bool:
        """Whether a folder has the mark that its kind asks for."""
        marks = {kind.mark for kind in self.kinds if kind.mark and kind.leads_to(parts)}
        return all(_is_marked(self.root / parts[0], mark) for mark in marks)

    def _file(self, parts: tuple[str, ...], status: os.stat_result) -> None:
        path = self.root.joinpath(*parts)
        regular = stat.S_ISREG(status.st_mode)
        for kind in self.kinds:
            if not kind.fits(parts) or not (regular or kind in PASSED_OVER):
                continue
            if kind.mark and len(parts) == 1 and not _has(path, kind.mark):
                continue
            if kind not in PASSED_OVER:
                to = self.found.removed if kind in REMOVED else self.found.kept
                to.append(Entry(kind, path, self._name(parts), status.st_size))
            return
        self._leave(parts, "" if regular else " (a link or no plain file)")

    def _leave(self, parts: tuple[str, ...], more: str) -> None:
        self.found.unknown.append(self._name(parts) + more)

    def _name(self, parts: tuple[str, ...]) -> str:
        return "/".join(parts if self.place == MODEL else (self.place, *parts))


def _is_marked(folder: Path, mark: bytes) -> bool:
    """Whether a run of wandb, in its settings or its log, has the mark."""
    return any(_has(path, mark) for path in _below(folder) if path.suffix in (".yaml", ".wandb"))


def _below(folder: Path) -> Iterator[Path]:
    for where, _, names in os.walk(folder):
        paths = (Path(where, name) for name in names)
        yield from (path for path in paths if path.is_file() and not path.is_symlink())


def _has(path: Path, mark: bytes) -> bool:
    """Whether a file has these bytes in it; what cannot be read is not ours."""
    rest = b""
    try:
        with path.open("rb") as file:
            while part := file.read(2**20):
                if mark in rest + part:
                    return True
                rest = part[-len(mark) :]
    except PermissionError:
        pass
    return False


def by_kind(entries: list[Entry]) -> Mapping[str, tuple[int, int]]:
    """Files and bytes by the name of their kind, in the order of the table."""
    sums: dict[str, tuple[int, int]] = {}
    order = {kind.name: place for place, kind in reversed(list(enumerate(_ALL)))}
    for one in sorted(entries, key=lambda entry: order[entry.kind.name]):
        files, size = sums.get(one.kind.name, (0, 0))
        sums[one.kind.name] = files + 1, size + one.size
    return sums
