"""Run from Python: train a recommender, make it forget, measure it, and write the results.

:func:`run_recbole_e2urec` carries out one run. :func:`run_and_finalize` also carries out the steps
that may follow: writing a model folder and purging.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_e2urec.config.config import Config, RunSettings
from recbole_e2urec.data.loaders import make_loaders
from recbole_e2urec.deployment.export import PostRun
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.comparison import run_comparison
from recbole_e2urec.experiment.inspect_prompts import ShowOptions, shown_prompts
from recbole_e2urec.experiment.launch import NO_RESULT, Launch, compares, layers_of
from recbole_e2urec.experiment.preview import run_preview
from recbole_e2urec.experiment.recbole_models import ClassicForgetting
from recbole_e2urec.experiment.run import Experiment, opened, parts_of, refuse_afterwards
from recbole_e2urec.experiment.unlearning import Forgetting
from recbole_e2urec.registry import METHODS
from recbole_e2urec.report.results import RESULTS, ForgetAnswers, completed, save_measured
from recbole_e2urec.trainer.recbole_trainer import fit_classic, plain_values
from recbole_e2urec.utils import distributed, recbole_compat

Row = dict[str, Any]
Answers = Mapping[tuple[str, str], ForgetAnswers]  # by name and stage


def run_recbole_e2urec(
    model: str | None = None,
    dataset: str | None = None,
    config_file_list: Sequence[str] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train a recommender, make it forget, and measure how well that worked.

    Args:
        model: a method (``E2URec``), ``LLMRec`` alone, any model of RecBole, or a model of RecBole
            that forgets (``DeepFM-Retrain``, ``DeepFM-SISA``).
        dataset: name of a data set.
        config_file_list: yaml files; later files win.
        config_dict: settings from Python.
        overrides: settings as text, as on the command line; they win over all others.

    Returns:
        ``rows``: results of Original, Retrain and the method, or of the one model that ran; they
        are also written to ``results.jsonl`` in ``checkpoint_dir``. ``groups``: how many rows of
        each group were measured. ``results_file``: where the results are. If ``nproc`` starts
        processes, these are the values of the first one. ``best_valid_score``,
        ``valid_score_bigger``, ``best_valid_result`` and ``test_result`` are RecBole's names for
        results of the model that was asked for; the two of validation are None for a method, which
        validates nothing. With ``show_prompts`` nothing is trained,
        see :func:`shown_prompts`. A dry run returns ``preview`` and ``lines`` instead. Settings
        that name several models, seeds or trials are a comparison, see :func:`run_comparison`.

    Raises:
        InputError: the input cannot be used; one line says what is wrong, where, and what would
            work.
    """
    arguments: dict[str, Any] = {
        "model": model,
        "dataset": dataset,
        "config_file_list": config_file_list,
        "config_dict": config_dict,
        "overrides": overrides,
    }
    layers = layers_of(config_file_list, config_dict, overrides)
    if compares(layers):
        return run_comparison(**arguments)
    launch = Launch.of(layers)
    if launch.is_needed:
        result: dict[str, Any] = launch.run(run_recbole_e2urec, arguments)
        return result
    recbole_compat.apply()
    config = Config(**arguments)
    refuse_afterwards(config)
    if config.options(ShowOptions).show_prompts:
        return shown_prompts(config)
    if config["dry_run"]:
        return distributed.on_main_process(lambda: run_preview(config))
    if distributed.count() > 1 and not config.is_language_model:
        raise InputError(
            f"nproc: {config['model']} is RecBole's and runs in one process; leave nproc out, or "
            "name it in a model_list beside language models"
        )
    rows, groups, forget_answers = _measured(config)
    rows = completed(rows, config)
    path = Path(config["checkpoint_dir"]) / RESULTS
    save_measured(path, rows, forget_answers)
    return {
        "rows": rows,
        "groups": groups,
        "results_file": str(path),
        **_recbole_results(rows[-1], config),
    }


def _measured(config: Config) -> tuple[list[Row], dict[str, int], Answers]:
    """Run the one model of the settings.

    Returns:
        Its rows; the number of measured rows by group; and answers on the forget rows.
    """
    if not config.is_language_model:
        if config.forget_method:
            return opened(config, ClassicForgetting).run(), {}, {}
        return [_run_classic(config)], {}, {}
    if config["model"] not in METHODS:
        return *opened(config, Experiment).recommend(), {}
    run = opened(config, Forgetting)
    return *run.run(), run.forget_answers


def _recbole_results(row: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """Return the results of the model that was asked for under the names of RecBole."""
    valid = row.get("valid") or {}
    return {
        "best_valid_score": valid.get(str(config["valid_metric"]).lower()),
        "valid_score_bigger": config["valid_metric_bigger"],
        "best_valid_result": row.get("valid"),
        "test_result": row.get("test"),
    }


def run_and_finalize(
    model: str | None = None,
    dataset: str | None = None,
    config_file_list: Sequence[str] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    show: Callable[[Mapping[str, Any]], None] = lambda results: None,
) -> dict[str, Any]:
    """Do as :func:`run_recbole_e2urec` does, then what ``finalize`` and ``purge`` ask for.

    Args:
        model: as for :func:`run_recbole_e2urec`, and so are the next four arguments.
        dataset: name of a data set.
        config_file_list: yaml files.
        config_dict: settings from Python.
        overrides: settings as text.
        show: is called with the results of the run before anything follows.

    Returns:
        What the run returns, and ``post_run``: what followed it, for people.

    Raises:
        InputError: as for :func:`run_recbole_e2urec`, and as for :class:`PostRun`.
    """
    settings = RunSettings(dataset, tuple(config_file_list or ()), config_dict, overrides)
    post_run = PostRun(model, settings)
    results: dict[str, Any] = dict(NO_RESULT)
    if not post_run.is_done:
        settings = post_run.run_settings
        results = run_recbole_e2urec(
            model, dataset, config_file_list, settings.config_dict, settings.overrides
        )
        if not distributed.is_main_process() or results == NO_RESULT:  # another process has them
            return {**results, "post_run": ""}
        show(results)
    follows = post_run.is_wanted and distributed.is_main_process()
    return {**results, "post_run": post_run.carry_out(results["rows"]) if follows else ""}


def _run_classic(config: Config) -> dict[str, Any]:
    """Train and test a model of RecBole on the rows that language models get."""
    dataset, parts = opened(config, lambda config, data: (data, parts_of(config, data)))
    fit = fit_classic(config, make_loaders(config, dataset, parts.splits)).results
    cost = {name: fit[name] for name in ("seconds", "trained_parameters", "steps")}
    return {
        "model": str(config["model"]),
        "test": plain_values(fit["test"]),
        "valid": plain_values(fit["valid"]),
        "cost": cost,
        "settings": config.settings(),
    }
