"""The whole story of one run: data, split, training, forgetting, measuring, results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole.utils import init_logger, init_seed

from recbole_e2urec import compat, processes, writer
from recbole_e2urec.classic import ClassicForgetting
from recbole_e2urec.config import Config
from recbole_e2urec.data.loaders import make_loaders
from recbole_e2urec.data.loading import load_dataset
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment import Experiment, parts_of
from recbole_e2urec.forgetting import Forgetting
from recbole_e2urec.keys import AFTERWARDS
from recbole_e2urec.launch import Launch, layers_of
from recbole_e2urec.preview import previewed
from recbole_e2urec.results import Said, save_rows, save_said, versions
from recbole_e2urec.showing import ShowOptions, show_prompts
from recbole_e2urec.trainer.classic import fit_classic, plain

RESULTS = "results.jsonl"


def run_recbole_e2urec(
    model: str | None = None,
    dataset: str | None = None,
    config_file_list: Sequence[str] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train a recommender, make it forget, and measure how well that worked.

    Args:
        model: a method (``E2URec``), ``LLMRec`` alone, any model of RecBole, or one of these that
            forgets (``DeepFM-Retrain``, ``DeepFM-SISA``).
        dataset: a data set's name.
        config_file_list: yaml files, later ones win.
        config_dict: settings from Python.
        overrides: settings as text, as on the command line; they win over all.

    Returns:
        ``rows``, the objects that also went to ``results.jsonl`` in ``checkpoint_dir``: Original,
        Retrain and the method, or the one model that ran; ``groups``, the number of rows measured;
        and ``results_file``. Where ``nproc`` starts processes, they are those of the first one.
        With ``show_prompts`` nothing is trained, see :func:`show_prompts`; a dry run gives
        ``preview`` and ``lines`` instead.

    Raises:
        InputError: bad input; one line that says what, where, and what would do.
    """
    given: dict[str, Any] = {
        "model": model,
        "dataset": dataset,
        "config_file_list": config_file_list,
        "config_dict": config_dict,
        "overrides": overrides,
    }
    launch = Launch.of(layers_of(config_file_list, config_dict, overrides))
    if launch.is_needed:
        result: dict[str, Any] = launch.run(run_recbole_e2urec, given)
        return result
    compat.apply()
    config = Config(**given)
    refuse_afterwards(config)
    if config.options(ShowOptions).show_prompts:
        return _shown(config)
    if config["dry_run"]:
        return writer.from_writer(lambda: previewed(config))
    if processes.count() > 1 and not config.is_language_model:
        raise InputError(
            f"nproc: {config['model']} is RecBole's and runs in one process; leave nproc out, or "
            "name it in a model_list beside language models"
        )
    data = opened(config)
    groups: dict[str, int] = {}
    said: Mapping[tuple[str, str], Said] = {}
    if not config.is_language_model:
        rows = ClassicForgetting(config, data).run() if config.way else [_run_classic(config, data)]
    elif config["model"] == "LLMRec":
        rows, groups = Experiment(config, data).recommend()
    else:
        run = Forgetting(config, data)
        rows, groups = run.run()
        said = run.said
    rows = completed(rows, config)
    path = Path(config["checkpoint_dir"]) / RESULTS
    save_measured(path, rows, said)
    return {"rows": rows, "groups": groups, "results_file": str(path)}


def refuse_afterwards(config: Config) -> None:
    """Refuse what a run by itself would pass over.

    Raises:
        InputError: it is to be finalized or purged.
    """
    for key in AFTERWARDS:
        if config[key]:
            raise InputError(
                f"{key}: from Python, call recbole_e2urec.deployment.finalizing.run_and_finalize"
            )


def _shown(config: Config) -> dict[str, Any]:
    """Show filled prompts, and do nothing else."""
    if not config.is_language_model:
        raise InputError(f"show_prompts: {config.model} reads no prompts; name E2URec or LLMRec")
    if processes.count() > 1:
        raise InputError("show_prompts: nothing is trained, by one process; leave nproc out")
    init_seed(config["seed"], config["reproducibility"])
    return show_prompts(config, load_dataset(config))


def opened(config: Config) -> Any:
    """Seed everything, start the log, and load the data set of a run."""
    init_seed(config["seed"], config["reproducibility"])
    if processes.is_writer():
        init_logger(config)
    return load_dataset(config)


def completed(rows: list[dict[str, Any]], config: Config) -> list[dict[str, Any]]:
    """Say in each row what is common to a run: data set, seed and versions."""
    common = {"dataset": config["dataset"], "seed": config["seed"], "versions": versions()}
    return [{"model": row["model"], **common, **row} for row in rows]


def save_measured(
    path: Path, rows: Sequence[dict[str, Any]], said: Mapping[tuple[str, str], Said]
) -> None:
    """Add rows to the results' file, after their answers: by the name and the stage of the row.

    Raises:
        InputError: the disk is full, or the file holds something else.
    """
    for row in rows:
        if (row["model"], row.get("stage")) in said:
            save_said(path.parent, row, said[row["model"], row["stage"]])
    save_rows(path, rows)


def _run_classic(config: Config, dataset: Any) -> dict[str, Any]:
    """Train and test a model of RecBole on the rows that language models get."""
    parts = parts_of(config, dataset)
    fit = fit_classic(config, make_loaders(config, dataset, parts.splits)).results
    cost = {name: fit[name] for name in ("seconds", "trained_parameters", "steps")}
    return {
        "model": str(config["model"]),
        "test": plain(fit["test"]),
        "valid": plain(fit["valid"]),
        "cost": cost,
        "settings": config.settings(),
    }
