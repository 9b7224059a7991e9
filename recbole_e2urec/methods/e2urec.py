"""E2URec: unlearning by a LoRA adapter between two teachers."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbole_e2urec.errors import InputError
from recbole_e2urec.methods.base import Unlearned, Unlearner
from recbole_e2urec.model.llmrec import LLMRec
from recbole_e2urec.model.losses import answer_loss, e2urec_loss, forgetting_teacher, kl_divergence
from recbole_e2urec.trainer.pairing import KeptStates, Pairing, Step
from recbole_e2urec.trainer.unlearning import Plan, Request, train_adapter

AUGMENTED, STUDENT = "augmented", "E2URec"


@dataclass(frozen=True)
class E2URecOptions:
    """Settings of E2URec; the paper's values are in the comments of its yaml.

    Attributes:
        alpha: how strongly the forget data is pushed away, at least 0.
        beta: weight of the forgetting loss in the joint phase, in [0, 1].
        unlearn_learning_rate: of the student.
        unlearn_batch_size: forget rows a step; a joint step adds as many retain rows.
        warmup_epochs: passes over the forget set on the forgetting loss alone.
        joint_epochs: passes over the forget set, each step beside a batch of retain rows.
        augmented_learning_rate: of the augmented model.
        augmented_epochs: passes of the augmented model over the forget set.
        own_tokens_only: an adapted embedding learns only the tokens that no retain row's prompt
            shows; where there are none, or if False, all tokens.
    """

    alpha: float
    beta: float
    unlearn_learning_rate: float
    unlearn_batch_size: int
    warmup_epochs: int
    joint_epochs: int
    augmented_learning_rate: float
    augmented_epochs: int
    own_tokens_only: bool

    def __post_init__(self) -> None:
        """Refuse what cannot work, by the name of its key."""
        if self.alpha < 0:
            raise InputError(f"alpha is {self.alpha}; it must be at least 0")
        if not 0 <= self.beta <= 1:
            raise InputError(f"beta is {self.beta}; it must be in [0, 1]")
        if min(self.warmup_epochs, self.joint_epochs, self.augmented_epochs) < 0:
            raise InputError("warmup_epochs, joint_epochs and augmented_epochs must be at least 0")
        if self.unlearn_batch_size < 1:
            raise InputError(f"unlearn_batch_size is {self.unlearn_batch_size}; give 1 or more")


class E2URec(Unlearner):
    """Wang et al., "Towards Efficient and Effective Unlearning of LLMs for Recommendation".

    arXiv 2403.03536; Frontiers of Computer Science 19(3):193327, 2025. The student is a fresh LoRA
    adapter on Original, whose own weights stay. On forget rows it imitates the forgetting teacher,
    ``z_o - alpha * relu(z_a - z_o)``, on retain rows the remembering teacher, Original, and the
    true answers: ``beta * KL(p_f || student) + (1 - beta) * (KL(p_o || student) + CE)``.

    Departures from the public code: the attention mask is always passed; losses look at the
    answer position alone; log_softmax instead of ``log(p + 1e-12)``; a teacher answers each row
    once, as a hidden state that its head turns into logits again; the student runs once per row
    and step, forget and retain rows in one pass; the augmented model's training is part of the
    cost. It trains what Original trained: all weights with ``tuning: full``, which are put back
    when it has answered; with ``tuning: lora`` it and the student begin as copies of Original's
    adapter. The cost counts both. Where the adapter reaches the word embeddings, it learns there
    only the tokens that no retain row's prompt shows (``own_tokens_only``), such as the forgotten
    users' numbers: other users' answers do not depend on those.
    """

    options_class = E2URecOptions

    def unlearn(self, original: LLMRec, request: Request) -> Unlearned:
        """See :meth:`Unlearner.unlearn`; the adapter is ``E2URec``."""
        lessons = _Lessons(original, request, self.options)
        augmented = lessons.train_augmented()
        student = lessons.train_student()
        cost = {
            "seconds": augmented["seconds"] + student["seconds"],
            "steps": augmented["steps"] + student["steps"],
            "trained_parameters": augmented["trained_parameters"] + student["trained_parameters"],
            "adapter_parameters": student["trained_parameters"],
            "peak_memory_mb": max(augmented["peak_memory_mb"], student["peak_memory_mb"]),
        }
        return Unlearned(STUDENT, cost, student["losses"], lessons.stage.digest)


class _Lessons:
    """The augmented model, the teachers' answers and the student's steps for one request."""

    def __init__(self, model: LLMRec, request: Request, options: E2URecOptions) -> None:
        self.model, self.request, self.options = model, request, options
        self.pairing = Pairing(request, model.table, options.unlearn_batch_size)
        self.stage = request.stage(STUDENT, asdict(options))
        self.asking = 0.0  # seconds in which teachers answered
        labels = model.labels
        assert labels is not None  # Original was trained on them
        self.labels = torch.from_numpy(labels).to(model.device)

    def train_augmented(self) -> dict[str, Any]:
        """Train Original further on the forget set, and keep what it answers there."""
        options, model, request = self.options, self.model, self.request
        settings = {
            "learning_rate": options.augmented_learning_rate,
            "epochs": options.augmented_epochs,
            "batch_size": options.unlearn_batch_size,
        }
        plan = Plan(
            options.augmented_epochs,
            options.augmented_learning_rate,
            request.seed,
            lambda epoch: [step.forget for step in self.pairing.steps(epoch, joint=False)],
            lambda rows: {"loss": model.answer_loss(rows)},
            request.show,
        )
        stage = request.stage(AUGMENTED, settings)
        with self._augmentable() as name, model.shown(request.forget_history):
            cost = train_adapter(model, name, stage, plan)
            if not self.stage.finished:
                with self._timed(), model.bank.frozen(name):
                    self.augmented_forget = self._kept(request.forget)
                    self.augmented_head = model.language_model.head_copy()
        return cost

    @contextmanager
    def _augmentable(self) -> Iterator[str | None]:
        """What becomes the augmented model: a copy of Original's adapter, or all weights.

        In the latter case they are the backbone's own, and are put back afterwards.
        """
        bank = self.model.bank
        if self.model.adapter is not None:
            self._fresh(AUGMENTED)
            yield AUGMENTED
            return
        original = bank.state(None)
        try:
            yield None
        finally:
            bank.load(None, original)

    def train_student(self) -> dict[str, Any]:
        """Ask Original, then train the student."""
        options = self.options
        self._fresh(STUDENT)
        tokens = None
        if not self.stage.finished:
            with self._timed():
                self._ask_original()
                tokens = self._learning_tokens()
        plan = Plan(
            options.warmup_epochs + options.joint_epochs,
            options.unlearn_learning_rate,
            self.request.seed,
            lambda epoch: self.pairing.steps(epoch, joint=epoch >= options.warmup_epochs),
            self._student_loss,
            self.request.show,
            spent=self.asking,
            tokens=tokens,
        )
        return train_adapter(self.model, STUDENT, self.stage, plan)

    def _learning_tokens(self) -> Tensor | None:
        if not self.options.own_tokens_only:
            return None
        own = self.pairing.own_tokens()
        return own if len(own) else None

    @contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.asking += time.perf_counter() - started

    def _fresh(self, name: str) -> None:
        bank, seed = self.model.bank, self.request.seed
        if name in bank.names:
            bank.remove(name)
        if self.model.adapter is None:
            bank.add(name, self.model.lora, seed)
        else:
            bank.copy(self.model.adapter, name)

    def _ask_original(self) -> None:
        """Let Original answer each row once."""
        model, request = self.model, self.request
        first = self.options.warmup_epochs
        joint = range(first, first + self.options.joint_epochs)
        with model.bank.frozen(model.adapter):
            with model.shown(request.forget_history):
                self.remembered_forget = self._kept(request.forget)
            with model.shown(request.retain_history):
                self.remembered_retain = self._kept(self.pairing.retain_rows_of(joint))

    def _kept(self, rows: NDArray[np.int64]) -> KeptStates:
        return KeptStates(rows, self.model.hidden(rows))

    def _student_loss(self, step: Step) -> Mapping[str, Tensor]:
        """Loss terms of one step; the student passes once over all of its rows."""
        lm = self.model.language_model
        forget_table, retain_table = self.pairing.forget_table, self.pairing.retain_table
        batch = forget_table.joined(step.forget, retain_table, step.retain)
        device = self.model.device
        logits = lm(batch.input_ids.to(device), batch.attention_mask.to(device))
        on_forget, on_retain = logits.split([len(step.forget), len(step.retain)])
        with torch.no_grad():
            teacher = forgetting_teacher(
                lm.head(self.remembered_forget.of(step.forget)),
                self.augmented_head(self.augmented_forget.of(step.forget)),
                self.options.alpha,
            )
        forget = kl_divergence(teacher, on_forget)
        if len(step.retain) == 0:
            return {"loss": forget, "forget": forget}
        with torch.no_grad():
            kept = lm.head(self.remembered_retain.of(step.retain))
        labels = self.labels[torch.from_numpy(step.retain)]
        truth = answer_loss(on_retain, labels, lm.answer_ids)
        remember = kl_divergence(kept, on_retain) + truth
        loss = e2urec_loss(forget, remember, self.options.beta)
        return {"loss": loss, "forget": forget, "remember": remember}
