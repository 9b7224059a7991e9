"""From interactions to prompts: against one row after the other, and at a million rows."""

import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.racing import ratio_of, seconds
from benchmarks.settings import SYNTHETIC, Size, forgetting, synthetic
from recbole_e2urec.config.config import Config
from recbole_e2urec.data.dataset import load_dataset
from recbole_e2urec.data.prompt_table import PromptTable, length_grouped_batches
from recbole_e2urec.experiment.unlearning import Forgetting
from recbole_e2urec.model.prompting import make_texts, shown_histories, wording_of
from recbole_e2urec.trainer.training_log import peak_memory_mb, restart_peak

BATCH = 256


def prompts(folder: Path, size: Size) -> dict[str, Any]:
    """``prompt_ratio``: history, text and tokens of all rows; theirs on a sample, scaled up."""
    run = forgetting(folder, size, prompt="plain", history_length=10)
    plain = PlainPrompts(run)
    sample = np.arange(0, len(run.dataset.rows), size.sample)
    for row in sample[:: max(1, len(sample) // 200)]:
        text = run.model.table.with_history(run.before).text(int(row))
        assert plain.text(int(row)) == text, (plain.text(int(row)), text)
    ratios, ours = [], []
    for _ in range(size.rounds):
        theirs = seconds(lambda: [plain.tokens(int(row)) for row in sample]) * size.sample
        ours.append(seconds(lambda: prepare(run)))
        ratios.append(theirs / ours[-1])
    return {"prompt_ratio": ratio_of(ratios), "our_prompt_seconds": float(np.median(ours))}


def prepare(run: Forgetting) -> int:
    """Histories, texts and tokens of every row, batch by batch; gives the number of tokens."""
    model, dataset, config = run.model, run.dataset, run.config
    options, lm = model.prompt_options, model.language_model
    texts, _ = make_texts(dataset, wording_of(config, dataset, options))
    none = np.empty(0, dtype=np.int64)
    history = shown_histories(dataset.rows, run.parts.whole, none, options.history_length)
    table = PromptTable(dataset.rows, history, texts, lm.encode, model.table._limits)
    lengths = table.lengths(np.arange(len(dataset.rows)))
    parts = length_grouped_batches(lengths, BATCH, None)
    return sum(int(table.batch(part).attention_mask.sum()) for part in parts)


class PlainPrompts:
    """Prompts in plain English, one row after the other."""

    def __init__(self, run: Forgetting) -> None:
        self.rows, self.length = run.dataset.rows, run.model.prompt_options.history_length
        self.tokenizer = run.model.language_model.codec.tokenizer
        whole = run.parts.whole
        self.train = set(whole.train.tolist())
        self.with_valid = self.train | set(whole.valid.tolist())
        self.test = set(whole.test.tolist())
        self.user = {inner: token for token, inner in run.dataset.ids.users.items()}
        self.title, self.features = _catalogues(run)
        self.of_user: dict[int, list[int]] = {}
        for row, user in enumerate(self.rows.user.tolist()):
            self.of_user.setdefault(user, []).append(row)

    def text(self, row: int) -> str:
        """What the model reads before it answers."""
        table = self.rows
        allowed = self.with_valid if row in self.test else self.train
        earlier = [
            other
            for other in self.of_user[int(table.user[row])]
            if other in allowed
            and table.time[other] < table.time[row]
            and table.item[other] != table.item[row]
        ]
        shown = sorted(earlier, key=lambda other: table.time[other])[-self.length :]
        known = self.features[int(table.user[row])]
        told = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in known.items())
        lines = [f"About the user: {told}."] if told else []
        if shown:
            lines.append(
                "What the user watched, read or bought so far, oldest first, and the stars given "
                "to it:"
            )
        for other in shown:
            stars = int(table.rating[other])
            word = "star" if stars == 1 else "stars"
            lines.append(f"- {self.title[int(table.item[other])]}: {stars} {word} of 5")
        lines.append(
            "The more stars, the more the user liked it. Answer with one word only, Yes or No."
        )
        lines.append(f"Will the user like {self.title[int(table.item[row])]}?")
        return "\n".join([*lines, "Answer:"])

    def tokens(self, row: int) -> list[int]:
        """The same as token ids."""
        return list(self.tokenizer(self.text(row))["input_ids"])


def _catalogues(run: Forgetting) -> tuple[list[str], list[dict[str, str]]]:
    """Titles by inner item id and features by inner user id."""
    from recbole_e2urec.data.features import (
        item_titles,
        read_catalogue,
        read_features,
        user_features,
    )

    config, options, ids = run.config, run.model.prompt_options, run.dataset.ids
    path = Path(config["data_path"]) / run.dataset.dataset_name
    read = {"separator": config["field_separator"], "encoding": config["encoding"] or "utf-8"}
    assert options.title_field is not None
    catalogue = read_catalogue(
        path.with_suffix(".item"), config["ITEM_ID_FIELD"], options.title_field, **read
    )
    features = read_features(
        path.with_suffix(".user"), config["USER_ID_FIELD"], options.user_fields, **read
    )
    return item_titles(ids, catalogue), user_features(ids, features)


def million_rows(folder: Path, size: Size) -> dict[str, Any]:
    """``million_rows_seconds`` and ``_mb``: dataset, split, histories, prompts; a process alone."""
    name = synthetic(folder, size.interactions)
    with get_context("spawn").Pool(1) as pool:
        prepared = pool.apply(prepare_synthetic, (str(folder), name))
    return {
        "million_rows_seconds": prepared.seconds,
        "million_rows_mb": prepared.peak_mb,
        "million_rows_interactions": size.interactions,
        "million_rows_tokens": prepared.tokens,
    }


class Prepared(NamedTuple):
    """What preparation took: time, the process's peak of memory and what imports held, tokens."""

    seconds: float
    peak_mb: float
    imports_mb: float
    tokens: int


def prepare_synthetic(folder: str, name: str) -> Prepared:
    """Prepare the data set of the folder, in a process of its own."""
    from recbole_e2urec.utils import recbole_compat

    recbole_compat.apply()
    restart_peak()
    imports, started = peak_memory_mb(), time.perf_counter()
    given = {
        "data_path": folder,
        "checkpoint_dir": f"{folder}/saved",
        "show_progress": False,
        "use_gpu": False,
        **SYNTHETIC,
    }
    config = Config("E2URec", name, (), given, {})
    tokens = prepare(Forgetting(config, load_dataset(config)))
    return Prepared(time.perf_counter() - started, peak_memory_mb(), imports, tokens)
