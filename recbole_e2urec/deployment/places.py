"""Where a run leaves files: its checkpoint_dir, and what RecBole writes beside it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from recbole_e2urec.errors import InputError
from recbole_e2urec.results import RESULTS, load_rows
from recbole_e2urec.trainer.curves import FOLDER as CURVES

DEFAULT = "saved"  # RecBole's checkpoint_dir
STAGE = "stage"


class Places(NamedTuple):
    """Folders, absolute; some may not be there."""

    checkpoint_dir: Path
    log: Path
    log_tensorboard: Path
    wandb: Path

    @classmethod
    def below(cls, start: Path, checkpoints: Path | str) -> "Places":
        """Those of a run that was started in a folder."""
        start = start.resolve()
        wandb = Path(os.environ.get("WANDB_DIR") or ".") / "wandb"
        names = checkpoints, "log", CURVES, wandb
        return cls(*((start / name).resolve() for name in names))

    @classmethod
    def of_run(cls, checkpoints: Path, told: str) -> "Places":
        """Those of a finished run.

        Args:
            checkpoints: its checkpoint_dir, from here.
            told: what the run itself called it: so one knows where the run was started, unless it
                is an absolute path, or another one by now; then it was started here.
        """
        whole, end = checkpoints.resolve(), Path(told)
        own = end.parts
        ends_so = not end.is_absolute() and own and whole.parts[-len(own) :] == own
        start = Path(*whole.parts[: -len(own)]) if ends_so else Path.cwd()
        return cls.below(start, whole)

    def told(self, stage: str) -> dict[str, str]:
        """What a model folder keeps of them; the stage tells this run from any other."""
        return {**{name: str(path) for name, path in self._asdict().items()}, STAGE: stage}


def recorded(record: Mapping[str, Any]) -> Places | None:
    """The places of the run that made a model, by what its folder says; None: it says nothing.

    Raises:
        InputError: it says something else.
    """
    told = record.get("places")
    if told is None:
        return None
    names = (*Places._fields, STAGE)
    fits = isinstance(told, dict) and all(isinstance(told.get(name), str) for name in names)
    if not fits or not all(Path(told[name]).is_absolute() for name in Places._fields):
        raise InputError("model.json: places are no folders; name the run's by --checkpoint_dir")
    return Places(*(Path(told[name]) for name in Places._fields))


def is_still_there(places: Places, record: Mapping[str, Any]) -> bool:
    """Whether what lies in the checkpoint_dir that a model folder names is that run, or nothing.

    A folder that was taken to another machine may name one that has nothing to do with it.
    """
    if not places.checkpoint_dir.exists():
        return True
    rows = load_rows(places.checkpoint_dir / RESULTS)
    return any(row.get("stage") == record["places"][STAGE] for row in rows)
