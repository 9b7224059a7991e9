"""Before a run: what its data hold (``check``), and what its request would forget (a dry run).

Nothing is trained and nothing is written.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from textwrap import indent
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.utils import init_seed

from recbole_e2urec.config.config import Config, RunSettings
from recbole_e2urec.config.schema import option, option_class
from recbole_e2urec.data.dataset import describe, load_dataset
from recbole_e2urec.data.prompt_table import length_grouped_batches
from recbole_e2urec.data.request.filter import Fields
from recbole_e2urec.data.request.selection import (
    UNKNOWN,
    ForgetOptions,
    Selection,
    read_request,
    request_digest,
    select,
    skip_unknown,
    split_of,
)
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.launch import ComparisonSpec, layers_of
from recbole_e2urec.experiment.run import Experiment, Parts, parts_of
from recbole_e2urec.experiment.unlearning import LEAST_RETAIN
from recbole_e2urec.methods import METHODS
from recbole_e2urec.registry import LANGUAGE_MODEL
from recbole_e2urec.trainer.loop import EpochPosition, StepRule, adamw, train_epoch
from recbole_e2urec.trainer.training_log import memory_used
from recbole_e2urec.utils.html import printable

USUAL_EPOCHS = 0.25  # of all epochs, until validation is best; as on ml-100k
# Of Retrain's time: what a method takes, and what one takes that trains several models.
METHOD, SEVERAL_MODELS = 0.2, 1.0


@option_class()
class PreviewOptions:
    """When a dry run advises against unlearning."""

    retrain_share: float = option(
        "A dry run says that Retrain is cheaper for requests of more than this share of the "
        "training rows.",
        gt=0,
        le=1,
        default=0.25,
    )


class Touched(NamedTuple):
    """Users or items that a request touches."""

    some: int  # with a row to forget
    whole: int  # of them, those that keep no training row


class Preview(NamedTuple):
    """What a request asks for; no user and no item is named."""

    request_id: str
    digest: str
    dataset: str
    forget: int  # training rows
    train: int  # training rows in all
    users: Touched
    items: Touched
    elsewhere: dict[str, int]  # rows asked for that no model learns from, by part
    warnings: list[str]

    def lines(self) -> list[str]:
        """The same for a person."""
        content = "" if self.request_id == self.digest else f" (content {self.digest})"
        share = self.forget / self.train
        lines = [
            f"request {self.request_id}{content} on {self.dataset}",
            f"would forget {self.forget:,} of {self.train:,} training rows ({share:.2%})",
            f"  of {self.users.some:,} users, {self.users.whole:,} of them wholly",
            f"  of {self.items.some:,} items, {self.items.whole:,} of them wholly",
        ]
        lines += [
            f"asked for as well, but not trained on: {count:,} {part} rows"
            for part, count in self.elsewhere.items()
            if count
        ]
        lines += [f"warning: {warning}" for warning in self.warnings]
        return [*lines, "dry run: nothing was trained, nothing was written"]


def preview(config: Config) -> Preview:
    """Say what the request of a run would forget.

    Raises:
        InputError: a request that cannot be read. One that a run would refuse for what it names is
            previewed, with a warning.
    """
    config.options(PreviewOptions)  # refuses bad settings before data are loaded
    config.options(ForgetOptions)
    dataset = load_dataset(config)
    return preview_of(config, dataset, parts_of(config, dataset))


def preview_of(config: Config, dataset: Any, parts: Parts) -> Preview:
    """The same for data that are loaded, of whose training rows some may be gone already.

    Raises:
        InputError: as :func:`preview`.
    """
    advice = config.options(PreviewOptions)
    options = config.options(ForgetOptions)
    train = parts.splits.train
    selection = select(skip_unknown(options), train, dataset.rows, dataset.ids, Fields(dataset))
    table = dataset.file_rows
    digest = request_digest(dataset.dataset_name, table, dataset.ids, selection.chosen)
    chosen = selection.chosen[train]
    forget, retain = train[chosen], train[~chosen]
    warnings = [*selection.warnings, *_refusals(selection, train, options)]
    if len(forget) > advice.retrain_share * len(train):
        warnings.append(
            f"{len(forget) / len(train):.0%} of the training rows is more than retrain_share "
            f"({advice.retrain_share:.0%}): Retrain is exact and probably as cheap"
        )
    return Preview(
        selection.request_id or digest,
        digest,
        dataset.dataset_name,
        len(forget),
        len(train),
        touched(dataset.rows.user, forget, retain),
        touched(dataset.rows.item, forget, retain),
        _elsewhere(selection, parts),
        warnings,
    )


def touched(of: NDArray[np.int64], forget: NDArray[np.int64], retain: NDArray[np.int64]) -> Touched:
    """Count users or items, which ``of`` gives by row id."""
    named, left = (np.zeros(int(of.max(initial=-1)) + 1, dtype=bool) for _ in range(2))
    named[of[forget]], left[of[retain]] = True, True
    return Touched(int(named.sum()), int((named & ~left).sum()))


def _elsewhere(selection: Selection, parts: Parts) -> dict[str, int]:
    """Rows that are asked for outside of training."""
    named = {
        "validation": parts.splits.valid,
        "test": parts.splits.test,
        "control users'": np.concatenate(parts.whole),
    }
    counted = {part: int(selection.chosen[rows].sum()) for part, rows in named.items()}
    in_parts = int(selection.chosen[np.concatenate(parts.splits)].sum())
    counted["control users'"] -= in_parts
    counted["history-only"] = int(selection.chosen.sum()) - counted["control users'"] - in_parts
    return counted


def _refusals(selection: Selection, train: NDArray[np.int64], options: ForgetOptions) -> list[str]:
    """Why a run would refuse the request."""
    refusals = []
    if options.unknown == "refuse" and any(UNKNOWN in warning for warning in selection.warnings):
        refusals.append("a run refuses lines that name nobody known, unless forget_unknown is skip")
    try:
        split_of(selection, train)
    except InputError as error:
        refusals.append(f"a run refuses this: {error}")
    return refusals


def run_preview(config: Config) -> dict[str, Any]:
    """A dry run's results: ``preview``, the facts, and ``lines``, the same for a person."""
    result = preview(config)
    facts = {**result._asdict(), "users": result.users._asdict(), "items": result.items._asdict()}
    return {"preview": facts, "lines": result.lines()}


@option_class()
class CheckOptions:
    """How a check estimates time."""

    seconds: float = option(
        "How long to try steps of training and answers, to estimate the time of a run; 0 = no "
        "estimate.",
        ge=0,
        default=10.0,
    )


class Speed(NamedTuple):
    """What was measured of a model, in seconds."""

    step: float  # of training, one batch
    answer: float  # one row


def check(options: CheckOptions, model: str | None, settings: RunSettings) -> str:
    """Say what a run would read, and about how long it would take.

    Args:
        options: how to estimate.
        model: the model that the run names; None: those that the settings name.
        settings: settings of the run.

    Raises:
        InputError: what the run would refuse as well.
    """
    layers = layers_of(settings.config_files, settings.config_dict, settings.overrides)
    spec = ComparisonSpec.of(layers, model)
    language_models = [name for name in spec.models if name in METHODS or name == LANGUAGE_MODEL]
    config = settings.config((language_models or spec.models)[0])
    init_seed(config["seed"], config["reproducibility"])
    with _without_log():
        dataset = load_dataset(config)
        run = Experiment(config, dataset) if language_models else None
    parts, sizes = (run.parts, run.sizes) if run else (parts_of(config, dataset), [])
    asked: tuple[str, ...] = ()
    if any(name in METHODS for name in spec.models):
        asked = read_request(config.options(ForgetOptions), parts.splits.train, dataset).warnings
    first, *others = describe(config, dataset)
    lines = [f"{config['dataset']}: {first}", *others]
    control = len(np.unique(dataset.rows.user[parts.control]))
    lines.append(
        f"parts: {len(parts.splits.train):,} training rows, {len(parts.splits.valid):,} to "
        f"validate, {len(parts.splits.test):,} to test; {control:,} control users aside"
    )
    lines += [*dataset.findings.taken, *sizes]
    if run is not None:
        lines += ["a prompt:", indent(example(run), "  ")]
        if options.seconds:
            lines.append(estimate(run, replace(spec, models=language_models), options.seconds))
    lines += [f"warning: {line}" for line in (*dataset.findings.warnings, *asked)]
    return printable("\n".join(lines))


@contextmanager
def _without_log() -> Iterator[None]:
    """Log no findings inside: they are in the text."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def example(run: Experiment) -> str:
    """Return the prompt of a training row, one of middle length."""
    table = run.model.table.with_history(run.history(np.empty(0, np.int64)))
    train = run.parts.splits.train
    order = np.argsort(table.lengths(train), kind="stable")
    return str(table.text(int(train[order[len(order) // 2]])))


def estimate(run: Experiment, spec: ComparisonSpec, seconds: float) -> str:
    """Estimate minutes and memory of a run from some of its own steps, taken and thrown away.

    Original trains on all training rows, and Retrain on those that stay. Training usually ends
    after a quarter of the epochs and those without a better validation. A method takes a fifth of
    Retrain's time; one that trains several models, all of it. Trials need an Original and a Retrain
    of their own.
    """
    config, splits = run.config, run.parts.splits
    processes = spec.workers(config)
    with _threads_of(processes):
        speed = measured_speed(run, seconds)
    steps = -(-len(splits.train) // config["train_batch_size"])
    epoch = speed.step * steps + speed.answer * len(splits.valid)
    trained, rows = _work(run, spec)
    most: int = config["epochs"]
    usual = min(most, round(USUAL_EPOCHS * most) + config["stopping_step"] + 1)
    share = len(spec.seeds) / processes / 60
    usual_time, most_time = (
        _short(share * (epoch * epochs * trained + speed.answer * rows)) for epochs in (usual, most)
    )
    peak = memory_used()
    on_gpu = peak.get("peak_gpu_memory_mb")
    gpu = f" and {on_gpu:,.0f} MB of the GPU" if on_gpu else ""
    each = f" in each of {processes} processes" if processes > 1 else ""
    return (
        f"estimate for {', '.join(spec.models)}: {usual_time} minutes ({usual} of {most} epochs), "
        f"at most {most_time}; {peak['peak_memory_mb']:,.0f} MB{gpu} or more{each}; a step takes "
        f"{speed.step:.3g} s here and now"
    )


@contextmanager
def _threads_of(processes: int) -> Iterator[None]:
    """Compute with the threads that each of so many processes would have."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // processes))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _work(run: Experiment, spec: ComparisonSpec) -> tuple[float, int]:
    """Return how many Originals the trainings amount to, and how many rows are measured."""
    config, splits = run.config, run.parts.splits
    methods = [name for name in spec.models if name != LANGUAGE_MODEL]
    if not methods:
        return 1.0, len(splits.test)
    share = 0.0 if config["forget_file"] or config["forget_where"] else config["forget_ratio"]
    costs = [SEVERAL_MODELS if METHODS[name].trains_several else METHOD for name in methods]
    rounds = 1 + spec.tries
    forget = int(share * len(splits.train))
    retain = min(len(splits.train) - forget, max(forget, LEAST_RETAIN))
    measured = len(splits.test) + forget + retain + len(run.parts.control)
    references = 2 if spec.tries else 1
    trained = references * (2 - share) + rounds * (1 - share) * sum(costs)
    return trained, (rounds * len(methods) + 2 * references) * measured


def _short(minutes: float) -> str:
    return f"{minutes:.0f}" if minutes >= 10 else f"{minutes:.1f}"


def measured_speed(run: Experiment, seconds: float) -> Speed:
    """Take steps of training for most of ``seconds``, and answer rows for the rest.

    The first step is not counted. The model's weights change.
    """
    model, train = run.model, run.parts.splits.train
    size = run.config["train_batch_size"]
    rule = StepRule(float(run.config["learning_rate"]))
    optimizer = adamw(model.bank.parameters(model.adapter), rule)
    generator = np.random.default_rng(run.config["seed"])
    clock = EpochPosition("check", 0, 1, show=False)
    with model.using_history(run.history(np.empty(0, np.int64))):
        batches = length_grouped_batches(model.table.lengths(train), size, generator)
        taken: list[float] = []
        with model.bank.training(model.adapter):
            for batch in batches:
                started = time.perf_counter()
                train_epoch(
                    optimizer, [batch], lambda rows: model.answer_losses(train[rows]), clock, rule
                )
                taken.append(time.perf_counter() - started)
                if len(taken) > 1 and sum(taken) > 0.8 * seconds:
                    break
        rows = train[: run.config["eval_batch_size"]]
        started = time.perf_counter()
        model.hidden(rows)
        answer = (time.perf_counter() - started) / len(rows)
    return Speed(float(np.mean(taken[1:] or taken)), answer)
