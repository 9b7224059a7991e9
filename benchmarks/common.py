"""Shared code of the benchmarks: command lines, synthetic data, and backbones of real shapes."""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from recbole.utils import init_seed
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from recbole_e2urec.cli import Arguments, parse
from recbole_e2urec.config.config import Config
from recbole_e2urec.config.yaml import read_switch
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.errors import InputError
from recbole_e2urec.experiment.unlearning import Forgetting, MeasuredModel
from recbole_e2urec.model.backbones.lora import seeded
from recbole_e2urec.utils import recbole_compat

SWITCH: dict[str, Any] = {"nargs": "?", "const": True, "default": False}  # for read_switch
QUICK_ROWS = 1200
QUICK = {"epochs": 1, "joint_epochs": 1, "augmented_epochs": 1, "control_users": 0}
SYNTHETIC = {"title_field": "movie_title", "user_fields": ["user_id", "age"]}
WORDS = 32128  # t5-small's vocabulary


def run_main(main: Callable[[], None]) -> None:
    """Run a benchmark; bad input ends it with one line."""
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")


def parse_options(
    parser: argparse.ArgumentParser, mark: str
) -> tuple[argparse.Namespace, Arguments]:
    """Read the options of a benchmark; all other arguments are settings of its runs.

    Raises:
        InputError: the file to write lacks the lines of the mark. It is checked before hours of
            training.
    """
    parser.add_argument("--small", help="a quick look without meaning", **SWITCH)
    parser.add_argument(
        "--write", type=Path, help="put the tables into this markdown file, between its marks"
    )
    options, rest = parser.parse_known_args()
    options.small = read_switch(options.small, "small")
    if options.write is not None:
        with_tables(options.write, mark, "")
    return options, parse(rest)


def publish(tables: str, options: argparse.Namespace, mark: str) -> None:
    """Print the tables, and write them where ``--write`` says."""
    print(tables)
    if options.write is not None:
        options.write.write_text(with_tables(options.write, mark, tables), encoding="utf-8")


def with_tables(path: Path, mark: str, tables: str) -> str:
    """The text of the file with the tables between ``<!-- mark -->`` and ``<!-- /mark -->``.

    Raises:
        InputError: the file lacks these lines.
    """
    start, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    before, first, rest = text.partition(start)
    _, last, after = rest.partition(end)
    if not (first and last):
        raise InputError(f"--write: {path} has no lines {start} and {end}; add them")
    return f"{before}{first}\n\n{tables}\n\n{last}{after}"


@contextmanager
def common_settings(options: argparse.Namespace, arguments: Arguments) -> Iterator[dict[str, Any]]:
    """Settings common to all runs; with ``--small``, of synthetic data in a temporary folder."""
    recbole_compat.apply()
    settings: dict[str, Any] = {"show_progress": False, **arguments.settings}
    if not options.small:
        yield settings
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = synthetic(folder, QUICK_ROWS)
        paths = {"data_path": str(folder), "checkpoint_dir": str(folder / "saved")}
        yield {"dataset": dataset, **paths, **SYNTHETIC, **QUICK, **settings}


def cpu_clock() -> AbstractContextManager[Any]:
    """Without a GPU, measure all costs in the body in CPU seconds of this process."""
    if torch.cuda.is_available():
        return nullcontext()
    return patch.object(time, "perf_counter", time.process_time)


def config_of(settings: Mapping[str, Any], arguments: Arguments) -> Config:
    """The configuration of a run of E2URec, or of the model that ``--model`` names."""
    settings = dict(settings)
    dataset = settings.pop("dataset", arguments.dataset)
    return Config(arguments.model or "E2URec", dataset, arguments.config_files, {}, settings)


def synthetic(folder: Path, count: int, users: int | None = None) -> str:
    """Write synthetic interactions shaped like ML-1M: a million, 6,040 users and 3,706 items.

    Users' activity and items' popularity are skewed.

    Args:
        folder: folder to write to.
        count: number of interactions.
        users: number of users; None: as many for each interaction as in ML-1M.

    Returns:
        The name of the data set in the folder.
    """
    users = users or max(60, count * 6040 // 1_000_000)
    name = f"synthetic{count}-{users}"
    if (folder / name).exists():
        return name
    generator = np.random.default_rng(5)
    items = max(150, count * 3706 // 1_000_000)
    activity = generator.pareto(1.5, users) + 1
    popularity = 1 / np.arange(1, items + 1) ** 0.7
    columns = [
        generator.choice(users, count, p=activity / activity.sum()),
        generator.choice(items, count, p=popularity / popularity.sum()),
        generator.integers(1, 6, count),
        generator.integers(0, 10**8, count),
    ]
    (folder / name).mkdir(parents=True)
    path = folder / name / f"{name}.inter"
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    np.savetxt(path, np.stack(columns, axis=1), "%d", "\t", header=head, comments="")
    titles = [f"{item}\tTitle {item % 997} of part {item // 997}" for item in range(items)]
    ages = [f"{user}\t{18 + user % 60}" for user in range(users)]
    for suffix, head, lines in (
        (".item", "item_id:token\tmovie_title:token_seq", titles),
        (".user", "user_id:token\tage:token", ages),
    ):
        path.with_suffix(suffix).write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    return name


@dataclass(frozen=True)
class Size:
    """How much a speed benchmark measures.

    Attributes:
        layers: of the backbones of real shapes; theirs are 6.
        width: of their hidden states; theirs are 512.
        rows: number of forget rows, and of retain rows, in a comparison of speed.
        users: number of users whose candidates are ranked.
        rounds: number of rounds of a comparison.
        sample: the plain implementation prepares the prompt of every row that is a multiple of it.
        interactions: rows of the large synthetic data set.
        data: rows of the synthetic data set that stands for ml-100k; None: ml-100k itself.
        epochs: epochs of Original and Retrain in a whole run; None: the default.
        compiled: whether steps compiled by torch.compile are compared as well.
    """

    layers: int = 6
    width: int = 512
    rows: int = 48
    users: int = 4
    rounds: int = 3
    sample: int = 20
    interactions: int = 1_000_000
    data: int | None = None
    epochs: int | None = None
    compiled: bool = True


FULL = Size()
SMALL = Size(  # only shows that a benchmark runs
    layers=1, width=64, rows=32, users=1, rounds=1, sample=100, interactions=20_000, data=3000,
    epochs=1, compiled=False,
)  # fmt: skip
Part = Callable[[Path, Size], Any]


def seconds(work: Callable[[], Any]) -> float:
    """Return how many seconds the work takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def run_parts(
    about: str, parts: Mapping[str, Part], report: Callable[[Any], dict[str, Any]]
) -> None:
    """Run the parts that the command line names, or all; the last line is one JSON object.

    Args:
        about: the help text.
        parts: the parts; each gets a temporary folder of its own.
        report: prints the measures of a part, and returns them as JSON values.
    """
    parser = argparse.ArgumentParser(
        description=about, allow_abbrev=False, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", choices=parts, action="append", help="one part; may be repeated")
    parser.add_argument("--size", choices=("full", "small"), default="full")
    parser.add_argument("--rounds", type=int, help="how often each time is taken")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    size = FULL if options.size == "full" else SMALL
    size = replace(size, rounds=options.rounds or size.rounds)
    values: dict[str, Any] = {"size": options.size, "threads": options.threads}
    for name in options.only or parts:
        with tempfile.TemporaryDirectory() as folder:
            values |= report(parts[name](Path(folder), size))
    print(json.dumps(values))


def untrained(folder: Path, size: Size, dataset: str | None = None, **settings: Any) -> Forgetting:
    """Create an untrained run whose files are in the folder."""
    recbole_compat.apply()
    fixed = {"show_progress": False, "checkpoint_dir": str(folder / "saved"), "use_gpu": False}
    if dataset is None and size.data is not None:
        dataset = synthetic(folder, size.data)
        fixed |= {"data_path": str(folder), **SYNTHETIC}
    config = Config("E2URec", dataset or "ml-100k", (), {**fixed, **settings}, {})
    init_seed(config["seed"], config["reproducibility"])
    run = Forgetting(config, load_dataset(config))
    run.original = MeasuredModel("untrained", None, {}, {}, None)  # type: ignore[arg-type]
    return run


def random_backbone(folder: Path, family: str, size: Size, words: int = WORDS) -> str:
    """Write a backbone of t5-small's shape, or a Llama of the same width, with random weights.

    Its tokenizer does not split words of the catalogue, so prompts have about their real lengths.

    Returns:
        The path, for the setting ``backbone``.
    """
    path = folder / f"{family}-{size.width}-{size.layers}-{words}"
    if path.exists():
        return str(path)
    run = untrained(folder, size, backbone=f"tiny-{family}", prompt="plain")
    tokenizer = run.model.language_model.codec.tokenizer
    special = {name: getattr(tokenizer, name) for name in (
        "pad_token_id", "eos_token_id", "bos_token_id"
    )}  # fmt: skip
    heads = max(1, size.width // 64)
    with seeded(1):
        if family == "t5":
            config: Any = T5Config(
                vocab_size=words, d_model=size.width, d_kv=64, d_ff=4 * size.width,
                num_layers=size.layers, num_heads=heads, dropout_rate=0.1, **special,
            )  # fmt: skip
            config.decoder_start_token_id = tokenizer.pad_token_id
            model: Any = T5ForConditionalGeneration(config)
        else:
            config = LlamaConfig(
                vocab_size=words, hidden_size=size.width, intermediate_size=4 * size.width,
                num_hidden_layers=size.layers, num_attention_heads=heads,
                max_position_embeddings=1024, **special,
            )  # fmt: skip
            model = LlamaForCausalLM(config)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)
