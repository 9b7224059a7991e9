"""What a run leaves behind, kind by kind: what a purge removes, and what it keeps.

A path is matched from its place on, name by name; ``**`` stands for folders of whatever names and
number. What no line knows is somebody else's, and is left alone.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from recbole_e2urec.sheet import OF_RESULTS, OF_USERS

MODEL = "model"  # the place of a model folder; the others are those of Places
ANY = "**"
_SAVED, _WANDB = "checkpoint_dir", "wandb"
_TIME = r"[^\W\d_]+\.?-\d\d-\d{4}_\d\d-\d\d-\d\d"  # RecBole's
_PART = r"\..+\.[a-z0-9_]{8}\.part"
_ANSWERS = r"[0-9a-f]{16}\.safetensors"
_TENSORS = r"[\w.-]+\.safetensors"
_RUN = r"(offline-)?run-\d{8}_\d{6}-\w+"  # of wandb


def _stage(name: str = r"[A-Za-z][\w.-]*") -> str:
    return rf"stages/({name})-[0-9a-f]{{16}}"


class Kind(NamedTuple):
    """A kind of files.

    Attributes:
        name: under which its files are counted.
        place: where they lie.
        pattern: of their paths.
        holds: what is in them.
        mark: bytes that it must have in it, or one of the files in the same folder of its place:
            others may use such a name as well.
    """

    name: str
    place: str
    pattern: str
    holds: str
    mark: bytes | None = None

    def fits(self, parts: Sequence[str]) -> bool:
        """Whether this is the path of such a file."""
        *folders, file = self.pattern.split("/")
        at_any_depth = bool(folders) and folders[-1] == ANY
        folders = folders[:-1] if at_any_depth else folders
        enough = len(parts) > len(folders) if at_any_depth else len(parts) == len(folders) + 1
        return enough and _alike(folders, parts) and bool(re.fullmatch(file, parts[-1]))

    def leads_to(self, parts: Sequence[str]) -> bool:
        """Whether such a file may lie in this folder, or further down."""
        *folders, _ = self.pattern.split("/")
        if folders and folders[-1] == ANY:
            return _alike(folders[:-1], parts)
        return len(parts) <= len(folders) and _alike(folders, parts)


def _alike(patterns: Iterable[str], names: Iterable[str]) -> bool:
    return all(re.fullmatch(*pair) for pair in zip(patterns, names, strict=False))


def _requests_too(kinds: Iterable[Kind]) -> list[Kind]:
    """The same below the folder of the request that settings are chosen on."""
    own = list(kinds)
    inner = [one._replace(pattern=f"development/{one.pattern}") for one in own]
    return [*own, *inner]


REMOVED: tuple[Kind, ...] = (
    *_requests_too(
        [
            Kind("Original", _SAVED, rf"{_stage('Original|LLMRec')}/weights\.safetensors",
                 "the model that learned from all rows"),
            Kind("augmented model", _SAVED, rf"{_stage('augmented')}/weights\.safetensors",
                 "what E2URec trains further on the forgotten rows; it knows them best of all"),
            Kind("progress and optimiser states", _SAVED,
                 rf"{_stage()}/(progress|best)\.safetensors", "training that was interrupted"),
            Kind("other stages", _SAVED, rf"{_stage()}/({_TENSORS}|stage\.json|\.lock|{_PART})",
                 "students, Retrain, shards, also of other requests: they know users whom this one "
                 "names"),
        ]
    ),
    Kind("answers", _SAVED, rf"answers/({_ANSWERS}|\.{_ANSWERS}\.[a-z0-9_]{{8}}\.part)",
         "what every model says of the forgotten rows, without their names"),
    Kind("requests drawn for tuning", _SAVED, rf"development/(request\.csv|{_PART})",
         "names of users or items"),
    Kind("pages of prompts and users", _SAVED, r".+\.html", "titles, users, prompts", OF_USERS),
    Kind("RecBole's checkpoints", _SAVED,
         rf"\w+-{_TIME}(-\d+-\d+)?(-temp(-best)?)?\.pth(\.part)?",
         "weights, optimiser states and, for some models, the data set"),
    Kind("RecBole's checkpoints", _SAVED, r"(S3Rec|RaCT)-.+-\d+\.pth", "the same, pretrained"),
    Kind("pickles of data", _SAVED, r".+-(\w*Dataset|for-\w+-dataloader)\.pth",
         "the data set, by RecBole's save_dataset and save_dataloaders", b"recbole"),
    Kind("parts of files", _SAVED, _PART, "what a killed process was writing"),
    Kind("logs", "log", rf"\w+/\w+-(.+-)?{_TIME}(-[0-9a-f]+)?\.log", "settings as they were typed"),
    Kind("tensorboard events", "log_tensorboard", r".+/**/events\.out\.tfevents\..+",
         "settings as they were typed, and curves"),
    Kind("wandb's local runs", _WANDB, rf"{_RUN}/**/.+", "the same", b"wandb_project"),
    Kind("wandb's local runs", _WANDB, r"debug(-\w+)?(\.\w+)?\.log", "the same", b"wandb_project"),
    Kind("work of requests", MODEL, rf"work/[\w.-]+/({_TENSORS}|stage\.json|\.lock|{_PART})",
         "the augmented model and students of a request that was killed"),
    Kind("parts of files", MODEL, _PART, "what a killed process was writing"),
    Kind("parts of files", MODEL, f"certificates/{_PART}", "the same"),
)  # fmt: skip

KEPT: tuple[Kind, ...] = (
    Kind("results", _SAVED, r"results\.jsonl", "measures and settings of every model, no names"),
    Kind("results", _SAVED, r".+\.html", "a page of measures, no names", OF_RESULTS),
    Kind("settings", _SAVED, r"hyper(-best)?\.(json|yaml)",
         "settings that were chosen, and their measures"),
    Kind("model", MODEL, r"generations/\d{6}/(model\.json|\w+\.safetensors)", "the model in use"),
)  # fmt: skip

# Neither counted nor told: empty, or with a hash of its own, or only the name of something else.
PASSED_OVER: tuple[Kind, ...] = (
    Kind("locks", _SAVED, r"\.results\.jsonl\.lock", "nothing"),
    Kind("locks", MODEL, r"\.lock", "nothing"),
    Kind("pointer", MODEL, r"current\.json", "the hash of model.json"),
    Kind("audit", MODEL, r"certificates/[\w-]+\.(json|html)", "what requests did, sealed"),
    Kind("audit", MODEL, r"purged\.json", "what a purge did"),
    Kind("pointer", _WANDB, r"latest-run|debug(-internal)?\.log", "wandb's links to its last run"),
)
