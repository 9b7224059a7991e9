"""A plain implementation of E2URec's algorithm, the baseline of the speed benchmarks.

It is what you would write first. Three copies of the model are in memory. Every term of the loss
takes a forward pass, six in a joint step. Batches are in random order, and prompts are rendered and
tokenised each time they are used. The formulas are the paper's, at the answer position and with the
attention mask, so both sides compute the same loss.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from torch import Tensor
from torch.nn import functional as F

from recbole_e2urec.data.features import item_titles, read_catalogue, read_features, user_features
from recbole_e2urec.experiment.unlearning import Forgetting

Rows = NDArray[np.int64]


class PlainReader:
    """Answers of transformers models to prompts that are tokenised for each call.

    Args:
        tokenizer: of the models.
        text: the prompt of a row.
        answers: token ids of (no, yes).
        batch_size: rows a call.
    """

    def __init__(
        self, tokenizer: Any, text: Callable[[int], str], answers: tuple[int, int], batch_size: int
    ) -> None:
        self.tokenizer, self.text, self.answers = tokenizer, text, answers
        self.batch_size = batch_size

    def logits(self, model: Any, rows: Sequence[int]) -> Tensor:  # [b] -> [b, vocab]
        """Logits at the answer position."""
        texts = [self.text(row) for row in rows]
        encoded = self.tokenizer(texts, padding=True, return_tensors="pt")
        ids, mask = encoded["input_ids"], encoded["attention_mask"]
        if not model.config.is_encoder_decoder:
            logits = model(input_ids=ids, attention_mask=mask).logits
            return logits[torch.arange(len(ids)), mask.sum(dim=1) - 1]
        start = torch.full((len(ids), 1), model.config.decoder_start_token_id)
        return model(input_ids=ids, attention_mask=mask, decoder_input_ids=start).logits[:, 0]

    def yes(self, model: Any, rows: Sequence[int]) -> Tensor:  # [b] -> [b]
        """P(yes) of yes and no."""
        return torch.softmax(self.logits(model, rows)[:, list(self.answers)], dim=1)[:, 1]

    def batches(self, rows: Rows, generator: np.random.Generator) -> Iterator[list[int]]:
        """The rows in random order."""
        order = generator.permutation(rows)
        for at in range(0, len(order), self.batch_size):
            yield order[at : at + self.batch_size].tolist()

    @torch.no_grad()
    def evaluate(self, model: Any, retrained: Any, rows: Rows, labels: Any) -> dict[str, float]:
        """Measure AUC, ACC and LogLoss by one pass, and JSD and L2 to Retrain by two more."""
        yes, truth = [], []
        for batch in self.batches(rows, np.random.default_rng(0)):
            yes += self.yes(model, batch).tolist()
            truth += labels[batch].tolist()
        jsd, l2 = [], []
        for batch in self.batches(rows, np.random.default_rng(0)):
            ours = torch.softmax(self.logits(model, batch), dim=1)
            theirs = torch.softmax(self.logits(retrained, batch), dim=1)
            for p, q in zip(ours, theirs, strict=True):
                middle = (p + q) / 2
                jsd.append(sum(float((x * (x / middle).log()).sum()) for x in (p, q)) / 2)
                l2.append(float((p - q).norm()))
        return {
            "auc": float(roc_auc_score(truth, yes)),
            "acc": float(accuracy_score(truth, [value > 0.5 for value in yes])),
            "logloss": float(log_loss(truth, yes)),
            "jsd": float(np.mean(jsd)),
            "l2": float(np.mean(l2)),
        }


class Models(NamedTuple):
    """The three models in memory, of which only the student's adapter is trained."""

    original: Any
    augmented: Any
    student: Any


class PlainE2URec:
    """Unlearning by three models.

    Args:
        reader: of prompts.
        models: the three.
        labels: 1 = yes, by row id.
        alpha, beta: of the loss.
        learning_rate: of AdamW.
    """

    def __init__(
        self,
        reader: PlainReader,
        models: Models,
        labels: Any,
        alpha: float,
        beta: float,
        learning_rate: float,
    ) -> None:
        self.reader, self.models, self.labels = reader, models, labels
        self.alpha, self.beta = alpha, beta
        learning = [weight for weight in models.student.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(learning, lr=learning_rate)

    def loss(self, forget: Sequence[int], retain: Sequence[int]) -> Tensor:
        """The joint loss, by six forward passes."""
        reader = self.reader
        with torch.no_grad():
            original = reader.logits(self.models.original, forget)
            augmented = reader.logits(self.models.augmented, forget)
            remembered = reader.logits(self.models.original, retain)
        teacher = original - self.alpha * torch.relu(augmented - original)
        forgetting = self._divergence(teacher, reader.logits(self.models.student, forget))
        remembering = self._divergence(remembered, reader.logits(self.models.student, retain))
        words = torch.tensor([reader.answers[int(self.labels[row])] for row in retain])
        truth = F.cross_entropy(reader.logits(self.models.student, retain), words)
        return self.beta * forgetting + (1 - self.beta) * (remembering + truth)

    def epoch(self, forget: Rows, retain: Rows, seed: int) -> None:
        """Train an epoch; each step takes a batch of forget rows and a batch of retain rows."""
        generator = np.random.default_rng(seed)
        self.models.student.train()
        batches = (self.reader.batches(rows, generator) for rows in (forget, retain))
        for forget_batch, retain_batch in zip(*batches, strict=True):
            self.optimizer.zero_grad()
            self.loss(forget_batch, retain_batch).backward()
            self.optimizer.step()

    @staticmethod
    def _divergence(teacher: Tensor, student: Tensor) -> Tensor:
        p = torch.log_softmax(teacher, dim=1)
        return (p.exp() * (p - torch.log_softmax(student, dim=1))).sum(dim=1).mean()


class PlainPrompts:
    """Prompts in plain English, prepared one row after the other."""

    def __init__(self, run: Forgetting) -> None:
        self.rows, self.length = run.dataset.rows, run.model.prompt_options.history_length
        self.tokenizer = run.model.language_model.codec.tokenizer
        whole = run.parts.whole
        self.train = set(whole.train.tolist())
        self.with_valid = self.train | set(whole.valid.tolist())
        self.test = set(whole.test.tolist())
        self.title, self.features = _catalogues(run)
        self.rows_of: dict[int, list[int]] = {}
        for row, user in enumerate(self.rows.user.tolist()):
            self.rows_of.setdefault(user, []).append(row)

    def text(self, row: int) -> str:
        """Render the prompt of a row."""
        table = self.rows
        allowed = self.with_valid if row in self.test else self.train
        user = int(table.user[row])
        earlier = [
            other
            for other in self.rows_of[user]
            if other in allowed
            and table.time[other] < table.time[row]
            and table.item[other] != table.item[row]
        ]
        shown = sorted(earlier, key=lambda other: table.time[other])[-self.length :]
        features = self.features[user].items()
        about = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in features)
        lines = [f"About the user: {about}."] if about else []
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
        """The token ids of the text."""
        return list(self.tokenizer(self.text(row))["input_ids"])


def _catalogues(run: Forgetting) -> tuple[list[str], list[dict[str, str]]]:
    """Titles by inner item id and features by inner user id."""
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
