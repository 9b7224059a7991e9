"""A plain reading of E2URec's algorithm, against which ours is raced.

It is what one writes first: three copies of the model in memory, a forward pass for every term of
the loss (six in a joint step), batches in random order, and prompts that are put together and
tokenised again whenever they are needed. Its formulas are those of the paper, at the answer
position and with the attention mask, so that both sides compute the same loss.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from torch import Tensor
from torch.nn import functional as F

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
        read = self.tokenizer([self.text(row) for row in rows], padding=True, return_tensors="pt")
        ids, mask = read["input_ids"], read["attention_mask"]
        if not model.config.is_encoder_decoder:
            logits = model(input_ids=ids, attention_mask=mask).logits
            return logits[torch.arange(len(ids)), mask.sum(dim=1) - 1]
        start = torch.full((len(ids), 1), model.config.decoder_start_token_id)
        return model(input_ids=ids, attention_mask=mask, decoder_input_ids=start).logits[:, 0]

    def batches(self, rows: Rows, generator: np.random.Generator) -> Iterator[list[int]]:
        """The rows in random order."""
        order = generator.permutation(rows)
        for at in range(0, len(order), self.batch_size):
            yield order[at : at + self.batch_size].tolist()

    @torch.no_grad()
    def evaluate(self, model: Any, retrained: Any, rows: Rows, labels: Any) -> dict[str, float]:
        """AUC, ACC and LogLoss by one pass; JSD and L2 to a retrained model by two more."""
        said, truth = [], []
        for batch in self.batches(rows, np.random.default_rng(0)):
            two = self.logits(model, batch)[:, list(self.answers)]
            said += torch.softmax(two, dim=1)[:, 1].tolist()
            truth += labels[batch].tolist()
        jsd, l2 = [], []
        for batch in self.batches(rows, np.random.default_rng(0)):
            p = torch.softmax(self.logits(model, batch), dim=1)
            q = torch.softmax(self.logits(retrained, batch), dim=1)
            for one, other in zip(p, q, strict=True):
                middle = (one + other) / 2
                to_middle = [float((x * (x / middle).log()).sum()) for x in (one, other)]
                jsd.append(sum(to_middle) / 2)
                l2.append(float((one - other).norm()))
        chosen = [value > 0.5 for value in said]
        return {
            "auc": float(roc_auc_score(truth, said)),
            "acc": float(accuracy_score(truth, chosen)),
            "logloss": float(log_loss(truth, said)),
            "jsd": float(np.mean(jsd)),
            "l2": float(np.mean(l2)),
        }


class Models(NamedTuple):
    """Three models in memory; the student's adapter learns."""

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
        """One step a batch of forget rows and one of retain rows."""
        generator = np.random.default_rng(seed)
        self.models.student.train()
        parts = self.reader.batches(forget, generator), self.reader.batches(retain, generator)
        for one, other in zip(*parts, strict=True):
            self.optimizer.zero_grad()
            self.loss(one, other).backward()
            self.optimizer.step()

    @staticmethod
    def _divergence(teacher: Tensor, student: Tensor) -> Tensor:
        p = torch.log_softmax(teacher, dim=1)
        return (p.exp() * (p - torch.log_softmax(student, dim=1))).sum(dim=1).mean()
