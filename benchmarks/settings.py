"""What is measured on: ml-100k, backbones of real shapes with random weights, requests."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.utils import init_seed
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from recbole_e2urec.config.config import Config
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.experiment.unlearning import Forgetting, MeasuredModel
from recbole_e2urec.model.backbones.lora import seeded
from recbole_e2urec.utils import recbole_compat

Rows = NDArray[np.int64]
WORDS = 32128  # t5-small's vocabulary


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        layers: of the backbones of real shapes; theirs are 6.
        width: of their hidden states; theirs are 512.
        rows: forget rows of a race, and as many retain rows.
        users: users whose candidates are ranked.
        rounds: of a race.
        sample: every how manyth row the plain preparation of prompts handles.
        interactions: rows of the large synthetic data set.
        data: rows of the synthetic data set that stands for ml-100k; None: ml-100k itself.
        epochs: of Original and Retrain where a whole job is run; None: the default.
        compiled: whether steps are raced by code of torch.compile as well.
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
SMALL = Size(
    1, 64, 32, 1, 1, 100, 20_000, 3000, 1, compiled=False
)  # keeps the benchmark alive in CI


def forgetting(folder: Path, size: Size, dataset: str | None = None, **given: Any) -> Forgetting:
    """A request whose files lie in the folder; nothing is trained."""
    recbole_compat.apply()
    fixed = {"show_progress": False, "checkpoint_dir": str(folder / "saved"), "use_gpu": False}
    if dataset is None and size.data is not None:
        dataset = synthetic(folder, size.data)
        fixed |= {"data_path": str(folder), **SYNTHETIC}
    config = Config("E2URec", dataset or "ml-100k", (), {**fixed, **given}, {})
    init_seed(config["seed"], config["reproducibility"])
    run = Forgetting(config, load_dataset(config))
    run.original = MeasuredModel("untrained", None, {}, {}, None)  # type: ignore[arg-type]
    return run


def shaped(folder: Path, family: str, size: Size, words: int = WORDS) -> Path:
    """Write a backbone of t5-small's shape, or a Llama of the same width, with random weights.

    Its tokenizer keeps the words of the catalogue whole, so prompts have about their real lengths.
    """
    path = folder / f"{family}-{size.width}-{size.layers}-{words}"
    if path.exists():
        return path
    run = forgetting(folder, size, backbone=f"tiny-{family}", prompt="plain")
    tokenizer = run.model.language_model.codec.tokenizer
    special = {
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
    }
    with seeded(1):
        if family == "t5":
            config: Any = T5Config(
                vocab_size=words, d_model=size.width, d_kv=64, d_ff=4 * size.width,
                num_layers=size.layers, num_heads=max(1, size.width // 64), dropout_rate=0.1,
                **special,
            )  # fmt: skip
            config.decoder_start_token_id = tokenizer.pad_token_id
            made: Any = T5ForConditionalGeneration(config)
        else:
            config = LlamaConfig(
                vocab_size=words, hidden_size=size.width, intermediate_size=4 * size.width,
                num_hidden_layers=size.layers, num_attention_heads=max(1, size.width // 64),
                max_position_embeddings=1024, **special,
            )  # fmt: skip
            made = LlamaForCausalLM(config)
    made.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def nudged(weights: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """The weights, each a little moved at random: fresh or equal ones would hide a mistake."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: weight + 0.02 * (weight.std() or 1.0) * torch.randn(weight.shape, generator=generator)
        for name, weight in weights.items()
    }


def reduced(run: Forgetting, count: int) -> tuple[Rows, Rows]:
    """Some forget rows and as many retain rows, drawn at random, sorted."""
    generator = np.random.default_rng(1)
    parts = (generator.choice(part, count, replace=False) for part in run.split[:2])
    retain, forget = map(np.sort, parts)
    return forget, retain


def request_of(run: Forgetting, forget: Rows, retain: Rows) -> Any:
    """The run's request, of these rows alone."""
    return replace(run.request, forget=forget, retain=retain, show=False)


SYNTHETIC = {"title_field": "movie_title", "user_fields": ["user_id", "age"]}


def synthetic(folder: Path, count: int, users: int | None = None) -> str:
    """Interactions of ML-1M's shape: 6,040 users, 3,706 items, some of each much more active.

    Args:
        folder: to write to.
        count: of the interactions.
        users: their number; None: as many as ML-1M has a row.

    Returns:
        The name of the data set, which lies in the folder.
    """
    users = users or max(60, count * 6040 // 1_000_000)
    name = f"synthetic{count}-{users}"
    if (folder / name).exists():
        return name
    generator = np.random.default_rng(5)
    items = max(150, count * 3706 // 1_000_000)
    active = generator.pareto(1.5, users) + 1
    liked = 1 / np.arange(1, items + 1) ** 0.7
    columns = [
        generator.choice(users, count, p=active / active.sum()),
        generator.choice(items, count, p=liked / liked.sum()),
        generator.integers(1, 6, count),
        generator.integers(0, 10**8, count),
    ]
    (folder / name).mkdir(parents=True)
    path = folder / name / f"{name}.inter"
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    np.savetxt(path, np.stack(columns, axis=1), "%d", "\t", header=head, comments="")
    titles = [f"{place}\tTitle {place % 997} of part {place // 997}" for place in range(items)]
    ages = [f"{place}\t{18 + place % 60}" for place in range(users)]
    for suffix, head, lines in (
        (".item", "item_id:token\tmovie_title:token_seq", titles),
        (".user", "user_id:token\tage:token", ages),
    ):
        path.with_suffix(suffix).write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    return name
