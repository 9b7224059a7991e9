"""Groups rows of results into tables: a table has the rows measured against the same Retrain.

A Retrain and its counterparts under other seeds form one table, of means over seeds. Rows measured
against another Retrain are in another table. No row is left out.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recbole_e2urec.config.keys import LORA, TRAINING
from recbole_e2urec.config.yaml import properties
from recbole_e2urec.evaluator.over_seeds import (
    ORIGINAL,
    RETRAIN,
    bias_in_floors,
    scatter_in_floors,
    verdicts,
)
from recbole_e2urec.report.results import ForgetAnswers, load_answers, row_key
from recbole_e2urec.report.tables import NOISE, Row, value_of

REFERENCES = (ORIGINAL, RETRAIN, NOISE)  # first in each table, in this order
# Settings that decide which rows a model trains and is tested on.
_DATA = (
    "data_path", "threshold", "val_interval", "eval_args", "last_rows", "min_history",
    "control_users", "forget_seed",
)  # fmt: skip
# Settings that decide what a language model learns from these rows.
_TRAINING = (
    *(key for key in TRAINING if key not in ("backbone", "seed", "eval_args")),
    "user_fields", "item_fields", "title_field", "prompt", "history_length", "max_prompt_tokens",
    "answer_yes", "answer_no", "backbone_chat",
)  # fmt: skip
_VERSIONS = ("torch", "recbole_e2urec")


class Comparison(NamedTuple):
    """The title and the rows of one table.

    Attributes:
        title: tells the table from the others of a file.
        rows: the rows, references first. ``model`` also names the settings in which rows of one
            method differ. One row of a model has its ``bias``, in floors, and ``nearer``, the
            verdict of :func:`verdicts`, where they are known.
    """

    title: str
    rows: list[Row]


def comparisons(rows: Iterable[Row], folder: Path) -> list[Comparison]:
    """Group results into comparisons.

    Args:
        rows: rows as in ``results.jsonl``; the last of several rows with the same key counts.
        folder: folder of that file, which also has the answers of the rows.
    """
    unique = list({row_key(row): row for row in rows}.values())
    groups = _group_by_retrain(unique)
    others = [row for row in unique if "to_retrain" not in row]
    for row in sorted(others, key=lambda row: ("backbone" not in row, "request_digest" not in row)):
        fitting = [group for group in groups if all(_fits(row, member) for member in group)]
        for group in fitting:
            group.append(row)
        if not fitting:
            groups.append([row])
    return [
        Comparison(title, _label_rows(_references_first(group), folder))
        for title, group in zip(_titles(groups), groups, strict=True)
    ]


def _group_by_retrain(rows: Sequence[Row]) -> list[list[Row]]:
    """Group the rows measured against a Retrain by everything that decides it except the seed."""
    retrains = {_retrain_id(row, "stage"): row for row in rows if row["model"] == RETRAIN}
    shared = Counter((_retrain_key(row), row["seed"]) for row in retrains.values())
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        if "to_retrain" in row:
            retrain = retrains.get(_retrain_id(row, "request"))
            key = _retrain_key(retrain or row)
            # A group of its own if its Retrain is gone or another one has the same key and seed.
            is_separate = retrain is None or shared[key, row["seed"]] > 1
            request = row.get("request") if is_separate else None
            groups.setdefault((key, retrain is None, request), []).append(row)
    return list(groups.values())


def _retrain_id(row: Row, stage: str) -> tuple[Any, ...]:
    """Identify a single Retrain; ``stage`` is the key under which the row has Retrain's stage."""
    names = ("dataset", "backbone", "request_digest", "seed")
    return row.get(stage), *(row.get(name) for name in names)


def _retrain_key(row: Row) -> tuple[Any, ...]:
    """Return everything that decides a Retrain except its seed.

    Rows of older versions have no ``comparison``; their settings and versions stand in for it.
    """
    comparison = row.get("comparison") or json.dumps(
        [_settings(row, _deciding_keys(row)), _versions(row)], sort_keys=True
    )
    size = value_of(row, "forget.rows")
    return row["dataset"], row.get("backbone"), row.get("request_digest"), size, comparison


def _deciding_keys(row: Row) -> tuple[str, ...]:
    """Return the keys of the settings that decide a Retrain."""
    return (*_DATA, *_TRAINING, *(LORA if value_of(row, "settings.tuning") == "lora" else ()))


def _settings(row: Row, keys: Iterable[str]) -> dict[str, Any]:
    """Return the given settings that a row has, without classic models' evaluation mode."""
    settings = row.get("settings", {})
    selected = {key: settings[key] for key in keys if key in settings}
    if isinstance(selected.get("eval_args"), Mapping):
        selected["eval_args"] = {k: v for k, v in selected["eval_args"].items() if k != "mode"}
    return selected


def _versions(row: Row) -> dict[str, Any]:
    return {name: value_of(row, f"versions.{name}") for name in _VERSIONS}


def _fits(row: Row, other: Row) -> bool:
    """Whether a row without a Retrain, such as DeepFM's, has the same data and request."""
    for key in ("dataset", "backbone", "request_digest"):
        if None not in (row.get(key), other.get(key)) and row[key] != other[key]:
            return False
    keys = _deciding_keys(row) if "backbone" in row and "backbone" in other else _DATA
    ours, theirs = (_settings(each, keys) for each in (row, other))
    return all(ours[key] == theirs[key] for key in ours.keys() & theirs.keys())


def _references_first(rows: Sequence[Row]) -> list[Row]:
    positions = {name: position for position, name in enumerate(REFERENCES)}
    return sorted(rows, key=lambda row: positions.get(row["model"], len(positions)))


def _titles(groups: Sequence[Sequence[Row]]) -> list[str]:
    """Name each group by its data, backbone and request, and by what tells it from the others."""
    bases = [_base_title(group[0]) for group in groups]
    titles = []
    for group, base in zip(groups, bases, strict=True):
        namesakes = [each[0] for each, other in zip(groups, bases, strict=True) if other == base]
        titles.append(", ".join([base, *_distinctions(group, namesakes)]))
    count = Counter(titles)
    for index, group in enumerate(groups):
        if count[titles[index]] > 1:
            retrain = group[0].get("request")
            titles[index] += f", Retrain {retrain}" if retrain else f", no. {index + 1}"
        seeds = dict.fromkeys(str(row["seed"]) for row in group)
        titles[index] += f", seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}"
    return titles


def _base_title(row: Row) -> str:
    size = value_of(row, "forget.rows")
    parts = [row["dataset"], row.get("backbone"), None if size is None else f"{size:,} forget rows"]
    return ", ".join(str(part) for part in parts if part is not None)


def _distinctions(group: Sequence[Row], namesakes: Sequence[Row]) -> list[str]:
    """Return what a title adds to tell a group from others.

    Args:
        group: rows of the group.
        namesakes: the first row of each group with the same base title, this group's included.
    """
    first = group[0]
    ours = {**_settings(first, _deciding_keys(first)), **_versions(first)}
    theirs = [{**_settings(row, _deciding_keys(row)), **_versions(row)} for row in namesakes]
    distinctions = [
        f"{key} {value}"
        for key, value in ours.items()
        if any(other.get(key) != value for other in theirs)
    ]
    digests = {row.get("request_digest") for row in namesakes}
    request_ids = {row.get("request_id") for row in namesakes}
    if len(digests) > 1:
        name = "request_id" if len(request_ids) == len(digests) else "request_digest"
        distinctions.append(f"request {first.get(name)}")
    if "to_retrain" in first and all(row["model"] != RETRAIN for row in group):
        distinctions.append("without its Retrain")
    return distinctions


def _label_rows(rows: Sequence[Row], folder: Path) -> list[Row]:
    """Label the lines of a table, and add what is known over seeds to one row of each model."""
    labels = _labels(rows)
    answers: dict[str, dict[int, ForgetAnswers | None]] = {}
    for row, label in zip(rows, labels, strict=True):
        if "to_retrain" in row and label != NOISE:
            answers.setdefault(label, {})[row["seed"]] = load_answers(folder, row)
    over_seeds = _over_seeds(answers)
    labelled: list[Row] = []
    for row, label in zip(rows, labels, strict=True):
        # They belong to the model, so only one row has them.
        labelled.append({**row, "model": label, **over_seeds.pop(label, {})})
    return labelled


def _labels(rows: Sequence[Row]) -> list[str]:
    """Label the lines of a table: the model, and the settings in which its rows differ."""
    all_settings = [_method_settings(row) for row in rows]
    labels: list[str] = []
    count = Counter[tuple[str, Any]]()
    for row, settings in zip(rows, all_settings, strict=True):
        same_model = [
            other_settings
            for other, other_settings in zip(rows, all_settings, strict=True)
            if other["model"] == row["model"]
        ]
        differing = [
            f"{key}: {value}"
            for key, value in settings.items()
            if any(other.get(key) != value for other in same_model)
        ]
        label = ", ".join([row["model"], *differing])
        count[label, row["seed"]] += 1
        number = count[label, row["seed"]]
        labels.append(label if number == 1 or label in REFERENCES else f"{label} ({number})")
    return labels


def _method_settings(row: Row) -> dict[str, Any]:
    """Return the settings of a row's method; empty if the row's model is no method."""
    keys = properties("model", row["model"]).keys() - properties("model", "LLMRec").keys()
    if not keys or row["model"] in REFERENCES:
        return {}
    adapter_keys = () if value_of(row, "settings.tuning") == "lora" else LORA
    return _settings(row, (*sorted(keys), *adapter_keys))


def _over_seeds(answers: Mapping[str, Mapping[int, ForgetAnswers | None]]) -> dict[str, Row]:
    """Return each model's ``bias``, ``scatter`` and ``nearer``, without what is unknown.

    They are unknown if answers of a seed are missing or are on other rows; ``nearer`` also without
    Original, with fewer than three seeds, or if no file has the users.
    """
    retrains = answers.get(RETRAIN, {})
    yes = {
        label: {seed: each.yes for seed, each in ours.items() if each}
        for label, ours in answers.items()
        if _comparable(ours, retrains)
    }
    users = [each.users for each in retrains.values() if each and each.users is not None]
    words = verdicts(yes, users[0]) if users else {}
    known: dict[str, Row] = {}
    for label, ours in yes.items():
        values = {
            "bias": bias_in_floors(ours, yes[RETRAIN]),
            "scatter": scatter_in_floors(ours, yes[RETRAIN]),
            "nearer": words.get(label),
        }
        known[label] = {name: value for name, value in values.items() if value is not None}
    return known


def _comparable(
    ours: Mapping[int, ForgetAnswers | None], retrains: Mapping[int, ForgetAnswers | None]
) -> bool:
    """Whether all answers are there, on the same rows, and each seed has a Retrain."""
    answers = [*ours.values(), *retrains.values()]
    keys = {each and each.comparison_key for each in answers}
    return len(keys) == 1 and None not in keys and ours.keys() <= retrains.keys()
