"""Speed of unlearning against a plain implementation: ``python -m benchmarks.unlearning``.

Run it from a checkout with the package installed. Each part prints its measures; the last line is
one JSON object with all of them. ``--only NAME`` runs one part. ``--size small`` is a quick look
whose numbers mean nothing. ``--threads N`` sets torch's threads for both sides. Both sides run in
turns in one process, and their times are compared as ratios: median (least to greatest).
"""

from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from benchmarks.common import Part, Size, random_backbone, run_parts, seconds, synthetic, untrained
from benchmarks.plain import Models, PlainE2URec, PlainPrompts, PlainReader
from benchmarks.scaling import (
    ALPHA,
    BATCH,
    NAME,
    RATE,
    E2URecSteps,
    nudged,
    prepare,
    prepare_alone,
    request_seconds,
    sample_rows,
    seconds_by_copies,
    write_request,
)
from recbole_e2urec.evaluator.measure import Answers, distance_to
from recbole_e2urec.evaluator.metrics import labelled_metrics
from recbole_e2urec.experiment.unlearning import Forgetting
from recbole_e2urec.model.scorers import Adapted
from recbole_e2urec.trainer.training_log import peak_memory_mb, restart_peak

CANDIDATES = 101


class Ratio(NamedTuple):
    """A ratio of times: median, least and greatest over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, ratios: list[float]) -> "Ratio":
        """Summarise the ratios of all rounds."""
        return cls(median(ratios), min(ratios), max(ratios))


def race(theirs: Callable[[], Any], ours: Callable[[], Any], rounds: int) -> Ratio:
    """Measure time of theirs / time of ours; the two take turns in going first."""
    ratios = []
    for turn in range(rounds):
        if turn % 2:
            our_time = seconds(ours)
            their_time = seconds(theirs)
        else:
            their_time = seconds(theirs)
            our_time = seconds(ours)
        ratios.append(their_time / our_time)
    return Ratio.of(ratios)


def step_time(folder: Path, size: Size, prefix: str = "", **settings: Any) -> dict[str, Any]:
    """``step_time_ratio``: steps alone; ``whole_ratio``: with the time of our teachers' answers."""
    backbone = random_backbone(folder, "t5", size)
    ours = E2URecSteps(folder, backbone, size, **settings)
    ours.move()
    plain = _plain(ours, backbone, folder / "adapter")
    difference = _loss_difference(ours, plain)
    forget, retain = ours.forget, ours.retain
    ours.epoch()  # warms up; the plain epoch below as well
    seeds = iter(range(10**6))
    plain.epoch(forget[:BATCH], retain[:BATCH], next(seeds))
    times: list[float] = []
    ratio = race(
        lambda: plain.epoch(forget, retain, next(seeds)),
        lambda: times.append(seconds(ours.epoch)),
        size.rounds,
    )
    values = {
        "step_time_ratio": ratio,
        "whole_ratio": Ratio.of([ratio.median * time / (time + ours.prepared) for time in times]),
        "loss_difference": difference,
        "our_step_seconds": median(times) / ours.steps,
    }
    return {f"{prefix}{key}": value for key, value in values.items()}


def dropout_step_time(folder: Path, size: Size) -> dict[str, Any]:
    """``dropout_step_time_ratio``: steps in which our student, like theirs, uses dropout."""
    return step_time(folder, size, "dropout_", unlearn_dropout=True)


def compiled_step_time(folder: Path, size: Size) -> dict[str, Any]:
    """``compiled_step_time_ratio``: steps whose backbone is compiled by torch.compile."""
    return step_time(folder, size, "compiled_", backbone_compile=True) if size.compiled else {}


def _plain(ours: E2URecSteps, backbone: str, adapter: Path | None = None) -> PlainE2URec:
    """Create the plain implementation with the same rows and settings.

    Args:
        ours: provides prompts and labels.
        backbone: path of the backbone of all three models.
        adapter: folder to save our student's adapter in. Their student starts with it, and their
            augmented model gets our augmented weights. None: their student starts with a fresh
            adapter, and the augmented model equals Original.
    """
    original, augmented, base = (AutoModelForSeq2SeqLM.from_pretrained(backbone) for _ in range(3))
    if adapter is None:
        student: Any = get_peft_model(
            base, LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules=["q", "v"])
        )
    else:
        ours.model.bank.save(NAME, adapter)
        student = PeftModel.from_pretrained(base, str(adapter), is_trainable=True)
        augmented.load_state_dict(ours.augmented(), strict=False)
        augmented.tie_weights()
    lm, table = ours.model.language_model, ours.student.pairing.retain_table
    reader = PlainReader(lm.codec.tokenizer, table.text, lm.answer_ids, BATCH)
    models = Models(original.eval(), augmented.eval(), student)
    return PlainE2URec(reader, models, ours.model.labels, ALPHA, ours.method.options.beta, RATE)


def _loss_difference(ours: E2URecSteps, plain: PlainE2URec) -> float:
    """Return the difference of the two losses on one batch.

    Raises:
        AssertionError: it exceeds 1e-5, so the comparison would not be fair.
    """
    (step, *_) = ours.student.pairing.steps(0, joint=True)
    plain.models.student.eval()
    with torch.no_grad():
        with ours.model.bank.frozen(NAME):
            our_loss = sum(float(terms["loss"]) for terms in ours.loss(step))
        their_loss = float(plain.loss(step.forget.tolist(), step.retain.tolist()))
    difference = abs(our_loss - their_loss)
    assert difference <= 1e-5 * max(1.0, abs(their_loss)), (our_loss, their_loss)
    return difference


def memory(folder: Path, size: Size) -> dict[str, Any]:
    """``memory_ratio``: peak memory of unlearning, ours / theirs, each in a separate process."""
    backbone = random_backbone(folder, "t5", size)
    ours, theirs = (_peak_mb(work, folder, backbone, size) for work in (_our_epoch, _plain_epoch))
    return {"memory_ratio": ours / theirs, "our_memory_mb": ours, "their_memory_mb": theirs}


def _our_epoch(folder: Path, backbone: str, size: Size) -> None:
    E2URecSteps(folder, backbone, size).epoch()


def _plain_epoch(folder: Path, backbone: str, size: Size) -> None:
    """Run the plain implementation; our side only provides data, with a tiny backbone."""
    ours = E2URecSteps(folder, "tiny-t5", size)
    _plain(ours, backbone).epoch(ours.forget, ours.retain, 0)


def _peak_mb(work: Callable[..., Any], *arguments: Any) -> float:
    """Return the peak resident memory of the work above the process's initial memory, in MB.

    Args:
        work: a module-level function, so that a separate process can run it.
        arguments: arguments of the work.
    """
    with get_context("spawn").Pool(1) as pool:
        return float(pool.apply(_measure_peak, (work, arguments)))


def _measure_peak(work: Callable[..., Any], arguments: tuple[Any, ...]) -> float:
    restart_peak()
    before = peak_memory_mb()
    work(*arguments)
    return peak_memory_mb() - before


def prompts(folder: Path, size: Size) -> dict[str, Any]:
    """``prompt_ratio``: history, text and tokens of all rows; theirs scaled up from a sample."""
    run = untrained(folder, size, prompt="plain", history_length=10)
    plain = PlainPrompts(run)
    sample = np.arange(0, len(run.dataset.rows), size.sample).tolist()
    for row in sample[:: max(1, len(sample) // 200)]:
        text = run.model.table.with_history(run.before).text(row)
        assert plain.text(row) == text, (plain.text(row), text)
    ratios, times = [], []
    for _ in range(size.rounds):
        theirs = seconds(lambda: [plain.tokens(row) for row in sample]) * size.sample
        times.append(seconds(lambda: prepare(run)))
        ratios.append(theirs / times[-1])
    return {"prompt_ratio": Ratio.of(ratios), "our_prompt_seconds": median(times)}


def evaluation(folder: Path, size: Size) -> dict[str, Any]:
    """``evaluation_ratio``: AUC, ACC, LogLoss, JSD and L2 of a model, with Retrain's answers."""
    backbone = random_backbone(folder, "t5", size)
    run = untrained(folder, size, backbone=backbone, prompt="plain", history_length=10)
    model, lm = run.model, run.model.language_model
    rows, _ = sample_rows(run, size.rows)
    moved = nudged(model.bank.state(None), seed=2)
    retrained = AutoModelForSeq2SeqLM.from_pretrained(backbone).eval()
    retrained.load_state_dict(moved, strict=False)
    retrained.tie_weights()
    labels = model.labels
    assert labels is not None

    def answers() -> Answers:
        read = Adapted(None).ask(model, rows)
        yes = np.full(len(labels), np.nan)
        yes[rows] = read.yes(lm.answer_ids).numpy()
        return Answers(yes, read)

    with model.using_history(run.before):
        with model.bank.swapped_weights(None, moved):
            of_retrain = answers()

        def ours() -> dict[str, Any]:
            of_model = answers()
            utility = labelled_metrics(run.config, of_model.yes[rows], labels[rows])
            return {**utility, **distance_to(of_model, of_model, of_retrain, rows)}

        reader = PlainReader(lm.codec.tokenizer, model.table.text, lm.answer_ids, BATCH)

        def theirs() -> dict[str, Any]:
            return reader.evaluate(lm.model.eval(), retrained, rows, labels)

        measures = ours()
        for name, value in theirs().items():
            assert abs(measures[name] - value) < 1e-3, (name, measures[name], value)
        return {"evaluation_ratio": race(theirs, ours, size.rounds)}


def ranking(folder: Path, size: Size) -> dict[str, Any]:
    """``ranking_ratio``: ranking 101 candidates for each row with a causal model.

    ``ranking_to_own_whole_prompts``: the same against our own code without shared prompt prefixes.
    """
    backbone = random_backbone(folder, "llama", size)
    run = untrained(folder, size, backbone=backbone, prompt="plain", history_length=10)
    model, lm = run.model, cast(Any, run.model.language_model)
    generator = np.random.default_rng(1)
    tested = generator.choice(run.parts.splits.test, size.users, replace=False)
    rows = np.repeat(tested, CANDIDATES)
    catalogue = run.dataset.item_num - 1
    items = np.concatenate(
        [1 + generator.choice(catalogue, CANDIDATES, replace=False) for _ in tested]
    )
    plain = AutoModelForCausalLM.from_pretrained(backbone).eval()
    with model.using_history(run.before):
        table = model.table

        def text(place: int) -> str:
            return table.text(int(rows[place]), int(items[place]))

        reader = PlainReader(lm.codec.tokenizer, text, lm.answer_ids, BATCH)

        @torch.no_grad()
        def theirs() -> NDArray[Any]:
            starts = range(0, len(rows), BATCH)
            batches = [range(start, min(start + BATCH, len(rows))) for start in starts]
            return torch.cat([reader.yes(plain, batch) for batch in batches]).numpy()

        def ours() -> NDArray[Any]:
            with model.bank.frozen(None):
                return model.yes(model.hidden(rows, items)).numpy()

        def whole() -> None:
            lm.shares_beginnings = False
            ours()
            lm.shares_beginnings = True

        assert lm.shares_beginnings
        difference = float(np.abs(ours() - theirs()).max())
        assert difference < 1e-4, difference
        return {
            "ranking_ratio": race(theirs, ours, size.rounds),
            "ranking_to_own_whole_prompts": race(whole, ours, size.rounds),
        }


def cost(folder: Path, size: Size) -> dict[str, Any]:
    """``cost_to_retrain``: E2URec's seconds / Retrain's, for a request of a fifth of the users."""
    run = _trained(folder, size)
    ours, retrain = request_seconds(run), run.retrain.cost["seconds"]
    return {"cost_to_retrain": ours / retrain, "e2urec_seconds": ours, "retrain_seconds": retrain}


def growth(folder: Path, size: Size) -> dict[str, Any]:
    """``growth_with_training_set``: cost with twice the other users / cost, same forget set."""
    rounds = [seconds_by_copies(folder / str(turn), size, (1, 2)) for turn in range(size.rounds)]
    return {
        "growth_with_training_set": Ratio.of([double / base for base, double in rounds]),
        "growth_base_seconds": median(base for base, _ in rounds),
    }


def one_user(folder: Path, size: Size) -> dict[str, Any]:
    """``one_user_to_retrain``: the request of one user with the median number of rows."""
    dataset = untrained(folder, size).dataset
    users, counts = np.unique(dataset.rows.user, return_counts=True)
    median_user = users[np.argsort(counts, kind="stable")[len(counts) // 2]]
    token = next(token for token, inner in dataset.ids.users.items() if inner == median_user)
    run = _trained(folder, size, forget_file=write_request(folder, [token]), control_users=0)
    ours = request_seconds(run)
    return {"one_user_to_retrain": ours / run.retrain.cost["seconds"], "one_user_seconds": ours}


def _trained(folder: Path, size: Size, **settings: Any) -> Forgetting:
    """Create a run, and train its Original and Retrain."""
    epochs: dict[str, Any] = {} if size.epochs is None else {"epochs": size.epochs}
    run = untrained(folder, size, **epochs, **settings)
    run.train()
    return run


def million_rows(folder: Path, size: Size) -> dict[str, Any]:
    """``million_rows_seconds``, ``_mb``: data, split, histories, prompts, in a separate process."""
    prepared = prepare_alone(folder, synthetic(folder, size.interactions))
    return {
        "million_rows_seconds": prepared.seconds,
        "million_rows_mb": prepared.peak_mb,
        "million_rows_interactions": size.interactions,
        "million_rows_tokens": prepared.tokens,
    }


PARTS: dict[str, Part] = {
    "step_time": step_time,
    "dropout_step_time": dropout_step_time,
    "compiled_step_time": compiled_step_time,
    "memory": memory,
    "prompts": prompts,
    "evaluation": evaluation,
    "ranking": ranking,
    "cost": cost,
    "growth": growth,
    "one_user": one_user,
    "million_rows": million_rows,
}


def report(measures: dict[str, Any]) -> dict[str, Any]:
    """Print and return the measures of a part; a ratio also yields its spread."""
    values: dict[str, Any] = {}
    for key, value in measures.items():
        print(f"{key}: {_text(value)}", flush=True)
        values[key] = value.median if isinstance(value, Ratio) else value
        if isinstance(value, Ratio):
            values[f"{key}_spread"] = [value.low, value.high]
    return values


def _text(value: Any) -> str:
    if isinstance(value, Ratio):
        return f"{value.median:.2f} ({value.low:.2f} to {value.high:.2f})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    run_parts(__doc__, PARTS, report)
