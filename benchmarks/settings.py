"""What is measured on: ml-100k, backbones of real shapes with random weights, requests."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from recbole.utils import init_seed
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from recbole_e2urec import compat
from recbole_e2urec.config import Config
from recbole_e2urec.data.loading import load_dataset
from recbole_e2urec.forgetting import Forgetting
from recbole_e2urec.llm.seeding import seeded
from recbole_e2urec.measuring import Answered

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
        epochs: of Original and Retrain where a whole job is run; None: the default.
    """

    layers: int = 6
    width: int = 512
    rows: int = 160
    users: int = 4
    rounds: int = 5
    sample: int = 20
    interactions: int = 1_000_000
    epochs: int | None = None


FULL = Size()
SMALL = Size(1, 64, 32, 1, 1, 400, 20_000, 1)  # keeps the benchmark alive in CI


def forgetting(folder: Path, model: str = "E2URec", **given: Any) -> Forgetting:
    """A request on ml-100k whose files lie in the folder; nothing is trained."""
    compat.apply()
    fixed = {"show_progress": False, "checkpoint_dir": str(folder / "saved"), "use_gpu": False}
    config = Config(model, str(given.pop("dataset", "ml-100k")), (), {**fixed, **given}, {})
    init_seed(config["seed"], config["reproducibility"])
    run = Forgetting(config, load_dataset(config))
    run.original = Answered("untrained", None, {}, {}, None)  # type: ignore[arg-type]
    return run


def shaped(folder: Path, family: str, size: Size) -> Path:
    """Write a backbone of t5-small's shape, or a Llama of the same width, with random weights.

    Its tokenizer keeps the words of the catalogue whole, so prompts have about their real lengths.
    """
    path = folder / f"{family}-{size.width}-{size.layers}"
    if path.exists():
        return path
    words = forgetting(folder, backbone=f"tiny-{family}", prompt="plain").model.language_model
    tokenizer = words.codec.tokenizer
    special = {
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
    }
    with seeded(1):
        if family == "t5":
            config: Any = T5Config(
                vocab_size=WORDS, d_model=size.width, d_kv=64, d_ff=4 * size.width,
                num_layers=size.layers, num_heads=size.width // 64, dropout_rate=0.1,
                **special,
            )  # fmt: skip
            config.decoder_start_token_id = tokenizer.pad_token_id
            made: Any = T5ForConditionalGeneration(config)
        else:
            config = LlamaConfig(
                vocab_size=WORDS, hidden_size=size.width, intermediate_size=4 * size.width,
                num_hidden_layers=size.layers, num_attention_heads=size.width // 64,
                max_position_embeddings=1024, **special,
            )  # fmt: skip
            made = LlamaForCausalLM(config)
    made.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def reduced(run: Forgetting, count: int) -> tuple[Rows, Rows]:
    """Some forget rows and as many retain rows, drawn at random, sorted."""
    generator = np.random.default_rng(1)
    parts = (generator.choice(part, count, replace=False) for part in run.split[:2])
    retain, forget = map(np.sort, parts)
    return forget, retain


def request_of(run: Forgetting, forget: Rows, retain: Rows) -> Any:
    """The run's request, of these rows alone."""
    return replace(run.request, forget=forget, retain=retain, show=False)


Measured = Mapping[str, Any]  # by the name of the measure
