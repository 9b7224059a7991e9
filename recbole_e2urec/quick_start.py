"""The whole story of one run: data, split, training, forgetting, measuring, results."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_e2urec.config.config import Config, RunSettings
from recbole_e2urec.data.loaders import make_loaders
from recbole_e2urec.deployment.finalize import Ending
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.base import Experiment, opened, parts_of, refuse_afterwards
from recbole_e2urec.experiment.inspect_prompts import ShowOptions, shown_prompts
from recbole_e2urec.experiment.launch import NO_RESULT, Launch, layers_of
from recbole_e2urec.experiment.preview import run_preview
from recbole_e2urec.experiment.recbole_models import ClassicForgetting
from recbole_e2urec.experiment.unlearning import Forgetting
from recbole_e2urec.report.results import RESULTS, ForgetAnswers, completed, save_measured
from recbole_e2urec.trainer.recbole_trainer import fit_classic, plain_values
from recbole_e2urec.utils import distributed, recbole_compat


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
    recbole_compat.apply()
    config = Config(**given)
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
    data = opened(config)
    groups: dict[str, int] = {}
    said: Mapping[tuple[str, str], ForgetAnswers] = {}
    if not config.is_language_model:
        rows = (
            ClassicForgetting(config, data).run()
            if config.forget_method
            else [_run_classic(config, data)]
        )
    elif config["model"] == "LLMRec":
        rows, groups = Experiment(config, data).recommend()
    else:
        run = Forgetting(config, data)
        rows, groups = run.run()
        said = run.forget_answers
    rows = completed(rows, config)
    path = Path(config["checkpoint_dir"]) / RESULTS
    save_measured(path, rows, said)
    return {"rows": rows, "groups": groups, "results_file": str(path)}


def run_and_finalize(
    model: str | None = None,
    dataset: str | None = None,
    config_file_list: Sequence[str] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    show: Callable[[Mapping[str, Any]], None] = lambda results: None,
) -> dict[str, Any]:
    """As :func:`run_recbole_e2urec`, and then what ``finalize`` and ``purge`` say.

    Args:
        model: this and the next four as there.
        dataset: a data set's name.
        config_file_list: yaml files.
        config_dict: settings from Python.
        overrides: settings as text.
        show: is given the run's results before anything follows.

    Returns:
        What the run gives, and ``told``: what followed, for a person.

    Raises:
        InputError: as there, and as :class:`Ending`.
    """
    given = RunSettings(dataset, tuple(config_file_list or ()), config_dict, overrides)
    ending = Ending(model, given)
    results: dict[str, Any] = dict(NO_RESULT)
    if not ending.done:
        own = ending.given
        results = run_recbole_e2urec(
            model, dataset, config_file_list, own.config_dict, own.overrides
        )
        if not distributed.is_main_process() or results == NO_RESULT:  # another process has them
            return {**results, "told": ""}
        show(results)
    follows = ending.wanted and distributed.is_main_process()
    return {**results, "told": ending.follow(results["rows"]) if follows else ""}


def _run_classic(config: Config, dataset: Any) -> dict[str, Any]:
    """Train and test a model of RecBole on the rows that language models get."""
    parts = parts_of(config, dataset)
    fit = fit_classic(config, make_loaders(config, dataset, parts.splits)).results
    cost = {name: fit[name] for name in ("seconds", "trained_parameters", "steps")}
    return {
        "model": str(config["model"]),
        "test": plain_values(fit["test"]),
        "valid": plain_values(fit["valid"]),
        "cost": cost,
        "settings": config.settings(),
    }
