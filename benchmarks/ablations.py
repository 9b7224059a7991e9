"""E2URec with parts left out, and swept settings: ``python -m benchmarks.ablations``.

It needs the package installed. E2URec is that of ``tuned.yaml``. ``--only NAME`` (may be repeated)
makes one table, ``--seeds 1 2`` sets the seeds, ``--write FILE`` puts the tables between two marks
of a markdown file, any ``--key=value`` is common to all, ``--small`` is a quick look without
meaning. Killed, the same command goes on. What each table leaves out or sweeps is one setting, so a
single line is also a plain run: ``recbole-e2urec --forgetting_teacher=False``.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from recbole.utils import init_seed

from benchmarks.given import TUNED, arguments_of, common_settings, config_of, filled
from recbole_e2urec.cli import Arguments
from recbole_e2urec.config import Config
from recbole_e2urec.data.loading import load_dataset
from recbole_e2urec.errors import InputError
from recbole_e2urec.forgetting import Forgetting
from recbole_e2urec.methods import METHODS
from recbole_e2urec.quick_start import completed
from recbole_e2urec.storage import write_text
from recbole_e2urec.tables import COMPARED, comparison

Settings = Mapping[str, Any]


def swept(key: str, *values: Any) -> list[Settings]:
    """One setting a value."""
    return [{key: value} for value in values]


# Each table: settings of its lines. Those that decide Original or the request begin a table anew.
PARTS: dict[str, list[Settings]] = {
    "forgetting_teacher": [{}, {"forgetting_teacher": False}],
    "remembering_teacher": [{}, {"remembering_teacher": False}],
    # All weights learn at a smaller rate than an adapter does.
    "lora": [
        {},
        *({"student": "full", "unlearn_learning_rate": rate} for rate in (0.004, 0.001, 0.0003)),
    ],
    "warmup": [{}, {"warmup_epochs": 0}],
    "alpha": [{}, *swept("alpha", 1.0, 2.0, 4.0, 6.5, 10.0)],
    "beta": swept("beta", 0.2, 0.4, 0.6, 0.8),
    "rank": swept("lora_r", 2, 4, 8, 16, 32),
    "targets": swept(
        "lora_target_modules", ["q", "v"], ["embed_tokens"], ["q", "v", "embed_tokens"]
    ),
    "tuning": swept("tuning", "full", "lora"),
    "size": swept("forget_ratio", 0.01, 0.05, 0.2),
}  # fmt: skip
MARK = "ablations"
COLUMNS = (*COMPARED, ("trained", "cost.trained_parameters", 0))


def rows_of(
    variants: Sequence[Settings], given: Settings, arguments: Arguments, seed: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row with the title of its table: whatever decides Original or the request."""
    own = {field.name for field in fields(METHODS[arguments.model or "E2URec"].options_class)}
    run, last, titles = None, None, set[str]()
    for settings in variants:
        config = config_of(given, arguments, **settings, seed=seed)
        shared = {key: value for key, value in settings.items() if key not in own}
        if run is None or shared != last:
            run, last = trained(config), shared
            title = ", ".join(f"{k}: {v}" for k, v in shared.items() if not k.startswith("lora_"))
            if title not in titles:
                titles.add(title)
                for name, made in (("Original", run.original), ("Retrain", run.retrain)):
                    yield title, run.measured(name, made)
        yield title, {**run.unlearned_row(config), "model": label(config, settings)}


def trained(config: Config) -> Forgetting:
    """A run whose Original and Retrain are there."""
    init_seed(config["seed"], config["reproducibility"])
    run = Forgetting(config, load_dataset(config))
    run.train()
    return run


def label(config: Config, settings: Settings) -> str:
    """The name of a line."""
    told = ", ".join(f"{key}: {value}" for key, value in settings.items())
    return f"{config.model}, {told}" if told else str(config.model)


def tables_of(
    name: str, given: Settings, arguments: Arguments, seeds: Sequence[int], small: bool
) -> str:
    """The tables of a part, as markdown; means over seeds."""
    variants = PARTS[name][:2] if small else PARTS[name]
    found: dict[str, list[dict[str, Any]]] = {}
    for seed in seeds:
        for title, row in rows_of(variants, given, arguments, seed):
            (whole,) = completed([row], config_of(given, arguments, seed=seed))
            found.setdefault(title, []).append(whole)
    parts = [f"## {name}"]
    for title, rows in found.items():
        parts += [*([title] if title else []), comparison(rows, COLUMNS).drawn("markdown")]
    return "\n\n".join(parts)


def main() -> None:
    """Make the tables that the command line names, or all."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--only", choices=PARTS, action="append", help="one table; may be repeated")
    parser.add_argument("--seeds", type=int, nargs="+", default=(2020,))
    own, arguments = arguments_of(parser, MARK)
    tables = []
    with common_settings(own, arguments) as given:
        if (arguments.model or "E2URec") == "E2URec":
            given = {**TUNED, **given}
        for name in own.only or PARTS:
            tables.append(tables_of(name, given, arguments, own.seeds, own.small))
            print(f"{tables[-1]}\n", flush=True)
    if own.write is not None:
        seeds = ", ".join(map(str, own.seeds))
        head = f"Seeds: {seeds}; mean ± standard deviation over several."
        write_text(own.write, filled(own.write, MARK, "\n\n".join([head, *tables])))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
