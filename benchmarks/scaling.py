"""Growth of cost with size: ``python -m benchmarks.scaling``.

Every part varies one size and keeps the others. It prints the costs, and the slope of a line fitted
to their logarithms: 0 if the cost does not depend on the size, 1 if it grows in proportion. The
last line is one JSON object. ``--only NAME`` runs one part. ``--size small`` is a quick look whose
numbers mean nothing.

Three kinds of work are timed: preparing data, a whole request, and E2URec's steps. ``memory`` and
``llama`` are the model of memory in docs/explanation/large-scale.md.
``benchmarks.unlearning`` compares the same work with a plain implementation.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, cast
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from tabulate import tabulate

from benchmarks.common import (
    FULL,
    SYNTHETIC,
    WORDS,
    Part,
    Size,
    random_backbone,
    run_parts,
    seconds,
    synthetic,
    untrained,
)
from recbole_e2urec.config.config import Config
from recbole_e2urec.data.loaders import make_loaders
from recbole_e2urec.data.prompt_table import PromptTable, length_grouped_batches
from recbole_e2urec.data.sharded import prepared_rows
from recbole_e2urec.experiment.unlearning import Forgetting
from recbole_e2urec.methods import method_of
from recbole_e2urec.model.prompting import make_texts, shown_histories, wording_of
from recbole_e2urec.model.scorers import Adapted, Stored
from recbole_e2urec.trainer.loop import EpochPosition, StepRule, adamw, train_epoch
from recbole_e2urec.trainer.student import ORIGINAL, Student
from recbole_e2urec.trainer.teachers import AUGMENTED
from recbole_e2urec.trainer.training_log import peak_memory_mb, restart_peak
from recbole_e2urec.utils import recbole_compat

PROMPTS = 256  # prompts in a batch of preparation
ALPHA, RATE, BATCH = 2.0, 1e-3, 16  # of the public scripts
NAME = "E2URec"
SHARD = 1_000_000  # rows in a shard


class Prepared(NamedTuple):
    """Cost of preparation: time, peak memory of the process, memory after imports, and tokens."""

    seconds: float
    peak_mb: float
    imports_mb: float
    tokens: int


def prepare_alone(folder: Path, name: str) -> Prepared:
    """Prepare a synthetic data set of the folder in a separate process."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_prepare_synthetic, (folder, name))


def _prepare_synthetic(folder: Path, name: str) -> Prepared:
    recbole_compat.apply()
    restart_peak()
    imports, started = peak_memory_mb(), time.perf_counter()
    tokens = prepare(untrained(folder, FULL, name, data_path=str(folder), **SYNTHETIC))
    return Prepared(time.perf_counter() - started, peak_memory_mb(), imports, tokens)


def prepare(run: Forgetting) -> int:
    """Prepare histories, texts and tokens of every row, batch by batch.

    Returns:
        The number of tokens.
    """
    model, dataset = run.model, run.dataset
    options = model.prompt_options
    texts, _ = make_texts(dataset, wording_of(run.config, dataset, options))
    none = np.empty(0, dtype=np.int64)
    history = shown_histories(dataset.rows, run.parts.whole, none, options.history_length)
    encode, limits = model.language_model.encode, model.table._limits
    table = PromptTable(dataset.rows, history, texts, encode, limits)
    lengths = table.lengths(np.arange(len(dataset.rows)))
    batches = length_grouped_batches(lengths, PROMPTS, None)
    return sum(int(table.batch(rows).attention_mask.sum()) for rows in batches)


class ShardCost(NamedTuple):
    """CPU seconds and peak memory of preparing rows in shards, and of a run that reads them."""

    prepare_seconds: float
    prepare_mb: float
    run_seconds: float
    run_mb: float


def shard_cost(folder: Path, count: int, users: int | None = None) -> ShardCost:
    """Measure rows in shards, the preparation and the run each in a process of its own.

    Args:
        folder: as in :func:`synthetic`.
        count: the same.
        users: the same.
    """
    name = synthetic(folder, count, users)
    costs: list[float] = []
    for work in (_prepare_shards, _read_shards):
        with get_context("spawn").Pool(1) as pool:
            costs += pool.apply(work, (folder, name))
    return ShardCost(*costs)


def _prepare_shards(folder: Path, name: str) -> tuple[float, float]:
    restart_peak()
    started = time.process_time()
    recbole_compat.apply()
    prepared_rows(Config("E2URec", name, (), _sharded(folder), {}))
    return time.process_time() - started, peak_memory_mb()


def _read_shards(folder: Path, name: str) -> tuple[float, float]:
    """Open a run, order an epoch, make some batches of it, and take training steps."""
    restart_peak()
    started = time.process_time()
    run = untrained(folder, FULL, name, **_sharded(folder))
    train, model = run.parts.splits.train, run.model
    make_loaders(run.config, run.dataset, run.parts.splits, run.split.retain)
    with model.using_history(run.after):
        order = np.random.default_rng(1)
        batches = length_grouped_batches(model.table.lengths(train), PROMPTS, order)
        for batch in batches[:100]:
            model.table.batch(train[batch])
        for batch in batches[:3]:
            model.answer_loss(train[batch]).backward()
    return time.process_time() - started, peak_memory_mb()


def _sharded(folder: Path) -> dict[str, Any]:
    place = {"data_path": str(folder), "checkpoint_dir": str(folder / "saved"), "use_gpu": False}
    return {**place, **SYNTHETIC, "shard_rows": SHARD, "show_progress": False}


def request_seconds(run: Forgetting) -> float:
    """Return the seconds that the method takes for the run's request, once Original is trained."""
    method = method_of(run.config)
    with run.model.using_history(run.after):
        return seconds(lambda: method.unlearn(run.model, run.request))


def seconds_by_copies(folder: Path, size: Size, copies: Sequence[int]) -> list[float]:
    """Return the seconds of one request in data with several copies of every user who stays.

    The weights are untrained, because time does not depend on them.
    """
    run = untrained(folder, size)
    folder.mkdir(exist_ok=True)
    tokens = {inner: token for token, inner in run.dataset.ids.users.items()}
    forgotten = {tokens[int(user)] for user in run.dataset.rows.user[run.split.forget]}
    request = write_request(folder, sorted(forgotten))
    source = Path(run.config["data_path"])
    settings = {key: run.config[key] for key in ("title_field", "user_fields", "history_length")}
    settings |= {"threshold": {"rating": 4}, "control_users": 0, "forget_file": request}
    times = []
    for count in copies:
        name = f"times{count}"
        _copy_users(source, folder / name, forgotten, count)
        larger = untrained(folder / "runs" / name, size, name, data_path=str(folder), **settings)
        times.append(request_seconds(larger))
    return times


def write_request(folder: Path, tokens: Sequence[str]) -> str:
    """Write a request of these users; returns its path, for the setting ``forget_file``."""
    path = folder / "request.csv"
    path.write_text("\n".join(["user_id", *tokens]) + "\n", encoding="utf-8")
    return str(path)


def _copy_users(source: Path, target: Path, forgotten: set[str], count: int) -> None:
    """Copy a data set, with every user who stays repeated ``count`` times."""
    target.mkdir(parents=True)
    for path in source.glob(f"{source.name}.*"):
        head, *lines = path.read_text(encoding="utf-8").splitlines()
        if head.startswith("user_id:token"):
            stay = [line for line in lines if line.split("\t")[0] not in forgotten]
            lines += [f"twin{twin}-{line}" for twin in range(1, count) for line in stay]
        copy = target / f"{target.name}{path.suffix}"
        copy.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")


class E2URecSteps:
    """E2URec's joint steps on a sample of rows, with its teachers' answers cached.

    Args:
        folder: folder of the run.
        backbone: a path or a name.
        size: the number of rows.
        settings: further settings of the run.
    """

    def __init__(self, folder: Path, backbone: str, size: Size, **settings: Any) -> None:
        defaults: dict[str, Any] = {
            "backbone": backbone,
            "prompt": "plain",
            "history_length": 10,
            "lora_dropout": 0.0,
            "alpha": ALPHA,
            "unlearn_batch_size": BATCH,
            "unlearn_learning_rate": RATE,
            "unlearn_share": 1.0,
            "warmup_epochs": 0,
            "joint_epochs": 1,
        }
        run = untrained(folder, size, **{**defaults, **settings})
        self.forget, self.retain = sample_rows(run, size.rows)
        self.request = replace(run.request, forget=self.forget, retain=self.retain, show=False)
        self.method = cast(Any, method_of(run.config))
        self.model = run.model
        self.prepared = seconds(self._prepare)
        self.steps = -(-size.rows // BATCH)  # of an epoch
        self._epoch = 0

    def _prepare(self) -> None:
        """Cache the teachers' answers, which is all that precedes the first step."""
        self.student: Student = self.method.student(self.model, self.request)
        self.student.teach(ORIGINAL, Adapted(None), forget=True, retain=True)
        self.student.teach(AUGMENTED, Stored(None, self.augmented), forget=True)
        self.model.fresh_adapter(NAME, 1)
        self.optimizer = adamw(self.model.bank.parameters(NAME), StepRule(RATE))

    def augmented(self) -> dict[str, torch.Tensor]:
        """Return weights of an augmented model: Original's, slightly perturbed."""
        return nudged(self.model.bank.state(None), seed=2)

    def move(self) -> None:
        """Perturb the adapter's weights, so that they change answers."""
        self.model.bank.load(NAME, nudged(self.model.bank.state(NAME), seed=3))

    def epoch(self) -> None:
        """Run a joint epoch, with one step for each batch."""
        steps = self.student.pairing.steps(self._epoch, joint=True)
        position = EpochPosition(NAME, 0, 1, show=False)
        dropout = self.method.options.unlearn_dropout
        with self.model.bank.training(NAME, dropout=dropout):
            train_epoch(self.optimizer, steps, self.loss, position, StepRule(RATE))
        self._epoch += 1

    def loss(self, step: Any) -> Any:
        """Return the loss of a step, one part for each sub-batch."""
        return map(self.method.loss, self.student.batches(step))


def sample_rows(run: Forgetting, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw ``count`` forget rows and as many retain rows, each sorted."""
    generator = np.random.default_rng(1)
    retain, forget = (
        np.sort(generator.choice(rows, count, replace=False))
        for rows in (run.split.retain, run.split.forget)
    )
    return forget, retain


def nudged(weights: Mapping[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    """Perturb each weight slightly at random; fresh or equal weights could hide a mistake."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: weight + 0.02 * (weight.std() or 1.0) * torch.randn(weight.shape, generator=generator)
        for name, weight in weights.items()
    }


class Growth(NamedTuple):
    """The measures at each size."""

    of: str  # the size that varies
    sizes: Sequence[float]
    values: Sequence[float]
    unit: str = "s"

    @property
    def slope(self) -> float:
        """Slope of the line fitted to the logarithms."""
        return float(np.polyfit(np.log(self.sizes), np.log(self.values), 1)[0])


def interactions(folder: Path, size: Size) -> list[Growth]:
    """Prepare data set, split, histories and prompts: time, and memory beyond imports."""
    counts = [size.interactions // part for part in (16, 8, 4, 2)]
    return _preparing(
        "interactions", counts, [synthetic(folder, count) for count in counts], folder
    )


def users(folder: Path, size: Size) -> list[Growth]:
    """Prepare the same number of rows, divided among more users."""
    rows = size.interactions // 8
    counts = [rows // per_user for per_user in (200, 50, 20)]
    names = [synthetic(folder, rows, count) for count in counts]
    return _preparing("users", counts, names, folder)


def _preparing(of: str, sizes: Sequence[int], names: Sequence[str], folder: Path) -> list[Growth]:
    prepared = [prepare_alone(folder, name) for name in names]
    return [
        Growth(of, sizes, [each.seconds for each in prepared]),
        Growth(of, sizes, [each.peak_mb - each.imports_mb for each in prepared], "MB"),
    ]


def shards(folder: Path, size: Size) -> list[Growth]:
    """Prepare rows in shards and read them: CPU seconds, and peak memory with all packages."""
    counts = [size.interactions * times for times in (1, 3, 10)]
    costs = [shard_cost(folder, count) for count in counts]
    return [
        Growth(f"rows in shards, {name}", counts, [getattr(cost, name) for cost in costs], unit)
        for name, unit in zip(ShardCost._fields, ("s", "MB", "s", "MB"), strict=True)
    ]


class Llama(NamedTuple):
    """The sizes of a Llama that decide on time and memory."""

    layers: int
    width: int
    inner: int  # width inside the feed-forward part
    words: int

    @property
    def weights(self) -> int:
        """Number of weights."""
        layer = 4 * self.width**2 + 3 * self.width * self.inner + 2 * self.width
        return self.layers * layer + 2 * self.words * self.width + self.width


LLAMA_2_7B = Llama(32, 4096, 11008, 32000)
RATE_OF_GPU = 4e14  # operations a second, 40 % of an H100's in bfloat16
TRAINED_ROWS = 80_000_000  # of 100 million, split as by default
# Bytes that autograd keeps for each token and layer, as multiples of width and of inner width, by
# bytes of a weight. In bfloat16, norms and the adapter's inputs are kept in float32. The third
# number is what lora_dropout adds, as a multiple of width.
KEPT = {4: (28, 12, 0), 2: (24, 6, 6)}


def step_bytes(
    model: Llama, tokens: int, number: int = 2, dropout: bool = True, recomputed: bool = False
) -> float:
    """Predict the memory of a LoRA step of queries and values, beside weights and optimiser.

    Args:
        model: the sizes.
        tokens: tokens in a pass, padding included (``tokens_at_once``).
        number: bytes of a weight: 4 = float32, 2 = bfloat16.
        dropout: whether ``lora_dropout`` is above 0.
        recomputed: whether ``backbone_gradient_checkpointing`` is set.
    """
    by_width, by_inner, by_dropout = KEPT[number]
    kept = (by_width + by_dropout * dropout) * model.width + by_inner * model.inner
    backward = 3 * number * model.inner  # of one layer
    layers: float = model.layers * kept
    if recomputed:
        layers = kept + (model.layers + 4) * number * model.width
    return tokens * (layers + backward)


def adapter_bytes(model: Llama, rank: int = 8) -> int:
    """Memory of an adapter: weight, gradient, AdamW's two states and the average, in float32."""
    return model.layers * 2 * 2 * model.width * rank * 5 * 4


def pass_operations(model: Llama, tokens: int) -> float:
    """Operations of a forward pass over one prompt; a LoRA step takes two passes."""
    return 2.0 * model.weights * tokens + 2.0 * model.layers * model.width * tokens**2


def memory(folder: Path, size: Size) -> list[Growth]:
    """Predict the memory of LoRA steps of several Llamas in float32, and measure it."""
    cases = [
        (Llama(layers, size.width // part, 4 * size.width // part, WORDS), tokens, recomputed)
        for layers, part, tokens, recomputed in (
            (2, 2, 1024, False), (4, 2, 1024, False), (4, 2, 2048, False), (4, 1, 1024, False),
            (4, 1, 1024, True),
        )
    ]  # fmt: skip
    wanted = [step_bytes(case[0], case[1], 4, False, case[2]) / 1e6 for case in cases]
    found = []
    # Each tensor then has pages of its own, which the process gives back with it.
    with patch.dict(os.environ, {"MALLOC_MMAP_THRESHOLD_": "65536"}):
        for model, tokens, recomputed in cases:
            shape = replace(size, width=model.width, layers=model.layers)
            backbone = random_backbone(folder, "llama", shape)
            with get_context("spawn").Pool(1) as pool:
                found.append(pool.apply(_step_mb, (folder, size, backbone, tokens, recomputed)))
    return [Growth("a LoRA step, predicted MB: measured", wanted, found, "MB")]


def _step_mb(folder: Path, size: Size, backbone: str, tokens: int, recomputed: bool) -> float:
    torch.set_num_threads(1)
    run = untrained(
        folder, replace(size, data=3000), backbone=backbone, prompt="plain", tuning="lora",
        lora_r=8, lora_dropout=0.0, backbone_gradient_checkpointing=recomputed,
    )  # fmt: skip
    model = run.model
    ids = torch.full((tokens // 256, 256), 7)
    with model.bank.training(model.adapter):
        for _ in range(2):  # the first one fills caches
            restart_peak()
            before = peak_memory_mb()
            model.language_model(ids, torch.ones_like(ids)).logsumexp(-1).mean().backward()
    return peak_memory_mb() - before


def llama(folder: Path, size: Size) -> list[Growth]:
    """Print what Llama-2-7B on 100 million rows takes on GPUs of 80 GB, as predicted."""
    model, lines = LLAMA_2_7B, []
    for prompt in (512, 2048):
        for tokens, recomputed in ((16384, False), (8192, False), (16384, True)):
            for gpus in (1, 8, 64):
                weights = 2 * model.weights / 1e9
                rest = (adapter_bytes(model) + step_bytes(model, tokens, 2, True, recomputed)) / 1e9
                passes = 3 if recomputed else 2
                work = TRAINED_ROWS * passes * pass_operations(model, prompt)
                hours = work / RATE_OF_GPU / gpus / 3600
                lines.append(
                    (prompt, f"{tokens:,}", "yes" if recomputed else "no", gpus,
                     f"{weights + rest:.0f}", f"{weights / gpus + rest:.0f}", f"{hours:,.0f}")
                )  # fmt: skip
    head = (
        "tokens a prompt", "tokens_at_once", "checkpointing", "GPUs", "GB a GPU", "with FSDP",
        "hours an epoch",
    )  # fmt: skip
    print(tabulate(lines, head, tablefmt="pipe", disable_numparse=True))
    return []


def training_rows(folder: Path, size: Size) -> list[Growth]:
    """Unlearn one request while more and more users stay."""
    copies = (1, 2, 4)
    rounds = [seconds_by_copies(folder / str(turn), size, copies) for turn in range(size.rounds)]
    times = [median(column) for column in zip(*rounds, strict=True)]
    return [Growth("training rows", copies, times)]


def forget_rows(folder: Path, size: Size) -> list[Growth]:
    """Unlearn requests of more and more users."""
    rows, times = [], []
    for share in (0.05, 0.1, 0.2, 0.4):
        run = untrained(folder / str(share), size, forget_ratio=share)
        rows.append(len(run.split.forget))
        times.append(request_seconds(run))
    return [Growth("forget rows", rows, times)]


def history(folder: Path, size: Size) -> list[Growth]:
    """Run steps with longer histories; the size is the mean number of tokens in a prompt."""
    backbone = random_backbone(folder, "t5", size)
    tokens, times = [], []
    for length in (2, 5, 10, 20):
        steps = E2URecSteps(folder / str(length), backbone, size, history_length=length)
        lengths = steps.student.pairing.forget_table.lengths(steps.forget)
        tokens.append(float(lengths.mean()))
        times.append(_step_seconds(steps, size))
    return [Growth("tokens a prompt", tokens, times)]


def vocabulary(folder: Path, size: Size) -> list[Growth]:
    """Run steps with larger vocabularies."""
    counts = (8_000, 32_000, 128_000)
    backbones = [random_backbone(folder, "t5", size, words) for words in counts]
    return [_of_backbones("vocabulary", counts, backbones, folder, size)]


def width(folder: Path, size: Size) -> list[Growth]:
    """Run steps with wider models."""
    widths = [size.width // part for part in (4, 2, 1)]
    backbones = [random_backbone(folder, "t5", replace(size, width=width)) for width in widths]
    return [_of_backbones("width", widths, backbones, folder, size)]


def _of_backbones(
    of: str, sizes: Sequence[int], backbones: Sequence[str], folder: Path, size: Size
) -> Growth:
    times = []
    for backbone in backbones:
        steps = E2URecSteps(folder / f"{Path(backbone).name}-run", backbone, size)
        times.append(_step_seconds(steps, size))
    return Growth(of, sizes, times)


def _step_seconds(steps: E2URecSteps, size: Size) -> float:
    steps.epoch()  # warms up
    return median(seconds(steps.epoch) for _ in range(size.rounds)) / steps.steps


PARTS: dict[str, Part] = {
    "interactions": interactions,
    "users": users,
    "shards": shards,
    "memory": memory,
    "llama": llama,
    "training_rows": training_rows,
    "forget_rows": forget_rows,
    "history": history,
    "vocabulary": vocabulary,
    "width": width,
}


def report(growths: list[Growth]) -> dict[str, Any]:
    """Print the measures of a part, and return the slopes."""
    for growth in growths:
        pairs = zip(growth.sizes, growth.values, strict=True)
        listed = ", ".join(f"{size:,.0f}: {value:.3g} {growth.unit}" for size, value in pairs)
        print(f"{growth.of}: slope {growth.slope:.2f} ({listed})", flush=True)
    return {f"{growth.of} ({growth.unit})": round(growth.slope, 3) for growth in growths}


if __name__ == "__main__":
    run_parts(__doc__, PARTS, report)
