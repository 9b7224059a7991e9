"""Which rows of results stand in one table: those that were measured against the same Retrain.

A Retrain and its kin under other seeds make one table, of means over seeds. What was measured
against another one stands in another table, and no row is left out.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recbole_e2urec.config.keys import LORA, TRAINING
from recbole_e2urec.config.yaml import properties
from recbole_e2urec.evaluator.bootstrap import bias_in_floors
from recbole_e2urec.report.results import ForgetAnswers, load_answers, place_of
from recbole_e2urec.report.tables import NOISE, Row, value_of

ORIGINAL, RETRAIN = "Original", "Retrain"
REFERENCES = (ORIGINAL, RETRAIN, NOISE)  # first in each table, in this order
# Settings that decide which rows a model learns from and is tested on, ...
_DATA = (
    "data_path", "threshold", "val_interval", "eval_args", "last_rows", "min_history",
    "control_users", "forget_seed",
)  # fmt: skip
# ... and those that decide what a language model learns from them.
_TRAINING = (
    *(key for key in TRAINING if key not in ("backbone", "seed", "eval_args")),
    "user_fields", "item_fields", "title_field", "prompt", "history_length", "max_prompt_tokens",
    "answer_yes", "answer_no", "backbone_chat",
)  # fmt: skip
_VERSIONS = ("torch", "recbole_e2urec")


class Comparison(NamedTuple):
    """Rows of one table, and its title.

    Attributes:
        title: tells it from the other tables of a file.
        rows: references first. ``model`` also names the settings in which rows of one method
            differ; ``bias`` is there in one row of a model whose bias is known, in floors.
    """

    title: str
    rows: list[Row]


def comparisons(rows: Iterable[Row], folder: Path) -> list[Comparison]:
    """Take results apart.

    Args:
        rows: as they are in ``results.jsonl``; of rows that are replaced there the last counts.
        folder: where that file is, and the answers of the rows.
    """
    unique = list({place_of(row): row for row in rows}.values())
    found = _measured(unique)
    others = [row for row in unique if "to_retrain" not in row]
    for row in sorted(others, key=lambda row: ("backbone" not in row, "request_digest" not in row)):
        fitting = [own for own in found if all(_fits(row, one) for one in own)]
        for own in fitting:
            own.append(row)
        if not fitting:
            found.append([row])
    return [
        Comparison(title, _with_bias(_in_order(own), folder))
        for title, own in zip(_titles(found), found, strict=True)
    ]


def _measured(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows that were measured against a Retrain, by all that decides it but the seed."""
    retrains = {_name(row, "stage"): row for row in rows if row["model"] == RETRAIN}
    shared = Counter((_key(row), row["seed"]) for row in retrains.values())
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        if "to_retrain" in row:
            own = retrains.get(_name(row, "request"))
            key = _key(own or row)
            # apart where its Retrain is gone, or another one of the seed differs in something else
            alone = row.get("request") if own is None or shared[key, row["seed"]] > 1 else None
            groups.setdefault((key, own is None, alone), []).append(row)
    return list(groups.values())


def _name(row: Row, stage: str) -> tuple[Any, ...]:
    """Name a Retrain, by the key under which a row has its stage."""
    own = ("dataset", "backbone", "request_digest", "seed")
    return row.get(stage), *(row.get(name) for name in own)


def _key(row: Row) -> tuple[Any, ...]:
    """Name all that decides a Retrain but its seed; rows of older versions have settings alone."""
    deciding = row.get("comparison") or json.dumps(
        [_settings(row, _deciding(row)), _versions(row)], sort_keys=True
    )
    size = value_of(row, "forget.rows")
    return row["dataset"], row.get("backbone"), row.get("request_digest"), size, deciding


def _deciding(row: Row) -> tuple[str, ...]:
    """Keys of the settings that decide a Retrain."""
    return (*_DATA, *_TRAINING, *(LORA if value_of(row, "settings.tuning") == "lora" else ()))


def _settings(row: Row, keys: Iterable[str]) -> dict[str, Any]:
    """Some settings of a row, those that it has; how classic models are tested does not count."""
    given = row.get("settings", {})
    found = {key: given[key] for key in keys if key in given}
    if isinstance(found.get("eval_args"), Mapping):
        found["eval_args"] = {k: v for k, v in found["eval_args"].items() if k != "mode"}
    return found


def _versions(row: Row) -> dict[str, Any]:
    return {name: value_of(row, f"versions.{name}") for name in _VERSIONS}


def _fits(row: Row, other: Row) -> bool:
    """Whether a row without a Retrain, such as DeepFM's, is of the same data and request."""
    for key in ("dataset", "backbone", "request_digest"):
        if None not in (row.get(key), other.get(key)) and row[key] != other[key]:
            return False
    keys = _deciding(row) if "backbone" in row and "backbone" in other else _DATA
    ours, theirs = (_settings(one, keys) for one in (row, other))
    return all(ours[key] == theirs[key] for key in ours.keys() & theirs.keys())


def _in_order(rows: Sequence[Row]) -> list[Row]:
    places = {name: place for place, name in enumerate(REFERENCES)}
    return sorted(rows, key=lambda row: places.get(row["model"], len(places)))


def _labels(rows: Sequence[Row]) -> list[str]:
    """Names for the lines of a table: the model, and the settings in which rows of it differ."""
    settings = [_own(row) for row in rows]
    labels: list[str] = []
    seen = Counter[tuple[str, Any]]()
    for row, own in zip(rows, settings, strict=True):
        others = [o for r, o in zip(rows, settings, strict=True) if r["model"] == row["model"]]
        told = [f"{k}: {v}" for k, v in own.items() if any(o.get(k) != v for o in others)]
        label = ", ".join([row["model"], *told])
        seen[label, row["seed"]] += 1
        times = seen[label, row["seed"]]
        labels.append(label if times == 1 or label in REFERENCES else f"{label} ({times})")
    return labels


def _own(row: Row) -> dict[str, Any]:
    """The settings of a method; empty for what is no method."""
    keys = properties("model", row["model"]).keys() - properties("model", "LLMRec").keys()
    if not keys or row["model"] in REFERENCES:
        return {}
    adapter = () if value_of(row, "settings.tuning") == "lora" else LORA
    return _settings(row, (*sorted(keys), *adapter))


def _titles(groups: Sequence[Sequence[Row]]) -> list[str]:
    """Name each group by its data, backbone and request, and by what tells it from the others."""
    bases = [_base(own[0]) for own in groups]
    titles = []
    for own, base in zip(groups, bases, strict=True):
        others = [one[0] for one, other in zip(groups, bases, strict=True) if other == base]
        titles.append(", ".join([base, *_distinctions(own, others)]))
    again = Counter(titles)
    for place, own in enumerate(groups):
        if again[titles[place]] > 1:
            retrain = own[0].get("request")
            titles[place] += f", Retrain {retrain}" if retrain else f", no. {place + 1}"
        seeds = dict.fromkeys(str(row["seed"]) for row in own)
        titles[place] += f", seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}"
    return titles


def _base(row: Row) -> str:
    size = value_of(row, "forget.rows")
    parts = [row["dataset"], row.get("backbone"), None if size is None else f"{size:,} forget rows"]
    return ", ".join(str(part) for part in parts if part is not None)


def _distinctions(own: Sequence[Row], others: Sequence[Row]) -> list[str]:
    """What a title says of a group besides, given the first rows of all that are called alike."""
    first = own[0]
    told = {**_settings(first, _deciding(first)), **_versions(first)}
    theirs = [{**_settings(one, _deciding(one)), **_versions(one)} for one in others]
    found = [f"{k} {v}" for k, v in told.items() if any(o.get(k) != v for o in theirs)]
    requests = {one.get("request_digest") for one in others}
    names = {one.get("request_id") for one in others}
    if len(requests) > 1:
        name = "request_id" if len(names) == len(requests) else "request_digest"
        found.append(f"request {first.get(name)}")
    if "to_retrain" in first and all(row["model"] != RETRAIN for row in own):
        found.append("without its Retrain")
    return found


def _with_bias(rows: Sequence[Row], folder: Path) -> list[Row]:
    """Name the lines of a table, and give one row of each its bias over seeds, where it has one."""
    labels = _labels(rows)
    said: dict[str, dict[int, ForgetAnswers | None]] = {}
    for row, label in zip(rows, labels, strict=True):
        if "to_retrain" in row and label != NOISE:
            said.setdefault(label, {})[row["seed"]] = load_answers(folder, row)
    retrains = said.get(RETRAIN, {})
    biases = {label: _bias(ours, retrains) for label, ours in said.items()}
    found: list[Row] = []
    for row, label in zip(rows, labels, strict=True):
        bias = biases.pop(label, None)  # the model's, not the row's: once
        found.append({**row, "model": label, **({} if bias is None else {"bias": bias})})
    return found


def _bias(
    ours: Mapping[int, ForgetAnswers | None], retrains: Mapping[int, ForgetAnswers | None]
) -> float | None:
    """See :func:`bias_in_floors`; None as well where an answer is missing, or on other rows."""
    answers = [*ours.values(), *retrains.values()]
    if None in answers or not ours.keys() <= retrains.keys():
        return None
    if len({one.alike for one in answers if one is not None}) != 1:
        return None
    yes = [{seed: one.yes for seed, one in of.items() if one} for of in (ours, retrains)]
    return bias_in_floors(*yes)
